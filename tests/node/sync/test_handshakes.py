"""Hellos to members whose clocks differ, and to peers that have met another instance."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from structlog.testing import capture_logs

from node.rpc import hello
from node.rpc.codec import answer, protocol_id, read_document
from node.sync.handshakes import HELLO_SECONDS, Handshakes
from node.transport.interface import Stream
from tests.node.transport.recorder import Recorder
from tests.simulation import virtual_loop
from tests.simulation.network import run_network
from tests.support import fixtures
from tests.support.memory_transport.network import MemoryNetwork, MemoryTransport

NET = fixtures.network()
TOLERANCE = NET.parameters.clock_skew_seconds / 2
ME, INSTANCE = fixtures.peer(0), "0f" * 16
MEMBERS = [fixtures.peer(index) for index in (1, 2, 3)]
STRANGERS = [fixtures.peer(index) for index in (1001, 1002, 1003)]


@dataclass
class Bench:
    """A node that says hello to members and strangers, who answer as `ahead` and so on say."""

    handshakes: Handshakes
    clock: virtual_loop.VirtualClock
    ahead: dict[str, float] = field(default_factory=dict)  # seconds, by peer
    duplicate: bool = False
    network: str = NET.id
    delay: float = 0.0  # of an answer, in seconds, before the peer reads its clock
    requests: list[Mapping[str, Any]] = field(default_factory=list)

    async def serve(self, peer: str, stream: Stream) -> None:
        self.requests.append(await read_document(stream, "hello-request"))
        await asyncio.sleep(self.delay)
        time = round(1000 * (self.clock.now() + self.ahead.get(peer, 0.0)))
        document = fixtures.hello_answer(self.network, time=time, duplicate=self.duplicate)
        await answer(stream, document)

    async def greet(self, *peers: str) -> list[dict[str, Any]]:
        """Say hello to peers and return what was logged."""
        with capture_logs() as entries:
            for peer in peers:
                assert await self.handshakes.greet(peer)
        return [dict(entry) for entry in entries if entry["log_level"] in ("warning", "error")]


@asynccontextmanager
async def greeting() -> AsyncIterator[Bench]:
    medium = MemoryNetwork(random.Random(1))
    mine = MemoryTransport(medium, ME)
    clock = virtual_loop.VirtualClock(asyncio.get_running_loop(), fixtures.START)
    bench = Bench(
        Handshakes(mine, NET, clock, lambda: hello.request(NET.id, INSTANCE, clock.now())), clock
    )
    await mine.start(Recorder(), (), ())
    others = [MemoryTransport(medium, peer) for peer in (*MEMBERS, *STRANGERS)]
    for other in others:
        await other.start(Recorder(serving(bench, other.peer)), (), [protocol_id("hello")])
        await mine.dial(other.addresses[0])
    try:
        yield bench
    finally:
        for transport in (mine, *others):
            await transport.stop()


def serving(bench: Bench, peer: str) -> Callable[[str, Stream], Awaitable[None]]:
    async def serve(protocol: str, stream: Stream) -> None:
        await bench.serve(peer, stream)

    return serve


def on_bench(test: Callable[[Bench], Awaitable[None]]) -> None:
    async def main() -> None:
        async with greeting() as bench:
            await test(bench)

    virtual_loop.run(main)


def test_a_hello_has_the_time_and_the_instance() -> None:
    async def test(bench: Bench) -> None:
        earliest = bench.clock.now()
        await bench.greet(MEMBERS[0])
        (request,) = bench.requests
        assert request["instance"] == INSTANCE
        assert 1000 * earliest - 1 <= request["time"] <= 1000 * bench.clock.now() + 1

    on_bench(test)


def test_clocks_that_agree_are_not_logged() -> None:
    async def test(bench: Bench) -> None:
        bench.ahead = dict.fromkeys(MEMBERS, TOLERANCE - 1)
        assert await bench.greet(*MEMBERS) == []

    on_bench(test)


def test_a_clock_that_differs_from_three_members_is_logged_once() -> None:
    async def test(bench: Bench) -> None:
        bench.ahead = dict.fromkeys(MEMBERS, -TOLERANCE - 1)
        assert await bench.greet(*MEMBERS[:2]) == [], "two members judge no clock"
        (entry,) = await bench.greet(MEMBERS[2])
        assert entry["log_level"] == "warning"
        assert "clock differs" in entry["event"]
        assert round(entry["members_ahead_by"]) == -TOLERANCE - 1
        assert await bench.greet(*MEMBERS) == []
        bench.ahead.clear()
        assert await bench.greet(*MEMBERS) == []
        bench.ahead = dict.fromkeys(MEMBERS, TOLERANCE + 1)
        assert len(await bench.greet(*MEMBERS)) == 1, "it differs anew"

    on_bench(test)


@pytest.mark.parametrize(("ahead", "side"), [(61.0, "61 s behind"), (-61.0, "61 s ahead of")])
def test_a_clock_beyond_the_networks_limit_is_a_fault(ahead: float, side: str) -> None:
    async def test(bench: Bench) -> None:
        assert NET.parameters.clock_skew_seconds == 60
        bench.ahead = dict.fromkeys(MEMBERS, ahead / 61 * 59)
        await bench.greet(*MEMBERS)
        assert bench.handshakes.clock_fault() is None
        bench.ahead = dict.fromkeys(MEMBERS, ahead)
        await bench.greet(*MEMBERS)
        assert side in str(bench.handshakes.clock_fault())
        bench.handshakes.forget(MEMBERS[0])
        assert bench.handshakes.clock_fault() is None, "two operators judge no clock"

    on_bench(test)


def test_a_daemon_whose_clock_is_wrong_is_not_ready() -> None:
    async def main() -> None:
        async with run_network(1, NET) as world:
            wrong = world.nodes[0]
            wrong.clock._start -= 100.0
            await asyncio.sleep(HELLO_SECONDS + 10)
            async with world.client() as client:
                answers = {answer.peer: answer for answer in await client.query_nodes()}
        ready = {peer: answer.ready for peer, answer in answers.items()}
        assert ready == {node.peer: node is not wrong for node in world.nodes}
        assert "clock is 100 s behind" in answers[wrong.peer].reasons[0]

    virtual_loop.run(main)


def test_one_lying_member_is_outvoted() -> None:
    async def test(bench: Bench) -> None:
        bench.ahead = {MEMBERS[0]: 1e9}
        assert await bench.greet(*MEMBERS) == []

    on_bench(test)


def test_clocks_of_strangers_do_not_count() -> None:
    async def test(bench: Bench) -> None:
        bench.ahead = dict.fromkeys([*STRANGERS, MEMBERS[0]], 1000.0)
        assert await bench.greet(*STRANGERS, MEMBERS[0]) == []

    on_bench(test)


def test_a_disconnected_member_does_not_count() -> None:
    async def test(bench: Bench) -> None:
        bench.ahead = dict.fromkeys(MEMBERS, 1000.0)
        await bench.greet(*MEMBERS[:2])
        bench.handshakes.forget(MEMBERS[0])
        assert await bench.greet(MEMBERS[2]) == []

    on_bench(test)


def test_a_slow_answer_says_nothing_about_the_clock() -> None:
    async def test(bench: Bench) -> None:
        bench.ahead, bench.delay = dict.fromkeys(MEMBERS, 1000.0), 29.0
        bench.handshakes._tolerance = 20.0
        assert await bench.greet(*MEMBERS) == []

    on_bench(test)


def test_a_duplicate_is_logged_once_for_each_member_that_tells_it() -> None:
    async def test(bench: Bench) -> None:
        bench.duplicate = True
        entries = await bench.greet(*MEMBERS, *MEMBERS)
        assert {entry["log_level"] for entry in entries} == {"error"}
        assert "another instance of this node's key" in entries[0]["event"]
        assert [entry["told_by"] for entry in entries] == list(MEMBERS)
        bench.duplicate = False
        assert await bench.greet(MEMBERS[0]) == []
        bench.duplicate = True
        assert [entry["told_by"] for entry in await bench.greet(*MEMBERS)] == [MEMBERS[0]]

    on_bench(test)


def test_a_duplicate_that_a_stranger_tells_is_not_believed() -> None:
    """It would make the operator stop the node."""

    async def test(bench: Bench) -> None:
        bench.duplicate = True
        assert await bench.greet(*STRANGERS) == []

    on_bench(test)


def test_a_peer_of_another_network_is_left_alone() -> None:
    async def test(bench: Bench) -> None:
        bench.network, bench.duplicate = "f" * 64, True
        bench.ahead = dict.fromkeys(MEMBERS, 1000.0)
        with capture_logs() as entries:
            assert [await bench.handshakes.greet(peer) for peer in MEMBERS] == [False] * 3
        assert {entry["event"] for entry in entries} == {"peer of another network"}

    on_bench(test)


def test_a_daemon_says_hello_and_logs_a_duplicate_of_itself() -> None:
    async def main() -> None:
        requests: list[Mapping[str, Any]] = []

        async def serve(protocol: str, stream: Stream) -> None:
            requests.append(await read_document(stream, "hello-request"))
            await answer(stream, fixtures.hello_answer(NET.id, duplicate=True))

        async with run_network(1, NET, labels=["honest", *["absent"] * 3]) as world:
            member = MemoryTransport(world.medium, MEMBERS[0])
            await member.start(Recorder(serve), (), [protocol_id("hello")])
            with capture_logs() as entries:
                await member.dial(world.address(0))
                await asyncio.sleep(HELLO_SECONDS + 100)
            await member.stop()
        assert len(requests) == 2
        assert len({request["instance"] for request in requests}) == 1
        assert requests[1]["time"] - requests[0]["time"] >= 1000 * HELLO_SECONDS
        errors = [entry for entry in entries if entry["log_level"] == "error"]
        assert [entry["told_by"] for entry in errors] == [MEMBERS[0]]

    virtual_loop.run(main)
