"""The limits that `network create` and `add` write for every model: they bound what a task costs.

What a model's files state stands first: positions, composers, what its family takes. The rest are
defaults. `--limit` replaces any of them. The document's limits alone decide whether a task is valid
(specification 3.6).
"""

import math
from collections.abc import Mapping, Sequence

from node.cli.exit_codes import usage
from protocol.model_limits import UPPER_BOUNDS, DurationUnknown, seconds_for
from protocol.wire.encoding import Json

# An attempt has to last for the longest task of a model, so a task gets four sequences, not 16.
SEQUENCES = 4
# New tokens where the model's files tell no number of positions: 30 s of MusicGen.
TOKENS = 1500
# Characters of a prompt. Where a model speaks it and takes no number of tokens, the prompt decides
# how long the sound is: 1,000 are about a minute. Elsewhere it costs next to nothing.
SPOKEN_CHARACTERS, CHARACTERS = 1000, 4096
# Seconds of a song to cover, and of its notes: they end within a minute after it.
INPUT_SECONDS, NOTES_AFTER_SECONDS = 600, 60
# The limits that `--limit` sets.
NAMES = (*UPPER_BOUNDS, "prompt_characters", "input_seconds", "output_seconds")


def complete_limits(
    kinds: Sequence[str], described: Mapping[str, Json], flags: Mapping[str, int]
) -> dict[str, Json]:
    """Return the limits of a model that serves `kinds`; `described` are those its files state."""
    limits: dict[str, Json] = {**described, **flags}
    if "pop2piano" in kinds:
        limits.setdefault("max_new_tokens", TOKENS)
        seconds = limits.setdefault("input_seconds", INPUT_SECONDS)
        assert isinstance(seconds, int)  # noqa: S101  # the describing module says so
        limits.setdefault("output_seconds", seconds + NOTES_AFTER_SECONDS)
    if "text-to-music" in kinds:
        _complete_music(limits)
    return limits


def _complete_music(limits: dict[str, Json]) -> None:
    settable = limits.get("generation_config")
    takes: Sequence[Json] = settable if isinstance(settable, Sequence) else UPPER_BOUNDS
    if "num_return_sequences" in takes:
        limits.setdefault("num_return_sequences", SEQUENCES)
    speaks = "max_new_tokens" not in takes
    limits.setdefault("prompt_characters", SPOKEN_CHARACTERS if speaks else CHARACTERS)
    if speaks:
        return
    tokens = limits.setdefault("max_new_tokens", TOKENS)
    try:
        longest = math.ceil(seconds_for(limits, int(str(tokens))))
    except DurationUnknown:  # its tokens are not all of one length
        return
    limits.setdefault("output_seconds", max(1, longest))


def parse_limit(text: str) -> tuple[str, int]:
    """Return the name and the number of a `--limit` flag; a usage failure names a bad one."""
    name, _, value = text.partition("=")
    if name not in NAMES or not (value.isascii() and value.isdecimal() and len(value) < 10):
        raise usage(f"--limit {text}: must be NAME=N with a NAME of {', '.join(NAMES)}")
    return name, int(value)
