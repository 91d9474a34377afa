// One check for each list of each vector file. A check returns "" if the vector agrees.

import { committees, operatorsOf, quorum, ranking } from "./committee.mjs";
import { readCertificate } from "./certificate.mjs";
import { believe } from "./client.mjs";
import { difference } from "./clock.mjs";
import { isKey, signWith } from "./ed25519.mjs";
import {
  checkWithdrawal,
  commitmentPreimage,
  outcomeDigest,
  readEnvelope,
  signedBytes,
  taskId,
} from "./envelope.mjs";
import { readAnswer, verdictOnPage } from "./feeds.mjs";
import { readEvidence } from "./evidence.mjs";
import { H, documentHash, domain, sha256 } from "./hash.mjs";
import { canonical, equal, fromPlain, parse } from "./json.mjs";
import { messageId, verdictOn } from "./gossip.mjs";
import { frames } from "./limits.mjs";
import { checkEntries } from "./manifest.mjs";
import { Network, readNetwork } from "./network.mjs";
import { checkSignature, keyOf, peerOf } from "./peer.mjs";
import { reasonOf } from "./rejected.mjs";
import { play } from "./rounds.mjs";
import { checkForm } from "./schema.mjs";
import { release, start } from "./starts.mjs";
import { conduct, record } from "./suspects.mjs";
import { midiFile, render, speaker, takeNotes } from "./score.mjs";
import { entryOf, sequenceSeed, waveformBytes } from "./waveform.mjs";
import { keptSteps, readTokens, tokensBlob, workOf } from "./work.mjs";

const MAX_JSON = 65_536;

const hex = (text) => Buffer.from(text, "hex");
const utf8 = (text) => Buffer.from(text, "utf-8");
/** Return the bytes of an entry: `text`, or `hex` where they are not UTF-8. */
const bytesOf = (entry) => (entry.text === undefined ? hex(entry.hex) : utf8(entry.text));

/** Compare JSON values by name; return the names of those that differ. */
function differences(actual, expected) {
  return Object.keys(actual)
    .filter((name) => !equal(fromPlain(actual[name]), fromPlain(expected[name] ?? null)))
    .map((name) => `${name} is ${canonical(fromPlain(actual[name]))}`.slice(0, 200))
    .join("; ");
}

/** Compare the reason for which a call rejects with that of an entry. */
function compareReason(entry, call) {
  return differences({ reason: reasonOf(call) }, { reason: entry.reason ?? null });
}

/** Compare what a call returns with an entry; a rejection differs. */
function compareResult(entry, call) {
  let result;
  const reason = reasonOf(() => (result = call()));
  return reason === null ? differences(result, entry) : `rejected: ${reason}`;
}

/** Return the network of a file. */
const networkOf = (file) => new Network(file.network);

function checkAccepted(entry) {
  return compareResult(entry, () => {
    const text = canonical(parse(utf8(entry.text), MAX_JSON));
    const again = canonical(parse(text, MAX_JSON));
    return { canonical: again.equals(text) ? text.toString() : "not stable" };
  });
}

function checkEnvelope(entry, file) {
  return compareResult(entry, () => {
    const message = readEnvelope(utf8(entry.envelope), file.network);
    const signed = signedBytes(message.body);
    const { key, signature } = signWith(hex(entry.secret), signed);
    const envelope = new Map([
      ["body", entry.body],
      ["signer", peerOf(key)],
      ["signature", signature.toString("base64url")],
    ]);
    return {
      body: message.body,
      signed: signed.toString("hex"),
      signature: signature.toString("hex"),
      envelope: canonical(envelope).toString(),
      id: documentHash("envelope", envelope),
      ...(message.type === "task" ? { task: taskId(message.body) } : {}),
    };
  });
}

function checkCommittee(entry) {
  const members = entry.roster.filter((member) => member.get("classes").includes(entry.class));
  const attempts = committees(entry.task, members, entry.parameters);
  return differences(
    {
      operators: operatorsOf(members),
      ranking: ranking(entry.task, members).map(({ member, rank }) => ({
        peer: member.get("peer"),
        rank: rank.toString("hex"),
      })),
      attempts: attempts.map((committee) => ({ committee, quorum: quorum(committee.length) })),
    },
    entry,
  );
}

function checkCommitment(entry) {
  const digest = outcomeDigest(entry.outcome);
  const preimage = commitmentPreimage(entry.task, entry.attempt, entry.peer, digest, entry.salt);
  const commitment = H("commitment", preimage).toString("hex");
  return differences({ digest, preimage: preimage.toString("hex"), commitment }, entry);
}

function checkOutcome(entry, file) {
  return compareReason(entry, () => {
    const network = networkOf(file);
    const task = network.readTask(utf8(entry.task));
    checkForm("outcome", entry.outcome);
    checkEntries(entry.outcome);
    // A fault that needs the task must not show without it.
    if ((entry.rule ?? 7) <= 4) throw new Error(`rule ${entry.rule} did not show in the outcome`);
    network.checkOutcome(entry.outcome, task.body);
  });
}

