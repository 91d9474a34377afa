// JSON Schema 2020-12, as far as schemas/*.json use it. Another keyword is an error, not ignored.

import { readFileSync } from "node:fs";

import { equal, parse } from "./json.mjs";
import { require } from "./rejected.mjs";

const FOLDER = new URL("../../../schemas/", import.meta.url);
const WITHOUT_EFFECT = new Set(["$schema", "$id", "$defs", "title", "description"]);
const files = new Map();
const patterns = new Map();

/** Throw Rejected(invalid-field) unless a value fits the schema of this name. */
export function checkForm(name, value) {
  const fault = faultOf(load(`${name}.json`), value, `${name}.json`);
  require(fault === "", "invalid-field", fault);
}

function load(file) {
  if (!files.has(file)) files.set(file, parse(readFileSync(new URL(file, FOLDER)), 1e6, 64));
  return files.get(file);
}

function resolve(reference, file) {
  const [target, pointer = ""] = reference.split("#");
  let schema = load(target || file);
  for (const step of pointer.split("/").slice(1)) schema = schema.get(step);
  return [schema, target || file];
}

/** Return what is wrong with a value, "" if it fits. */
function faultOf(schema, value, file) {
  for (const [keyword, argument] of schema) {
    if (WITHOUT_EFFECT.has(keyword)) continue;
    if (!Object.hasOwn(KEYWORDS, keyword)) throw new Error(`${file}: keyword ${keyword}`);
    const fault = KEYWORDS[keyword](value, argument, schema, file);
    if (fault) return typeof fault === "string" ? fault : `${keyword} of ${schema.get("title")}`;
  }
  return "";
}

const isObject = (value) => value instanceof Map;
const isNumber = (value) => typeof value === "number";
const isString = (value) => typeof value === "string";
const characters = (text) => [...text].length;

function hasType(value, type) {
  switch (type) {
    case "object":
      return isObject(value);
    case "array":
      return Array.isArray(value);
    case "null":
      return value === null;
    case "integer":
      return Number.isInteger(value);
    default:
      return typeof value === type;
  }
}

function matches(text, pattern) {
  if (!patterns.has(pattern)) patterns.set(pattern, new RegExp(pattern, "u"));
  return patterns.get(pattern).test(text);
}

function first(faults) {
  return faults.find((fault) => fault !== "") ?? "";
}

// Each returns a fault: a text, or true.
const KEYWORDS = {
  $ref: (value, reference, _, file) => {
    const [schema, target] = resolve(reference, file);
    return faultOf(schema, value, target);
  },
  type: (value, types) => ![types].flat().some((type) => hasType(value, type)),
  const: (value, constant) => !equal(value, constant),
  enum: (value, options) => !options.some((option) => equal(value, option)),
  not: (value, schema, _, file) => faultOf(schema, value, file) === "",
  anyOf: (value, schemas, _, file) =>
    schemas.every((schema) => faultOf(schema, value, file) !== ""),
  oneOf: (value, schemas, _, file) =>
    schemas.filter((schema) => faultOf(schema, value, file) === "").length !== 1,
  required: (value, names) => isObject(value) && !names.every((name) => value.has(name)),
  properties: (value, schemas, _, file) =>
    isObject(value) &&
    first(
      [...schemas].map(([name, schema]) =>
        value.has(name) ? faultOf(schema, value.get(name), file) : "",
      ),
    ),
  additionalProperties: (value, argument, schema, file) => {
    if (!isObject(value) || argument === true) return "";
    const listed = schema.get("properties") ?? new Map();
    const others = [...value].filter(([name]) => !listed.has(name));
    if (argument === false) return others.length > 0;
    return first(others.map(([, member]) => faultOf(argument, member, file)));
  },
  propertyNames: (value, schema, _, file) =>
    isObject(value) && first([...value.keys()].map((name) => faultOf(schema, name, file))),
  minProperties: (value, limit) => isObject(value) && value.size < limit,
  maxProperties: (value, limit) => isObject(value) && value.size > limit,
  items: (value, schema, _, file) =>
    Array.isArray(value) && first(value.map((item) => faultOf(schema, item, file))),
  minItems: (value, limit) => Array.isArray(value) && value.length < limit,
  maxItems: (value, limit) => Array.isArray(value) && value.length > limit,
  uniqueItems: (value, unique) =>
    unique &&
    Array.isArray(value) &&
    value.some((a, at) => value.slice(at + 1).some((b) => equal(a, b))),
  minLength: (value, limit) => isString(value) && characters(value) < limit,
  maxLength: (value, limit) => isString(value) && characters(value) > limit,
  pattern: (value, pattern) => isString(value) && !matches(value, pattern),
  minimum: (value, limit) => isNumber(value) && value < limit,
  maximum: (value, limit) => isNumber(value) && value > limit,
  exclusiveMinimum: (value, limit) => isNumber(value) && value <= limit,
};
