"""What a model's configuration files tell of it: pure functions over their content."""

import math
from collections.abc import Mapping
from typing import Any

from executor.models.families import DTYPES, FAMILIES, Family

Config = Mapping[str, Any]
POP2PIANO = "pop2piano"  # a task kind of its own, and the only family of it
# The vocoders of FastSpeech2Conformer do not say; all checkpoints of it are LJSpeech's.
ESPNET_RATE = 22_050
MIMI_RATE = 12.5  # frames per second of the Mimi codec where its configuration does not say
SEMANTIC_RATE = 49.9  # tokens per second of Bark's semantic model, likewise
LAYERS = 64  # of a codec; the product of a million ratios would take minutes
BELOW = 2**31  # every number asked for; a configuration may hold anything at all


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
            most = whole(part(config, "decoder"), "max_position_embeddings")
        case "bark":
            heard = whole(part(generation, "semantic_config"), "max_input_semantic_length", 256)
            size = whole(part(config, "semantic_config"), "block_size", 1024)
            most = size - heard if size and heard and size > heard else None
        case "csm" | "seamless_m4t" | "seamless_m4t_v2":
            most = whole(config, "max_position_embeddings")
        case _:
            most = None
    return {} if most is None else {"max_new_tokens": most}


def _sampling_rate(family: Family, config: Config, vocoder: Config) -> dict[str, object]:
    match family.name:
        case "musicgen" | "musicgen_melody":
            rate = whole(part(config, "audio_encoder"), "sampling_rate")
        case "bark" | "csm":
            rate = whole(part(config, "codec_config"), "sampling_rate")
        case "speecht5":
            rate = whole(vocoder, "sampling_rate")
        case "fastspeech2_conformer" | "fastspeech2_conformer_with_hifigan":
            voice = vocoder or part(config, "vocoder_config")
            told = voice if "sampling_rate" in voice else config
            rate = whole(told, "sampling_rate", ESPNET_RATE)
        case _:
            rate = whole(config, "sampling_rate")
    return {} if rate is None else {"sampling_rate": rate}


def _length(family: Family, config: Config, generation: Config) -> dict[str, object]:
    match family.name:
        case "musicgen" | "musicgen_melody":
            decoder, codec = part(config, "decoder"), part(config, "audio_encoder")
            rate, ratios = whole(codec, "sampling_rate"), codec.get("upsampling_ratios")
            books = whole(decoder, "num_codebooks", 4)
            channels = whole(decoder, "audio_channels", 1)
            if not (rate and books and channels and isinstance(ratios, list) and ratios):
                return {}
            if len(ratios) > LAYERS or not all(
                type(ratio) is int and 0 < ratio < BELOW for ratio in ratios
            ):
                return {}
            return {
                "frame_rate": -(-rate // math.prod(ratios)),  # rounded up
                "delay": max(0, books // channels - 1),
            }
        case "bark":
            semantic = part(generation, "semantic_config")
            # The last semantic token may end within an acoustic frame, which is then left out.
            rate_hz = positive(semantic.get("semantic_rate_hz"), SEMANTIC_RATE)
            return {"frame_rate": rate_hz, "delay": 1}
        case "csm":
            codec = part(config, "codec_config")
            return {"frame_rate": positive(codec.get("frame_rate"), MIMI_RATE), "delay": 0}
        case _:
            return {}


def whole(config: Config, name: str, absent: int | None = None) -> int | None:
    """A positive whole number of a configuration; None if it has something else there."""
    value = config.get(name, absent)
    return value if type(value) is int and 0 < value < BELOW else None


def positive(value: object, otherwise: float) -> int | float:
    """The value, if it is a positive number."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < BELOW:
        return value
    return otherwise


def part(config: Config, name: str) -> Config:
    """A part of a composite configuration; empty if there is none."""
    found = config.get(name)
    return found if isinstance(found, dict) else {}
