"""The guards against bad peers over real sockets: a victim, an honest peer and an attacker."""

import asyncio
import contextlib
import functools
import gc
import socket
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import trio
from libp2p.host.exceptions import StreamFailure
from libp2p.pubsub.pb import rpc_pb2
from libp2p.utils.varint import encode_uvarint

from node.admission.peer_score import PeerAction
from node.config.limits import Limits
from node.transport.interface import Stream
from node.transport.libp2p import stream as streams
from node.transport.libp2p import swarm
from node.transport.libp2p.gossipsub import PROTOCOL, Gossip
from node.transport.libp2p.host import Host
from node.transport.libp2p.muxing import yamux
from node.transport.libp2p.transport import Libp2pTransport
from tests.node.admission.clock import Clock
from tests.node.transport.conftest import PROTOCOLS, TOPICS, Start
from tests.node.transport.recorder import HANG_SECONDS, Recorder, echo_reversed, poll, request

ECHO, OTHER = PROTOCOLS
TASKS, VOTES = TOPICS
MULTISTREAM = b"\x13/multistream/1.0.0\n"
TIMES = 4

Attack = Callable[[Host, str], Awaitable[None]]


@dataclass(slots=True)
class Scene:
    victim: Libp2pTransport
    honest: Libp2pTransport
    attacker: Libp2pTransport
    victim_recorder: Recorder
    honest_recorder: Recorder

    async def attack(self, attack: Attack) -> None:
        """Run a trio function with the attacker's host and the victim's peer id."""
        async with asyncio.timeout(HANG_SECONDS):
            await self.attacker.dial(self.victim.addresses[0])
            host = self.attacker._host
            assert host is not None
            await self.attacker._bridge.run_in_trio(attack, host, self.victim.peer)

    async def in_victim(self, function: Callable[[Host], Awaitable[Any]]) -> Any:
        host = self.victim._host
        assert host is not None
        return await self.victim._bridge.run_in_trio(function, host)

    async def assert_unharmed(self) -> None:
        """The honest peer is still connected and answered, and gossip flows in both directions."""
        assert self.victim.rebuilds == 0
        assert self.honest_recorder.events == [("connected", self.victim.peer)]
        async with asyncio.timeout(HANG_SECONDS):
            stream = await self.honest.open(self.victim.peer, ECHO)
            assert await request(stream, b"still here") == b"ereh llits"
        await self.honest.publish(TASKS, b"to the victim")
        await self.victim.publish(TASKS, b"from the victim")
        await self.victim_recorder.until(lambda: b"to the victim" in self.victim_recorder.payloads)
        await self.honest_recorder.until(
            lambda: b"from the victim" in self.honest_recorder.payloads
        )


@pytest.fixture
async def scene(start: Start) -> Scene:
    async def serve(protocol: str, stream: Stream) -> None:
        if protocol == OTHER:
            raise LookupError("a bug in a handler")
        await echo_reversed(protocol, stream)

    victim_recorder, honest_recorder = Recorder(serve), Recorder()
    victim, honest, attacker = (
        await start(victim_recorder),
        await start(honest_recorder),
        await start(Recorder()),
    )
    await honest.dial(victim.addresses[0])
    return Scene(victim, honest, attacker, victim_recorder, honest_recorder)


async def end_of(stream: Any) -> None:
    """Read until the victim has ended the stream."""
    try:
        while await stream.read(65_536):
            pass
    except Exception:
        return


async def raw_stream(host: Host, peer: str, content: bytes) -> None:
    """Write bytes to a fresh muxed stream, with no protocol negotiated, and wait for its end."""
    for connection in host.connections(peer)[:1]:
        stream = await connection.new_stream()
        await stream.write(content)
        await end_of(stream)


async def rpc_stream(host: Host, peer: str, content: bytes) -> None:
    """Write RPCs to a gossip stream, the last undecodable, and wait until the victim ends it."""
    stream = await host.open(peer, PROTOCOL)
    for frame in (content, b"\xff" * 20):
        with contextlib.suppress(Exception):  # the first may have ended it
            await stream.write(encode_uvarint(len(frame)) + frame)
    await end_of(stream)


