// Envelopes and the messages in them (sections 2.4 and 4.1 to 4.6).

import { H, documentHash, domain, uint32 } from "./hash.mjs";
import { canonical, parse } from "./json.mjs";
import { checkEntries } from "./manifest.mjs";
import { checkSignature } from "./peer.mjs";
import { require } from "./rejected.mjs";
import { checkForm } from "./schema.mjs";

const MAX_ENVELOPE = 65_536;
const MAX_TRACE = 8_192;

/** Return the message in the bytes of an envelope that travels alone. Throws Rejected. */
export function readEnvelope(bytes, network) {
  return messageOf(parse(bytes, MAX_ENVELOPE), network);
}

/** Return the message in an envelope that is part of a document. Throws Rejected. */
export function messageOf(envelope, network) {
  checkForm("envelope", envelope);
  require(canonical(envelope).length <= MAX_ENVELOPE, "too-large", "an envelope");
  const body = envelope.get("body");
  const signer = envelope.get("signer");
  const type = body.get("type");
  checkForm(type, body);
  require(body.get("network") === network, "wrong-network", body.get("network"));
  if (type === "task") require(body.get("requester") === signer, "not-the-requester", signer);
  if (type === "reveal") {
    require(canonical(body.get("trace")).length <= MAX_TRACE, "over-limit", "the trace");
    checkEntries(body.get("outcome"));
  }
  checkSignature(signer, signedBytes(body), envelope.get("signature"));
  return { type, signer, body };
}

export const signedBytes = (body) => Buffer.concat([domain("envelope"), canonical(body)]);
export const taskId = (body) => documentHash("task", body);
export const outcomeDigest = (outcome) => documentHash("outcome", outcome);

export function commitmentPreimage(task, attempt, peer, digest, salt) {
  return Buffer.concat([
    Buffer.from(task, "hex"),
    uint32(attempt),
    Buffer.from(peer, "ascii"),
    Buffer.from(digest, "hex"),
    Buffer.from(salt, "hex"),
  ]);
}

/** Return the commitment that a reveal opens. */
export function openedBy({ body, signer }) {
  const digest = outcomeDigest(body.get("outcome"));
  const preimage = commitmentPreimage(
    body.get("task"),
    body.get("attempt"),
    signer,
    digest,
    body.get("salt"),
  );
  return H("commitment", preimage).toString("hex");
}

/** Throw Rejected unless a withdrawal is by the requester of its task (4.3). */
export function checkWithdrawal(withdrawal, task) {
  require(withdrawal.body.get("task") === taskId(task.body), "unknown-task");
  require(withdrawal.signer === task.body.get("requester"), "not-the-requester");
}
