// MIDI files and waveforms of scores, and speakers (sections 8.8 to 8.10).

import { H, uint32, uint64 } from "./hash.mjs";

const RELEASE = 8820;
const AMPLITUDES = [256, 120, 64, 36, 22, 12];
const SPEEDS = [8, 11, 14, 17, 20, 24];

/** Round to the nearest integer, halves to even. */
function round(number) {
  const down = Math.floor(number);
  const rest = number - down;
  if (rest !== 0.5) return rest < 0.5 ? down : down + 1;
  return down % 2 === 0 ? down : down + 1;
}

/** Return notes {start, end, pitch, velocity} in ticks, after steps 1 and 2 of 8.8. */
export function takeNotes(timed) {
  const notes = timed.map(([start, end, pitch, velocity]) => {
    const tick = Math.max(0, round(768 * start));
    return { start: tick, end: Math.max(tick + 1, round(768 * end)), pitch, velocity };
  });
  notes.sort(
    (a, b) =>
      a.start - b.start || a.pitch - b.pitch || a.end - b.end || a.velocity - b.velocity,
  );
  const taken = [];
  for (const note of notes) {
    const at = taken.findLastIndex((other) => other.pitch === note.pitch);
    if (at >= 0 && taken[at].end > note.start) {
      if (taken[at].start === note.start) {
        taken[at] = note;
        continue;
      }
      taken[at] = { ...taken[at], end: note.start };
    }
    taken.push(note);
  }
  return taken;
}

/** Return the MIDI file of notes (steps 3 and 4 of 8.8). */
export function midiFile(notes) {
  const events = notes.flatMap(({ start, end, pitch, velocity }) => [
    { tick: start, isStart: 1, pitch, velocity },
    { tick: end, isStart: 0, pitch, velocity: 0 },
  ]);
  events.sort((a, b) => a.tick - b.tick || a.isStart - b.isStart || a.pitch - b.pitch);
  let last = 0;
  const bytes = events.flatMap(({ tick, pitch, velocity }) => {
    const delta = tick - last;
    last = tick;
    return [...quantity(delta), 0x90, pitch, velocity];
  });
  return Buffer.concat([
    hex("4d54686400000006000100020180"),
    track(hex("00ff510307a12000ff58040402180800ff2f00")),
    track(Buffer.concat([hex("00c000"), Buffer.from(bytes), hex("00ff2f00")])),
  ]);
}

const hex = (text) => Buffer.from(text, "hex");
const track = (content) => Buffer.concat([hex("4d54726b"), uint32(content.length), content]);

function quantity(number) {
  const bytes = [number % 128];
  for (let rest = Math.floor(number / 128); rest > 0; rest = Math.floor(rest / 128)) {
    bytes.unshift(128 + (rest % 128));
  }
  return bytes;
}

const divide = (a, b) => Math.floor(a / b);
const shift = (a, bits) => Math.floor(a / 2 ** bits);

const sine = Array.from({ length: 4096 }, (_, j) =>
  Math.round(32767 * Math.sin((2 * Math.PI * j) / 4096)),
);
const octave = Array.from({ length: 1024 }, (_, j) => Number(root(2n ** BigInt(16384 - j), 1024n)));

/** Return the whole part of the root of an integer. */
function root(number, degree) {
  let low = 0n;
  let high = 1n << (BigInt(number.toString(2).length) / degree + 1n);
  while (high - low > 1n) {
    const middle = (low + high) / 2n;
    if (middle ** degree <= number) low = middle;
    else high = middle;
  }
  return low;
}

const decay = (s) => shift(octave[s % 1024], Math.min(divide(s, 1024), 31));

/** Return the first samples of a key that is held. */
function keySamples(pitch, length) {
  const q = divide(pitch - 69, 12);
  const r = pitch - 69 - 12 * q;
  const tone = root(2n ** BigInt(768 + r), 12n);
  const turn = Number(((440n * tone * 2n ** BigInt(44 + q)) / 44100n) >> 76n);
  const fade = shift(28 * Math.floor(Math.sqrt(turn)), 6);
  const samples = new Array(length).fill(0);
  for (let n = 1; n <= 6 && shift(44100 * n * turn, 32) <= 20000; n++) {
    const f = shift(fade * SPEEDS[n - 1], 3);
    const end = Math.min(length, divide(805306368, f));
    for (let i = 0; i < end; i++) {
      // Math.imul gives the low 32 bits of a product exactly.
      const phase = Math.imul(i * n, turn) >>> 0;
      const swing = sine[phase >>> 20] * decay(shift(i * f, 16)) * AMPLITUDES[n - 1];
      samples[i] += shift(swing, 20);
    }
  }
  for (let i = 0; i < Math.min(128, length); i++) samples[i] = shift(samples[i] * i, 7);
  return samples;
}

/** Return the waveform of notes (8.9). */
export function render(notes) {
  const sampleOf = (tick) => divide(tick * 44100, 768);
  const ends = notes.map((note) => sampleOf(note.end));
  const total = new Array(Math.max(0, ...ends) + RELEASE).fill(0);
  notes.forEach(({ start, pitch, velocity }, at) => {
    const first = sampleOf(start);
    const held = ends[at] - first;
    keySamples(pitch, held + RELEASE).forEach((sample, i) => {
      let sound = sample;
      if (i >= held) {
        const k = i - held;
        const level = shift(decay(shift(60000 * k, 16)) * Math.min(8819 - k, 128), 7);
        sound = shift(sample * level, 16);
      }
      total[first + i] += shift(sound * velocity, 7);
    });
  });
  const most = total.reduce((most, sample) => Math.max(most, Math.abs(sample)), 1);
  return total.map((sample) => divide(sample * 7549747, most) * 2 ** -23);
}

/** Return the numbers of a speaker as binary32 (8.10). */
export function speaker(seed, size) {
  const integers = Array.from({ length: size }, (_, i) =>
    H("speaker", Buffer.concat([uint64(seed), uint32(divide(i, 8))])).readInt32BE(4 * (i % 8)),
  );
  const sum = integers.reduce((total, number) => total + BigInt(number) ** 2n, 0n);
  const length = Math.sqrt(Number(sum));
  return integers.map((number) => Math.fround(number / length));
}
