// Limits of models (section 3.6).

/** Return how many frames n new tokens are. */
export function frames(n, delay) {
  return n < 2 * delay ? n : n - delay;
}

/** Return the name of the first limit that the arguments of a task are over, null if none. */
export function exceeded(limits, kind, args) {
  for (const [name, isOver] of Object.entries(CHECKS)) {
    if (limits.has(name) && isOver(limits.get(name), args, limits, kind)) return name;
  }
  return null;
}

function generation(args, name) {
  return args.get("generation_config")?.get(name) ?? null;
}

const isSet = (value) => value !== undefined && value !== null;

const CHECKS = {
  max_new_tokens: (limit, args) => generation(args, "max_new_tokens") > limit,
  num_return_sequences: (limit, args) => generation(args, "num_return_sequences") > limit,
  prompt_characters: (limit, args) => [...(args.get("prompt") ?? "")].length > limit,
  output_seconds: (limit, args, limits, kind) => {
    const n = generation(args, "max_new_tokens");
    if (kind !== "text-to-music" || n === null || !limits.has("frame_rate")) return false;
    return frames(n, limits.get("delay") ?? 0) > limit * limits.get("frame_rate");
  },
  composers: (limit, args) => isSet(args.get("composer")) && !limit.includes(args.get("composer")),
  generation_config: (limit, args) => {
    const config = args.get("generation_config");
    if (!isSet(config)) return false;
    if (limit.length === 0) return true;
    return [...config].some(([name, value]) => value !== null && !limit.includes(name));
  },
  dtypes: (limit, args) => isSet(args.get("dtype")) && !["auto", ...limit].includes(args.get("dtype")),
  quantize_bits: (limit, args) =>
    isSet(args.get("quantize_bits")) && !limit.includes(args.get("quantize_bits")),
};
