"""`scripts/bench idle`, `burst` and `envelopes`, each as it is run, on the smallest networks."""

import asyncio
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import FrameType

import pytest
import trio

from node.storage.database import open_database
from node.storage.journal import Journal
from node.storage.ledger import Ledger
from protocol.network import NetworkParameters
from protocol.wire.signing import check_signature, peer_of, signature_of
from scripts.bench_tool import burst, envelopes, idle
from scripts.bench_tool.light.network import Reading, running
from scripts.bench_tool.light.samples import (
    OWN,
    REST,
    SIGNATURES,
    TRANSPORT,
    Sampler,
    frames_of,
    is_waiting,
    part_of,
)
from tests.scripts.benchmark import rows_of
from tests.support import fixtures


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
    """A signature that keeps the stack of whoever decodes it."""

    stack: FrameType

    def __add__(self, padding: str) -> str:
        self.stack = sys._getframe()
        return str(self) + padding


class SampledClock:
    """A clock that notes the part of all who ask for the time."""

    def __init__(self) -> None:
        self.parts: list[str] = []

    def now(self) -> float:
        self.parts.append(part_of(frames_of(sys._getframe())))
        return fixtures.START


def test_a_sample_counts_for_the_part_that_called() -> None:
    key = fixtures.key(0)
    signature = Sampled(signature_of(key, b"message"))
    check_signature(peer_of(key), b"message", signature)
    assert part_of(frames_of(signature.stack)) == SIGNATURES

    async def in_trio() -> str:
        return part_of(frames_of(sys._getframe()))

    assert trio.run(in_trio) == TRANSPORT
    assert part_of(frames_of(sys._getframe())) == REST

    network, clock = fixtures.network(3), SampledClock()
    database = open_database(":memory:", network.id)
    node = envelopes.CoordinatorNode(network, Journal(database), Ledger(database), 2, clock)
    clock.parts.clear()
    node.take(envelopes.case(network, 0).envelopes["task"], is_task=True)
    database.close()
    assert set(clock.parts) == {OWN}


def test_threads_that_wait_are_seen() -> None:
    """A loop without work, a pool's idle thread, and a wait for another thread."""
    stop = threading.Event()
    waiting = threading.Thread(target=stop.wait)
    loop = asyncio.new_event_loop()
    idle_loop = threading.Thread(target=loop.run_forever)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(int).result()
        waiting.start()
        idle_loop.start()
        for thread in (waiting, idle_loop, *pool._threads):
            # It gets there within moments, and stays.
            while not is_waiting(frames_of(sys._current_frames()[thread.ident or 0])):
                pass
        stop.set()
        loop.call_soon_threadsafe(loop.stop)
    waiting.join()
    idle_loop.join()
    loop.close()


def test_a_sampler_counts_the_processor_time_of_other_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A thread that works gets what its own clock says, the thread that asks gets nothing."""
    stop, ready, used = threading.Event(), threading.Event(), list[float]()

    def work() -> None:
        while time.thread_time() < 0.1:
            pass
        ready.set()
        while not stop.is_set():
            pass
        used.append(time.thread_time())

    sampler = Sampler()
    sampler.sample()
    worker = threading.Thread(target=work)
    # The process may hold threads that earlier tests left.
    both = [threading.current_thread(), worker]
    monkeypatch.setattr(threading, "enumerate", lambda: both)
    worker.start()
    ready.wait()
    seconds = sampler.sample()
    stop.set()
    worker.join()
    assert 0.1 <= seconds[REST] <= used[0]
    assert seconds.keys() == {REST}
