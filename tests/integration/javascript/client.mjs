// Submits a task to a network, follows it to its certificate, and fetches its outputs.
//
//   node client.mjs run --network FILE --peer MULTIADDR [--peer MULTIADDR ...] --class NAME --args JSON
//   node client.mjs verify --network FILE CERTIFICATE
//
// Prints a report as JSON. Without a valid certificate the exit code is 1, and the report says which
// check of section 4.7 failed. `run` follows the feed of the first peer.

import { randomBytes } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { parseArgs } from "node:util";

import { readCertificate } from "../../vectors/verifier/certificate.mjs";
import { committees } from "../../vectors/verifier/committee.mjs";
import { signWith } from "../../vectors/verifier/ed25519.mjs";
import { messageOf, signedBytes, taskId } from "../../vectors/verifier/envelope.mjs";
import { readAnswer, verdictOnPage } from "../../vectors/verifier/feeds.mjs";
import { sha256 } from "../../vectors/verifier/hash.mjs";
import { canonical, fromPlain } from "../../vectors/verifier/json.mjs";
import { readNetwork } from "../../vectors/verifier/network.mjs";
import { Rejected, reasonOf, require } from "../../vectors/verifier/rejected.mjs";

const KIND = "text-to-music";
const PAGE_IDS = 1_024;
const ENVELOPE_IDS = 128;
const WAIT_SECONDS = 60;
const CHUNK = 262_144;

/** Reads the feed of one member (7.9). */
class Feed {
  constructor(client, member) {
    Object.assign(this, { client, member, name: "", cursor: 0 });
    this.pages = []; // the number of envelopes of each
  }

  /** Return the envelopes that the next page lists; none is the end of the feed for now. */
  async next(wait) {
    const position = { feed: this.name, cursor: this.cursor };
    const request = { ...position, limit: PAGE_IDS, wait };
    const page = await this.client.request(this.member, "feed", request);
    const verdict = verdictOnPage(this.name, this.cursor, page);
    require(verdict !== "misbehaves", "malformed", `a page of ${this.member}`);
    const envelopes = await this.envelopes(page.get("ids"));
    this.name = page.get("feed");
    this.cursor = page.get("cursor");
    this.pages.push(envelopes.length);
    return envelopes;
  }

  async envelopes(ids) {
    const envelopes = [];
    while (ids.length) {
      const asked = ids.slice(0, ENVELOPE_IDS);
      const answer = await this.client.request(this.member, "envelopes", { ids: asked });
      const { left } = readAnswer(asked, answer);
      require(left !== null, "malformed", `envelopes of ${this.member}`);
      envelopes.push(...answer.get("envelopes"));
      ids = [...left, ...ids.slice(ENVELOPE_IDS)];
    }
    return envelopes;
  }
}

/** Return the signed envelope of a new task (4.2). */
function newTask(network, { class: name, args, deadline }, requester, secret) {
  const body = fromPlain({
    type: "task",
    network: network.id,
    kind: KIND,
    args: JSON.parse(args),
    class: name,
    created: Date.now(),
    deadline: Number(deadline),
    nonce: randomBytes(16).toString("hex"),
    requester,
  });
  const signature = signWith(secret, signedBytes(body)).signature.toString("base64url");
  return fromPlain({ body, signer: requester, signature });
}

/** Read a feed, from a page on, until its member has the task's certificate. */
async function follow(feed, network, task, end, page) {
  const votes = {};
  for (; Date.now() < end; page = feed.next(WAIT_SECONDS)) {
    const envelopes = await page;
    const valid = envelopes.filter((envelope) => !reasonOf(() => messageOf(envelope, network.id)));
    const bodies = valid
      .map((envelope) => envelope.get("body"))
      .filter((body) => body.get("task") === task);
    for (const body of bodies) votes[body.get("type")] = (votes[body.get("type")] ?? 0) + 1;
    if (!votes.reveal) continue; // there is no certificate before
    const answer = await feed.client.request(feed.member, "task", { task });
    const certificate = answer.get("certificate");
    if (certificate) return { votes, state: answer.get("state"), certificate };
  }
  throw new Error("the deadline has come without a certificate");
}

