"""`scripts/bench tokens` on the shipped model."""

import functools
from typing import Any

import pytest

from executor.models.folders import EMBEDDED, SHIPPED
from scripts.bench_tool.tokens import Pair, summary

STEPS = 12


@functools.cache
def pair() -> Pair:
    return Pair(SHIPPED / EMBEDDED)


def test_the_shipped_model_draws_the_tokens_of_transformers() -> None:
    song = pair().song("rain", 7, STEPS)
    assert (song["tokens"], song["differ"]) == (STEPS * 4, 0)
    assert 0 < song["logits"] < 1e-5 * song["largest"]


def test_other_tokens_and_logits_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn, logits = pair()._drawn, pair()._logits
    monkeypatch.setattr(pair(), "_drawn", lambda prompt, seed, steps: drawn(prompt, 8, steps))

    def of_another_prompt(prompt: str, *rest: Any) -> Any:
        return logits("thunder", *rest)

    monkeypatch.setattr(pair(), "_logits", of_another_prompt)
    song = pair().song("rain", 7, STEPS)
    assert song["differ"] > 0
    assert song["logits"] > 1e-3 * song["largest"]
    total = summary("a", [song, {"tokens": 52, "differ": 0, "logits": 0.0, "largest": 1.0}])
    assert (total["songs"], total["songs_that_differ"], total["tokens"]) == (2, 1, 100)
    assert total["differ_per_1000"] == 10 * song["differ"]
    assert total["logits"] == song["logits"]
