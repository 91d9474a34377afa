"""`scripts/bench engine` on the shipped model, without the stock pipeline."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from executor.models.folders import EMBEDDED, SHIPPED
from scripts.bench_tool import engine
from scripts.bench_tool.engine import Plan
from scripts.bench_tool.engine_worker import KINDS, Engine, Reader

ROOT = Path(__file__).resolve().parents[2]
TOKENS = 8
STOCK = {"song": {"wall": 8.0, "cpu": 16.0}, "decoder": 4.0}


@pytest.fixture(scope="module")
def measured() -> Engine:
    return Engine(str(SHIPPED / EMBEDDED), "int8")


def test_threads_give_equal_songs_and_replays(measured: Engine) -> None:
    songs = [measured.song(threads, TOKENS) for threads in (1, 2)]
    assert songs[0]["sha256"] == songs[1]["sha256"]
    assert all(song["replay_equal"] for song in songs)


def test_sequences_together_give_the_bytes_of_single_runs(measured: Engine) -> None:
    batch = measured.batch(2, TOKENS, [2, 3])
    assert [batch[size]["equal"] for size in ("2", "3")] == [True, True]
    assert [batch[size]["tasks_equal"] for size in ("2", "3")] == [True, True]


def test_memory_counts_the_cache_but_not_the_weights() -> None:
    """In a process of its own, as the benchmark does: here others give memory back meanwhile."""
    code = (
        "import json; from scripts.bench_tool.engine_worker import Engine;"
        f"print(json.dumps(Engine({str(SHIPPED / EMBEDDED)!r}, 'int8').memory(1, {TOKENS})))"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    memory = json.loads(done.stdout)
    assert 0 < memory["cache"] < memory["beyond"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_reads_the_bytes_that_its_weights_take(kind: str) -> None:
    """At float32 the weights of the shipped file are read where they lie, 16 bits each."""
    size = Engine(str(SHIPPED / EMBEDDED), kind).step_bytes()
    numbers = 4 * (6 * 256 * 256 + 2 * 256 * 512) + 4 * 256 * 512
    assert size / numbers == pytest.approx({"int8": 1, "int4": 0.625}.get(kind, 2), rel=0.05)


def test_the_bound_reads_with_several_threads() -> None:
    assert Reader("1000000").read(2, 1_000_000)["wall"] > 0


def report(song: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    plan = Plan(SHIPPED, ["int8"], [1], TOKENS, 1, [])
    samples = {("stock", 1): [STOCK], ("int8", 1): [song], ("bound int8", 1): [{"wall": 0.1}]}
    memory = {"int8": {"beyond": 3, "cache": 1, "weights": 100}}
    document = engine.summary(plan, samples, {"int8": 100}, memory) | {"shape": "tiny"}
    print("\n".join(engine.lines(document)))
    assert engine.plot(document).startswith("<svg")
    assert json.loads(json.dumps(document)) == document
    return document


def test_ratios_are_those_to_the_stock_pipeline(
    measured: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    song = measured.song(1, TOKENS)
    song |= {"song": {"wall": 2.0, "cpu": 2.0}, "decoder": {"wall": 1.0}, "replay": {"wall": 0.5}}
    document = report(song, capsys)
    entry = document["engine"][0]
    assert (entry["song_ratio"], entry["song_cpu_ratio"]) == (0.25, 0.125)
    assert (entry["step_ratio"], entry["replay_ratio"]) == (0.25, 0.125)
    assert document["equal"]
    assert "bytes: equal" in capsys.readouterr().out


def test_another_song_in_replay_is_reported(
    measured: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not report(measured.song(1, TOKENS) | {"replay_equal": False}, capsys)["equal"]
    assert "bytes: NOT equal" in capsys.readouterr().out