/** Return the bytes of an entry, with spaces after them up to `padded_to`. */
function paddedBytes(entry) {
  const bytes = bytesOf(entry);
  const spaces = Buffer.alloc((entry.padded_to ?? bytes.length) - bytes.length, " ");
  return Buffer.concat([bytes, spaces]);
}

function checkGossip(entry, file) {
  const network = networkOf(file);
  const known = { ...readEnvelope(utf8(file.known), network.id), bytes: utf8(file.known) };
  const data = utf8(entry.text);
  const id = messageId(entry.topic, data).toString("hex");
  const verdict = verdictOn(entry.topic, data, network, known, file.now);
  return differences({ id, verdict }, entry);
}

function checkTime(entry, file) {
  return compareReason(entry, () => {
    const network = networkOf(file);
    network.checkTimely(readEnvelope(utf8(entry.text), network.id), entry.now);
  });
}

function checkShortWaveform(entry) {
  const channels = entry.channels.map((samples) => samples.map((text) => hex(text).readFloatBE(0)));
  const bytes = waveformBytes(channels);
  const output = entryOf(bytes, 32_000, channels[0].length, channels.length);
  return differences({ bytes: bytes.toString("hex"), output }, entry);
}

function checkLongWaveform(entry) {
  const channels = Array.from({ length: entry.channels }, (_, c) =>
    Array.from({ length: entry.frames }, (_, i) => ((i + c) % 4096) / 4096),
  );
  const output = entryOf(waveformBytes(channels), 44_100, entry.frames, entry.channels);
  return differences({ output }, entry);
}

function checkScore(entry) {
  const notes = takeNotes(entry.notes);
  const sound = render(notes);
  return differences(
    {
      taken: notes.map(({ start, end, pitch, velocity }) => [start, end, pitch, velocity]),
      midi: midiFile(notes).toString("hex"),
      frames: sound.length,
      sha256: sha256(waveformBytes([sound])).toString("hex"),
    },
    entry,
  );
}

function checkSpeaker(entry) {
  const numbers = Buffer.alloc(4 * entry.size);
  speaker(entry.seed, entry.size).forEach((number, i) => numbers.writeFloatBE(number, 4 * i));
  const whole = entry.numbers === undefined ? {} : { numbers: numbers.toString("hex") };
  return differences({ ...whole, sha256: sha256(numbers).toString("hex") }, entry);
}

function checkClock(entry, file) {
  const network = networkOf(file);
  const answers = entry.answers.map((answer) => Object.fromEntries(answer));
  const seconds = difference(answers, network.roster);
  const ready = seconds === null || Math.abs(seconds) <= network.parameters.get("clock_skew_seconds");
  return differences({ difference: seconds, ready }, entry);
}

function checkDigest(entry) {
  const sequences = entry.sequences.map((sequence) => ({
    tokens: sequence.get("tokens"),
    logits: sequence.get("logits").map((step) => step.map((text) => text && hex(text))),
  }));
  const blobs = sequences.map(({ tokens }) => tokensBlob(tokens));
  return differences(
    {
      kept: sequences.map(({ tokens }) => keptSteps(tokens.length)),
      tokens: blobs.map((blob) => ({ sha256: sha256(blob).toString("hex"), size: blob.length })),
      work: workOf(sequences),
    },
    entry,
  );
}

/** Return the blob of an entry, with zero bytes after it up to `padded_to`. */
function paddedBlob(entry) {
  const bytes = hex(entry.blob);
  return Buffer.concat([bytes, Buffer.alloc((entry.padded_to ?? bytes.length) - bytes.length)]);
}

function checkAdmission(entry, file) {
  const network = networkOf(file);
  let provesWork = null;
  const reason = reasonOf(
    () => (provesWork = network.provesWork(network.readTask(utf8(entry.text)).body)),
  );
  return differences({ reason, proves_work: provesWork }, entry);
}

const checkValid = (entry, file) =>
  compareResult(entry, () => readCertificate(utf8(entry.certificate), networkOf(file)));
const checkInvalid = (entry, file) =>
  compareReason(entry, () => readCertificate(paddedBytes(entry), networkOf(file)));

const namedNetwork = (entry, file) => new Network(file.networks.get(entry.network));