async def test_an_exception_in_a_handler_ends_only_its_stream(scene: Scene) -> None:
    async def attack(host: Host, peer: str) -> None:
        for _ in range(TIMES):
            # The reset may overtake the answer that agrees on the protocol.
            with contextlib.suppress(StreamFailure):
                await end_of(await host.open(peer, OTHER))

    await scene.attack(attack)
    await scene.assert_unharmed()


@pytest.mark.parametrize(
    "content",
    [
        MULTISTREAM + b"\x04\xff\xfe\xfd\n",
        MULTISTREAM + b"\x00",
        MULTISTREAM + b"\x05/abc\xff",
        MULTISTREAM + b"\xff" * 9 + b"\x7f",
        b"\xff" * 200,
    ],
    ids=["not UTF-8", "empty", "no newline", "huge length", "garbage"],
)
async def test_a_bad_multistream_message_ends_only_its_stream(scene: Scene, content: bytes) -> None:
    async def attack(host: Host, peer: str) -> None:
        for _ in range(TIMES):
            with trio.move_on_after(0.5):  # some are simply waited out
                await raw_stream(host, peer, content)

    await scene.attack(attack)
    await scene.assert_unharmed()


@pytest.mark.parametrize(
    "content",
    [b"\xff" * 300, b"\x12\x05abc", b"\x0a\x03\x12\x01\xff"],
    ids=["garbage", "cut off", "topic not UTF-8"],
)
async def test_undecodable_protobuf_ends_only_its_gossip_stream(
    scene: Scene, content: bytes
) -> None:
    async def attack(host: Host, peer: str) -> None:
        for _ in range(TIMES):
            await rpc_stream(host, peer, content)

    await scene.attack(attack)
    await scene.assert_unharmed()


async def test_a_gossip_frame_over_the_limit_ends_only_its_stream(scene: Scene) -> None:
    async def attack(host: Host, peer: str) -> None:
        stream = await host.open(peer, PROTOCOL)
        await stream.write(b"\xff\xff\xff\xff\x7f")
        await end_of(stream)

    await scene.attack(attack)
    await scene.assert_unharmed()


def publication(**fields: Any) -> bytes:
    message = rpc_pb2.Message(data=b"signed", topicIDs=[TASKS], **fields)
    return bytes(rpc_pb2.RPC(publish=[message]).SerializeToString())


@pytest.mark.parametrize(
    "content",
    [
        publication(key=b"\xff\xff\xff", signature=b"s", seqno=b"1" * 8, from_id=b"\x12\x20" * 17),
        publication(key=b"\xff\xff\xff"),
        publication(signature=b"s"),
        publication(seqno=b"1" * 8),
        publication(from_id=b"\x00"),
        bytes(rpc_pb2.RPC(publish=[rpc_pb2.Message(data=b"signed")]).SerializeToString()),
    ],
    ids=["all four", "key", "signature", "seqno", "from", "no topic"],
)
async def test_messages_that_strict_no_sign_forbids_ban_the_sender(
    scene: Scene, content: bytes
) -> None:
    async def attack(host: Host, peer: str) -> None:
        stream = await host.open(peer, PROTOCOL)
        frame = encode_uvarint(len(content)) + content
        with contextlib.suppress(Exception):  # the connection may end before all is written
            await stream.write(frame * (int(Limits().ban_points) + 1))
        await end_of(stream)

    await scene.attack(attack)
    banned = ("disconnected", scene.attacker.peer)
    await scene.victim_recorder.until(lambda: banned in scene.victim_recorder.events)
    assert b"signed" not in scene.victim_recorder.judged
    with pytest.raises(ConnectionError):
        await scene.victim.dial(scene.attacker.addresses[0])
    await scene.assert_unharmed()


