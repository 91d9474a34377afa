// One task at one node, over all its attempts (section 6). Times are seconds after the acceptance.

import { committees, quorum } from "./committee.mjs";
import { commitmentPreimage, openedBy, outcomeDigest, readEnvelope, taskId } from "./envelope.mjs";
import { H } from "./hash.mjs";
import { canonical } from "./json.mjs";

/** Play the events of an entry; return what the node sent, when attempts started, and states. */
export function play(entry, network) {
  const node = new Node(entry, network);
  const events = entry.events.map((event) => Object.fromEntries(event));
  const states = entry.times.map((at) => {
    while (events.length && events[0].at <= at) node.take(events.shift());
    node.advance(at);
    return node.describe(at);
  });
  events.forEach((event) => node.take(event));
  node.advance(1000);
  return { sent: node.sent, attempts: node.starts, executions: node.executions, states };
}

/** The votes of one attempt, and the node's own list. */
class Round {
  constructor(committee) {
    this.committee = committee;
    this.quorum = quorum(committee.length);
    this.votes = []; // the ones that stand
    this.contradicting = [];
    this.start = Infinity;
    this.firstWait = null;
    this.list = null;
    this.revealAt = null;
    this.mine = null; // the commitment that this process made
    this.isOver = false; // it has revealed, or may not
  }

  /** Keep a vote; return whether it was new and contradicts nothing (6.4). */
  add(vote) {
    const own = this.votes.filter(({ signer }) => signer === vote.signer);
    const kept = [...own, ...this.contradicting];
    if (kept.some((other) => canonical(other.body).equals(canonical(vote.body)))) return false;
    if (!own.some((other) => contradicts(other, vote))) return Boolean(this.votes.push(vote));
    this.contradicting.push(vote);
    return false;
  }

  of(peer, type) {
    return this.votes.find((vote) => vote.signer === peer && vote.type === type);
  }

  all(type) {
    return this.votes.filter((vote) => vote.type === type);
  }

  /** Return all votes of a peer that are kept, contradicting ones too. */
  kept(peer) {
    return [...this.votes, ...this.contradicting].filter(({ signer }) => signer === peer);
  }

  commits() {
    return new Map(this.all("commit").map((v) => [v.signer, v.body.get("commitment")]));
  }

  equivocated(peer) {
    return this.contradicting.some(({ signer }) => signer === peer);
  }

  /** Return the reveals of a certificate, null if there is none (4.7). */
  certificate() {
    const reveals = [...this.votes, ...this.contradicting].filter(({ type }) => type === "reveal");
    return subsets(reveals).find((set) => this.certifies(set)) ?? null;
  }

  certifies(set) {
    if (set.length < this.quorum) return false;
    if (new Set(set.map(({ signer }) => signer)).size < set.length) return false;
    const digests = new Set(set.map(({ body }) => outcomeDigest(body.get("outcome"))));
    return digests.size === 1 && set.every((a) => set.every((b) => lists(a, b.signer, openedBy(b))));
  }

  /** Return whether some outcome can reach the quorum (6.6). */
  reachable() {
    const sets = subsets(this.committee).filter((set) => set.length === this.quorum);
    return sets.some((set) => this.mayAgree(set));
  }

  mayAgree(set) {
    const revealOf = (peer) => (this.equivocated(peer) ? undefined : this.of(peer, "reveal"));
    const isOut = (peer) =>
      !this.equivocated(peer) && !revealOf(peer) && this.of(peer, "abstain") !== undefined;
    if (set.some(isOut)) return false;
    const reveals = set.map(revealOf).filter((vote) => vote !== undefined);
    if (new Set(reveals.map(({ body }) => outcomeDigest(body.get("outcome")))).size > 1) return false;
    return reveals.every((vote) =>
      set.every((peer) => {
        const other = revealOf(peer);
        const commit = this.equivocated(peer) ? undefined : this.commits().get(peer);
        const expected = other ? openedBy(other) : commit;
        const listed = vote.body.get("commits").get(peer);
        return listed !== undefined && (expected === undefined || listed === expected);
      }),
    );
  }

  /** Return whether reveals are due (6.8). */
  due() {
    const commits = this.commits();
    return commits.size >= this.quorum && this.all("reveal").some((v) => commits.has(v.signer));
  }

