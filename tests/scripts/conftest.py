"""The codec as it is written, built once."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from transformers import EncodecModel

from scripts.embedded_model import codec, notation
from scripts.embedded_model.analysis import Samples
from scripts.embedded_model.measuring import decoded

Play = Callable[[notation.Codes], Samples]


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Small products on a busy machine: threads would wait for each other more than compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def written() -> Any:
    torch.manual_seed(0)
    model = EncodecModel(codec.configuration()).eval()
    codec.write(model)
    return model


@pytest.fixture
def play(written: Any) -> Play:
    return lambda codes: decoded(written, codes)