export const CHECKS = {
  "canonical.json": {
    accepted: checkAccepted,
    refused: (entry) => compareReason(entry, () => parse(bytesOf(entry), MAX_JSON)),
  },
  "hashes.json": {
    bytes: (entry) => {
      const preimage = Buffer.concat([domain(entry.tag), hex(entry.payload)]).toString("hex");
      return differences({ preimage, hash: H(entry.tag, hex(entry.payload)).toString("hex") }, entry);
    },
    documents: (entry) => differences({ hash: documentHash(entry.tag, entry.document) }, entry),
  },
  "identities.json": {
    peers: (entry) => {
      const { key, signature } = signWith(hex(entry.secret), hex(entry.message));
      checkSignature(peerOf(key), hex(entry.message), signature.toString("base64url"));
      return differences(
        {
          public: key.toString("hex"),
          peer: peerOf(key),
          signature: signature.toString("base64url"),
        },
        entry,
      );
    },
    refused_peers: (entry) => compareReason(entry, () => keyOf(bytesOf(entry).toString())),
    refused_signatures: (entry) =>
      compareReason(entry, () =>
        checkSignature(entry.peer, hex(entry.message), bytesOf(entry).toString()),
      ),
  },
  "signatures.json": {
    keys: (entry) =>
      differences({ peer: peerOf(hex(entry.public)) }, entry) ||
      (isKey(hex(entry.public)) === (entry.reason === null) ? "" : "the key") ||
      compareReason(entry, () => keyOf(entry.peer)),
    signatures: (entry) =>
      compareReason(entry, () => checkSignature(entry.peer, hex(entry.message), entry.signature)),
  },
  "envelopes.json": {
    envelopes: checkEnvelope,
    withdrawals: (entry, file) =>
      compareReason(entry, () => {
        const network = file.network;
        const task = readEnvelope(utf8(entry.task), network);
        checkWithdrawal(readEnvelope(utf8(entry.withdrawal), network), task);
      }),
  },
  "networks.json": {
    accepted: (entry) =>
      compareResult(entry, () => {
        const { id, document } = readNetwork(canonical(entry.document));
        return { canonical: canonical(document).toString(), id };
      }),
    refused: (entry) => compareReason(entry, () => readNetwork(bytesOf(entry))),
  },
  "limits.json": {
    tasks: (entry, file) => compareReason(entry, () => networkOf(file).readTask(bytesOf(entry))),
    frames: (entry) => differences({ frames: frames(entry.tokens, entry.delay) }, entry),
  },
  "committees.json": { committees: checkCommittee },
  "commitments.json": { commitments: checkCommitment },
  "certificates.json": { valid: checkValid, invalid: checkInvalid },
  "evidence.json": {
    proven: (entry, file) =>
      compareResult(entry, () => readEvidence(utf8(entry.evidence), networkOf(file))),
    refused: (entry, file) =>
      compareReason(entry, () => readEvidence(bytesOf(entry), networkOf(file))),
  },
  "manifests.json": { fitting: checkOutcome, breaking: checkOutcome },
  "answers.json": {
    answers: (entry) => compareReason(entry, () => checkForm(entry.schema, entry.document)),
  },
  "rounds.json": {
    rounds: (entry, file) => compareResult(entry, () => play(entry, namedNetwork(entry, file))),
  },
  "suspects.json": {
    conduct: (entry, file) => compareResult(entry, () => conduct(entry, namedNetwork(entry, file))),
    records: (entry) => differences(record(entry), entry),
  },
  "clients.json": {
    clients: (entry, file) => compareResult(entry, () => believe(entry, namedNetwork(entry, file))),
  },
  "clocks.json": { clocks: checkClock },
  "starts.json": {
    starts: (entry, file) => compareResult(entry, () => start(entry, namedNetwork(entry, file))),
    releases: (entry, file) => compareResult(entry, () => release(entry, namedNetwork(entry, file))),
  },
  "gossip.json": { messages: checkGossip },
  "feeds.json": {
    pages: ({ feed, cursor, page, verdict }) =>
      differences({ verdict: verdictOnPage(feed, cursor, page) }, { verdict }),
    envelopes: (entry) => compareResult(entry, () => readAnswer(entry.ids, entry.answer)),
  },
  "rejections.json": {
    envelopes: (entry, file) =>
      compareReason(entry, () => readEnvelope(paddedBytes(entry), networkOf(file).id)),
    tasks: (entry, file) => compareReason(entry, () => networkOf(file).readTask(bytesOf(entry))),
    times: checkTime,
  },
  "waveforms.json": {
    short: checkShortWaveform,
    long: checkLongWaveform,
    refused: (entry) => {
      const bytes = waveformBytes([[0.5, hex(entry.sample).readFloatBE(0)]]);
      return differences({ error: bytes === null ? "non-finite-output" : null }, entry);
    },
    sequences: (entry) =>
      differences({ seeds: [0, 1, 2, 3].map((i) => sequenceSeed(entry.seed, i)) }, entry),
  },
  "scores.json": { scores: checkScore, speakers: checkSpeaker },
  "work.json": {
    digests: checkDigest,
    blobs: (entry) => compareResult(entry, () => readTokens(hex(entry.blob))),
    malformed: (entry) => compareReason(entry, () => readTokens(paddedBlob(entry))),
    tasks: checkAdmission,
    fitting: checkOutcome,
    breaking: checkOutcome,
    valid: checkValid,
    invalid: checkInvalid,
  },
};