async def test_published_messages_carry_only_data_and_topic(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw: list[bytes] = []
    handle = Gossip._handle

    async def recording(gossip: Gossip, peer: Any, content: bytes, rate_limit_key: str) -> None:
        raw.append(content)
        await handle(gossip, peer, content, rate_limit_key)

    monkeypatch.setattr(Gossip, "_handle", recording)
    await scene.assert_unharmed()
    messages = [message for content in raw for message in rpc_pb2.RPC.FromString(content).publish]
    assert {message.data for message in messages} >= {b"to the victim", b"from the victim"}
    for message in messages:
        assert [field.name for field, _ in message.ListFields()] == ["data", "topicIDs"]


async def test_connections_to_peers_that_lost_their_power_end_in_a_minute(scene: Scene) -> None:
    assert scene.victim.peer
    streams = [o for o in gc.get_objects() if type(o) is trio.SocketStream]
    connected = [stream for stream in streams if stream.socket.fileno() >= 0]
    assert len(connected) >= 2, "the dialled end and the accepted one"
    for stream in connected:
        assert stream.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        for name, value in swarm.DEAD_PEER_OPTIONS.items():
            assert stream.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) == value


async def test_inbound_slots_are_released(scene: Scene) -> None:
    async def three_slots(host: Host) -> None:
        host.swarm._inbound_limiter.total_tokens = 3  # one is the honest peer's

    def came_and_went(times: int) -> bool:
        # The victim may learn of a connection after the attacker does.
        return [
            kind for kind, peer in scene.victim_recorder.events if peer == scene.attacker.peer
        ] == [
            "connected",
            "disconnected",
        ] * times

    await scene.in_victim(three_slots)
    for times in range(1, 7):
        await scene.attacker.dial(scene.victim.addresses[0])
        host = scene.attacker._host
        assert host is not None
        await scene.attacker._bridge.run_in_trio(host.disconnect, scene.victim.peer)
        await scene.victim_recorder.until(functools.partial(came_and_went, times))
    await scene.assert_unharmed()


@contextlib.contextmanager
def dialling_from(address: str) -> Iterator[None]:
    """Dial from another loopback address while the block runs."""
    dial = functools.partial(trio.open_tcp_stream, local_address=address)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trio, "open_tcp_stream", dial)
        yield


async def dial_all(attackers: list[Libp2pTransport], victim: Libp2pTransport) -> None:
    for attacker in attackers:
        with contextlib.suppress(ConnectionError):  # most are refused
            await attacker.dial(victim.addresses[0])


async def dial_until_accepted(peer: Libp2pTransport, victim: Libp2pTransport) -> None:
    async with asyncio.timeout(HANG_SECONDS):
        while True:
            with contextlib.suppress(ConnectionError):
                await peer.dial(victim.addresses[0])
                return


@pytest.mark.parametrize("loopback", [False, True])
async def test_many_peer_ids_of_one_address_do_not_block_other_addresses(
    start: Start, monkeypatch: pytest.MonkeyPatch, loopback: bool
) -> None:
    monkeypatch.setattr(swarm, "is_loopback", lambda address: loopback)
    limits = Limits(
        max_connections=5 if loopback else 6, max_connections_per_address=9 if loopback else 2
    )
    assert limits.local_connections == (2 if loopback else 3)
    seen = Recorder()
    victim, newcomer = await start(seen, limits=limits), await start(Recorder())
    attackers = [await start(Recorder()) for _ in range(5)]
    with dialling_from("127.0.0.2"):
        await dial_all(attackers, victim)
    await seen.until(lambda: len(victim.peers()) == 2)
    await newcomer.dial(victim.addresses[0])
    assert await request(await newcomer.open(victim.peer, ECHO), b"let in") == b"ni tel"
    assert len(seen.events) == 3
    # What one of them gives back, another of them can have.
    await attackers[0].stop()
    await seen.until(lambda: attackers[0].peer not in victim.peers())
    with dialling_from("127.0.0.2"):
        await dial_until_accepted(attackers[-1], victim)
    await seen.until(lambda: attackers[-1].peer in victim.peers())


