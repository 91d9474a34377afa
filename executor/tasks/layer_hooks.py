"""Calls between the layers of a model: where a generation without tokens can be stopped.

The hook of `token_trace` is called at each token. Some families sample none, and all decode their
tokens to sound in one pass, which takes seconds for a long one. Hooks on the layers cost a few
microseconds each, so the layers that compute tokens have none.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from executor.models.families import Family

# The parts of a model that run outside its loop over tokens, by the names that transformers gives
# them: codecs, vocoders, and Bark's last model.
PARTS_WITHOUT_TOKENS = ("audio_encoder", "codec_model", "vocoder", "fine_acoustics")


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
