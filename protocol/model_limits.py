"""What a listed model can do: the `limits` of its entry in the network document (section 3.6).

Every peer can refuse a task that the model cannot do, without having the model. A limit that is
left out, or that this version does not know, restricts nothing.

`frame_rate` and `delay` relate tokens to seconds. MusicGen writes its four codebooks one step
apart, so the last one ends three steps after the first: 503 tokens are 500 frames, which at 50
frames per second are 10 seconds. Models without such a delay have a `delay` of 0. Fewer tokens
than twice the delay are generated without it, and every token is a frame (section 8.6).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from protocol.wire.encoding import Document
from schemas import load
from schemas.errors import HeliumError

# Characters of an objection, which has to fit the detail of a failure answer.
_MAX_OBJECTION = 200
# The limits that are upper bounds of a member of `args.generation_config` of the same name.
UPPER_BOUNDS = ("max_new_tokens", "num_return_sequences")

# What a pop2piano task that names no composer asks for (section 8.7).
DEFAULT_COMPOSER = "composer1"

# Decimals that a product of seconds and rate is rounded to before it is rounded up. The float
# product may miss an integer by a rounding error: 8.1 s at 50/s must be 405 frames, not 406.
_FRAME_DECIMALS = 6


class DurationUnknown(HeliumError, ValueError):
    """The model's limits do not say how its tokens relate to seconds."""


def objection(limits: Document, args: Document) -> str:
    """Return why the model cannot do a task, naming the field; "" if it can.

    `limits` and `args` fit their schemas. What a task leaves out or sets to null is the model's
    own default and always allowed; so is the dtype "auto".
    """
    limit_of: Mapping[str, Any] = limits
    config: Any = args.get("generation_config")
    requested = {} if config is None else {k: v for k, v in config.items() if v is not None}
    return (
        _unsupported_member(limit_of.get("generation_config"), config, requested)
        or _over_bound(limit_of, requested)
        or _prompt_too_long(limit_of.get("prompt_characters"), args)
        or _output_too_long(limit_of, args, requested)
        or _unknown_composer(limit_of.get("composers"), args.get("composer"))
        or _unsupported_value(limit_of.get("dtypes"), "dtype", args.get("dtype"))
        or _unsupported_value(
            limit_of.get("quantize_bits"), "quantize_bits", args.get("quantize_bits")
        )
    )


def default_objection(kind: str, limits: Document, args: Document) -> str:
    """Return why the model cannot do what a task of `kind` leaves out; "" if it can.

    The task is valid all the same, and ends as an agreed error (sections 3.6 and 8.7): a client
    refuses it, and no node may.
    """
    composers: Any = limits.get("composers")
    if kind != "pop2piano" or args.get("composer") is not None or composers is None:
        return ""
    if DEFAULT_COMPOSER in composers:
        return ""
    return (
        f"args.composer: is left out, which means {DEFAULT_COMPOSER!r}, and this model does not"
        f" have it; it has {', '.join(composers)}"
    )


def _unsupported_member(
    supported: Sequence[str] | None, config: object, requested: Mapping[str, object]
) -> str:
    if supported is None or config is None:
        return ""
    for member in requested:
        if member not in supported:
            hint = f"; it takes {', '.join(supported)}" if supported else ""
            return f"args.generation_config.{member}: this model does not take it{hint}"
    if supported:
        return ""
    return "args.generation_config: this model takes none, not even an empty one"


def _over_bound(limits: Mapping[str, Any], requested: Mapping[str, Any]) -> str:
    for field in UPPER_BOUNDS:
        value, bound = requested.get(field), limits.get(field)
        if value is not None and bound is not None and value > bound:
            return f"args.generation_config.{field}: {value} is over this model's limit, {bound}"
    return ""


def _prompt_too_long(bound: int | None, args: Mapping[str, Any]) -> str:
    # The length of a Python string is its number of code points, as section 3.6 counts.
    characters = len(args.get("prompt") or "")
    if bound is None or characters <= bound:
        return ""
    return f"args.prompt: {characters} characters are over this model's limit, {bound}"


def _output_too_long(
    limits: Mapping[str, Any], args: Mapping[str, Any], requested: Mapping[str, Any]
) -> str:
    bound, rate, tokens = (
        limits.get("output_seconds"),
        limits.get("frame_rate"),
        requested.get("max_new_tokens"),
    )
    # Only text-to-music has a prompt. The tokens of pop2piano are for two bars, not for a song.
    if "prompt" not in args or bound is None or rate is None or tokens is None:
        return ""
    # The product in binary64, so that every implementation draws the same line.
    if frames(limits, tokens) <= bound * rate:
        return ""
    return (
        f"args.generation_config.max_new_tokens: {tokens} tokens are longer than this model's"
        f" limit, {bound} s"
    )


