"""What a reveal's trace tells of how its outcome came about (specification 4, clarification 4d).

A trace is what its signer says of itself, in whatever shape: what does not have the shape that is
known here counts as not told.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, TypeAlias

from executor.determinism.compute_class import same, shown
from protocol.wire.encoding import Document

BLOCK = 64  # steps for each digest of tokens
_BLOCK_DIGEST = re.compile(r"[0-9a-f]{16}\Z")
_STEP_BYTES = re.compile(r"([0-9a-f]{2}){1,64}\Z")  # one byte for each step of a block
_WEIGHTS = re.compile(r"[0-9a-f]{64}\Z")

Blocks: TypeAlias = tuple[tuple[str, ...], ...]
"""For each sequence, a text for each block of 64 steps."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """What was told of the generated tokens; `complete` is False where the end was left out."""

    digests: Blocks
    steps: Blocks  # may be shorter than the digests, or empty
    complete: bool


@dataclass(frozen=True, slots=True)
class Trace:
    """What was told; None where nothing, or nothing readable, was."""

    runtime: Mapping[str, object] | None
    weights: str | None
    tokens: Tokens | None


@dataclass(frozen=True, slots=True)
class FirstDifference:
    """Where two generations part: the sequence, from 0, and the step, from 1.

    The step is at least `first` and at most `last`: one block of 64, or a single step where the
    traces tell so. `ended`: one has no more steps there, as far as both are told.
    """

    sequence: int
    first: int
    last: int
    ended: bool


def read(trace: Document) -> Trace:
    """Return what a trace tells."""
    told: Mapping[str, Any] = trace
    runtime, weights = told.get("runtime"), told.get("weights")
    flat = isinstance(runtime, Mapping) and all(
        isinstance(value, str | bool | int | float) for value in runtime.values()
    )
    readable = isinstance(weights, str) and _WEIGHTS.match(weights)
    return Trace(
        runtime if flat and runtime else None, weights if readable else None, _tokens(told)
    )


def _tokens(told: Mapping[str, Any]) -> Tokens | None:
    digests = _blocks(told.get("tokens"), _BLOCK_DIGEST)
    if digests is None or not any(digests):
        return None
    complete = told.get("tokens_complete", True) is True
    return Tokens(digests, _blocks(told.get("steps", ()), _STEP_BYTES) or (), complete)


def _blocks(value: object, shape: re.Pattern[str]) -> Blocks | None:
    if not isinstance(value, Sequence) or isinstance(value, str):
        return None
    for blocks in value:
        if not isinstance(blocks, Sequence) or isinstance(blocks, str):
            return None
        if not all(isinstance(block, str) and shape.match(block) for block in blocks):
            return None
    return tuple(tuple(blocks) for blocks in value)


def most_common_tokens(traces: Iterable[Trace]) -> Tokens | None:
    """Return the tokens that most of the traces tell; None if none tells any."""
    counted = Counter(trace.tokens for trace in traces if trace.tokens is not None)
    return counted.most_common(1)[0][0] if counted else None


def runtime_differences(theirs: Mapping[str, object], defined: Mapping[str, object]) -> list[str]:
    """Return a line for each field in which a runtime is not the class's."""
    return [
        f"{name} is {shown(theirs, name)}, the class has {shown(defined, name)}"
        for name in sorted(theirs.keys() | defined.keys())
        if name not in theirs or name not in defined or not same(theirs[name], defined[name])
    ]


def first_difference(ours: Tokens, theirs: Tokens) -> FirstDifference | None:
    """Return where two generations part first; None if they do not as far as both are told."""
    told = ours.complete and theirs.complete
    for sequence, blocks in enumerate(zip_longest(ours.digests, theirs.digests, fillvalue=())):
        for place, (one, other) in enumerate(zip_longest(*blocks)):
            if one != other and (told or None not in (one, other)):
                return _within(sequence, place, ours, theirs, ended=None in (one, other))
    return None


def _within(
    sequence: int, block: int, ours: Tokens, theirs: Tokens, *, ended: bool
) -> FirstDifference:
    """Narrow a block down to the step, where both tell a byte for each of its steps."""
    start = block * BLOCK
    one, other = (_steps(tokens, sequence, block) for tokens in (ours, theirs))
    if one and other:
        for step, (a, b) in enumerate(zip_longest(one, other)):
            if a != b:
                at = start + step + 1
                return FirstDifference(sequence, at, at, ended=None in (a, b))
    return FirstDifference(sequence, start + 1, start + BLOCK, ended)


def _steps(tokens: Tokens, sequence: int, block: int) -> list[str]:
    blocks = tokens.steps[sequence] if sequence < len(tokens.steps) else ()
    text = blocks[block] if block < len(blocks) else ""
    return [text[start : start + 2] for start in range(0, len(text), 2)]
