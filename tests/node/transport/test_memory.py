"""The in-memory network, in virtual time: no test here waits for the wall clock."""

import asyncio
from itertools import pairwise
from random import Random

import pytest

from node.admission.peer_score import PeerAction
from node.config.limits import Limits
from node.transport.interface import Stream, StreamClosed, ValidationResult
from tests.node.transport.recorder import Recorder, request
from tests.simulation.virtual_loop import run
from tests.support.memory_transport.network import Link, MemoryNetwork, MemoryTransport
from tests.support.memory_transport.pipes import CAPACITY

ECHO = "/echo"
TOPIC = "tasks"


class Line:
    """Peers a, b, c … connected in a line."""

    def __init__(self, peers: str = "abc", link: Link | None = None, seed: int = 1) -> None:
        self.network = MemoryNetwork(Random(seed), link)
        self.transports = {peer: MemoryTransport(self.network, peer) for peer in peers}
        self.recorders = {peer: Recorder() for peer in peers}

    async def up(self) -> "Line":
        for peer, transport in self.transports.items():
            await transport.start(self.recorders[peer], [TOPIC], [ECHO])
        peers = list(self.transports)
        for near, far in pairwise(peers):
            await self.transports[near].dial(self.transports[far].addresses[0])
        await asyncio.sleep(1)
        return self

    async def gossip(self, peer: str, *payloads: bytes) -> None:
        for payload in payloads:
            await self.transports[peer].publish(TOPIC, payload)
        await asyncio.sleep(60)

    def payloads(self, peer: str) -> list[bytes]:
        return self.recorders[peer].payloads


def test_gossip_is_forwarded_and_never_sent_back() -> None:
    async def main() -> None:
        line = await Line("abcd").up()
        await line.gossip("a", b"one", b"two")
        assert [line.payloads(peer) for peer in "abcd"] == [[]] + [[b"one", b"two"]] * 3
        assert line.recorders["c"].gossip[0] == ("b", TOPIC, b"one")

    run(main)


@pytest.mark.parametrize("verdict", [ValidationResult.REJECT, ValidationResult.IGNORE])
def test_a_message_that_is_not_accepted_is_neither_delivered_nor_forwarded(
    verdict: ValidationResult,
) -> None:
    async def main() -> None:
        line = await Line().up()
        line.recorders["b"].verdicts[b"bad"] = verdict
        await line.gossip("a", b"bad", b"good")
        assert line.payloads("b") == line.payloads("c") == [b"good"]
        assert line.recorders["c"].judged == [b"good"]

    run(main)


def test_a_repeated_message_is_dropped_for_two_minutes() -> None:
    async def main() -> None:
        line = await Line("ab").up()
        await line.gossip("a", b"again", b"again")
        assert line.payloads("b") == [b"again"]
        await asyncio.sleep(61)
        await line.gossip("a", b"again")
        assert line.payloads("b") == [b"again", b"again"]

    run(main)


def test_a_repetition_on_a_fanout_topic_reaches_peers_that_connected_since() -> None:
    async def main() -> None:
        network = MemoryNetwork(Random(1))
        outsider, here = MemoryTransport(network, "o"), Recorder()
        nodes = {peer: (MemoryTransport(network, peer), Recorder()) for peer in "ab"}
        await outsider.start(here, (), (), [TOPIC])
        for peer, (transport, recorder) in nodes.items():
            await transport.start(recorder, [TOPIC], [])
            await outsider.dial(f"/memory/0/p2p/{peer}")
            await outsider.publish(TOPIC, b"same")
            await asyncio.sleep(1)
        assert [recorder.payloads for _, recorder in nodes.values()] == [[b"same"], [b"same"]]
        await nodes["a"][0].publish(TOPIC, b"more")
        await asyncio.sleep(1)
        assert here.judged == []

    run(main)


def test_rejected_messages_ban_the_forwarder_for_a_while() -> None:
    async def main() -> None:
        line = await Line("ab").up()
        bad = [b"bad%d" % n for n in range(int(Limits().ban_points) + 5)]
        line.recorders["b"].verdicts = dict.fromkeys(bad, ValidationResult.REJECT)
        await line.gossip("a", *bad[: int(Limits().ban_points) - 1])
        assert line.transports["b"].peers() == {"a"}
        await asyncio.sleep(Limits().ban_seconds)
        await line.gossip("a", *bad)
        assert line.transports["b"].peers() == frozenset()
        assert line.recorders["a"].events[-1] == ("disconnected", "b")
        with pytest.raises(ConnectionError):
            await line.transports["a"].dial("/memory/0/p2p/b")
        await asyncio.sleep(Limits().ban_seconds)
        assert await line.transports["a"].dial("/memory/0/p2p/b") == "b"

    run(main)