def _unknown_composer(composers: Sequence[str] | None, composer: object) -> str:
    if composers is None or composer is None or composer in composers:
        return ""
    names = ", ".join(composers)
    return f"args.composer: this model does not have {composer!r}; it has {names}"[:_MAX_OBJECTION]


def _unsupported_value(supported: Sequence[object] | None, field: str, value: object) -> str:
    if supported is None or value in (None, "auto", *supported):
        return ""
    hint = f", only in {' and '.join(map(str, supported))}" if supported else ""
    return f"args.{field}: this model does not compute in {value}{hint}"


def frames(limits: Mapping[str, object], tokens: int) -> int:
    """Return how many frames of audio `tokens` new tokens are (section 8.6)."""
    delay = _delay(limits)
    return tokens if tokens < 2 * delay else tokens - delay


def tokens_for(limits: Mapping[str, object], seconds: float) -> int:
    """Return the fewest `max_new_tokens` that give at least `seconds` of audio.

    Raises `DurationUnknown`, and `ValueError` if `seconds` is not a positive finite number.
    """
    rate, delay = _rate(limits), _delay(limits)
    if not (math.isfinite(seconds) and seconds > 0):
        raise ValueError(f"{seconds} is no length in seconds")
    count = math.ceil(round(seconds * rate, _FRAME_DECIMALS))
    return count if count < 2 * delay else count + delay


def seconds_for(limits: Mapping[str, object], tokens: int) -> float:
    """Return the seconds of audio of `tokens` new tokens, if the model does not end earlier.

    Raises `DurationUnknown`.
    """
    return frames(limits, tokens) / _rate(limits)


def _rate(limits: Mapping[str, object]) -> float:
    rate = limits.get("frame_rate")
    if not isinstance(rate, int | float) or rate <= 0:
        raise DurationUnknown("how long this model sounds is not decided by max_new_tokens")
    return rate


def _delay(limits: Mapping[str, object]) -> int:
    return int(str(limits.get("delay", 0)))


def with_max_new_tokens(limits: Document, args: Document, seconds: float) -> Document:
    """Return a task's arguments with the fewest `max_new_tokens` that give `seconds` of audio.

    `limits` are those of the model that `args` name. A malformed `generation_config` is left to
    the schema check of the task. Raises `DurationUnknown`, and `ValueError` if `args` have
    `max_new_tokens` already or if `seconds` is not positive or over the model's limit.
    """
    config: Any = args.get("generation_config") or {}
    if not isinstance(config, Mapping):
        return args
    if config.get("max_new_tokens") is not None:
        raise ValueError("max_new_tokens is given too: choose one of the two")
    max_tokens = int(str(limits.get("max_new_tokens", _schema_max_tokens())))
    max_seconds = _longest(limits, max_tokens)
    if seconds > max_seconds:
        rounded_down = math.floor(max_seconds * 100) / 100
        raise ValueError(f"{args['model']} gives at most {rounded_down:g} s ({max_tokens} tokens)")
    return {
        **args,
        "generation_config": {**config, "max_new_tokens": tokens_for(limits, seconds)},
    }


def _longest(limits: Mapping[str, Any], max_tokens: int) -> float:
    """Return the most seconds of audio that a task may ask for by its tokens."""
    # One token less than twice the delay may give more frames than twice the delay and more.
    undelayed = min(max_tokens, max(0, 2 * _delay(limits) - 1))
    count = max(frames(limits, max_tokens), undelayed)
    if (bound := limits.get("output_seconds")) is not None:
        count = min(count, math.floor(bound * _rate(limits)))
    return count / _rate(limits)


def audio_seconds(limits: Document, args: Document) -> float | None:
    """Return the seconds of audio of all sequences of a task, if the model does not end earlier.

    None if the arguments or the limits do not decide it.
    """
    config: Any = args.get("generation_config") or {}
    tokens, sequences = config.get("max_new_tokens"), config.get("num_return_sequences") or 1
    try:
        return seconds_for(limits, tokens or 0) * sequences or None
    except DurationUnknown:
        return None


def _schema_max_tokens() -> int:
    return int(load("common")["$defs"]["maxNewTokens"]["maximum"])
