// What a client believes of one task (section 6.10). Times are seconds after `created`.

import { readCertificate } from "./certificate.mjs";
import { Node } from "./rounds.mjs";

/** Play the events of an entry; return what the client believes at each time. */
export function believe(entry, network) {
  const client = new Client(entry, network);
  const events = entry.events.map((event) => Object.fromEntries(event));
  const states = entry.times.map((at) => {
    while (events.length && events[0].at <= at) client.take(events.shift());
    return { at, state: client.state(at) };
  });
  return { states };
}

/** A client judges votes as a member does, from outside the roster. */
class Client {
  constructor(entry, network) {
    const outside = { ...entry, me: "", salts: [], suspects: [] };
    this.node = new Node(outside, network, Math.min(0, entry.seen));
    this.network = network;
    this.wait = entry.wait;
    this.certified = null;
  }

  take(event) {
    if (event.received !== undefined) this.node.take(event);
    if (event.certificate === undefined) return; // a node's own words end nothing
    const { task, outcome } = readCertificate(Buffer.from(event.certificate), this.network);
    if (task === this.node.task) this.certified ??= outcome.has("error") ? "agreed-error" : "agreed";
  }

  state(at) {
    this.node.advance(at);
    if (this.certified !== null) return this.certified;
    const { end, deadline, rounds } = this.node;
    if (end?.startsWith("agreed") || end === "inconclusive") return end;
    if (at <= deadline + this.wait) return "open";
    return rounds.at(-1).reachable() ? "expired" : "inconclusive";
  }
}
