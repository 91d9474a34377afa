"""Input files from peers that have them, get them later, or are slow; in time or abstained."""

import asyncio
import errno
import hashlib
import os
import random
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from executor.errors import Abstained
from node.execution import inputs
from node.execution.inputs import InputFetcher
from node.rpc import codec as rpc_codec
from node.rpc.codec import Status, answer, read_document, refuse
from node.storage.blobs import BlobStore
from node.sync.blob_download import MAX_SLOWDOWN, MIN_BYTES_PER_SECOND, rendezvous_order
from node.transport.interface import Stream
from protocol.wire.messages import Task
from tests.node.transport.recorder import Recorder
from tests.simulation import virtual_loop
from tests.support import fixtures
from tests.support.blobs import store
from tests.support.memory_transport.network import MemoryNetwork, MemoryTransport

NET = fixtures.piano_network(3)
SONG = random.Random(5).randbytes(3_000_000)
NAME = hashlib.sha256(SONG).hexdigest()
ME = fixtures.peer(1000)
MEMBERS = tuple(rendezvous_order([fixtures.peer(index) for index in range(3)], ME, NAME))
STRANGERS = tuple(rendezvous_order([fixtures.peer(index) for index in range(10, 14)], ME, NAME))
SECONDS = 60  # half of the network's attempt


@dataclass
class Bench:
    """A fetcher, and peers that have the song or misbehave."""

    inputs: InputFetcher
    blobs: BlobStore
    asked: list[str] = field(default_factory=list)
    has: set[str] = field(default_factory=set)

    trickles: set[str] = field(default_factory=set)
    lies: set[str] = field(default_factory=set)
    voters: set[str] = field(default_factory=set)
    pace: float = 1e9  # bytes per second of peers that have the song

    async def fetch(
        self, *songs: bytes, source: str = "source", requester: int = 1000
    ) -> tuple[Path, ...]:
        return await self.inputs.fetch(task(*songs, requester=requester), source)

    async def serve(self, peer: str, stream: Stream) -> None:
        await read_document(stream, "blob-request")
        self.asked.append(peer)
        if peer in self.trickles:
            await answer(stream, {"size": len(SONG)})
            for start in range(0, len(SONG), rpc_codec.WRITE_BYTES):
                await asyncio.sleep(29)  # never silent for half a minute
                await stream.write(SONG[start : start + rpc_codec.WRITE_BYTES])
        elif peer in self.lies:
            await answer(stream, {"size": len(SONG)})
            await stream.write(bytes(len(SONG)))
        elif peer in self.has:
            await answer(stream, {"size": len(SONG)})
            for start in range(0, len(SONG), rpc_codec.WRITE_BYTES):
                await asyncio.sleep(rpc_codec.WRITE_BYTES / self.pace)
                await stream.write(SONG[start : start + rpc_codec.WRITE_BYTES])
        else:
            await refuse(stream, Status.UNAVAILABLE, "unknown-blob", "")


def task(*songs: bytes, requester: int = 1000) -> Task:
    body = fixtures.task(NET, kind="pop2piano", requester=requester).envelope.body
    args = fixtures.piano_args(*songs)
    signed_task: Any = fixtures.signed(NET, {**body, "args": args}, requester)
    return signed_task  # type: ignore[no-any-return]


@asynccontextmanager
async def bench(folder: Path, quota: int | None = None) -> AsyncIterator[Bench]:
    medium = MemoryNetwork(random.Random(1))
    transport, blobs = MemoryTransport(medium, ME), BlobStore(folder, quota)
    voters: set[str] = set()
    new_bench = Bench(
        InputFetcher(transport, blobs, NET, lambda task: voters), blobs, voters=voters
    )
    await transport.start(Recorder(), (), ())
    remotes = [MemoryTransport(medium, peer) for peer in (*STRANGERS, *MEMBERS)]
    for remote in remotes:
        await remote.start(
            Recorder(serving(new_bench, remote.peer)),
            (),
            [rpc_codec.protocol_id("blob")],
        )
        await transport.dial(remote.addresses[0])
    try:
        yield new_bench
    finally:
        for started in (transport, *remotes):
            await started.stop()


