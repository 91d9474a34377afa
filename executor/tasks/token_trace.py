"""What a model's generate calls after each step: how progress and the token digests are had.

A step of a small model takes less than a millisecond, so little is done in each: tokens stay views
until their block is full, and the answer to the stopping criterion is one tensor for all steps.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import torch
from transformers import StoppingCriteria

from protocol.wire.encoding import tagged_hash

BLOCK = 64  # steps per token digest (section 4, `trace`)

Step = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class TokenTrace:
    """What a trace tells of the tokens, for each block of 64 steps.

    `digests` has the first 16 hex of H("tokens", all its tokens); `steps` the first 2 hex of the
    same hash of each of its steps alone, one after the other: enough to find the step at which two
    generations part. Tokens are hashed step by step, each as 4 bytes, little-endian.
    """

    digests: tuple[str, ...]
    steps: tuple[str, ...]


class TokenRecorder(StoppingCriteria):  # type: ignore[misc]
    """A stopping criterion that never stops: tells how many steps were made, keeps the tokens."""

    def __init__(self, step: Step) -> None:
        self._step = step
        self._steps = 0
        self._block: list[torch.Tensor] = []  # the tokens of each step, (codebooks,)
        self._full: list[tuple[str, str]] = []
        self._never = torch.zeros(0, dtype=torch.bool)

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        """Note the step that was just sampled; `input_ids` is (codebooks, steps so far)."""
        self.record(input_ids[:, -1])
        if len(self._never) != len(input_ids):
            self._never = input_ids.new_zeros(len(input_ids), dtype=torch.bool)
        return self._never

    def record(self, tokens: torch.Tensor) -> None:
        """One more step has been made, with these tokens, (codebooks,)."""
        self._steps += 1
        self._block.append(tokens)
        if len(self._block) == BLOCK:
            self._full.append(digests(self._block))
            self._block = []
        self._step(self._steps)

    def trace(self) -> TokenTrace:
        """What there is to tell so far; the last block may be shorter."""
        blocks = [*self._full, digests(self._block)] if self._block else self._full
        return TokenTrace(tuple(whole for whole, _ in blocks), tuple(steps for _, steps in blocks))


class Streamer:
    """The same for CSM: it drops others' stopping criteria, and is alone in telling a streamer."""

    def __init__(self, recorder: TokenRecorder) -> None:
        self._watch = recorder
        self._begun = False

    def put(self, tokens: torch.Tensor) -> None:
        """Note a step, (1, codebooks); what is told first is the prompt."""
        if self._begun:
            self._watch.record(tokens[0])
        self._begun = True

    def end(self) -> None:
        """After the last step; nothing is left to do."""


def digests(block: Sequence[torch.Tensor]) -> tuple[str, str]:
    """What `TokenTrace` has of one block of steps, each (codebooks,)."""
    tokens = torch.cat(list(block)).cpu().numpy().astype("<i4").tobytes()
    ends = list(accumulate(4 * len(step) for step in block))
    steps = (tokens[start:end] for start, end in pairwise((0, *ends)))
    hashes = b"".join(tagged_hash("tokens", step)[:1] for step in steps)
    return tagged_hash("tokens", tokens)[:8].hex(), hashes.hex()
