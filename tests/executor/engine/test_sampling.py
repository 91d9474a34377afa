"""Random numbers and tokens: those that torch and transformers draw."""

import ctypes
from typing import Any

import numpy as np
import pytest
import torch
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from executor.engine.library import address
from executor.engine.sampling import SamplingStruct

VOCABULARY, COUNT = 2048, 100


def choose(library: ctypes.CDLL, rule: SamplingStruct, seed: int, logits: Any) -> Any:
    tokens = np.full(len(logits), -1, np.int32)
    status = library.he_choose(
        ctypes.byref(rule),
        ctypes.c_uint64(seed),
        ctypes.c_void_p(address(logits)),
        ctypes.c_int32(logits.shape[1]),
        ctypes.c_int32(len(logits)),
        ctypes.c_void_p(address(tokens)),
    )
    assert status == 0
    return tokens


def logits_of(seed: int, count: int = COUNT) -> Any:
    return (np.random.default_rng(seed).standard_normal((count, VOCABULARY)) * 3).astype("f4")


@pytest.mark.parametrize("seed", [0, 42, 2**32 + 5, 2**64 - 1])
def test_exponential_numbers_are_torchs(each_library: ctypes.CDLL, seed: int) -> None:
    count = 20_000
    numbers = np.empty(count, np.float32)
    each_library.he_exponentials(
        ctypes.c_uint64(seed), ctypes.c_void_p(address(numbers)), ctypes.c_int64(count)
    )
    # torch takes a seed beyond 2^63 as a negative number.
    generator = torch.Generator().manual_seed(seed if seed < 2**63 else seed - 2**64)
    expected = torch.empty(count).exponential_(1, generator=generator).numpy()
    assert (numbers == expected).all()


@pytest.mark.parametrize(
    ("top_k", "temperature", "top_p"),
    [(250, 1.0, 1.0), (0, 0.7, 1.0), (50, 1.3, 0.9), (0, 1.0, 0.3), (1, 1.0, 1.0), (0, 2.0, 0.99)],
)
def test_tokens_are_those_of_transformers(
    each_library: ctypes.CDLL, top_k: int, temperature: float, top_p: float
) -> None:
    logits = logits_of(1)
    scores = TemperatureLogitsWarper(temperature)(None, torch.from_numpy(logits))
    if top_k:
        scores = TopKLogitsWarper(top_k)(None, scores)
    if top_p < 1:
        scores = TopPLogitsWarper(top_p)(None, scores)
    generator = torch.Generator().manual_seed(9)
    expected = torch.multinomial(scores.softmax(-1), 1, generator=generator).ravel().numpy()
    tokens = choose(each_library, SamplingStruct(1, top_k, temperature, top_p), 9, logits)
    assert (tokens == expected).all()


def test_greedy_choice_takes_the_first_of_the_largest(each_library: ctypes.CDLL) -> None:
    logits = np.array([[1, 3, 3, 2], [-5, -5, -5, -5]], np.float32)
    assert list(choose(each_library, SamplingStruct(0, 0, 1, 1), 1, logits)) == [1, 0]


@pytest.mark.parametrize("temperature", [1e-30, 1e30])
def test_extreme_temperatures_choose_a_token(each_library: ctypes.CDLL, temperature: float) -> None:
    logits = logits_of(2)
    tokens = choose(each_library, SamplingStruct(1, 0, temperature, 1), 1, logits)
    assert ((tokens >= 0) & (tokens < VOCABULARY)).all()
    if temperature < 1:
        assert (tokens == logits.argmax(-1)).all()


def test_equal_logits_are_drawn_evenly(each_library: ctypes.CDLL) -> None:
    tokens = choose(each_library, SamplingStruct(1, 0, 1, 1), 5, np.zeros((4000, 4), np.float32))
    assert np.bincount(tokens, minlength=4).min() > 900
