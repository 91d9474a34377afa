"""How tokens relate to seconds: fixed by the architecture of a model's audio decoder.

MusicGen writes its codebooks one step apart, so the last of four ends three steps after the first:
N new tokens are N − 3 frames (503 tokens at 50 frames/s are 10 seconds). The others write frames as
they go. `limits` are a model's in the network document: `frame_rate`, the tokens that one second
takes, and `delay`, the tokens that are no frames of their own.
"""

import math
from collections.abc import Mapping

from schemas.errors import HeliumError


class DurationUnknown(HeliumError, ValueError):
    """Nothing tells how the model's tokens relate to seconds."""


def tokens(limits: Mapping[str, object], seconds: float) -> int:
    """The fewest `max_new_tokens` that give at least `seconds` of audio.

    Raises `DurationUnknown`, and `ValueError` for a length that is no positive number.
    """
    rate, delay = _relation(limits)
    if not (math.isfinite(seconds) and seconds > 0):
        raise ValueError(f"{seconds} is no length in seconds")
    # A float times a rate may miss an integer by a rounding: 8.1 s × 50/s is 405 frames, not 406.
    return math.ceil(round(seconds * rate, 6)) + delay


def seconds(limits: Mapping[str, object], max_new_tokens: int) -> float:
    """The seconds of audio that so many new tokens give, if the model does not end it earlier.

    Raises `DurationUnknown`.
    """
    rate, delay = _relation(limits)
    return max(0, max_new_tokens - delay) / rate


def _relation(limits: Mapping[str, object]) -> tuple[float, int]:
    rate, delay = limits.get("frame_rate"), limits.get("delay", 0)
    if not isinstance(rate, int | float) or not isinstance(delay, int) or rate <= 0:
        raise DurationUnknown("how long this model sounds is not decided by max_new_tokens")
    return rate, delay
