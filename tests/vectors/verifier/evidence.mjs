// Evidence (section 4.8).

import { readFile } from "./certificate.mjs";
import { messageOf, openedBy, outcomeDigest } from "./envelope.mjs";
import { equal } from "./json.mjs";
import { require } from "./rejected.mjs";
import { checkForm } from "./schema.mjs";

const MAX_EVIDENCE = 1_048_576;
const VOTES = ["commit", "reveal", "abstain"];

/** Return what the evidence in a file proves. Throws Rejected. */
export function readEvidence(bytes, network) {
  return readFile(bytes, MAX_EVIDENCE, (document) => verify(document, network));
}

function verify(document, network) {
  checkForm("evidence", document);
  const kind = document.get("kind");
  const [a, b] = document.get("envelopes").map((envelope) => messageOf(envelope, network.id));
  const areVotes = VOTES.includes(a.type) && VOTES.includes(b.type);
  require(areVotes && contradict(kind, a, b), "no-contradiction", kind);
  const isMember = network.roster.some((member) => member.get("peer") === a.signer);
  require(isMember, "not-a-member", a.signer);
  const attempts = [a.body.get("attempt"), b.body.get("attempt")];
  return { kind, signer: a.signer, task: a.body.get("task"), attempts };
}

function contradict(kind, a, b) {
  if (a.signer !== b.signer || a.body.get("task") !== b.body.get("task")) return false;
  const sameAttempt = a.body.get("attempt") === b.body.get("attempt");
  if (kind === "inconstancy") {
    if (sameAttempt || a.type !== "reveal" || b.type !== "reveal") return false;
    return outcomeDigest(a.body.get("outcome")) !== outcomeDigest(b.body.get("outcome"));
  }
  if (!sameAttempt) return false;
  if (a.type === b.type) return !equal(a.body, b.body);
  const [commit, reveal] = a.type === "commit" ? [a, b] : [b, a];
  if (commit.type !== "commit" || reveal.type !== "reveal") return false;
  return commit.body.get("commitment") !== openedBy(reveal);
}
