// Which 32 bytes are a key (section 2.3), and which 64 are a signature (2.5).

import { createPrivateKey, createPublicKey, sign, verify } from "node:crypto";

const P = 2n ** 255n - 19n;
const L = 2n ** 252n + 27742317777372353535851937790883648493n;
const D = mod(-121665n * power(121666n, P - 2n));
const ROOT_OF_MINUS_ONE = power(2n, (P - 1n) / 4n);
const IDENTITY = Buffer.concat([Buffer.from([1]), Buffer.alloc(31)]);
// What DER has before the 32 bytes (RFC 8410).
const PUBLIC_KEY = Buffer.from("302a300506032b6570032100", "hex");
const PRIVATE_KEY = Buffer.from("302e020100300506032b657004220420", "hex");

function mod(number) {
  const rest = number % P;
  return rest < 0n ? rest + P : rest;
}

function power(base, exponent) {
  let result = 1n;
  for (let square = base % P; exponent > 0n; exponent >>= 1n, square = (square * square) % P) {
    if (exponent & 1n) result = (result * square) % P;
  }
  return result;
}

function littleEndian(bytes) {
  return BigInt(`0x${Buffer.from(bytes).reverse().toString("hex")}`);
}

/** Return the point of a canonical encoding as [X, Y, Z] with x = X/Z, y = Y/Z; else null. */
function decodePoint(bytes) {
  const number = littleEndian(bytes);
  const sign = number >> 255n;
  const y = number & (2n ** 255n - 1n);
  if (y >= P) return null;
  // RFC 8032, 5.1.3: x^2 = u / v.
  const u = mod(y * y - 1n);
  const v = mod(D * y * y + 1n);
  let x = mod(u * v ** 3n * power(mod(u * v ** 7n), (P - 5n) / 8n));
  const square = mod(v * x * x);
  if (square === mod(-u)) x = mod(x * ROOT_OF_MINUS_ONE);
  else if (square !== u) return null;
  if (x === 0n && sign === 1n) return null;
  return [(x & 1n) === sign ? x : mod(-x), y, 1n];
}

function add([x1, y1, z1], [x2, y2, z2]) {
  const z = mod(z1 * z2);
  const zz = mod(z * z);
  const xx = mod(x1 * x2);
  const yy = mod(y1 * y2);
  const d = mod(D * xx * yy);
  const x = mod(z * (zz - d) * (x1 * y2 + x2 * y1));
  const y = mod(z * (zz + d) * (yy + xx));
  return [x, y, mod((zz - d) * (zz + d))];
}

function multiply(factor, point) {
  let sum = [0n, 1n, 1n];
  for (; factor > 0n; factor >>= 1n, point = add(point, point)) {
    if (factor & 1n) sum = add(sum, point);
  }
  return sum;
}

const isIdentity = ([x, y, z]) => x === 0n && y === z;

/** Return whether 32 bytes meet the four conditions of section 2.3. */
export function isKey(bytes) {
  const point = decodePoint(bytes);
  return point !== null && !isIdentity(point) && isIdentity(multiply(L, point));
}

/** Return whether 64 bytes are a signature of a valid key over a message. */
export function isSignature(key, message, signature) {
  const r = signature.subarray(0, 32);
  if (littleEndian(signature.subarray(32)) >= L || r.equals(IDENTITY)) return false;
  const der = Buffer.concat([PUBLIC_KEY, key]);
  return verify(null, message, createPublicKey({ key: der, format: "der", type: "spki" }), signature);
}

/** Return the public key and the signature that a secret key gives (RFC 8032). */
export function signWith(secret, message) {
  const der = Buffer.concat([PRIVATE_KEY, secret]);
  const key = createPrivateKey({ key: der, format: "der", type: "pkcs8" });
  const spki = createPublicKey(key).export({ format: "der", type: "spki" });
  return { key: spki.subarray(PUBLIC_KEY.length), signature: sign(null, message, key) };
}
