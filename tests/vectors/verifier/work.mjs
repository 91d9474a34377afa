// Work and tokens (section 8.11).

import { H } from "./hash.mjs";
import { require } from "./rejected.mjs";

const MAX_BLOB = 16_777_216;

/** Return the steps whose logits are in the digest. */
export function keptSteps(steps) {
  return Array.from({ length: steps }, (_, step) => step).filter(
    (step) => step % 64 === 63 || step === steps - 1,
  );
}

/** Return the blob of the tokens [step][column]. */
export function tokensBlob(tokens) {
  const columns = tokens.length === 0 ? 0 : tokens[0].length;
  const blob = Buffer.alloc(4 + 4 * tokens.length * columns);
  let at = blob.writeUInt32LE(tokens.length);
  for (const token of tokens.flat()) at = blob.writeInt32LE(token, at);
  return blob;
}

/** Return what a blob holds: steps, columns and tokens [step][column]. Throws Rejected. */
export function readTokens(blob) {
  require(blob.length >= 4 && blob.length <= MAX_BLOB, "invalid-field", blob.length);
  const steps = blob.readUInt32LE(0);
  const count = (blob.length - 4) / 4;
  if (steps === 0) require(count === 0, "invalid-field", "tokens without steps");
  else require(count > 0 && count % steps === 0, "invalid-field", `${count} for ${steps}`);
  const columns = steps === 0 ? 0 : count / steps;
  const tokens = Array.from({ length: steps }, (_, step) =>
    Array.from({ length: columns }, (_, column) =>
      blob.readInt32LE(4 + 4 * (step * columns + column)),
    ),
  );
  return { steps, columns, tokens };
}

/** Return `work` of sequences {tokens [step][column], logits [step][column]}; null has ended. */
export function workOf(sequences) {
  const parts = sequences.flatMap(({ tokens, logits }) => [
    tokensBlob(tokens),
    ...keptSteps(tokens.length).flatMap((step) =>
      logits[step].filter((numbers) => numbers !== null).map((numbers) => numbers.swap32()),
    ),
  ]);
  return H("work", Buffer.concat(parts)).toString("hex");
}
