"""What a model's configuration files tell of it: pure functions over their content."""

import math
from collections.abc import Mapping
from typing import Any

from executor.families import DTYPES, FAMILIES, Family

Config = Mapping[str, Any]
POP2PIANO = "pop2piano"  # a task kind of its own, and the only family of it
# The vocoders of FastSpeech2Conformer do not say; all checkpoints of it are LJSpeech's.
ESPNET_RATE = 22_050
MIMI_RATE = 12.5  # frames per second of the Mimi codec where its configuration does not say


def describe(config: Config, generation: Config, vocoder: Config) -> dict[str, object]:
    """What follows from config.json, generation_config.json and vocoder/config.json; {} if none.

    `family`, `tasks` (the kinds it serves), `dtype` (what "auto" means), `limits` as a network
    document has them, and for text to music `sampling_rate` in Hz where the configuration tells it.
    """
    name = str(config.get("model_type"))
    common: dict[str, object] = {"family": name, "dtype": own_dtype(config)}
    family = FAMILIES.get(name)
    if family is None:
        return {**common, "tasks": [name] if name == POP2PIANO else [], "limits": {}}
    return {
        **common,
        "tasks": ["text-to-music"],
        "limits": limits(family, config, generation),
        **_sampling_rate(family, config, vocoder),
    }


def limits(family: Family, config: Config, generation: Config) -> dict[str, object]:
    """What tasks may ask of a model, as its `limits` in the network document (section 3).

    What the family does (see `families`), the most tokens that the model has positions for, and
    where tokens decide the length, `frame_rate` in tokens per second and `delay` in tokens (see
    `lengths`).
    """
    return {
        **_positions(family, config, generation),
        "generation_config": list(family.honours),
        "dtypes": list(family.dtypes),
        "quantize_bits": list(family.bits),
        **_length(family, config, generation),
    }


def own_dtype(config: Config) -> str:
    """What `dtype` "auto" means (section 8): the configuration's, float32 where it tells none."""
    told = config.get("dtype", config.get("torch_dtype"))
    return str(told) if told in DTYPES else "float32"


def _positions(family: Family, config: Config, generation: Config) -> dict[str, object]:
    match family.name:
        case "musicgen" | "musicgen_melody":
            most = part(config, "decoder").get("max_position_embeddings")
        case "bark":
            heard = part(generation, "semantic_config").get("max_input_semantic_length", 256)
            most = part(config, "semantic_config").get("block_size", 1024) - heard
        case "csm":
            most = config.get("max_position_embeddings")
        case "seamless_m4t" | "seamless_m4t_v2":
            most = config.get("max_position_embeddings")
        case _:
            most = None
    return {"max_new_tokens": most} if isinstance(most, int) and most > 0 else {}


def _sampling_rate(family: Family, config: Config, vocoder: Config) -> dict[str, object]:
    match family.name:
        case "musicgen" | "musicgen_melody":
            rate = part(config, "audio_encoder").get("sampling_rate")
        case "bark" | "csm":
            rate = part(config, "codec_config").get("sampling_rate")
        case "speecht5":
            rate = vocoder.get("sampling_rate")
        case "fastspeech2_conformer" | "fastspeech2_conformer_with_hifigan":
            voice = vocoder or part(config, "vocoder_config")
            rate = voice.get("sampling_rate", config.get("sampling_rate", ESPNET_RATE))
        case _:
            rate = config.get("sampling_rate")
    return {"sampling_rate": rate} if isinstance(rate, int) else {}


def _length(family: Family, config: Config, generation: Config) -> dict[str, object]:
    match family.name:
        case "musicgen" | "musicgen_melody":
            decoder, codec = part(config, "decoder"), part(config, "audio_encoder")
            rate, ratios = codec.get("sampling_rate"), codec.get("upsampling_ratios")
            if not (isinstance(rate, int) and isinstance(ratios, list) and ratios):
                return {}
            books = decoder.get("num_codebooks", 4) // decoder.get("audio_channels", 1)
            return {"frame_rate": math.ceil(rate / math.prod(ratios)), "delay": books - 1}
        case "bark":
            semantic = part(generation, "semantic_config")
            # The last semantic token may end within an acoustic frame, which is then left out.
            return {"frame_rate": semantic.get("semantic_rate_hz", 49.9), "delay": 1}
        case "csm":
            codec = part(config, "codec_config")
            return {"frame_rate": codec.get("frame_rate") or MIMI_RATE, "delay": 0}
        case _:
            return {}


def part(config: Config, name: str) -> Config:
    """A part of a composite configuration; empty if there is none."""
    found = config.get(name)
    return found if isinstance(found, dict) else {}