def serving(bench: Bench, peer: str) -> Callable[[str, Stream], Awaitable[None]]:
    async def serve(protocol: str, stream: Stream) -> None:
        await bench.serve(peer, stream)

    return serve


def on_bench(
    folder: Path, test: Callable[[Bench], Awaitable[None]], quota: int | None = None
) -> float:
    """Run a test; return the virtual seconds that it took."""

    async def main() -> float:
        async with bench(folder, quota) as running_bench:
            began = asyncio.get_running_loop().time()
            await test(running_bench)
            return asyncio.get_running_loop().time() - began

    elapsed: float = virtual_loop.run(main)
    return elapsed


async def abstains(bench: Bench, reason: str = "input-missing") -> None:
    with pytest.raises(Abstained) as caught:
        await bench.fetch(SONG)
    assert caught.value.reason == reason


def test_members_are_asked_before_other_peers(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        bench.has = {STRANGERS[-1]}
        (path,) = await bench.fetch(SONG)
        assert path.read_bytes() == SONG
        assert bench.asked == [*MEMBERS, *STRANGERS]

    on_bench(tmp_path, test)


def test_voters_are_asked_before_the_roster(tmp_path: Path) -> None:
    """They execute the task, so that they have its inputs (specification 6.1)."""

    async def test(bench: Bench) -> None:
        bench.voters |= {MEMBERS[2], STRANGERS[3]}
        bench.has = {STRANGERS[-2]}
        await bench.fetch(SONG)
        assert bench.asked[:2] == [MEMBERS[2], STRANGERS[3]]
        assert bench.asked[2:] == [*MEMBERS[:2], *STRANGERS[:3]]

    on_bench(tmp_path, test)


def test_a_voter_that_failed_is_still_asked_before_the_roster(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        bench.voters |= {*MEMBERS[1:]}
        bench.trickles, bench.has = {MEMBERS[1]}, {MEMBERS[2]}
        for _ in range(2):
            await bench.fetch(SONG)
            bench.blobs.delete(NAME)
        assert bench.asked == [MEMBERS[1], MEMBERS[2], MEMBERS[2]]
        bench.has.clear()
        bench.asked.clear()
        await abstains(bench)
        assert bench.asked[:7] == [MEMBERS[2], MEMBERS[1], MEMBERS[0], *STRANGERS]

    on_bench(tmp_path, test)


def test_one_peer_is_asked_at_a_time_and_once_in_a_round(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        bench.trickles = {MEMBERS[0]}
        bench.has = {STRANGERS[-1]}
        began = asyncio.get_running_loop().time()
        await bench.fetch(SONG)
        assert bench.asked == [*MEMBERS, *STRANGERS]
        assert asyncio.get_running_loop().time() - began > 5, "nobody else while one is slow"

    on_bench(tmp_path, test)


def test_slow_peers_are_abandoned_within_seconds(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        bench.trickles, bench.has = {*MEMBERS[:2], *STRANGERS}, {MEMBERS[2]}
        assert await bench.fetch(SONG)

    assert on_bench(tmp_path, test) < 15


def test_slow_peers_are_asked_last_the_next_time(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        bench.trickles, bench.has = set(MEMBERS[:2]), {MEMBERS[2]}
        await bench.fetch(SONG)
        bench.blobs.delete(NAME)
        bench.asked.clear()
        await bench.fetch(SONG)
        assert bench.asked == [MEMBERS[2]]

    on_bench(tmp_path, test)


def test_the_node_abstains_in_time_if_all_peers_are_slow(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        bench.trickles = {*MEMBERS, *STRANGERS}
        await abstains(bench)

    assert on_bench(tmp_path, test) == pytest.approx(SECONDS, abs=1)


def test_an_input_that_no_peer_has_is_requested_in_several_rounds(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        await abstains(bench)
        assert len(bench.asked) == inputs.MAX_ROUNDS * 7

    assert on_bench(tmp_path, test) < inputs.MAX_ROUNDS * inputs.PAUSE_SECONDS + 1


async def comes(bench: Bench, peer: str, seconds: float) -> None:
    """Let a peer get the song after some time, and fetch it."""

    async def come() -> None:
        await asyncio.sleep(seconds)
        bench.has = {peer}

    coming = asyncio.create_task(come())
    assert await bench.fetch(SONG)
    await coming


def test_an_input_that_arrives_in_the_last_round_is_used(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        await comes(bench, MEMBERS[0], (inputs.MAX_ROUNDS - 1.5) * inputs.PAUSE_SECONDS)

    on_bench(tmp_path, test)


def test_a_slow_peer_does_not_delay_further_rounds(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        bench.trickles = {MEMBERS[2]}
        await comes(bench, MEMBERS[0], 3.0)

    assert on_bench(tmp_path, test) < 10


def test_the_only_peer_with_an_input_gets_more_time(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        bench.has, bench.pace = {MEMBERS[0]}, MIN_BYTES_PER_SECOND / MAX_SLOWDOWN
        assert await bench.fetch(SONG)

    assert on_bench(tmp_path, test) < SECONDS


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_full_or_broken_disk_abstains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """The same input must not be downloaded again and again."""

    def fsync(_: int) -> None:
        raise OSError(number, os.strerror(number))

    async def test(bench: Bench) -> None:
        bench.has = set(MEMBERS)
        await abstains(bench, "no-space")
        assert bench.asked == [MEMBERS[0]]

    monkeypatch.setattr(os, "fsync", fsync)
    on_bench(tmp_path, test)


def test_no_peer_is_asked_for_an_input_over_the_quota(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        bench.has = set(MEMBERS)
        await abstains(bench, "no-space")
        assert bench.asked == []

    on_bench(tmp_path, test, quota=len(SONG) - 1)


def test_a_failing_database_abstains(tmp_path: Path) -> None:
    def wanted() -> frozenset[str]:
        raise sqlite3.OperationalError("disk I/O error")

    async def test(bench: Bench) -> None:
        bench.inputs._blobs = BlobStore(tmp_path, len(SONG), pinned=wanted)
        store(bench.inputs._blobs, b"other")
        await abstains(bench, "no-space")

    on_bench(tmp_path, test)


def test_a_peer_that_sent_wrong_bytes_is_asked_last_the_next_time(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        bench.lies, bench.has = {MEMBERS[0]}, {MEMBERS[2]}
        await bench.fetch(SONG)
        bench.blobs.delete(NAME)
        await bench.fetch(SONG)
        assert bench.asked == [*MEMBERS, *MEMBERS[1:]]

    on_bench(tmp_path, test)


def test_the_time_limit_is_half_of_the_attempt_of_the_tasks_model(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        models = {fixtures.PIANO: replace(NET.models[fixtures.PIANO], attempt_seconds=40.0)}
        bench.inputs._network = replace(NET, models=models)
        bench.trickles = {*MEMBERS, *STRANGERS}
        await abstains(bench)

    assert on_bench(tmp_path, test) == pytest.approx(20, abs=1)


def test_inputs_of_one_source_do_not_wait_for_those_of_another(tmp_path: Path) -> None:
    """Slow peers keep a flooder's download busy, and not the honest one's."""

    async def test(bench: Bench) -> None:
        bench.trickles, bench.has = {*STRANGERS}, {MEMBERS[-1]}
        began = asyncio.get_running_loop().time()
        flood = [
            asyncio.create_task(bench.fetch(b"nobody has it", source="flooder", requester=key))
            for key in range(2000, 2020)
        ]
        await asyncio.sleep(1)
        assert await bench.fetch(SONG, source="honest")
        assert asyncio.get_running_loop().time() - began < 10
        assert not any(fetch.done() for fetch in flood)
        for fetch in flood:
            fetch.cancel()
        await asyncio.wait(flood)

    on_bench(tmp_path, test)


def test_each_task_of_a_requester_has_its_own_time_for_its_inputs(tmp_path: Path) -> None:
    """One after another, so that the last of many does not run out of time."""

    async def test(bench: Bench) -> None:
        bench.trickles = {*MEMBERS, *STRANGERS}
        ends = await asyncio.gather(*(ended(bench) for _ in range(3)))
        assert ends == pytest.approx([SECONDS, 2 * SECONDS, 3 * SECONDS], abs=2)

    async def ended(bench: Bench) -> float:
        began = asyncio.get_running_loop().time()
        await abstains(bench)
        return asyncio.get_running_loop().time() - began

    on_bench(tmp_path, test)
