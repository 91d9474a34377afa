// Manifests (section 8.2).

import { require } from "./rejected.mjs";

const CHUNK = 262_144;

/** Throw Rejected unless an outcome of the right form keeps rules 1 to 4. */
export function checkEntries(outcome) {
  for (const entry of outputsOf(outcome)) {
    const size = entry.get("size");
    if (entry.get("media") === "audio/f32") {
      const expected = entry.get("frames") * entry.get("channels") * 4;
      require(size === expected, "invalid-field", `rule 2: ${size}`);
      const tokens = entry.get("tokens")?.get("size") ?? 0;
      require(tokens % 4 === 0, "invalid-field", `rule 3: ${tokens}`);
    } else {
      require(size >= 56 + 8 * entry.get("notes"), "invalid-field", `rule 3: ${size}`);
    }
    const chunks = entry.get("chunks").length;
    require(chunks === Math.ceil(size / CHUNK), "invalid-field", `rule 4: ${chunks}`);
  }
}

/** Throw Rejected unless an outcome keeps rules 5 to 8 for the body of a valid task. */
export function checkFits(outcome, task, maxOutputBytes, provesWork) {
  if (outcome.has("error")) return;
  const outputs = outputsOf(outcome);
  const media = outputs.map((entry) => entry.get("media")).join();
  require(media === expectedMedia(task).join(), "invalid-field", `rules 5 and 6: ${media}`);
  const sizes = outputs.map((entry) => entry.get("size") + (entry.get("tokens")?.get("size") ?? 0));
  const sum = sizes.reduce((total, size) => total + size, 0);
  require(sum <= maxOutputBytes, "invalid-field", `rule 7: ${sum}`);
  require(outcome.has("work") === provesWork, "invalid-field", "rule 8: work");
  for (const entry of outputs.filter((entry) => entry.get("media") === "audio/f32")) {
    require(entry.has("tokens") === provesWork, "invalid-field", "rule 8: tokens");
  }
}

function outputsOf(outcome) {
  return outcome.get("result")?.get("outputs") ?? [];
}

function expectedMedia(task) {
  const args = task.get("args");
  if (task.get("kind") === "pop2piano") {
    return args.get("audio").flatMap(() => ["audio/midi", "audio/f32"]);
  }
  const sequences = args.get("generation_config")?.get("num_return_sequences") ?? 1;
  return Array(sequences).fill("audio/f32");
}