/** Return the bytes of an output; each chunk is checked as it comes (8.2). */
async function fetchOutput(client, member, output) {
  const size = output.get("size");
  const chunks = [];
  const receive = async (answer, input) => {
    require(answer.get("size") === size, "invalid-field", `${answer.get("size")} bytes`);
    for (const hash of output.get("chunks")) {
      const chunk = await input.take(Math.min(CHUNK, size - CHUNK * chunks.length));
      require(sha256(chunk).toString("hex") === hash, "invalid-field", `chunk ${chunks.length}`);
      chunks.push(chunk);
    }
  };
  await client.request(member, "blob", { sha256: output.get("sha256"), offset: 0 }, receive);
  const bytes = Buffer.concat(chunks);
  require(sha256(bytes).toString("hex") === output.get("sha256"), "invalid-field", "an output");
  return bytes;
}

/** Submit a task and follow it. Return a report and the certificate's bytes. */
async function run(network, options) {
  const { Peer } = await import("./peer.mjs"); // `verify` needs no package
  const secret = randomBytes(32);
  const client = await Peer.start(network, secret);
  try {
    const peers = [];
    for (const address of options.peer) peers.push(await client.connect(address));
    const member = peers[0].peer;
    const feed = new Feed(client, member);
    while ((await feed.next(0)).length);
    const page = feed.next(WAIT_SECONDS); // held until the member has something new
    page.catch(() => {}); // it is awaited later
    const hello = await client.hello(member);
    require(hello.get("network") === network.id, "wrong-network", hello.get("network"));

    const envelope = newTask(network, options, client.id, secret);
    const { body } = network.taskOf(envelope);
    const task = taskId(body);
    const end = body.get("created") + 1000 * body.get("deadline");
    const submitted = await client.request(member, "submit", { task: envelope, blobs: [] });
    require(submitted.get("task") === task, "wrong-task", submitted.get("task"));
    const [committee] = committees(task, network.members(options.class), network.parameters);
    const isFirst = submitted.get("committee").join() === committee.join();
    require(isFirst, "not-a-member", "another committee");

    const { votes, state, certificate } = await follow(feed, network, task, end, page);
    const bytes = canonical(certificate);
    const valid = readCertificate(bytes, network);
    require(valid.task === task, "wrong-task", valid.task);
    // Signers keep the outputs (8.2). Another node may fetch them from a signer first (7.8).
    const known = peers.map(({ peer }) => peer);
    const from = valid.signers.find((signer) => known.includes(signer)) ?? member;
    const outputs = [];
    for (const output of valid.outcome.get("result")?.get("outputs") ?? []) {
      const { length } = await fetchOutput(client, from, output);
      outputs.push({ sha256: output.get("sha256"), size: length, from });
    }
    const followed = { pages: feed.pages, votes, state };
    const answers = { greeted: client.greeted(), committee, followed, outputs };
    return [bytes, { me: client.id, peers, ...answers, ...summary(valid) }];
  } finally {
    await client.stop();
  }
}

const summary = ({ task, attempt, signers }) => ({ task, attempt, signers });

async function main() {
  const string = { type: "string" };
  const { positionals, values } = parseArgs({
    allowPositionals: true,
    options: {
      network: string,
      peer: { ...string, multiple: true },
      class: string,
      args: string,
      deadline: { ...string, default: "120" },
      certificate: string,
    },
  });
  const network = readNetwork(readFileSync(values.network));
  if (positionals[0] === "verify")
    return summary(readCertificate(readFileSync(positionals[1]), network));
  const [certificate, report] = await run(network, values);
  if (values.certificate) writeFileSync(values.certificate, certificate);
  return report;
}

try {
  console.log(JSON.stringify(await main()));
} catch (error) {
  if (!(error instanceof Rejected)) throw error;
  const { clause, reason, message } = error;
  console.log(JSON.stringify({ refused: { clause, reason, message } }));
  process.exitCode = 1;
}
