"""The hook that a model's generate calls after each step: progress, and digests of the tokens.

A step of a small model takes less than a millisecond, so each call does little. Tokens stay views
until their block is full, and the answer of the stopping criterion is one tensor for all steps.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import torch
from transformers import StoppingCriteria

from protocol.wire.encoding import tagged_hash

BLOCK_STEPS = 64  # steps per token digest (section 4, `trace`)

OnStep = Callable[[int], None]  # called with the number of steps so far


@dataclass(frozen=True, slots=True)
class TokenTrace:
    """The digests of a sequence's tokens, one per block of 64 steps.

    `digests` has the first 16 hex of H("tokens", all tokens of the block). `steps` has the first 2
    hex of the same hash of each step alone, joined: enough to find the step where two generations
    differ. Tokens are hashed step by step, each as 4 bytes, little-endian.
    """

    digests: tuple[str, ...]
    steps: tuple[str, ...]


class TokenRecorder(StoppingCriteria):  # type: ignore[misc]
    """A stopping criterion that never stops; it records the tokens and reports each step."""

    def __init__(self, on_step: OnStep) -> None:
        self._on_step = on_step
        self._steps = 0
        self._block: list[torch.Tensor] = []  # the tokens of each step, (codebooks,)
        self._full_blocks: list[tuple[str, str]] = []
        self._continue = torch.zeros(0, dtype=torch.bool)

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        """Record the step that was just sampled; `input_ids` is (codebooks, steps so far)."""
        self.record(input_ids[:, -1])
        if len(self._continue) != len(input_ids):
            self._continue = input_ids.new_zeros(len(input_ids), dtype=torch.bool)
        return self._continue

    def record(self, tokens: torch.Tensor) -> None:
        """Record one more step with these tokens, (codebooks,)."""
        self._steps += 1
        self._block.append(tokens)
        if len(self._block) == BLOCK_STEPS:
            self._full_blocks.append(block_digests(self._block))
            self._block = []
        self._on_step(self._steps)

    def trace(self) -> TokenTrace:
        """Return the trace of the steps so far; its last block may be shorter."""
        blocks = list(self._full_blocks)
        if self._block:
            blocks.append(block_digests(self._block))
        return TokenTrace(tuple(whole for whole, _ in blocks), tuple(steps for _, steps in blocks))


class TokenStreamer:
    """Passes the tokens of CSM to a recorder; CSM calls no stopping criteria but its own."""

    def __init__(self, recorder: TokenRecorder) -> None:
        self._recorder = recorder
        self._has_prompt = False

    def put(self, tokens: torch.Tensor) -> None:
        """Record a step, (1, codebooks). The first call has the prompt, which is no step."""
        if self._has_prompt:
            self._recorder.record(tokens[0])
        self._has_prompt = True

    def end(self) -> None:
        """Do nothing; generate calls it after the last step."""


def block_digests(block: Sequence[torch.Tensor]) -> tuple[str, str]:
    """Return the members of `TokenTrace` for one block of steps, each (codebooks,)."""
    tokens = torch.cat(list(block)).cpu().numpy().astype("<i4").tobytes()
    ends = accumulate(4 * len(step) for step in block)
    steps = (tokens[start:end] for start, end in pairwise((0, *ends)))
    hashes = b"".join(tagged_hash("tokens", step)[:1] for step in steps)
    return tagged_hash("tokens", tokens)[:8].hex(), hashes.hex()