def test_a_link_loses_duplicates_and_reorders_messages() -> None:
    payloads = [b"%d" % n for n in range(200)]

    async def delivered(link: Link) -> list[bytes]:
        line = await Line("ab", link).up()
        await line.gossip("a", *payloads)
        return line.payloads("b")

    async def main() -> None:
        assert await delivered(Link()) == payloads
        assert await delivered(Link(loss=1.0)) == []
        assert 50 < len(await delivered(Link(loss=0.5))) < 150
        assert await delivered(Link(duplication=1.0)) == payloads
        shuffled = await delivered(Link(reordering=1.0))
        assert shuffled != payloads
        assert sorted(shuffled) == sorted(payloads)

    run(main)


def test_each_direction_can_have_its_own_link() -> None:
    async def main() -> None:
        line = await Line("ab").up()
        line.network.set_link("a", "b", Link(loss=1.0))
        await line.gossip("a", b"lost")
        await line.gossip("b", b"kept")
        assert line.payloads("b") == []
        assert line.payloads("a") == [b"kept"]

    run(main)


def trace(seed: int) -> list[object]:
    async def main() -> list[object]:
        line = await Line("abcd", Link((0.0, 1.0), 0.2, 0.2, 0.5), seed).up()
        await line.gossip("a", *(b"%d" % n for n in range(50)))
        return [line.recorders[peer].gossip for peer in "abcd"]

    trace: list[object] = run(main)
    return trace


def test_the_same_seed_gives_the_same_trace_and_another_seed_another() -> None:
    assert trace(7) == trace(7)
    assert trace(7) != trace(8)


@pytest.mark.parametrize("size", [0, 1, CAPACITY, 5 * CAPACITY + 3])
def test_a_request_is_answered(size: int) -> None:
    async def main() -> None:
        line = await Line("ab").up()
        payload = Random(1).randbytes(size)
        stream = await line.transports["a"].open("b", ECHO)
        answer = asyncio.create_task(stream.read_exactly(size))
        await stream.write(size.to_bytes(4, "big") + payload)
        assert await answer == payload[::-1]

    run(main)


def test_a_writer_waits_for_the_reader() -> None:
    async def main() -> None:
        line = await Line("ab").up()
        reading = asyncio.Event()
        got: list[bytes] = []

        async def slow(protocol: str, stream: Stream) -> None:
            await reading.wait()
            got.append(await stream.read_exactly(3 * CAPACITY))

        line.recorders["b"]._serve = slow
        stream = await line.transports["a"].open("b", ECHO)
        writing = asyncio.create_task(stream.write(b"x" * 3 * CAPACITY))
        await asyncio.sleep(1000)
        assert not writing.done()
        reading.set()
        await writing
        await asyncio.sleep(1)
        assert got == [b"x" * 3 * CAPACITY]

    run(main)


def test_half_close_and_the_end_of_a_stream() -> None:
    async def main() -> None:
        line = await Line("ab").up()

        async def count(protocol: str, stream: Stream) -> None:
            size = 0
            try:
                while True:
                    await stream.read_exactly(1)
                    size += 1
            except StreamClosed:
                await stream.write(b"%d" % size)

        line.recorders["b"]._serve = count
        stream = await line.transports["a"].open("b", ECHO)
        await stream.write(b"seven..")
        await stream.close_write()
        with pytest.raises(StreamClosed):
            await stream.write(b"more")
        assert await stream.read_exactly(1) == b"7"
        with pytest.raises(StreamClosed, match="ended"):
            await stream.read_exactly(1)

    run(main)


def test_an_exception_in_a_handler_resets_the_stream_and_is_kept() -> None:
    async def main() -> None:
        line = await Line("ab").up()

        async def fail(protocol: str, stream: Stream) -> None:
            raise LookupError("a bug")

        line.recorders["b"]._serve = fail
        stream = await line.transports["a"].open("b", ECHO)
        with pytest.raises(StreamClosed, match="reset"):
            await stream.read_exactly(1)
        assert [str(failure) for failure in line.network.failures] == ["a bug"]

    run(main)


