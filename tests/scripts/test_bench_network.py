"""`scripts/bench idle`, `burst` and `envelopes`, each as it is run, on the smallest networks."""

import faulthandler
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, TextIO

import pytest
import trio

from node.storage.database import open_database
from node.storage.journal import Journal
from node.storage.ledger import Ledger
from protocol.network import Network, NetworkParameters
from protocol.wire.signing import check_signature, peer_of, signature_of
from scripts.bench_tool import burst, envelopes, idle
from scripts.bench_tool.light.network import Reading, running
from scripts.bench_tool.light.samples import OWN, PARTS, REST, SIGNATURES, TRANSPORT, count_parts
from tests.support import fixtures

ROOT = Path(__file__).resolve().parents[2]


def rows_of(*command: str) -> list[dict[str, Any]]:
    """What a benchmark prints with --json."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", f"scripts.bench_tool.{command[0]}", *command[1:], "--json"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


def test_idle_nodes_use_time() -> None:
    (row,) = rows_of("idle", "--nodes", "2", "--warm-up", "0", "--seconds", "3")
    assert row["nodes"] == 2
    assert row["processor_ms"]["min"] > 0
    assert row["received_bytes"]["min"] >= 0  # their requests wait, so there may be none
    assert row["profile"] == {}
    assert idle.line(row).startswith("2 nodes: ")


def test_bytes_are_counted_from_the_start() -> None:
    """Those of handshakes, hello and the first pages of the feeds."""
    with running(2, NetworkParameters(), 0.05, sample=False) as (_, daemons):
        readings = [Reading.of(daemons, node) for node in daemons.nodes]
    assert all(reading.received > 1_000 and reading.sent > 1_000 for reading in readings)


def test_a_burst_ends_with_certificates_and_a_profile() -> None:
    options = ["--nodes", "2", "--tasks", "2", "1", "--rounds", "1", "--idle", "0.5", "--profile"]
    two, one = rows_of("burst", *options)
    assert (two["tasks"], two["certified"], two["others"], two["missing"]) == (2, 2, {}, 0)
    assert two["beyond_ms"] is None
    assert two["node_ms_per_task"]["min"] > 0
    assert two["client_ms_per_task"]["min"] > 0
    assert sum(two["profile"].values()) == pytest.approx(1)
    assert two["profile"][TRANSPORT] > 0
    assert (one["tasks"], one["certified"], one["committee"]) == (1, 1, 2)
    assert one["beyond_ms"]["min"] > 0
    assert "2 of 2 certified: " in burst.line(two)
    assert "beyond execution and waits" in burst.line(one)


def test_envelopes_are_taken_beside_open_tasks() -> None:
    rows = rows_of("envelopes", "--nodes", "3", "--open", "0", "2", "--rounds", "2")
    assert [row["open"] for row in rows] == [0, 2]
    for row in rows:
        assert tuple(row["envelopes"]) == envelopes.KINDS
        for figures in row["envelopes"].values():
            # Whatever reads or takes an envelope verifies its signature too.
            assert all(figures[part]["us"] > 0 for part in ("read", *envelopes.STORAGE))
        assert envelopes.line(row).count("\n") == 1 + len(envelopes.KINDS)


def test_an_envelope_that_is_not_taken_gives_no_figure() -> None:
    network = fixtures.network(3)
    database = open_database(":memory:", network.id)
    node = envelopes.CoordinatorNode(network, Journal(database), Ledger(database), 2)
    payload = envelopes.case(network, 0).envelopes["task"]
    node.take(payload, is_task=True)
    with pytest.raises(envelopes.NotTaken, match="IGNORE"):
        node.take(payload, is_task=True)
    database.close()


class Sampled(str):
    """A signature of which a sample is taken as soon as somebody decodes it."""

    file: TextIO

    def __add__(self, padding: str) -> str:
        faulthandler.dump_traceback(self.file, all_threads=False)
        return str(self) + padding


class SampledClock:
    """A clock that takes a sample of whoever asks for the time."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def now(self) -> float:
        faulthandler.dump_traceback(self._file, all_threads=False)
        return fixtures.START


def sample_validation(network: Network, file: TextIO) -> None:
    """Take samples of a node that takes a task."""
    database = open_database(":memory:", network.id)
    node = envelopes.CoordinatorNode(
        network, Journal(database), Ledger(database), 2, SampledClock(file)
    )
    file.seek(0)
    file.truncate()
    node.take(envelopes.case(network, 0).envelopes["task"], is_task=True)
    database.close()


def test_a_sample_counts_for_the_part_that_called(tmp_path: Path) -> None:
    key = fixtures.key(0)

    def samples(take: Any) -> dict[str, int]:
        with (tmp_path / "samples").open("w+") as file:
            take(file)
            file.seek(0)
            return dict(count_parts(file.read()))

    def signature(file: TextIO) -> None:
        sampled = Sampled(signature_of(key, b"message"))
        sampled.file = file
        check_signature(peer_of(key), b"message", sampled)

    async def in_trio(file: TextIO) -> None:
        faulthandler.dump_traceback(file, all_threads=False)

    assert samples(signature) == {SIGNATURES: 1}
    assert samples(lambda file: trio.run(in_trio, file)) == {TRANSPORT: 1}
    assert samples(lambda file: faulthandler.dump_traceback(file, all_threads=False)) == {REST: 1}
    own = samples(lambda file: sample_validation(fixtures.network(3), file))
    assert own.keys() == {OWN}
    assert own[OWN] > 1
    assert {SIGNATURES, TRANSPORT, REST, OWN} == set(PARTS)
