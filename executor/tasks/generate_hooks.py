"""What a model's generate calls between its steps and layers: progress, stops, token digests.

The recorder is called at each token. A step of a small model takes less than a millisecond, so each
call does little: tokens stay views until their block is full, and the answer of the stopping
criterion is one tensor for all steps.

Some families sample no tokens, and all decode their tokens to sound in one pass, which takes
seconds for a long one. Hooks on the layers cost a few microseconds each, so the layers that compute
tokens have none.
"""

import contextlib
from collections.abc import Callable, Iterator
from itertools import accumulate, pairwise
from typing import Any

import torch
from transformers import StoppingCriteria

from executor.models.families import Family
from executor.tasks.token_trace import BLOCK_STEPS, TokenTrace, trace_of

OnStep = Callable[[int], None]  # called with the number of steps so far
# The parts of a model that run outside its loop over tokens, by the names that transformers gives
# them: codecs, vocoders, and Bark's last model.
PARTS_WITHOUT_TOKENS = ("audio_encoder", "codec_model", "vocoder", "fine_acoustics")


class TokenRecorder(StoppingCriteria):  # type: ignore[misc]
    """A stopping criterion that never stops; it records the tokens and reports each step."""

    def __init__(self, on_step: OnStep) -> None:
        self._on_step = on_step
        self._count = 0
        self._block: list[torch.Tensor] = []  # the tokens of the last steps, each (codebooks,)
        self._steps: list[bytes] = []  # the tokens of the steps before
        self._continue = torch.zeros(0, dtype=torch.bool)

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        """Record the step that was just sampled; `input_ids` is (codebooks, steps so far)."""
        self.record(input_ids[:, -1])
        if len(self._continue) != len(input_ids):
            self._continue = input_ids.new_zeros(len(input_ids), dtype=torch.bool)
        return self._continue

    def record(self, tokens: torch.Tensor) -> None:
        """Record one more step with these tokens, (codebooks,)."""
        self._count += 1
        self._block.append(tokens)
        if len(self._block) == BLOCK_STEPS:
            self._flush()
        self._on_step(self._count)

    def trace(self) -> TokenTrace:
        """Return the trace of the steps so far."""
        if self._block:
            self._flush()
        return trace_of(self._steps)

    def _flush(self) -> None:
        tokens = torch.cat(self._block).cpu().numpy().astype("<i4").tobytes()
        ends = accumulate(4 * len(step) for step in self._block)
        self._steps += [tokens[start:end] for start, end in pairwise((0, *ends))]
        self._block = []


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


@contextlib.contextmanager
def called_between_layers(
    family: Family, pipeline: Any, call: Callable[[], None]
) -> Iterator[None]:
    """Call `call` before each layer that computes without tokens; what it raises ends the pass."""

    def hook(*_: object) -> None:
        call()

    handles = [
        layer.register_forward_pre_hook(hook)
        for part in _parts_without_tokens(family, pipeline)
        for layer in part.modules()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _parts_without_tokens(family: Family, pipeline: Any) -> Iterator[Any]:
    if not family.traces_tokens:
        yield pipeline.model
        if pipeline.vocoder is not None:
            yield pipeline.vocoder
        return
    for name in PARTS_WITHOUT_TOKENS:
        part = getattr(pipeline.model, name, None)
        if part is not None:
            yield part