async def forever(protocol: str, stream: Stream) -> None:
    await stream.read_exactly(1)


def test_a_partition_cuts_all_links_across_it_until_it_is_healed() -> None:
    async def main() -> None:
        line = await Line("abc").up()
        line.recorders["b"]._serve = line.recorders["c"]._serve = forever
        cut = await line.transports["a"].open("b", ECHO)
        kept = await line.transports["b"].open("c", ECHO)
        line.network.partition("a")
        with pytest.raises(StreamClosed):
            await cut.read_exactly(1)
        await kept.write(b"x")
        await line.gossip("b", b"inside")
        assert line.payloads("a") == []
        assert line.payloads("c") == [b"inside"]
        with pytest.raises(ConnectionError):
            await line.transports["a"].dial("/memory/0/p2p/b")
        with pytest.raises(ConnectionError):
            await line.transports["a"].open("b", ECHO)
        line.network.heal()
        await line.transports["a"].dial("/memory/0/p2p/b")
        await line.gossip("b", b"healed")
        assert line.payloads("a") == [b"healed"]
        assert [kind for kind, _ in line.recorders["a"].events] == [
            "connected",
            "disconnected",
            "connected",
        ]

    run(main)


def test_a_crashed_peer_is_silent_and_can_restart_as_a_new_transport() -> None:
    async def main() -> None:
        line = await Line("ab").up()
        line.recorders["b"]._serve = forever
        stream = await line.transports["a"].open("b", ECHO)
        await line.transports["a"].publish(TOPIC, b"on its way")
        line.network.crash("b")
        with pytest.raises(StreamClosed):
            await stream.read_exactly(1)
        await asyncio.sleep(60)
        assert line.payloads("b") == []
        assert line.recorders["b"].events == [("connected", "a")]
        assert line.recorders["a"].events[-1] == ("disconnected", "b")
        again, recorder = MemoryTransport(line.network, "b"), Recorder()
        await again.start(recorder, [TOPIC], [ECHO])
        await again.dial("/memory/0/p2p/a")
        await line.gossip("a", b"after")
        assert recorder.payloads == [b"after"]
        assert await request(await line.transports["a"].open("b", ECHO), b"123") == b"321"

    run(main)


def test_stop_cancels_handlers_and_frees_the_name() -> None:
    async def main() -> None:
        line = await Line("ab").up()
        ended: list[bool] = []

        async def served(protocol: str, stream: Stream) -> None:
            try:
                await stream.read_exactly(1)
            finally:
                ended.append(True)

        line.recorders["b"]._serve = served
        await line.transports["a"].open("b", ECHO)
        await asyncio.sleep(0.001)
        with pytest.raises(OSError, match="running already"):
            await MemoryTransport(line.network, "b").start(Recorder(), [], [])
        await line.transports["b"].stop()
        assert ended == [True]
        await MemoryTransport(line.network, "b").start(Recorder(), [], [])

    run(main)


def test_unreachable_peers_and_unknown_protocols_raise_connection_errors() -> None:
    async def main() -> None:
        line = await Line("ab").up()
        alone = line.transports["a"]
        for peer in ("nobody", "a"):
            with pytest.raises(ConnectionError):
                await alone.dial(f"/memory/0/p2p/{peer}")
        with pytest.raises(ConnectionError, match="does not serve"):
            await alone.open("b", "/unknown")
        with pytest.raises(ConnectionError, match="not connected"):
            await alone.open("nobody", ECHO)
        line.network.set_link("b", "a", Link((11.0, 11.0)))
        with pytest.raises(ConnectionError):
            await alone.open("b", ECHO)
        await line.transports["b"].stop()
        await alone.publish(TOPIC, b"to nobody")

    run(main)


def test_a_peer_that_is_reported_too_often_is_disconnected_and_banned() -> None:
    async def main() -> None:
        line = await Line("ab").up()
        near = line.transports["a"]
        ban_points = int(Limits().ban_points)
        for _ in range(ban_points - 1):
            near.report("b", PeerAction.PROTOCOL_VIOLATION)
        assert near.peers() == {"b"}
        near.report("b", PeerAction.PROTOCOL_VIOLATION)
        assert near.peers() == frozenset()
        with pytest.raises(ConnectionError):
            await line.transports["b"].dial("/memory/0/p2p/a")
        assert near.rate_limit_key("b") == "b"

    run(main)
