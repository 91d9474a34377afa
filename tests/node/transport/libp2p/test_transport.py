"""Real libp2p over real sockets on loopback."""

import asyncio
import contextlib
import hashlib
import threading
from itertools import pairwise

import base58
import pytest
import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from libp2p.peer.id import ID

from node.config.limits import Limits
from node.transport.interface import (
    BYTES_IN,
    BYTES_OUT,
    Connection,
    Stream,
    StreamClosed,
    ValidationResult,
)
from node.transport.libp2p import stream as streams
from node.transport.libp2p.transport import Libp2pTransport
from tests.node.transport.conftest import ANYWHERE, NEVER_SECONDS, PROTOCOLS, TOPICS, Start
from tests.node.transport.recorder import HANG_SECONDS, Recorder, echo_reversed, poll, request
from tests.support import fixtures

ECHO, OTHER = PROTOCOLS
TASKS, VOTES = TOPICS
PIECE = 262_144


async def test_the_peer_id_is_the_identity_multihash_of_the_public_key(start: Start) -> None:
    seed = bytes(range(32))
    public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    transport = await start(Recorder(), seed=seed)
    expected = base58.b58encode(b"\x00\x24\x08\x01\x12\x20" + public).decode()
    assert transport.peer == expected
    assert transport.peer.startswith("12D3KooW")
    assert transport.addresses[0].startswith("/ip4/127.0.0.1/tcp/")
    assert transport.addresses[0].endswith(f"/p2p/{expected}")
    assert "/tcp/0/" not in transport.addresses[0]


def test_a_key_of_the_wrong_length_is_rejected() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Libp2pTransport(b"short", ANYWHERE)


async def test_announced_addresses_replace_the_listen_addresses() -> None:
    transport = Libp2pTransport(bytes(32), ANYWHERE, ["/ip4/203.0.113.7/tcp/4001"])
    await transport.start(Recorder(), TOPICS, PROTOCOLS)
    assert transport.addresses == (f"/ip4/203.0.113.7/tcp/4001/p2p/{transport.peer}",)
    await transport.stop()


async def test_a_failed_dial_says_what_is_wrong_with_the_address(start: Start) -> None:
    near, far = await start(Recorder()), await start(Recorder())
    place, _, peer = far.addresses[0].rpartition("/p2p/")
    reasons = {
        f"{place}/p2p/{fixtures.peer(3)}": f"another peer answers there, {peer}",
        f"/ip4/127.0.0.1/tcp/1/p2p/{peer}": "connection refused",
        f"/ip4/999.0.0.1/tcp/1/p2p/{peer}": "it is no valid address",
        f"/ip4/127.0.0.1/tcp/1/p2p/{near.peer}": "it is this node itself",
    }
    for address, reason in reasons.items():
        with pytest.raises(ConnectionError, match=reason):
            await near.dial(address)


async def test_both_sides_learn_of_a_connection_and_answer_requests(start: Start) -> None:
    here, there = Recorder(), Recorder()
    near, far = await start(here), await start(there)
    assert await near.dial(far.addresses[0]) == far.peer
    await there.until(lambda: bool(there.events))
    assert here.events == [("connected", far.peer)]
    assert there.events == [("connected", near.peer)]
    assert near.peers() == {far.peer}
    assert far.peers() == {near.peer}
    assert await request(await near.open(far.peer, ECHO), b"there") == b"ereht"
    assert await request(await far.open(near.peer, OTHER), b"back") == b"kcab"


async def test_bytes_are_counted_on_both_sides(start: Start) -> None:
    near, far = await start(Recorder()), await start(Recorder())
    await near.dial(far.addresses[0])
    await request(await near.open(far.peer, ECHO), bytes(100_000))
    for transport in (near, far):
        for name in (BYTES_IN, BYTES_OUT):
            assert 100_000 < transport._quotas.traffic[name] < 120_000


async def test_a_simultaneous_dial_is_reported_as_one_connection(start: Start) -> None:
    here, there = Recorder(), Recorder()
    near, far = await start(here), await start(there)
    await asyncio.gather(near.dial(far.addresses[0]), far.dial(near.addresses[0]))
    assert await request(await near.open(far.peer, ECHO), b"x") == b"x"
    assert here.events == [("connected", far.peer)]
    assert there.events == [("connected", near.peer)]


