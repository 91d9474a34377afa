// What members did in one task, and a node's record of a member over many (section 6.8).

import { openedBy, outcomeDigest } from "./envelope.mjs";
import { Node } from "./rounds.mjs";

const TASKS = 20;

/** Play the events of an entry; return who was at fault and who agreed, at each time. */
export function conduct(entry, network) {
  const node = new Observer({ ...entry, suspects: [] }, network);
  const events = entry.events.map((event) => Object.fromEntries(event));
  return {
    conduct: entry.times.map((at) => {
      while (events.length && events[0].at <= at) node.take(events.shift());
      node.advance(at);
      return node.conduct(at);
    }),
  };
}

/** A node that notes when reveals became due in each attempt. */
class Observer extends Node {
  receive(vote, now) {
    super.receive(vote, now);
    for (const round of this.rounds) if (round.due()) round.dueAt ??= now;
  }

  conduct(at) {
    const members = this.end === null ? [] : this.rounds.at(-1).committee;
    const attempts = this.rounds.findIndex((round) => round.certificate() !== null);
    const certified = attempts < 0 ? null : digestOf(this.rounds[attempts].certificate()[0]);
    const last = attempts < 0 ? this.attempt : attempts;
    const isFaulty = (peer) =>
      this.rounds.some(
        (round, attempt) =>
          this.isSigned(round, peer, certified) ||
          (attempt <= last && this.isWithheld(round, peer, at)),
      );
    const agrees = (peer) =>
      certified !== null &&
      this.rounds.slice(0, last + 1).some((round) => agreedIn(round, peer, certified));
    const faults = members.filter(isFaulty).sort();
    return { at, ended: this.end !== null, faults, agreed: members.filter(agrees).sort() };
  }

  /** Return whether the member's votes show a fault: in every attempt. */
  isSigned(round, peer, certified) {
    if (round.equivocated(peer)) return true;
    const reveal = round.of(peer, "reveal");
    const expected = certified ?? (this.outcome === null ? null : outcomeDigest(this.outcome));
    return reveal !== undefined && expected !== null && digestOf(reveal) !== expected;
  }

  isWithheld(round, peer, at) {
    if (!round.committee.includes(peer) || round.of(peer, "reveal")) return false;
    const isDue = round.dueAt !== undefined && at >= round.dueAt + this.seconds;
    return isDue && round.of(peer, "commit") !== undefined;
  }
}

const digestOf = (reveal) => outcomeDigest(reveal.body.get("outcome"));

/** Return whether a member revealed the certified outcome in time. */
function agreedIn(round, peer, certified) {
  const reveal = round.of(peer, "reveal");
  if (round.equivocated(peer) || reveal === undefined || digestOf(reveal) !== certified) return false;
  const others = round
    .all("reveal")
    .filter((other) => other.signer !== peer && digestOf(other) === certified);
  const lists = (other) => other.body.get("commits").get(peer) === openedBy(reveal);
  return others.length === 0 || others.some(lists);
}

/** Return whether a member is a suspect, at each time of an entry. */
export function record(entry) {
  const events = entry.events.map((event) => Object.fromEntries(event));
  return { suspects: entry.times.map((at) => isSuspect(events, at)) };
}

function isSuspect(events, at) {
  const past = events.filter((event) => event.at <= at);
  const order = past.filter((event) => event.accepted).map((event) => event.task);
  const byTask = new Map(); // what is known last of a task that has ended
  for (const event of past) if (event.conduct) byTask.set(event.task, event.conduct);
  const isFault = (task) => {
    const from = byTask.get(task)?.get("fault_from") ?? null;
    return from !== null && from <= at;
  };
  const latest = order.findLastIndex(isFault);
  const agreed = order.slice(latest + 1).filter((task) => byTask.get(task)?.get("agreed"));
  return latest >= 0 && agreed.length < TASKS;
}
