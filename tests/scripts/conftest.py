"""The codec as it is written, built once."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from transformers import EncodecModel

from scripts.models.music.codec import codec_config, decode_audio, write_codec
from scripts.models.music.instruments import Samples
from scripts.models.music.tokens import Codes

Play = Callable[[Codes], Samples]


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Small products on a busy machine: threads would wait for each other more than compute."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def codec() -> Any:
    torch.manual_seed(0)
    model = EncodecModel(codec_config()).eval()
    write_codec(model)
    return model


@pytest.fixture
def play(codec: Any) -> Play:
    return lambda codes: decode_audio(codec, codes)