async def test_dialling_an_absent_or_a_different_peer_raises_a_connection_error(
    start: Start,
) -> None:
    near, far, third = [await start(Recorder()) for _ in range(3)]
    gone = far.addresses[0]
    await far.stop()
    port = third.addresses[0].split("/")[4]
    for address in (
        gone,
        near.addresses[0],
        "/ip4/127.0.0.1/tcp/1",
        "nonsense",
        f"/ip4/127.0.0.1/tcp/{port}/p2p/{far.peer}",
    ):
        with pytest.raises(ConnectionError):
            await near.dial(address)
    assert near.peers() == frozenset()


async def line(start: Start, count: int) -> tuple[list[Libp2pTransport], list[Recorder]]:
    recorders = [Recorder() for _ in range(count)]
    transports = [await start(recorder) for recorder in recorders]
    for near, far in pairwise(transports):
        await near.dial(far.addresses[0])
    await acquaint(transports, recorders)
    return transports, recorders


async def acquaint(transports: list[Libp2pTransport], recorders: list[Recorder]) -> None:
    """Wait until all peers know each other's topics: until then messages are replayed unordered."""
    for number, transport in enumerate(transports):
        for topic in TOPICS:
            await transport.publish(topic, b"greeting %d" % number)
    greetings = len(TOPICS) * (len(transports) - 1)
    for recorder in recorders:
        await recorder.until(lambda: len(recorder.gossip) == greetings)  # noqa: B023 - used at once
    for recorder in recorders:
        recorder.gossip.clear()
        recorder.judged.clear()


async def test_gossip_is_forwarded_and_a_rejected_message_is_not(
    start: Start,
) -> None:
    transports, recorders = await line(start, 3)
    recorders[1].verdicts = {b"bad": ValidationResult.REJECT, b"known": ValidationResult.IGNORE}
    for payload in (b"one", b"bad", b"known", b"two"):
        await transports[0].publish(TASKS, payload)
    await transports[0].publish(VOTES, b"vote")
    await recorders[2].until(lambda: len(recorders[2].gossip) == 3)
    assert (
        sorted(recorders[1].payloads) == sorted(recorders[2].payloads) == [b"one", b"two", b"vote"]
    )
    assert set(recorders[1].judged) == {b"one", b"two", b"vote", b"bad", b"known"}
    assert set(recorders[2].judged) == {b"one", b"two", b"vote"}
    assert (transports[1].peer, VOTES, b"vote") in recorders[2].gossip
    assert recorders[0].gossip == []


async def test_the_same_bytes_are_delivered_once_per_topic(
    start: Start,
) -> None:
    transports, recorders = await line(start, 2)
    for _ in range(3):
        await transports[0].publish(TASKS, b"same")
    await transports[0].publish(VOTES, b"same")
    await transports[0].publish(TASKS, b"last")
    await recorders[1].until(lambda: b"last" in recorders[1].payloads)
    delivered = [(topic, payload) for _, topic, payload in recorders[1].gossip]
    assert sorted(delivered) == [(TASKS, b"last"), (TASKS, b"same"), (VOTES, b"same")]


async def test_a_message_on_a_fanout_topic_reaches_those_who_joined_it(start: Start) -> None:
    """A client publishes without joining: it receives nothing, and is in no mesh."""
    (near, far), recorders = await line(start, 2)
    here = Recorder()
    outsider = Libp2pTransport(b"o" * 32, ANYWHERE)
    await outsider.start(here, (), (), (VOTES,))
    try:
        await outsider.dial(near.addresses[0])
        while not recorders[
            1
        ].gossip:  # until the subscription is known, there is nobody to send to
            await outsider.publish(VOTES, b"withdrawn")
            await asyncio.sleep(0.01)
        await outsider.publish(TASKS, b"unknown topic")
        await far.publish(VOTES, b"vote")
        await recorders[0].until(lambda: b"vote" in recorders[0].payloads)
        assert recorders[0].gossip == [
            (outsider.peer, VOTES, b"withdrawn"),
            (far.peer, VOTES, b"vote"),
        ]
        assert recorders[1].payloads == [b"withdrawn"]
        assert (here.judged, here.gossip) == ([], [])
    finally:
        await outsider.stop()


async def test_publishing_without_peers_is_no_error(start: Start) -> None:
    transport = await start(Recorder())
    await transport.publish(TASKS, b"hello?")


async def swallow(protocol: str, stream: Stream) -> None:
    """Answer a length and so many bytes with their SHA-256."""
    remaining, digest = int.from_bytes(await stream.read_exactly(4), "big"), hashlib.sha256()
    while remaining:
        piece = await stream.read_exactly(min(remaining, PIECE))
        remaining -= len(piece)
        digest.update(piece)
    await stream.write(digest.digest())