async def test_handshakes_are_rate_limited_per_address(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swarm, "is_loopback", lambda address: False)
    monkeypatch.setattr(swarm, "HANDSHAKES_PER_MINUTE", 2)
    monkeypatch.setattr(swarm, "MINUTE", 1e6)  # so that none is refilled during the test
    seen = Recorder()
    victim, newcomer = (
        await start(seen),
        await start(Recorder()),
    )
    attackers = [await start(Recorder()) for _ in range(3)]
    with dialling_from("127.0.0.2"):
        await dial_all(attackers, victim)
    await seen.until(lambda: len(victim.peers()) == 2)
    assert victim._counts["connections-refused"] == 1
    await newcomer.dial(victim.addresses[0])
    assert await request(await newcomer.open(victim.peer, ECHO), b"let in") == b"ni tel"


async def test_full_inbound_slots_do_not_block_outbound_dials(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swarm, "is_loopback", lambda address: False)
    seen = Recorder()
    victim, configured = (
        await start(seen, limits=Limits(max_connections=4)),
        await start(Recorder()),
    )
    attackers = [await start(Recorder()) for _ in range(5)]
    await dial_all(attackers, victim)
    await seen.until(lambda: len(victim.peers()) == 3)
    with pytest.raises(ConnectionError):
        await configured.dial(victim.addresses[0])
    await victim.dial(configured.addresses[0])
    assert await request(await victim.open(configured.peer, ECHO), b"dialled") == b"dellaid"
    assert len(seen.events) == 4


async def test_idle_sockets_of_one_address_do_not_block_other_addresses(
    scene: Scene, start: Start
) -> None:
    async def few_slots(host: Host) -> None:
        host.swarm._inbound_limiter.total_tokens = swarm.UPGRADES_PER_ADDRESS + 3

    await scene.in_victim(few_slots)
    port = int(scene.victim.addresses[0].split("/")[4])
    idle = []
    for _ in range(100):
        client = socket.socket()
        client.bind(("127.0.0.2", 0))
        client.connect(("127.0.0.1", port))
        idle.append(client)
    newcomer = await start(Recorder())
    async with asyncio.timeout(HANG_SECONDS):
        await newcomer.dial(scene.victim.addresses[0])
    for client in idle:
        client.close()
    await scene.assert_unharmed()


@pytest.mark.parametrize("protocol", [b"/plaintext/2.0.0", b"/secio/1.0.0", b"/tls/1.0.0"])
async def test_only_noise_is_negotiated(scene: Scene, protocol: bytes) -> None:
    port = int(scene.victim.addresses[0].split("/")[4])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(MULTISTREAM + encode_uvarint(len(protocol) + 1) + protocol + b"\n")
    async with asyncio.timeout(HANG_SECONDS):
        assert await reader.readexactly(20 + 4) == MULTISTREAM + b"\x03na\n"
    writer.close()
    await writer.wait_closed()


async def test_a_hung_peer_is_disconnected(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yamux, "PING_EVERY", 0.1)
    recorder = Recorder()
    watching, hung = await start(recorder), await start(Recorder())
    await watching.dial(hung.addresses[0])
    assert await request(await watching.open(hung.peer, ECHO), b"alive") == b"evila"
    host = hung._host
    assert host is not None

    async def hang(_: object) -> None:
        await trio.sleep_forever()

    for connection in host.connections(watching.peer):
        connection.muxed_conn.secured_conn._throttle = hang
        connection.muxed_conn.flush = functools.partial(hang, None)
    monkeypatch.setattr(yamux, "SILENT_SECONDS", 0.5)
    await recorder.until(lambda: ("disconnected", hung.peer) in recorder.events)
    assert watching._counts["silent-cut"] == 1


