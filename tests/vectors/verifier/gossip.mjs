// Messages on gossip (section 7.2).

import { committees } from "./committee.mjs";
import { checkWithdrawal, readEnvelope, taskId } from "./envelope.mjs";
import { H, sha256 } from "./hash.mjs";
import { canonical, parse } from "./json.mjs";
import { Rejected, require } from "./rejected.mjs";

const IGNORED = new Set(["expired", "created-ahead", "unknown-task", "known"]);

export function messageId(topic, data) {
  const zero = Buffer.from([0]);
  return sha256(Buffer.concat([Buffer.from(topic, "utf-8"), zero, data])).subarray(0, 20);
}

/**
 * Return the verdict on data of a topic. `known` is the one task that the node has accepted, with the
 * bytes of its envelope.
 */
export function verdictOn(topic, data, network, known, now) {
  try {
    judge(topic, data, network, known, now);
    return "accept";
  } catch (error) {
    if (!(error instanceof Rejected)) throw error;
    return IGNORED.has(error.reason) ? "ignore" : "reject";
  }
}

function judge(topic, data, network, known, now) {
  require(!H("envelope", data).equals(H("envelope", known.bytes)), "known");
  const message = readEnvelope(data, network.id);
  require(data.equals(canonical(parse(data, data.length))), "not-canonical");
  const name = message.type === "task" ? "tasks" : "votes";
  require(topic === `/helium/2/${network.id}/${name}`, "topic", topic);
  if (message.type === "task") {
    require(taskId(message.body) !== taskId(known.body), "known");
    network.validTask(message);
    network.checkTimely(message, now);
    return;
  }
  require(message.body.get("task") === taskId(known.body), "unknown-task");
  if (message.type === "withdraw") checkWithdrawal(message, known);
  else judgeVote(message, network, known);
}

function judgeVote({ type, signer, body }, network, known) {
  const members = network.members(known.body.get("class"));
  const attempts = committees(taskId(known.body), members, network.parameters);
  require(body.get("attempt") < attempts.length, "no-such-attempt");
  require(attempts[body.get("attempt")].includes(signer), "not-a-member", signer);
  if (type !== "reveal") return;
  network.checkOutcome(body.get("outcome"), known.body);
}
