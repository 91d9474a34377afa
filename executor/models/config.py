"""Facts about a model from the content of its configuration files: pure functions."""

import math
from collections.abc import Mapping
from typing import Any

from executor.models.families import DTYPES, FAMILIES, Family

Config = Mapping[str, Any]
POP2PIANO = "pop2piano"  # a task kind with one family of the same name
# Values where a configuration has none. The sampling rate of FastSpeech2Conformer in Hz: all its
# checkpoints are trained on LJSpeech.
ESPNET_RATE = 22_050
MIMI_RATE = 12.5  # frames per second of the Mimi codec
SEMANTIC_RATE = 49.9  # tokens per second of Bark's semantic model
# Positions of SpeechT5's text, and the tokens around a text: a word mark and an end.
SPEECHT5_POSITIONS, SPEECHT5_EXTRA_TOKENS = 450, 2
MAX_CHARACTERS = 4_096  # of a prompt (`schemas/text-to-music.json`)
# Upsampling layers of a codec: the product of a million ratios would take minutes.
MAX_LAYERS = 64
# What a network document can list (`schemas/network.json`).
MAX_COMPOSERS, MAX_COMPOSER_CHARACTERS, MAX_TOKENS = 256, 64, 65_536
# A stranger's configuration may hold any number. Every number that is read here is smaller.
NUMBER_LIMIT = 2**31


def describe(config: Config, generation: Config, vocoder: Config) -> dict[str, object]:
    """Describe a model by its config.json, generation_config.json and vocoder/config.json.

    A missing file is {}. Returns `family`, `tasks` (the kinds it serves), `dtype` (what "auto"
    means), `limits` as a network document has them, and for text to music `sampling_rate` in Hz
    where the configuration has it.
    """
    name = str(config.get("model_type"))
    common: dict[str, object] = {"family": name, "dtype": own_dtype(config)}
    family = FAMILIES.get(name)
    if family is None:
        if name != POP2PIANO:
            return {**common, "tasks": [], "limits": {}}
        return {**common, "tasks": [name], "limits": _piano_limits(config, generation)}
    return {
        **common,
        "tasks": ["text-to-music"],
        "limits": limits(family, config, generation),
        **_sampling_rate(family, config, vocoder),
    }


def limits(family: Family, config: Config, generation: Config) -> dict[str, object]:
    """Return what tasks may ask of a model, as its `limits` in the network document (section 3).

    These are the family's capabilities, the number of tokens that the model has positions for, and
    where tokens decide the length, `frame_rate` in tokens per second and `delay` in tokens
    (`protocol.model_limits`).
    """
    return {
        **_positions(family, config, generation),
        **_characters(family, config),
        **family.capabilities,
        **_length(family, config, generation),
    }


def _piano_limits(config: Config, generation: Config) -> dict[str, object]:
    """Return the composers of a Pop2Piano model and the number of its positions."""
    positions = positive_int(config, "n_positions")
    composers = sorted(part(generation, "composer_to_feature_token"))
    fits = 1 <= len(composers) <= MAX_COMPOSERS and all(map(_is_composer, composers))
    return {
        **({} if positions is None else {"max_new_tokens": min(positions, MAX_TOKENS)}),
        **({"composers": composers} if fits else {}),
    }


def _is_composer(name: str) -> bool:
    return 1 <= len(name) <= MAX_COMPOSER_CHARACTERS and name.isascii() and name.isprintable()


def own_dtype(config: Config) -> str:
    """Return what `dtype` "auto" means (section 8): the configuration's, or float32 without one."""
    dtype = config.get("dtype", config.get("torch_dtype"))
    return str(dtype) if dtype in DTYPES else "float32"


def _positions(family: Family, config: Config, generation: Config) -> dict[str, object]:
    match family.name:
        case "musicgen" | "musicgen_melody":
            positions = positive_int(part(config, "decoder"), "max_position_embeddings")
        case "bark":
            semantic = part(generation, "semantic_config")
            prompt = positive_int(semantic, "max_input_semantic_length", 256)
            size = positive_int(part(config, "semantic_config"), "block_size", 1024)
            positions = size - prompt if size and prompt and size > prompt else None
        case "csm" | "seamless_m4t" | "seamless_m4t_v2":
            positions = positive_int(config, "max_position_embeddings")
        case _:
            positions = None
    return {} if positions is None else {"max_new_tokens": positions}


def _characters(family: Family, config: Config) -> dict[str, object]:
    """Return the most characters of a prompt, where the text takes positions that run out.

    Of all families, only SpeechT5 has a table of text positions that ends: the others compute
    theirs from a formula, have relative ones, or cut the text (Bark). Its tokens are characters,
    and two more: one before the text and one after it. A text that its tokenizer lengthens, such as
    ligatures and digits that are spelled out, can still be too long; that is an agreed error.
    """
    if family.name != "speecht5":
        return {}
    positions = positive_int(config, "max_text_positions", SPEECHT5_POSITIONS)
    if positions is None or positions <= SPEECHT5_EXTRA_TOKENS:
        return {}
    return {"prompt_characters": min(positions - SPEECHT5_EXTRA_TOKENS, MAX_CHARACTERS)}


def _sampling_rate(family: Family, config: Config, vocoder: Config) -> dict[str, object]:
    match family.name:
        case "musicgen" | "musicgen_melody":
            rate = positive_int(part(config, "audio_encoder"), "sampling_rate")
        case "bark" | "csm":
            rate = positive_int(part(config, "codec_config"), "sampling_rate")
        case "speecht5":
            rate = positive_int(vocoder, "sampling_rate")
        case "fastspeech2_conformer" | "fastspeech2_conformer_with_hifigan":
            voice = vocoder or part(config, "vocoder_config")
            source = voice if "sampling_rate" in voice else config
            rate = positive_int(source, "sampling_rate", ESPNET_RATE)
        case _:
            rate = positive_int(config, "sampling_rate")
    return {} if rate is None else {"sampling_rate": rate}


def _length(family: Family, config: Config, generation: Config) -> dict[str, object]:
    match family.name:
        case "musicgen" | "musicgen_melody":
            decoder, codec = part(config, "decoder"), part(config, "audio_encoder")
            rate, ratios = positive_int(codec, "sampling_rate"), codec.get("upsampling_ratios")
            books = positive_int(decoder, "num_codebooks", 4)
            channels = positive_int(decoder, "audio_channels", 1)
            if not (rate and books and channels and isinstance(ratios, list) and ratios):
                return {}
            if len(ratios) > MAX_LAYERS or not all(
                type(ratio) is int and 0 < ratio < NUMBER_LIMIT for ratio in ratios
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


def positive_int(config: Config, name: str, default: int | None = None) -> int | None:
    """Return a positive integer of a configuration; None if it has something else there."""
    value = config.get(name, default)
    return value if type(value) is int and 0 < value < NUMBER_LIMIT else None


def positive(value: object, default: float) -> int | float:
    """Return the value if it is a positive number, else the default."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value if 0 < value < NUMBER_LIMIT else default
    return default


def part(config: Config, name: str) -> Config:
    """Return a part of a composite configuration; {} if there is none."""
    nested = config.get(name)
    return nested if isinstance(nested, dict) else {}