async def test_twenty_megabytes_are_transferred_intact(start: Start) -> None:
    near, far = await start(Recorder()), await start(Recorder(swallow))
    await near.dial(far.addresses[0])
    content = bytes(range(256)) * 1000 * 80
    stream = await near.open(far.peer, ECHO)
    await stream.write(len(content).to_bytes(4, "big"))
    for position in range(0, len(content), PIECE):
        await stream.write(content[position : position + PIECE])
    assert await stream.read_exactly(32) == hashlib.sha256(content).digest()


async def test_two_sides_that_both_write_megabytes_first_do_not_deadlock(start: Start) -> None:
    near, far = await start(Recorder()), await start(Recorder())
    await near.dial(far.addresses[0])
    stream = await near.open(far.peer, ECHO)
    payload = bytes(3_000_000)
    answer = asyncio.create_task(stream.read_exactly(len(payload)))
    await stream.write(len(payload).to_bytes(4, "big") + payload)
    assert await answer == payload


async def test_many_concurrent_streams_are_answered(start: Start) -> None:
    near, far = await start(Recorder()), await start(Recorder())
    await near.dial(far.addresses[0])

    async def one(number: int) -> None:
        payload = b"%d" % number
        assert await request(await near.open(far.peer, ECHO), payload) == payload[::-1]

    async with asyncio.timeout(HANG_SECONDS):
        for _ in range(5):  # 260 in all, more than the 256 that libp2p lets be open
            await asyncio.gather(*(one(number) for number in range(52)))


async def test_a_half_closed_stream_can_still_be_read(start: Start) -> None:
    async def count(protocol: str, stream: Stream) -> None:
        size = 0
        try:
            while True:
                await stream.read_exactly(1)
                size += 1
        except StreamClosed:
            await stream.write(b"%d" % size)

    near, far = await start(Recorder()), await start(Recorder(count))
    await near.dial(far.addresses[0])
    stream = await near.open(far.peer, ECHO)
    await stream.write(b"seven..")
    await stream.close_write()
    assert await stream.read_exactly(1) == b"7"
    with pytest.raises(StreamClosed):
        await stream.read_exactly(1)
    with pytest.raises(StreamClosed):
        await stream.write(b"more")
    await stream.close()
    await stream.reset()