async def test_a_peer_that_does_not_serve_ping_stays_connected(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client in another language may serve hello and identify only (specification 7.1)."""
    monkeypatch.setattr(yamux, "PING_EVERY", 0.1)
    monkeypatch.setattr(yamux, "SILENT_SECONDS", 3.0)
    recorder = Recorder()
    watching, other = await start(recorder), await start(Recorder())
    host = other._host
    assert host is not None

    async def hang(stream: Any) -> None:
        await trio.sleep_forever()

    host.serve("/ipfs/ping/1.0.0", hang)
    await other.dial(watching.addresses[0])
    await recorder.until(lambda: bool(recorder.events))
    silent = 0.0
    for _ in range(40):  # for longer than a silent peer is kept
        await asyncio.sleep(0.1)
        silent = max(silent, *(await watching._bridge.run_in_trio(silences, watching)))
    assert recorder.events == [("connected", other.peer)]
    assert 0 < silent < 3
    assert swarm.connection_config(Limits()).enable_health_monitoring is False


async def silences(transport: Libp2pTransport) -> list[float]:
    assert transport._host is not None
    connections = transport._host.swarm.get_connections()
    return [connection.muxed_conn.secured_conn.silent_seconds for connection in connections]


async def test_a_peer_that_is_read_slowly_is_not_silent(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This node itself waits then, until the peer has paid for what it sent."""
    monkeypatch.setattr(yamux, "PING_EVERY", 0.1)
    reading, fast = await start(Recorder()), await start(Recorder())
    await fast.dial(reading.addresses[0])
    await poll(lambda: fast.peer in reading.peers())
    host = reading._host
    assert host is not None
    throttled = trio.Event()

    async def read_later(count: float) -> None:
        throttled.set()
        await trio.sleep(1.0)

    for connection in host.connections(fast.peer):
        connection.muxed_conn.secured_conn._throttle = read_later
    await poll(throttled.is_set)
    monkeypatch.setattr(yamux, "SILENT_SECONDS", 0.3)
    await asyncio.sleep(0.8)
    assert reading._counts["silent-cut"] == 0


@pytest.mark.parametrize("protocol", ["dns", "dns4"])
async def test_a_name_that_only_this_machine_knows_is_dialled(start: Start, protocol: str) -> None:
    near, far = await start(Recorder()), await start(Recorder())
    address = far.addresses[0].replace("/ip4/127.0.0.1", f"/{protocol}/localhost")
    assert await near.dial(address) == far.peer
    assert await request(await near.open(far.peer, ECHO), b"by name") == b"eman yb"


async def test_the_next_address_of_a_name_is_tried(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    near, far = await start(Recorder()), await start(Recorder())

    async def hosts_file(name: str, *_: object, **__: object) -> Any:
        assert name == "node.test"
        return [(socket.AF_INET, 0, 0, "", (host, 0)) for host in ("127.0.0.9", "127.0.0.1")]

    monkeypatch.setattr(trio.socket, "getaddrinfo", hosts_file)
    await near.dial(far.addresses[0].replace("/ip4/127.0.0.1", "/dns4/node.test"))
    assert near.peers() == {far.peer}


async def test_an_unknown_name_raises_a_connection_error(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    near = await start(Recorder())

    async def unknown(*_: object) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(trio.socket, "getaddrinfo", unknown)
    with pytest.raises(ConnectionError):
        await near.dial(f"/dns4/nowhere.test/tcp/1/p2p/{'12D3KooW' + 'x' * 44}")


async def test_a_burst_of_gossip_is_delivered_completely(scene: Scene) -> None:
    burst = {b"%d" % number for number in range(500)}
    await scene.assert_unharmed()
    for payload in burst:
        await scene.honest.publish(VOTES, payload)
    await scene.victim_recorder.until(lambda: burst <= set(scene.victim_recorder.payloads))
    assert len(scene.victim_recorder.payloads) == len(set(scene.victim_recorder.payloads))


async def test_tasks_over_the_rate_of_a_peer_are_dropped_unseen(start: Start) -> None:
    seen, flooder_recorder = Recorder(), Recorder()
    victim = await start(seen, limits=Limits(submissions_per_minute=0.01))  # a burst of one
    flooder = await start(flooder_recorder)
    await flooder.dial(victim.addresses[0])
    await victim.publish(VOTES, b"greeting")
    await flooder_recorder.until(lambda: b"greeting" in flooder_recorder.payloads)
    for number in range(20):
        await flooder.publish(TASKS, b"%d" % number)
    await flooder.publish(VOTES, b"the end")
    await seen.until(lambda: b"the end" in seen.payloads)
    assert seen.payloads == [b"0", b"the end"]
    assert victim._counts["tasks-dropped"] == 19


async def test_an_idle_inbound_peer_is_disconnected(start: Start) -> None:
    seen, clock = Recorder(), Clock()
    victim = await start(seen, limits=Limits(idle_seconds=0.4))
    victim._idle_tracker._now = clock
    idle, requesting = await start(Recorder()), await start(Recorder())
    await requesting.dial(victim.addresses[0])
    stream = await requesting.open(victim.peer, ECHO)  # a peer with an open request is not idle
    await idle.dial(victim.addresses[0])
    await seen.until(lambda: len(victim.peers()) == 2)
    await poll(lambda: bool(victim._idle_tracker._open_requests))
    clock.now += 1
    await seen.until(lambda: ("disconnected", idle.peer) in seen.events)
    assert requesting.peer in victim.peers()
    assert victim._counts["idle-cut"] >= 1
    await stream.reset()
    await poll(lambda: not victim._idle_tracker._open_requests)
    clock.now += 1
    await seen.until(lambda: ("disconnected", requesting.peer) in seen.events)


async def test_connections_are_limited_per_peer(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, twin = [await start(Recorder(), seed=b"t" * 32) for _ in range(2)]
    monkeypatch.setattr(swarm, "CONNECTIONS_PER_PEER", 1)
    victim = await start(Recorder())
    await first.dial(victim.addresses[0])
    host = victim._host
    assert host is not None
    await poll(lambda: len(host.connections(first.peer)) == 1)
    with contextlib.suppress(ConnectionError):
        await twin.dial(victim.addresses[0])
    await poll(lambda: victim._counts["connections-refused"] == 1)
    await poll(lambda: len(host.connections(twin.peer)) == 1)


async def test_a_stream_that_the_peer_leaves_open_is_reset(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "LINGER_SECONDS", 0.2)
    victim, lazy = await start(Recorder()), await start(Recorder())
    await lazy.dial(victim.addresses[0])
    stream = await lazy.open(victim.peer, ECHO)
    assert await request(stream, b"and then no more") == b"erom on neht dna"
    host = lazy._host
    assert host is not None
    await poll(lambda: bool(stream._stream.muxed_stream.closed))


async def test_a_failed_dial_does_not_block_the_next(start: Start) -> None:
    near, far = await start(Recorder()), await start(Recorder(), seed=b"f" * 32)
    address = far.addresses[0]
    await far.stop()
    for _ in range(TIMES):
        with pytest.raises(ConnectionError):
            await near.dial(address)
    again = await start(Recorder(), seed=b"f" * 32, listen=address.partition("/p2p/")[0])
    assert await near.dial(again.addresses[0]) == again.peer


async def test_a_failed_host_is_rebuilt_with_its_key_and_port(scene: Scene) -> None:
    async def crash(host: Host) -> None:
        async def fail() -> None:
            raise LookupError("something that no guard caught")

        host.swarm.manager.run_task(fail)

    await scene.in_victim(crash)
    gone = ("disconnected", scene.victim.peer)
    await scene.honest_recorder.until(lambda: gone in scene.honest_recorder.events)
    await scene.victim_recorder.until(
        lambda: ("disconnected", scene.honest.peer) in scene.victim_recorder.events
    )
    async with asyncio.timeout(HANG_SECONDS):
        while scene.victim.peer not in scene.honest.peers():
            try:
                await scene.honest.dial(scene.victim.addresses[0])
            except ConnectionError:
                continue
        stream = await scene.honest.open(scene.victim.peer, ECHO)
        assert await request(stream, b"again") == b"niaga"
    assert scene.victim.rebuilds == 1
    await scene.victim.publish(TASKS, b"after the rebuild")
    await scene.honest_recorder.until(
        lambda: b"after the rebuild" in scene.honest_recorder.payloads
    )


async def test_bytes_beyond_the_receive_window_are_bounded(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(yamux, "UNREAD_BYTES", 1_000_000)

    async def attack(host: Host, peer: str) -> None:
        stream = await host.open(peer, ECHO)
        await stream.write((2**31).to_bytes(4, "big"))
        stream.muxed_stream.send_window = 2**40
        with trio.move_on_after(3), contextlib.suppress(Exception):  # it may be cut off
            for _ in range(100):
                await stream.write(bytes(100_000))

    async def unread(host: Host) -> int:
        connections = host.connections(scene.attacker.peer)
        return sum(len(b) for c in connections for b in c.muxed_conn.stream_buffers.values())

    blocked = asyncio.Event()

    async def serve(protocol: str, stream: Stream) -> None:
        await blocked.wait()

    scene.victim_recorder._serve = serve
    await scene.attack(attack)
    assert await scene.in_victim(unread) <= 1_000_000
    blocked.set()
    scene.victim_recorder._serve = echo_reversed
    await scene.assert_unharmed()


async def test_open_streams_are_limited_per_peer(scene: Scene) -> None:
    served, limit = 0, Limits().max_streams_per_peer
    release = asyncio.Event()

    async def serve(protocol: str, stream: Stream) -> None:
        nonlocal served
        served += 1
        await release.wait()

    scene.victim_recorder._serve = serve

    async def attack(host: Host, peer: str) -> None:
        async def open_one() -> None:
            try:
                await host.open(peer, ECHO)
            except Exception:
                return

        async with trio.open_nursery() as nursery:
            for _ in range(limit + 40):
                nursery.start_soon(open_one)

    await scene.attack(attack)
    assert 0 < served <= limit
    assert scene.victim._counts["streams-refused"] >= 40
    release.set()
    scene.victim_recorder._serve = echo_reversed
    await scene.assert_unharmed()


async def test_prune_causes_no_dials_and_unknown_topics_are_not_stored(scene: Scene) -> None:
    control = rpc_pb2.ControlMessage()
    for number in range(200):
        control.graft.append(rpc_pb2.ControlGraft(topicID=f"unknown {number}"))
        control.ihave.append(rpc_pb2.ControlIHave(topicID=f"unknown {number}"))
        prune = rpc_pb2.ControlPrune(topicID=f"unknown {number}", backoff=2**62)
        control.prune.append(prune)
    px = rpc_pb2.ControlPrune(topicID=TASKS)
    px.peers.append(rpc_pb2.PeerInfo(peerID=b"\xff\xff", signedPeerRecord=b"junk"))
    control.prune.append(px)
    content = bytes(rpc_pb2.RPC(control=control).SerializeToString())

    async def attack(host: Host, peer: str) -> None:
        await rpc_stream(host, peer, content)

    async def topics(host: Host) -> set[str]:
        router = host.gossip.router
        limited = {topic for limits in router.ihave_message_limits.values() for topic in limits}
        return set(router.back_off) | set(host.gossip.peer_topics) | limited

    await scene.attack(attack)
    assert await scene.in_victim(topics) <= set(TOPICS)
    await scene.assert_unharmed()


async def test_a_peer_that_the_node_reports_is_banned(scene: Scene) -> None:
    victim, attacker = scene.victim, scene.attacker
    await attacker.dial(victim.addresses[0])
    await scene.victim_recorder.until(
        lambda: ("connected", attacker.peer) in scene.victim_recorder.events
    )
    assert victim.rate_limit_key(attacker.peer) == attacker.peer, (
        "on loopback each peer pays for itself"
    )
    for _ in range(int(Limits().ban_points) + 1):
        victim.report(attacker.peer, PeerAction.PROTOCOL_VIOLATION)
    await scene.victim_recorder.until(
        lambda: ("disconnected", attacker.peer) in scene.victim_recorder.events
    )
    await poll(lambda: victim._counts["misbehaviours"] == Limits().ban_points + 1)
    with pytest.raises(ConnectionError):
        await victim.dial(attacker.addresses[0])
    await scene.assert_unharmed()
