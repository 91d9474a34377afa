"""What a reveal's trace states about its execution (specification 4.6).

A trace has no fixed schema, because it is not part of the agreement. A field without the expected
shape counts as missing.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, TypeAlias

from executor.determinism.compute_class import equal_in_json, field_text
from protocol.wire.encoding import Document

BLOCK = 64  # steps per digest of tokens
_BLOCK_DIGEST = re.compile(r"[0-9a-f]{16}\Z")
_STEP_BYTES = re.compile(r"([0-9a-f]{2}){1,64}\Z")  # one byte per step of a block
_WEIGHTS = re.compile(r"[0-9a-f]{64}\Z")

Blocks: TypeAlias = tuple[tuple[str, ...], ...]
"""For each sequence, a text for each block of 64 steps."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """Digests of the generated tokens; `complete` is False if the trace leaves out the end.

    `steps` has a byte for each step of a block. It may be shorter than `digests`, or empty.
    """

    digests: Blocks
    steps: Blocks
    complete: bool


@dataclass(frozen=True, slots=True)
class Trace:
    """The readable fields of a trace; None if one is missing."""

    runtime: Mapping[str, object] | None
    weights: str | None
    tokens: Tokens | None


@dataclass(frozen=True, slots=True)
class FirstDifference:
    """Where two generations first differ: the sequence, from 0, and the step, from 1.

    The step is in `first` to `last`: one block of 64, or a single step if both traces have its
    byte. `ended`: one of the two has no more steps there.
    """

    sequence: int
    first: int
    last: int
    ended: bool


def parse_trace(trace: Document) -> Trace:
    """Return the fields of a trace that have the expected shape."""
    document: Mapping[str, Any] = trace
    runtime, weights = document.get("runtime"), document.get("weights")
    flat = isinstance(runtime, Mapping) and all(
        isinstance(value, str | bool | int | float) for value in runtime.values()
    )
    is_digest = isinstance(weights, str) and _WEIGHTS.match(weights)
    return Trace(
        runtime if flat and runtime else None,
        weights if is_digest else None,
        _parse_tokens(document),
    )


def _parse_tokens(document: Mapping[str, Any]) -> Tokens | None:
    digests = _parse_blocks(document.get("tokens"), _BLOCK_DIGEST)
    if digests is None or not any(digests):
        return None
    complete = document.get("tokens_complete", True) is True
    return Tokens(digests, _parse_blocks(document.get("steps", ()), _STEP_BYTES) or (), complete)


def _parse_blocks(value: object, pattern: re.Pattern[str]) -> Blocks | None:
    if not isinstance(value, Sequence) or isinstance(value, str):
        return None
    for blocks in value:
        if not isinstance(blocks, Sequence) or isinstance(blocks, str):
            return None
        if not all(isinstance(block, str) and pattern.match(block) for block in blocks):
            return None
    return tuple(tuple(blocks) for blocks in value)


def most_common_tokens(traces: Iterable[Trace]) -> Tokens | None:
    """Return the tokens that most traces have; None if none has any."""
    counts = Counter(trace.tokens for trace in traces if trace.tokens is not None)
    return counts.most_common(1)[0][0] if counts else None


def runtime_differences(
    runtime: Mapping[str, object], class_definition: Mapping[str, object]
) -> list[str]:
    """Return a line for each field in which a runtime is not the class's."""
    return [
        f"{name} is {field_text(runtime, name)}, the class has {field_text(class_definition, name)}"
        for name in sorted(runtime.keys() | class_definition.keys())
        if name not in runtime
        or name not in class_definition
        or not equal_in_json(runtime[name], class_definition[name])
    ]


def first_difference(a: Tokens, b: Tokens) -> FirstDifference | None:
    """Return where two generations first differ; None if they do not, as far as both traces go."""
    complete = a.complete and b.complete
    for sequence, blocks in enumerate(zip_longest(a.digests, b.digests, fillvalue=())):
        for block, digests in enumerate(zip_longest(*blocks)):
            ended = None in digests
            # A digest that an incomplete trace lacks may only have been left out.
            if digests[0] != digests[1] and (complete or not ended):
                return _locate_step(sequence, block, a, b, ended=ended)
    return None


def _locate_step(
    sequence: int, block: int, a: Tokens, b: Tokens, *, ended: bool
) -> FirstDifference:
    """Narrow a block down to one step, if both traces have a byte for each of its steps."""
    start = block * BLOCK
    steps_a, steps_b = (_steps(tokens, sequence, block) for tokens in (a, b))
    if steps_a and steps_b:
        for offset, pair in enumerate(zip_longest(steps_a, steps_b)):
            if pair[0] != pair[1]:
                step = start + offset + 1
                return FirstDifference(sequence, step, step, ended=None in pair)
    # One byte may be equal by chance while the tokens differ: then only the block is known.
    return FirstDifference(sequence, start + 1, start + BLOCK, ended)


def _steps(tokens: Tokens, sequence: int, block: int) -> list[str]:
    blocks = tokens.steps[sequence] if sequence < len(tokens.steps) else ()
    text = blocks[block] if block < len(blocks) else ""
    return [text[start : start + 2] for start in range(0, len(text), 2)]