async def test_the_serving_side_half_closes_after_its_answer(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not wait until the requester has closed its own side (specification 7.3)."""
    monkeypatch.setattr(streams, "LINGER_SECONDS", NEVER_SECONDS)
    near, far = await start(Recorder()), await start(Recorder())
    await near.dial(far.addresses[0])
    stream = await near.open(far.peer, ECHO)
    await stream.write((3).to_bytes(4, "big") + b"abc")
    assert await stream.read_exactly(3) == b"cba"
    async with asyncio.timeout(HANG_SECONDS):
        with pytest.raises(StreamClosed, match="ended"):
            await stream.read_exactly(1)
    await stream.close()


async def test_an_unknown_protocol_or_peer_raises_a_connection_error(start: Start) -> None:
    near, far = await start(Recorder()), await start(Recorder())
    with pytest.raises(ConnectionError, match="not connected"):
        await near.open(far.peer, ECHO)
    await near.dial(far.addresses[0])
    with pytest.raises(ConnectionError):
        await near.open(far.peer, "/unknown")
    assert await request(await near.open(far.peer, ECHO), b"fine") == b"enif"


async def write_without_end(stream: Stream) -> None:
    while True:
        await stream.write(bytes(PIECE))


class Hanging:
    """A handler that waits for bytes that never come, with events for its start and end."""

    def __init__(self) -> None:
        self.started, self.ended = asyncio.Event(), asyncio.Event()
        self.failure: BaseException | None = None

    async def __call__(self, protocol: str, stream: Stream) -> None:
        self.started.set()
        try:
            await stream.read_exactly(1)
        except BaseException as failure:
            self.failure = failure
            raise
        finally:
            self.ended.set()


async def test_a_cancelled_read_leaves_the_connection_usable(start: Start) -> None:
    hanging = Hanging()
    near, far = await start(Recorder()), await start(Recorder(hanging))
    await near.dial(far.addresses[0])
    stream = await near.open(far.peer, ECHO)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await stream.read_exactly(1)
    await asyncio.wait_for(hanging.started.wait(), HANG_SECONDS)
    await stream.reset()
    await asyncio.wait_for(hanging.ended.wait(), HANG_SECONDS)
    assert isinstance(hanging.failure, StreamClosed)
    assert await request(await far.open(near.peer, ECHO), b"fine") == b"enif"


async def read_nothing(protocol: str, stream: Stream) -> None:
    await asyncio.Event().wait()


async def test_a_cancelled_write_leaves_the_connection_usable(start: Start) -> None:
    near, far = await start(Recorder()), await start(Recorder(read_nothing))
    await near.dial(far.addresses[0])
    for _ in range(5):
        stream = await near.open(far.peer, ECHO)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(write_without_end(stream), 0.02)
        await stream.reset()
    assert await request(await far.open(near.peer, ECHO), b"fine") == b"enif"


async def test_cancelled_opens_leak_no_streams(start: Start) -> None:
    near, far = await start(Recorder()), await start(Recorder())
    await near.dial(far.addresses[0])
    for _ in range(3):
        opening = [asyncio.create_task(near.open(far.peer, ECHO)) for _ in range(20)]
        await asyncio.sleep(0)
        for task in opening:
            task.cancel()
        await asyncio.gather(*opening, return_exceptions=True)
    assert await request(await near.open(far.peer, ECHO), b"fine") == b"enif"


@pytest.mark.parametrize("leave", ["reset", "hang up"])
async def test_wait_closed_returns_at_a_reset_and_not_at_a_half_close(
    start: Start, monkeypatch: pytest.MonkeyPatch, leave: str
) -> None:
    monkeypatch.setattr(streams, "RESET_POLL_SECONDS", 0.01)
    returned, ended = asyncio.Event(), asyncio.Event()

    async def wait(protocol: str, stream: Stream) -> None:
        with pytest.raises(StreamClosed):
            await stream.read_exactly(1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await stream.wait_closed()
        await stream.write(b"!")
        await stream.wait_closed()
        assert returned.is_set()
        ended.set()

    near, far = await start(Recorder()), await start(Recorder(wait))
    await near.dial(far.addresses[0])
    stream = await near.open(far.peer, ECHO)
    await stream.close_write()
    assert await stream.read_exactly(1) == b"!"
    returned.set()
    await (stream.reset() if leave == "reset" else near.stop())
    async with asyncio.timeout(HANG_SECONDS):
        await ended.wait()


async def test_a_connection_is_closed_once_its_peer_has_gone(start: Start) -> None:
    """Another connection of the same peer does not count for it."""
    connections: list[Connection] = []

    async def keep(protocol: str, stream: Stream) -> None:
        connections.append(stream.connection)
        await echo_reversed(protocol, stream)

    far = await start(Recorder(keep))
    first = await start(Recorder(), seed=b"k" * 32)
    second = await start(Recorder(), seed=b"k" * 32)
    for near in (first, second):
        await near.dial(far.addresses[0])
        assert await request(await near.open(far.peer, ECHO), b"here") == b"ereh"
    assert [connection.closed for connection in connections] == [False, False]
    await first.stop()
    await poll(lambda: connections[0].closed)
    assert not connections[1].closed
    assert far.peers() == {second.peer}


async def test_cancelled_closes_leave_no_streams_open_at_the_peer(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A watch is cancelled when its task has ended, often while it closes its stream."""
    monkeypatch.setattr(streams, "LINGER_SECONDS", 600)  # or it would only take a while
    near = await start(Recorder())
    far = await start(Recorder(), limits=Limits(max_streams_per_peer=8))
    await near.dial(far.addresses[0])
    for number in range(24):
        stream = await near.open(far.peer, ECHO)
        await stream.write((1).to_bytes(4, "big") + b"x")
        assert await stream.read_exactly(1) == b"x"
        closing = asyncio.create_task(stream.close())
        for _ in range(1 + number % 3):
            await asyncio.sleep(0)
        closing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await closing
    assert far._counts["streams-refused"] == 0


async def test_stop_does_not_wait_for_a_stream_that_is_being_opened(start: Start) -> None:
    near, far = await start(Recorder()), await start(Recorder())
    await near.dial(far.addresses[0])
    reached = threading.Event()

    async def say_nothing(stream: object) -> None:
        reached.set()
        await trio.sleep_forever()

    assert far._host is not None
    far._host.swarm.set_stream_handler(say_nothing)
    # The peer has not said that it speaks this one, so that the opening waits for its answer.
    opening = asyncio.create_task(near.open(far.peer, "/helium/2/test/unspoken"))
    assert await asyncio.to_thread(reached.wait, HANG_SECONDS)
    async with asyncio.timeout(HANG_SECONDS):
        await near.stop()
    with pytest.raises(ConnectionError):
        await opening


async def test_stop_cancels_handlers_and_leaves_no_thread(start: Start) -> None:
    threads = set(threading.enumerate())
    hanging = Hanging()
    near, far = await start(Recorder()), await start(Recorder(hanging))
    await near.dial(far.addresses[0])
    stream = await near.open(far.peer, ECHO)
    await asyncio.wait_for(hanging.started.wait(), HANG_SECONDS)
    await far.stop()
    assert hanging.ended.is_set()
    with pytest.raises(StreamClosed):
        await stream.read_exactly(1)
    await near.stop()
    remaining = set(threading.enumerate()) - threads
    assert [thread for thread in remaining if "asyncio" not in thread.name] == []
    for call in (near.dial(far.addresses[0]), near.open(far.peer, ECHO)):
        with pytest.raises(ConnectionError):
            await call
    await near.publish(TASKS, b"after the end")


async def test_a_peer_that_disconnects_can_reconnect(start: Start) -> None:
    here, there = Recorder(), Recorder()
    near, far = await start(here), await start(Recorder(), seed=b"f" * 32)
    await near.dial(far.addresses[0])
    await near.publish(TASKS, b"before")
    await far.stop()
    await here.until(lambda: ("disconnected", far.peer) in here.events)
    assert near.peers() == frozenset()
    with pytest.raises(ConnectionError):
        await near.dial(far.addresses[0])
    address = far.addresses[0].removesuffix(f"/p2p/{far.peer}")
    again = await start(there, seed=b"f" * 32, listen=address)
    assert again.addresses == far.addresses
    await near.dial(again.addresses[0])
    await again.publish(TASKS, b"from the restarted")
    await near.publish(TASKS, b"to the restarted")
    await here.until(lambda: b"from the restarted" in here.payloads)
    await there.until(lambda: b"to the restarted" in there.payloads)


async def test_a_taken_address_raises_os_error(start: Start) -> None:
    first = await start(Recorder())
    address = first.addresses[0].partition("/p2p/")[0]
    second = Libp2pTransport(b"2" * 32, address)
    with pytest.raises(OSError, match="already in use"):
        await second.start(Recorder(), TOPICS, PROTOCOLS)
    elsewhere = Libp2pTransport(b"3" * 32, "/ip4/203.0.113.7/tcp/0")
    with pytest.raises(OSError, match="cannot listen"):
        await elsewhere.start(Recorder(), TOPICS, PROTOCOLS)


async def test_a_write_that_nobody_reads_times_out(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "WRITE_SECONDS", 0.3)
    monkeypatch.setattr(streams, "MIN_READ_RATE", 10**9)
    near = await start(Recorder())
    far = await start(Recorder(read_nothing))
    await near.dial(far.addresses[0])
    stream = await near.open(far.peer, ECHO)
    with pytest.raises(StreamClosed):
        await asyncio.wait_for(write_without_end(stream), HANG_SECONDS)
    assert await request(await far.open(near.peer, ECHO), b"fine") == b"enif"


@pytest.mark.parametrize("size", [1, 70_000, 600_000])
async def test_a_request_is_sent_with_the_opening_of_its_stream(start: Start, size: int) -> None:
    received = asyncio.Queue[bytes]()

    async def serve(protocol: str, stream: Stream) -> None:
        payload = await stream.read_exactly(size)
        with pytest.raises(StreamClosed):
            await stream.read_exactly(1)  # the peer has closed its side
        received.put_nowait(payload)
        await stream.write(b"answer")

    near, far = await start(Recorder()), await start(Recorder(serve))
    await near.dial(far.addresses[0])
    request = bytes(index % 251 for index in range(size))
    async with asyncio.timeout(HANG_SECONDS):
        stream = await near.open(far.peer, PROTOCOLS[0], request, half_close=True)
        assert await stream.read_exactly(6) == b"answer"
        assert await received.get() == request
        await stream.close()


async def test_what_a_peer_has_said_to_speak_is_asked_without_waiting(start: Start) -> None:
    """A protocol that was taken off meanwhile is found out by the first read."""
    near, far = await start(Recorder()), await start(Recorder())
    await near.dial(far.addresses[0])
    hosts = near._host, far._host
    assert hosts[0] is not None
    assert hosts[1] is not None
    store, peer = hosts[0]._host.get_peerstore(), ID.from_base58(far.peer)
    await poll(lambda: bool(store.supports_protocols(peer, [PROTOCOLS[0]])))
    hosts[1]._host.remove_stream_handler(PROTOCOLS[0])
    async with asyncio.timeout(HANG_SECONDS):
        stream = await near.open(far.peer, PROTOCOLS[0], b"request")
        with pytest.raises(StreamClosed, match="does not speak"):
            await stream.read_exactly(1)
        store.clear_protocol_data(peer)
        with pytest.raises(ConnectionError, match="speaks none of"):
            await near.open(far.peer, PROTOCOLS[0], b"request")
