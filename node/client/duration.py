"""Seconds of audio in place of tokens, where the network document tells how they relate.

It tells by a model's `frame_rate` and `delay` (section 3); the relation itself is the executor's.
"""

import math
from collections.abc import Mapping
from typing import Any

from executor.models import duration
from protocol.network import Network
from protocol.wire.encoding import Document
from protocol.wire.messages import Task
from schemas import load


def with_max_new_tokens(network: Network, args: Document, seconds: float) -> Document:
    """Return a task's arguments with the fewest `max_new_tokens` that give so many seconds.

    What is wrong in the arguments themselves is left to the task's own check. Raises ValueError
    where max_new_tokens is given as well, where the model's tokens do not decide its length, and
    for a length that is none or over the model's limit.
    """
    model = network.models.get(str(args.get("model")))
    config: Any = args.get("generation_config") or {}
    if model is None or not isinstance(config, Mapping):
        return args
    if config.get("max_new_tokens") is not None:
        raise ValueError("max_new_tokens is given too: choose one of the two")
    most = int(str(model.limits.get("max_new_tokens", _most_tokens())))
    longest = duration.seconds(model.limits, most)
    if seconds > longest:
        shown = math.floor(longest * 100) / 100
        raise ValueError(f"{model.id} gives at most {shown:g} s ({most} tokens)")
    tokens = duration.tokens(model.limits, seconds)
    return {**args, "generation_config": {**config, "max_new_tokens": tokens}}


def audio_seconds(network: Network, task: Task) -> float | None:
    """Return the seconds of audio of all sequences of a task, if the model does not end earlier.

    None where the task or the network document do not tell.
    """
    config: Any = task.args.get("generation_config") or {}
    tokens, sequences = config.get("max_new_tokens"), config.get("num_return_sequences") or 1
    try:
        seconds = duration.seconds(network.models[task.model].limits, tokens or 0) * sequences
    except duration.DurationUnknown:
        return None
    return seconds or None


def _most_tokens() -> int:
    return int(load("common")["$defs"]["maxNewTokens"]["maximum"])
