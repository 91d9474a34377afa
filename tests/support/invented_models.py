"""MusicGen models of any sizes, with random weights: the tensors that the engine asks for."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers

from executor.engine import encodec
from executor.engine.encodec import EncodecDecoder
from executor.engine.matrices import Kind, Matrices
from executor.engine.musicgen import MusicgenDecoder
from executor.engine.t5 import T5Encoder
from executor.errors import ModelRefused

# Numbers of a tensor: a larger one would take more time than it shows.
MOST_NUMBERS = 2**18
WORDS = "a slow sad piano in minor"


class TooLarge(Exception):
    """A tensor of more numbers than `MOST_NUMBERS`."""


class Invented(Matrices):
    """Matrices whose tensors come to be when they are asked for."""

    def __init__(self, tensors: Any, kind: Kind = Kind.FLOAT32) -> None:
        super().__init__(tensors, kind)
        self._generator = np.random.default_rng(len(tensors))

    def _tensor(self, name: str, shape: Sequence[int]) -> Any:
        if np.prod(shape, dtype=object) > MOST_NUMBERS:
            raise TooLarge(name)
        if name not in self._tensors:
            numbers = self._generator.standard_normal(tuple(shape)) * 0.3
            self._tensors[name] = numbers.astype(np.float32)  # type: ignore[index]
        return super()._tensor(name, shape)


def invent(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tensors of a MusicGen model. Raises `ModelRefused` or `TooLarge`."""
    tensors: dict[str, Any] = {}
    matrices = Invented(tensors)
    encoder = T5Encoder(config["text_encoder"], matrices, "text_encoder.")
    decoder = MusicgenDecoder(config["decoder"], matrices, encoder.width)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encodec, "Matrices", Invented)
        EncodecDecoder(config["audio_encoder"], tensors, decoder.delays)
    return tensors


def write(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Any]) -> None:
    """Write a model folder, with a tokenizer of a few words."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(dict(tensors), folder / "model.safetensors")
    vocabulary = {word: place for place, word in enumerate(WORDS.split())}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, "a"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))


__all__ = ["WORDS", "Invented", "ModelRefused", "TooLarge", "invent", "write"]