  /** Return whether a member is a suspect in later attempts of the task (6.8). */
  failed(peer, digest) {
    if (this.equivocated(peer)) return true;
    const reveal = this.of(peer, "reveal");
    if (reveal) return outcomeDigest(reveal.body.get("outcome")) !== digest;
    return this.of(peer, "commit") !== undefined && this.due();
  }
}

/** A node; attempt 0 starts at the time `start`. */
export class Node {
  constructor(entry, network, start = 0) {
    const task = readEnvelope(Buffer.from(entry.task), network.id);
    this.network = network;
    this.task = taskId(task.body);
    this.me = entry.me;
    this.salts = entry.salts;
    this.suspects = entry.suspects;
    this.grace = network.parameters.get("commit_grace_seconds");
    this.seconds = network.parameters.get("attempt_seconds");
    this.deadline = task.body.get("deadline");
    const members = network.members(task.body.get("class"));
    const all = committees(this.task, members, network.parameters);
    this.rounds = all.map((committee) => new Round(committee));
    this.sent = [];
    this.starts = [];
    this.executions = [];
    this.outcome = null;
    this.executing = false;
    this.withdrawn = false;
    this.end = null;
    this.begin(start);
  }

  get attempt() {
    return this.starts.length - 1;
  }

  get current() {
    return this.rounds[this.attempt];
  }

  get isLast() {
    return this.attempt === this.rounds.length - 1;
  }

  describe(at) {
    const own = ["reveal", "commit", "abstain"].find((type) => this.current.of(this.me, type));
    const names = { reveal: "revealed", commit: "committed", abstain: "abstained" };
    const state = this.end ?? names[own] ?? (this.executing ? "executing" : "waiting");
    return { at, state, attempt: this.attempt, reachable: this.rounds.map((r) => r.reachable()) };
  }

  take(event) {
    this.advance(event.at);
    if (event.received !== undefined) {
      const message = readEnvelope(Buffer.from(event.received), this.network.id);
      if (message.type === "withdraw") this.withdrawn = true;
      else this.receive(message, event.at);
    } else if (event.executed !== undefined) {
      this.executing = false;
      this.outcome ??= event.executed;
      if (this.end === null) this.commit(event.at);
    } else {
      this.executing = false;
      if (this.end === null) this.abstain(event.at, event.failed);
    }
    this.advance(event.at);
  }

  /** Let everything happen that is due until a time, in its order. */
  advance(until) {
    for (;;) {
      const due = Math.min(...this.timers());
      if (due > until) return;
      this.rounds.forEach((round, attempt) => this.proceed(round, attempt, due));
      if (this.end === null && due >= this.deadline) this.end = "expired";
      else if (this.end === null && !this.isLast && due >= this.current.start + this.seconds) {
        this.begin(due);
      }
    }
  }

  timers() {
    const timers = [Infinity];
    if (this.end === null) timers.push(this.deadline);
    if (this.end === null && !this.isLast) timers.push(this.current.start + this.seconds);
    for (const round of this.rounds) {
      if (round.isOver || round.mine === null) continue;
      if (round.list !== null) timers.push(round.revealAt);
      else if (round.firstWait !== null) timers.push(round.firstWait + this.grace);
      else if (!round.allCounted) timers.push(round.start + this.seconds);
    }
    return timers;
  }

  /** Close the list of a round, and reveal, as 6.3 says. */
  proceed(round, attempt, now) {
    const commits = round.commits();
    if (round.isOver || round.mine === null) return;
    round.allCounted ||= now >= round.start + this.seconds;
    if (round.list === null && commits.size === round.committee.length) {
      [round.list, round.revealAt] = [commits, now];
    }
    if (round.list === null && round.firstWait === null) {
      const suspects = round.allCounted ? [] : this.suspectsIn(attempt);
      const counted = [...commits.keys()].filter((peer) => !suspects.includes(peer));
      if (counted.length >= round.quorum) round.firstWait = now;
    }
    if (round.list === null && round.firstWait !== null && now >= round.firstWait + this.grace) {
      [round.list, round.revealAt] = [commits, round.firstWait + 2 * this.grace];
    }
    if (round.list === null || now < round.revealAt) return;
    round.isOver = true;
    if (!this.mayReveal(round)) return;
    const salt = this.salts[attempt];
    const body = [["outcome", this.outcome], ["salt", salt], ["commits", round.list]];
    this.send("reveal", now, body, attempt);
  }

