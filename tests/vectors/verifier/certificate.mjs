// Certificates (section 4.7).

import { committees, quorum } from "./committee.mjs";
import { messageOf, openedBy, outcomeDigest, taskId } from "./envelope.mjs";
import { canonical, parse } from "./json.mjs";
import { Rejected, require } from "./rejected.mjs";
import { checkForm } from "./schema.mjs";

const MAX_CERTIFICATE = 983_040;

/** Return a document that is alone in a file as canonical bytes, which `check` judges first. */
export function readFile(bytes, limit, check) {
  const document = parse(bytes, limit);
  const result = check(document);
  const text = bytes.at(-1) === 0x0a ? bytes.subarray(0, -1) : bytes;
  require(text.equals(canonical(document)), "not-canonical", "the file");
  return result;
}

/** Return what the certificate in a file says. Throws Rejected. */
export function readCertificate(bytes, network) {
  return readFile(bytes, MAX_CERTIFICATE, (document) => verify(document, network));
}

function verify(document, network) {
  clause(1, () => {
    checkForm("certificate", document);
    require(canonical(document).length <= MAX_CERTIFICATE, "too-large", "a certificate");
    require(document.get("network") === network.id, "wrong-network", document.get("network"));
  });
  const { body } = clause(2, () => network.taskOf(document.get("task")));
  const task = taskId(body);
  const attempt = document.get("attempt");
  const votes = clause(3, () =>
    document.get("votes").map((envelope) => {
      const vote = messageOf(envelope, network.id);
      require(vote.type === "reveal", "invalid-field", vote.type);
      const isOfTask = vote.body.get("task") === task && vote.body.get("attempt") === attempt;
      require(isOfTask, "wrong-task", vote.signer);
      network.checkOutcome(vote.body.get("outcome"), body);
      return vote;
    }),
  );
  const members = network.members(body.get("class"));
  const attempts = committees(task, members, network.parameters);
  clause(4, () => require(attempt < attempts.length, "no-such-attempt", attempt));
  checkVotes(votes, attempts[attempt]);
  const signers = votes.map((vote) => vote.signer);
  return { task, attempt, signers, outcome: votes[0].body.get("outcome") };
}

function checkVotes(votes, committee) {
  const isSorted = votes.every((vote, at) => at === 0 || votes[at - 1].signer < vote.signer);
  clause(5, () => require(isSorted, "unsorted-votes"));
  clause(6, () => {
    for (const { signer } of votes) require(committee.includes(signer), "not-a-member", signer);
  });
  clause(7, () => require(votes.length >= quorum(committee.length), "too-few-votes", votes.length));
  const digests = new Set(votes.map((vote) => outcomeDigest(vote.body.get("outcome"))));
  clause(8, () => require(digests.size === 1, "outcomes-differ"));
  clause(9, () => {
    for (const vote of votes) {
      for (const signed of votes) {
        const listed = vote.body.get("commits").get(signed.signer);
        require(listed === openedBy(signed), "commitment-missing", signed.signer);
      }
    }
  });
}

/** Return what a check of section 4.7 returns; a Rejected that it throws gets its number. */
function clause(number, check) {
  try {
    return check();
  } catch (error) {
    if (error instanceof Rejected) error.clause = `4.7.${number}`;
    throw error;
  }
}
