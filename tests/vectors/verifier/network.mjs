// Network documents and the tasks that are valid for them (section 3).

import { messageOf, readEnvelope } from "./envelope.mjs";
import { documentHash } from "./hash.mjs";
import { parse } from "./json.mjs";
import { exceeded } from "./limits.mjs";
import { checkFits } from "./manifest.mjs";
import { keyOf } from "./peer.mjs";
import { reasonOf, require } from "./rejected.mjs";
import { checkForm } from "./schema.mjs";

const MAX_DOCUMENT = 8_388_608;

export const readNetwork = (bytes) => new Network(parse(bytes, MAX_DOCUMENT));

export class Network {
  /** Throws Rejected if the document is not valid. */
  constructor(document) {
    checkForm("network", document);
    this.document = document;
    this.id = documentHash("network", document);
    this.parameters = document.get("parameters");
    this.models = new Map(document.get("models").map((model) => [model.get("id"), model]));
    this.roster = document.get("roster");
    this.checkFields();
  }

  checkFields() {
    const parameter = (name) => this.parameters.get(name);
    const classes = this.document.get("classes");
    const peers = this.roster.map((member) => member.get("peer"));
    const faults = {
      created: !isDate(this.document.get("created")),
      committee_max: parameter("committee_max") < parameter("committee_size"),
      "a model twice": this.models.size < this.document.get("models").length,
      "a peer twice": new Set(peers).size < peers.length,
      "a key": peers.some((peer) => reasonOf(() => keyOf(peer)) !== null),
      "an unknown class": this.roster.some((member) =>
        member.get("classes").some((name) => !classes.has(name)),
      ),
    };
    for (const [fault, holds] of Object.entries(faults)) require(!holds, "invalid-field", fault);
  }

  members(name) {
    return this.roster.filter((member) => member.get("classes").includes(name));
  }

  /** Return the task of an envelope's bytes if it is valid (3.8). Throws Rejected. */
  readTask(bytes) {
    return this.validTask(readEnvelope(bytes, this.id));
  }

  /** Return the task of an envelope in a document if it is valid. Throws Rejected. */
  taskOf(envelope) {
    return this.validTask(messageOf(envelope, this.id));
  }

  validTask(message) {
    require(message.type === "task", "invalid-field", message.type);
    const { body } = message;
    const name = body.get("class");
    const isListed = this.document.get("classes").has(name);
    require(isListed && this.members(name).length > 0, "unknown-class", name);
    const longest = this.parameters.get("max_deadline_seconds");
    require(body.get("deadline") <= longest, "over-limit", "the deadline");
    this.checkArguments(body.get("kind"), body.get("args"), this.runtime(body));
    const beams = body.get("args").get("generation_config")?.get("num_beams") ?? 1;
    require(beams === 1 || !this.provesWork(body), "over-limit", "beams");
    return message;
  }

  runtime(body) {
    return this.document.get("classes").get(body.get("class"));
  }

  /** Return whether a valid task proves work (3.5). */
  provesWork(body) {
    const model = this.models.get(body.get("args").get("model"));
    return this.runtime(body).get("engine") === "helium" && model.get("replay") === true;
  }

  /** Throw Rejected unless an outcome of the right form is one of a valid task (8.2). */
  checkOutcome(outcome, body) {
    checkFits(outcome, body, this.parameters.get("max_output_bytes"), this.provesWork(body));
  }

  checkArguments(kind, args, runtime) {
    const serves = (model) => model.get("tasks").includes(kind);
    require([...this.models.values()].some(serves), "unsupported-kind", kind);
    require((runtime.get("task") ?? kind) === kind, "unsupported-kind", runtime.get("task"));
    checkForm(kind, args);
    const model = this.models.get(args.get("model"));
    require(model !== undefined, "unknown-model", args.get("model"));
    require(serves(model), "unsupported-kind", kind);
    const over = exceeded(model.get("limits"), kind, args);
    require(over === null, "over-limit", over);
    const size = (args.get("audio") ?? []).reduce((sum, input) => sum + input.get("size"), 0);
    require(size <= this.parameters.get("max_input_bytes"), "over-limit", "the inputs");
  }

  /** Throw Rejected unless a task is timely at a Unix time in milliseconds. */
  checkTimely({ body }, now) {
    const created = body.get("created");
    const skew = 1000 * this.parameters.get("clock_skew_seconds");
    require(created <= now + skew, "created-ahead", created);
    require(now < created + 1000 * body.get("deadline"), "expired", created);
  }
}

function isDate(text) {
  const [year, month, day] = text.slice(0, 10).split("-").map(Number);
  const isLeap = year % 4 === 0 && (year % 100 !== 0 || year % 400 === 0);
  const days = [31, isLeap ? 29 : 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
  return year >= 1 && day <= days[month - 1];
}
