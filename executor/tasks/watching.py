"""What a model's generate calls after each step: how progress and the token digests are had.

A step of a small model takes less than a millisecond, so little is done in each: tokens stay views
until their block is full, and the answer to the stopping criterion is one tensor for all steps.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import StoppingCriteria

from executor.fingerprint import tagged

BLOCK = 64  # steps per token digest (section 4, `trace`)

Step = Callable[[int], None]


class Watch(StoppingCriteria):  # type: ignore[misc]
    """A stopping criterion that never stops: tells how many steps were made, keeps the tokens."""

    def __init__(self, step: Step) -> None:
        self._step = step
        self._steps = 0
        self._block: list[torch.Tensor] = []  # the tokens of each step, (codebooks,)
        self._digests: list[str] = []
        self._never = torch.zeros(0, dtype=torch.bool)

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        """Note the step that was just sampled; `input_ids` is (codebooks, steps so far)."""
        self.note(input_ids[:, -1])
        if len(self._never) != len(input_ids):
            self._never = input_ids.new_zeros(len(input_ids), dtype=torch.bool)
        return self._never

    def note(self, tokens: torch.Tensor) -> None:
        """One more step has been made, with these tokens, (codebooks,)."""
        self._steps += 1
        self._block.append(tokens)
        if len(self._block) == BLOCK:
            self._digests.append(digest(self._block))
            self._block = []
        self._step(self._steps)

    def digests(self) -> tuple[str, ...]:
        """The digest of each block of 64 steps; the last block may be shorter."""
        rest = [digest(self._block)] if self._block else []
        return (*self._digests, *rest)


class Streamer:
    """The same for CSM: it drops others' stopping criteria, and is alone in telling a streamer."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._begun = False

    def put(self, tokens: torch.Tensor) -> None:
        """Note a step, (1, codebooks); what is told first is the prompt."""
        if self._begun:
            self._watch.note(tokens[0])
        self._begun = True

    def end(self) -> None:
        """After the last step; nothing is left to do."""


def digest(steps: Sequence[torch.Tensor]) -> str:
    """The first 16 hex of H("tokens", the tokens step by step, each as 4 bytes, little-endian)."""
    return tagged("tokens", torch.cat(list(steps)).cpu().numpy().astype("<i4").tobytes())[:16]
