// Peer ids and the signatures of peers (sections 2.3 to 2.5).

import { decode58, encode58 } from "./base58.mjs";
import { isKey, isSignature } from "./ed25519.mjs";
import { require } from "./rejected.mjs";

// Identity multihash of 36 bytes; libp2p's protobuf: key type 1 (Ed25519), 32 bytes of key.
const HEADER = Buffer.from("002408011220", "hex");
const keys = new Map();

export const peerOf = (key) => encode58(Buffer.concat([HEADER, key]));

/** Return the key in a peer id. Throws Rejected(malformed). */
export function keyOf(peer) {
  if (!keys.has(peer)) keys.set(peer, validKey(peer));
  const key = keys.get(peer);
  require(key !== null, "malformed", peer);
  return key;
}

function validKey(peer) {
  const bytes = decode58(peer);
  if (bytes === null || bytes.length !== 38 || !bytes.subarray(0, 6).equals(HEADER)) return null;
  const key = bytes.subarray(6);
  return peerOf(key) === peer && isKey(key) ? key : null;
}

/** Throw Rejected unless a text is the signature of a peer over a message. */
export function checkSignature(peer, message, text) {
  const key = keyOf(peer);
  const bytes = Buffer.from(text, "base64url");
  const spelledWell = bytes.length === 64 && bytes.toString("base64url") === text;
  require(spelledWell && isSignature(key, message, bytes), "bad-signature", peer);
}
