// A member that starts: whether it votes, and what it signs when it votes again (section 6.12).

import { Node } from "./rounds.mjs";

/** Play the events of an entry; return what the member does at each time that is asked for. */
export function start(entry, network) {
  const member = new Member(entry, network);
  const events = entry.events.map((event) => Object.fromEntries(event));
  const asked = entry.asked.map((question) => Object.fromEntries(question));
  return {
    states: asked.map(({ at, created }) => {
      while (events.length && events[0].at <= at) member.take(events.shift());
      member.advance(at);
      return { state: member.state, signs: member.signs(created) };
    }),
  };
}

class Member {
  constructor({ me, start }, network) {
    const others = network.roster.filter((line) => line.get("peer") !== me);
    const own = network.roster.find((line) => line.get("peer") === me).get("operator");
    this.operatorOf = new Map(others.map((line) => [line.get("peer"), line.get("operator")]));
    this.otherOperators = new Set([...this.operatorOf.values()].filter((name) => name !== own));
    this.newFrom = start + 1000 * network.parameters.get("clock_skew_seconds");
    this.longest = network.parameters.get("max_deadline_seconds");
    this.read = new Set();
    this.state = this.otherOperators.size > 0 ? "held" : "voting";
  }

  advance(at) {
    if (this.state === "held" && at >= this.longest) this.state = "voting";
  }

  take(event) {
    this.advance(event.at);
    if (event.feed_end !== undefined) this.endFeed(event.feed_end);
    else if (event.duplicates !== undefined) this.hear(event.duplicates);
    else if (event.own_vote > this.newFrom && this.state !== "ended") this.state = "stopped";
  }

  endFeed(peer) {
    const operator = this.operatorOf.get(peer);
    if (this.otherOperators.has(operator)) this.read.add(operator);
    if (this.state === "held" && 2 * this.read.size > this.otherOperators.size) this.state = "voting";
  }

  hear(peers) {
    const members = peers.filter((peer) => this.operatorOf.has(peer));
    const operators = new Set(members.map((peer) => this.operatorOf.get(peer)));
    const [only] = this.otherOperators;
    const isOnly = this.otherOperators.size === 1 && operators.has(only);
    const isOwn = this.otherOperators.size === 0 && operators.size > 0;
    if (operators.size < 2 && !isOnly && !isOwn) return;
    if (this.state === "held") this.state = "ended";
    else if (this.state === "voting") this.state = "stopped";
  }

  signs(created) {
    return this.state === "voting" || (this.state === "held" && created > this.newFrom);
  }
}

/** Play the events of an entry; return what a member that holds its votes sent. */
export function release(entry, network) {
  const node = new Holder({ ...entry, suspects: [] }, network);
  entry.events.forEach((event) => node.take(Object.fromEntries(event)));
  node.advance(1000);
  return { sent: node.sent };
}

class Holder extends Node {
  constructor(entry, network) {
    super(entry, network);
    this.released = entry.released;
    this.isHeld = true;
    this.failure = null; // the last execution without an outcome: its attempt and the reason
  }

  advance(until) {
    if (this.isHeld && until >= this.released) {
      super.advance(this.released);
      this.isHeld = false;
      if (this.end === null) this.signDue(this.released);
    }
    super.advance(until);
  }

  signDue(now) {
    if (!this.current.committee.includes(this.me)) return;
    if (this.outcome !== null) this.commit(now);
    else if (this.failure?.attempt === this.attempt) this.abstain(now, this.failure.reason);
  }

  abstain(now, reason) {
    this.failure = { attempt: this.attempt, reason };
    super.abstain(now, reason);
  }

  send(type, now, members, attempt = this.attempt) {
    if (!this.isHeld) super.send(type, now, members, attempt);
    else if (type === "commit") this.rounds[attempt].mine = null; // it has made none
  }
}
