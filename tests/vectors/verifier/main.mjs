// Check every vector file of a folder with an implementation in another language than the product.
// Usage: node main.mjs [FOLDER]. Prints a line for each file and for each disagreement; the exit
// code is 1 if there is one.

import { readFileSync, readdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import { CHECKS } from "./checks.mjs";
import { parse } from "./json.mjs";

const MAX_FILE = 16_777_216;
const MAX_FILE_DEPTH = 64;
const folder = process.argv[2] ?? join(dirname(fileURLToPath(import.meta.url)), "..");

function read(name) {
  const document = parse(readFileSync(join(folder, name)), MAX_FILE, MAX_FILE_DEPTH);
  return Object.fromEntries(document);
}

function check(name, list, entry, file) {
  const call = CHECKS[name]?.[list];
  if (call === undefined) return "there is no check for it";
  try {
    return call(Object.fromEntries(entry), file);
  } catch (error) {
    return `${error.stack}`;
  }
}

let disagreements = 0;
for (const name of readdirSync(folder).filter((name) => name.endsWith(".json")).sort()) {
  const file = read(name);
  const faults = [];
  let checks = 0;
  for (const [list, entries] of Object.entries(file).filter(([, value]) => Array.isArray(value))) {
    entries.forEach((entry, at) => {
      checks++;
      const fault = check(name, list, entry, file);
      if (fault) faults.push(`${name} ${list}[${at}] ${entry.get("name") ?? ""}: ${fault}`);
    });
  }
  console.log(`${name}: ${checks} checks, ${faults.length} disagreements`);
  faults.forEach((fault) => console.log(`  ${fault}`));
  disagreements += faults.length;
}
process.exitCode = disagreements ? 1 : 0;
