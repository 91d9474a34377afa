// Committees (section 5).

import { H } from "./hash.mjs";

export function rank(task, peer) {
  return H("committee", Buffer.concat([Buffer.from(task, "hex"), Buffer.from(peer, "ascii")]));
}

/** Return the members of the class by ascending rank. */
export function ranking(task, members) {
  return members
    .map((member) => ({ member, rank: rank(task, member.get("peer")) }))
    .sort((a, b) => Buffer.compare(a.rank, b.rank));
}

/** Return o of rule 1. */
export function operatorsOf(members) {
  const operators = new Set(members.map((member) => member.get("operator"))).size;
  return operators === 1 ? members.length : operators;
}

/** Return the committees of all attempts; `parameters` are the network's. */
export function committees(task, members, parameters) {
  const attempts = [];
  for (;;) {
    const k = sizeOf(attempts.length, members, parameters);
    if (attempts.length > 0 && k <= attempts.at(-1).length) return attempts;
    attempts.push(choose(k, task, members));
  }
}

function sizeOf(attempt, members, parameters) {
  const wanted = parameters.get("committee_size") + 2 * attempt;
  return Math.min(wanted, parameters.get("committee_max"), operatorsOf(members));
}

function choose(k, task, members) {
  const isOneOperator = new Set(members.map((member) => member.get("operator"))).size === 1;
  const operators = new Set();
  const committee = [];
  for (const { member } of ranking(task, members)) {
    if (committee.length === k) break;
    if (!isOneOperator && operators.has(member.get("operator"))) continue;
    operators.add(member.get("operator"));
    committee.push(member.get("peer"));
  }
  return committee;
}

export const quorum = (k) => Math.floor(k / 2) + 1;
