"""Every test of the engine may run on each library that this machine can run."""

import ctypes

import pytest

from executor.engine import library

SETS = library.supported_sets()


@pytest.fixture
def libraries() -> dict[str, ctypes.CDLL]:
    """The libraries by instruction set."""
    return {name: library.open_library(name) for name in SETS}


@pytest.fixture(params=SETS)
def each_library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ctypes.CDLL:
    """Let the engine use one instruction set after another."""
    chosen = library.open_library(request.param)
    monkeypatch.setattr(library, "load", lambda: chosen)
    return chosen
