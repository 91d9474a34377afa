// Tagged hashes (section 2.2).

import { createHash } from "node:crypto";

import { canonical } from "./json.mjs";

export const sha256 = (bytes) => createHash("sha256").update(bytes).digest();
export const sha512 = (bytes) => createHash("sha512").update(bytes).digest();

/** Return the bytes that stand before what is hashed or signed under a tag. */
export function domain(tag) {
  return Buffer.concat([Buffer.from(`helium/2/${tag}`, "ascii"), Buffer.from([0])]);
}

/** Return H(tag, bytes). */
export function H(tag, bytes) {
  return sha256(Buffer.concat([domain(tag), bytes]));
}

/** Return H(tag, canonical(document)) in hex. */
export function documentHash(tag, document) {
  return H(tag, canonical(document)).toString("hex");
}

export function uint32(number) {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(number);
  return bytes;
}

export function uint64(number) {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt(number));
  return bytes;
}
