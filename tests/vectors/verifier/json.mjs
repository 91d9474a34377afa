// I-JSON and canonical JSON (section 2.1). An object is a Map, so that no name is special.

import { Rejected, require } from "./rejected.mjs";

const MAX_DEPTH = 16;
const MAX_NUMBER_CHARACTERS = 64;
const NUMBER = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?/y;
const ESCAPES = { '"': '"', "\\": "\\", "/": "/", b: "\b", f: "\f", n: "\n", r: "\r", t: "\t" };
const LITERALS = { true: true, false: false, null: null };

/** Return the value of UTF-8 JSON of at most `limit` bytes. Throws Rejected. */
export function parse(bytes, limit, maxDepth = MAX_DEPTH) {
  require(bytes.length <= limit, "too-large", `${bytes.length} bytes`);
  checkDepth(bytes, maxDepth);
  let text;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw new Rejected("malformed", "not UTF-8");
  }
  return new Parser(text).document();
}

function checkDepth(bytes, maxDepth) {
  let depth = 0;
  let inString = false;
  for (let at = 0; at < bytes.length; at++) {
    const character = String.fromCharCode(bytes[at]);
    if (inString) {
      if (character === "\\") at++;
      else if (character === '"') inString = false;
    } else if (character === '"') inString = true;
    else if (character === "[" || character === "{") {
      depth++;
      require(depth <= maxDepth, "too-deep", `more than ${maxDepth} levels`);
    } else if (character === "]" || character === "}") depth--;
  }
}

class Parser {
  constructor(text) {
    this.text = text;
    this.at = 0;
  }

  document() {
    this.space();
    const value = this.value();
    this.space();
    require(this.at === this.text.length, "malformed", `something follows at ${this.at}`);
    return value;
  }

  space() {
    while (" \t\r\n".includes(this.text[this.at] ?? "x")) this.at++;
  }

  take(character) {
    require(this.text[this.at] === character, "malformed", `no ${character} at ${this.at}`);
    this.at++;
  }

  has(character) {
    this.space();
    if (this.text[this.at] !== character) return false;
    this.at++;
    return true;
  }

  value() {
    const first = this.text[this.at];
    if (first === "{") return this.object();
    if (first === "[") return this.array();
    if (first === '"') return this.string();
    for (const [name, value] of Object.entries(LITERALS)) {
      if (this.text.startsWith(name, this.at)) {
        this.at += name.length;
        return value;
      }
    }
    return this.number();
  }

  object() {
    const members = new Map();
    this.take("{");
    if (this.has("}")) return members;
    do {
      this.space();
      const name = this.string();
      require(!members.has(name), "malformed", `two members ${name}`);
      this.space();
      this.take(":");
      this.space();
      members.set(name, this.value());
    } while (this.has(","));
    this.space();
    this.take("}");
    return members;
  }

  array() {
    const items = [];
    this.take("[");
    if (this.has("]")) return items;
    do {
      this.space();
      items.push(this.value());
    } while (this.has(","));
    this.space();
    this.take("]");
    return items;
  }

  string() {
    let value = "";
    this.take('"');
    for (;;) {
      const character = this.text[this.at++];
      require(character !== undefined && character >= " ", "malformed", "a string is not closed");
      if (character === '"') break;
      value += character === "\\" ? this.escape() : character;
    }
    for (const character of value) {
      const code = character.codePointAt(0);
      const forbidden =
        (code >= 0xd800 && code <= 0xdfff) ||
        (code >= 0xfdd0 && code <= 0xfdef) ||
        (code & 0xfffe) === 0xfffe;
      require(!forbidden, "malformed", `U+${code.toString(16)}`);
    }
    return value;
  }

  escape() {
    const character = this.text[this.at++];
    if (character === "u") {
      const digits = this.text.slice(this.at, this.at + 4);
      require(/^[0-9a-fA-F]{4}$/.test(digits), "malformed", "an escape");
      this.at += 4;
      return String.fromCharCode(parseInt(digits, 16));
    }
    require(Object.hasOwn(ESCAPES, character ?? ""), "malformed", "an escape");
    return ESCAPES[character];
  }

  number() {
    NUMBER.lastIndex = this.at;
    const match = NUMBER.exec(this.text);
    require(match !== null, "malformed", `no value at ${this.at}`);
    const [text] = match;
    this.at += text.length;
    require(text.length <= MAX_NUMBER_CHARACTERS, "malformed", "a long number");
    const number = Number(text);
    require(Math.abs(number) <= Number.MAX_SAFE_INTEGER, "malformed", `the number ${text}`);
    return number;
  }
}

/** Return the canonical bytes of a value (RFC 8785). */
export function canonical(value) {
  return Buffer.from(canonicalText(value), "utf-8");
}

function canonicalText(value) {
  if (value instanceof Map) {
    // The order of JavaScript's strings is that of UTF-16 code units.
    const names = [...value.keys()].sort((a, b) => (a < b ? -1 : 1));
    const members = names.map((name) => `${JSON.stringify(name)}:${canonicalText(value.get(name))}`);
    return `{${members.join(",")}}`;
  }
  if (Array.isArray(value)) return `[${value.map(canonicalText).join(",")}]`;
  return JSON.stringify(value);
}

/** Return whether two values are the same JSON value. */
export const equal = (a, b) => canonicalText(a) === canonicalText(b);

/** Return a JSON value in which some objects may be plain as one of Maps alone. */
export function fromPlain(value) {
  if (Array.isArray(value)) return value.map(fromPlain);
  if (value === null || typeof value !== "object" || value instanceof Map) return value;
  return new Map(Object.entries(value).map(([name, member]) => [name, fromPlain(member)]));
}