  suspectsIn(attempt) {
    const digest = outcomeDigest(this.outcome);
    const found = this.rounds
      .slice(0, attempt)
      .flatMap((round) => round.committee.filter((peer) => round.failed(peer, digest)));
    return [...this.suspects, ...found].filter((peer) => peer !== this.me);
  }

  begin(now) {
    this.starts.push(now);
    this.current.start = now;
    this.join(now);
    this.leaveIfLost(now);
  }

  join(now) {
    if (!this.current.committee.includes(this.me)) return;
    if (this.outcome !== null) this.commit(now);
    else if (this.executing || this.current.kept(this.me).length > 0) return;
    else if (this.withdrawn) this.abstain(now, "withdrawn");
    else {
      this.executing = true;
      this.executions.push(now);
    }
  }

  /** Abstain, but once in an attempt (6.1.6), and not where another process committed (6.12). */
  abstain(now, reason) {
    if (this.current.kept(this.me).length === 0) this.send("abstain", now, [["reason", reason]]);
  }

  /** Return whether a commit contradicts no vote that another process signed (6.12). */
  mayCommit(round) {
    const types = round.kept(this.me).map(({ type }) => type);
    return !types.includes("commit") && !types.includes("reveal") && this.isConstant();
  }

  /** Return whether a reveal contradicts no vote that another process signed (6.12). */
  mayReveal(round) {
    const own = round.kept(this.me).filter(({ type }) => type !== "abstain");
    const isOpened = (vote) =>
      vote.type === "commit" && vote.body.get("commitment") === round.mine;
    return own.every(isOpened) && this.isConstant();
  }

  /** Return whether no reveal of another outcome has this node's signature. */
  isConstant() {
    const digest = outcomeDigest(this.outcome);
    const reveals = this.rounds
      .flatMap((round) => round.kept(this.me))
      .filter(({ type }) => type === "reveal");
    return reveals.every(({ body }) => outcomeDigest(body.get("outcome")) === digest);
  }

  leaveIfLost(now) {
    while (this.end === null && !this.current.reachable()) {
      if (!this.isLast) return this.begin(now);
      const isOpen = (round) => round.commits().size >= round.quorum && round.reachable();
      if (this.rounds.some(isOpen)) return;
      this.end = "inconclusive";
    }
  }

  commit(now) {
    if (!this.current.committee.includes(this.me) || !this.mayCommit(this.current)) return;
    const digest = outcomeDigest(this.outcome);
    const salt = this.salts[this.attempt];
    const preimage = commitmentPreimage(this.task, this.attempt, this.me, digest, salt);
    this.current.mine = H("commitment", preimage).toString("hex");
    this.send("commit", now, [["commitment", this.current.mine]]);
  }

  send(type, now, members, attempt = this.attempt) {
    const body = new Map([["task", this.task], ["attempt", attempt], ...members]);
    const shown = members.filter(([name]) => ["commits", "reason"].includes(name));
    this.sent.push(new Map([["at", now], ["type", type], ["attempt", attempt], ...shown]));
    this.receive({ type, signer: this.me, body }, now);
  }

  receive(vote, now) {
    const attempt = vote.body.get("attempt");
    const round = this.rounds[attempt];
    round.add(vote);
    this.rounds.forEach((each, number) => this.proceed(each, number, now));
    const certificate = round.certificate();
    if (certificate !== null && !this.end?.startsWith("agreed")) {
      const isError = certificate[0].body.get("outcome").has("error");
      this.end = isError ? "agreed-error" : "agreed";
    }
    this.leaveIfLost(now);
  }
}

/** Return whether two votes of one signer in one attempt contradict each other (4.8). */
function contradicts(a, b) {
  if (a.type === b.type) return !canonical(a.body).equals(canonical(b.body));
  const [commit, reveal] = a.type === "commit" ? [a, b] : [b, a];
  if (commit.type !== "commit" || reveal.type !== "reveal") return false;
  return commit.body.get("commitment") !== openedBy(reveal);
}

const lists = (reveal, peer, commitment) => reveal.body.get("commits").get(peer) === commitment;

/** Return all subsets of a list, the largest first. */
function subsets(items) {
  const masks = Array.from({ length: 2 ** items.length }, (_, mask) => mask);
  const sets = masks.map((mask) => items.filter((_, at) => (mask >> at) & 1));
  return sets.sort((a, b) => b.length - a.length);
}
