// Waveform bytes, their entry in a manifest, and seeds of sequences (sections 8.1, 8.2, 8.5).

import { H, sha256, uint32, uint64 } from "./hash.mjs";

const CHUNK = 262_144;

/** Return the bytes of samples [channel][frame], null if one is not finite. */
export function waveformBytes(channels) {
  const frames = channels[0].length;
  const bytes = Buffer.alloc(4 * frames * channels.length);
  let at = 0;
  for (let frame = 0; frame < frames; frame++) {
    for (const samples of channels) {
      if (!Number.isFinite(samples[frame])) return null;
      at = bytes.writeFloatLE(samples[frame] === 0 ? 0 : samples[frame], at);
    }
  }
  return bytes;
}

export function entryOf(bytes, samplingRate, frames, channels) {
  const chunks = [];
  for (let start = 0; start < bytes.length; start += CHUNK) {
    chunks.push(sha256(bytes.subarray(start, start + CHUNK)).toString("hex"));
  }
  return new Map(
    Object.entries({
      media: "audio/f32",
      sampling_rate: samplingRate,
      frames,
      channels,
      sha256: sha256(bytes).toString("hex"),
      size: bytes.length,
      chunks,
    }),
  );
}

/** Return the seed of sequence i. */
export function sequenceSeed(seed, i) {
  if (i === 0) return seed;
  return H("sequence", Buffer.concat([uint64(seed), uint32(i)])).readUInt32BE(0);
}
