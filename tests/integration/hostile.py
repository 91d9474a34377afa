"""What a hostile peer can do to a node's wire, each `TIMES` times; over real sockets."""

import asyncio
import contextlib
import itertools
import secrets
import struct
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from libp2p.io.trio import TrioTCPStream
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.peer.id import ID
from libp2p.pubsub.pb import rpc_pb2
from libp2p.utils.varint import encode_uvarint

from node import requests
from node.daemon import topics
from node.transport.base import Stream, Verdict
from node.transport.gossip import PROTOCOL
from node.transport.host import Host
from node.transport.libp2p import Libp2pTransport
from protocol.canonical import Document, canonical
from protocol.envelope import sign
from protocol.messages import task_body
from protocol.network import Network

TIMES = 1000
HELD = 250  # sockets at a time; below the attacker's own limit of descriptors
HELD_SECONDS = 1.0
UNREAD_SECONDS = 0.1
HEARD_SECONDS = 20.0
ATTACKERS = 4  # each with a key of its own
MULTISTREAM = b"\x13/multistream/1.0.0\n"
NOISE = b"\x07/noise\n"
DATA, WINDOW, PING = 0, 1, 2
SYN, RST = 1, 8
ARGS: Document = {
    "model": "helium/embedded-music",
    "prompt": "a flood",
    "seed": 1,
    "generation_config": {"max_new_tokens": 53},
}
FRAME = struct.Struct("!BBHII")  # version, type, flags, stream, length; all of Yamux


@dataclass(frozen=True, slots=True)
class Target:
    """The node that is attacked."""

    address: str  # multiaddr with its peer id
    network: Network

    @property
    def peer(self) -> str:
        return self.address.rpartition("/")[2]

    @property
    def socket(self) -> tuple[str, int]:
        parts = self.address.split("/")
        return parts[2], int(parts[4])


Attack = Callable[[Target], Coroutine[None, None, int]]


class Mute:
    """An attacker's listener, which hears and answers nothing."""

    def judge(self, topic: str, payload: bytes) -> Verdict:
        return Verdict.IGNORE

    def gossiped(self, peer: str, topic: str, payload: bytes) -> None:
        return

    async def serve(self, protocol: str, stream: Stream) -> None:
        await stream.reset()

    def connected(self, peer: str) -> None:
        return

    def disconnected(self, peer: str) -> None:
        return


class Attacker:
    """A peer with a key of its own; its bodies run in the trio thread, with the host at hand."""

    def __init__(self, target: Target) -> None:
        self.target = target
        key = Ed25519PrivateKey.generate()
        self._transport = Libp2pTransport(key.private_bytes_raw(), "/ip4/127.0.0.1/tcp/0")
        self.tries = 0

    async def __aenter__(self) -> "Attacker":
        await self._transport.start(Mute(), (), ())
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._transport.stop()

    async def run(self, body: Callable[[Host, str], Awaitable[Any]]) -> None:
        """Connect if need be, and run a body; whatever the node does to it is its own affair."""
        self.tries += 1
        with contextlib.suppress(ConnectionError):
            if self.target.peer not in self._transport.peers():
                await self._transport.dial(self.target.address)
        host = self._transport._host
        assert host is not None
        try:
            await self._transport._bridge.call(body, host, self.target.peer)
        except Exception:  # cut off, most likely; the next time is with a new connection
            await self._transport._bridge.call(host.disconnect, self.target.peer)
            while self.target.peer in self._transport.peers():  # noqa: ASYNC110 - of no account
                await asyncio.sleep(0.01)


async def end_of(stream: Any) -> None:
    """Read until the node has ended the stream, or does nothing."""
    with trio.move_on_after(0.2), contextlib.suppress(Exception):
        while await stream.read(65_536):
            pass


def frame(kind: int, flags: int, stream: int, payload: bytes = b"", length: int = -1) -> bytes:
    """Return a Yamux frame, whose length may be a lie."""
    return FRAME.pack(0, kind, flags, stream, len(payload) if length < 0 else length) + payload


async def heard(host: Host, peer: str) -> None:
    """Wait until the node has come as far as answering; frames are taken in their order."""
    with trio.move_on_after(HEARD_SECONDS):
        await (await host.open(peer, requests.protocol_id("hello"))).reset()


# Before there is a peer


async def _sockets(target: Target, sent: bytes) -> int:
    async def one() -> None:
        reader, writer = await asyncio.open_connection(*target.socket)
        writer.write(sent)
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(HELD_SECONDS):
                while await reader.read(65_536):
                    pass
        writer.close()

    for _ in range(TIMES // HELD):
        await asyncio.gather(*(one() for _ in range(HELD)))
    return TIMES


async def idle_sockets(target: Target) -> int:
    """Connect and say nothing."""
    return await _sockets(target, b"")


async def garbage(target: Target) -> int:
    """Connect and say what no protocol knows."""
    return await _sockets(target, b"\xff" * 300)


async def plaintext(target: Target) -> int:
    """Ask for a connection that is not encrypted."""
    return await _sockets(target, MULTISTREAM + b"\x11/plaintext/2.0.0\n")


async def broken_handshake(target: Target) -> int:
    """Begin Noise and go on with garbage."""
    return await _sockets(target, MULTISTREAM + NOISE + b"\xff\xff" + b"\xaa" * 65_535)


async def connections(target: Target) -> int:
    """Connect properly, announce a frame of 4 GB, and do it all again with the next."""
    endless = frame(DATA, SYN, 1, length=2**32 - 1)

    async def body(host: Host, peer: str, number: int) -> None:
        upgrader = host.swarm.upgrader
        raw = RawConnection(TrioTCPStream(await trio.open_tcp_stream(*target.socket)), True)
        try:
            secured = await upgrader.upgrade_security(raw, True, ID.from_base58(peer))
            await upgrader.upgrade_connection(secured, ID.from_base58(peer))
            await secured.write(endless)
        finally:
            await raw.close()

    return await _streams(target, body, at_once=2)


# With a connection: the muxer


async def _frames(
    target: Target, make: Callable[[int], bytes], pieces: int, batch: int = 50
) -> int:
    """Send `pieces` of frames, a batch in each write, on a new connection when one has ended."""
    numbers = iter(range(pieces))
    sent = 0

    async def body(host: Host, peer: str) -> None:
        nonlocal sent
        muxed = host.connections(peer)[0].muxed_conn
        while written := [make(number) for number in itertools.islice(numbers, batch)]:
            await muxed.secured_conn.write(b"".join(written))
            sent += len(written)
        await heard(host, peer)

    async with Attacker(target) as attacker:
        while sent < pieces and attacker.tries < 200:
            await attacker.run(body)
    return sent


async def pings(target: Target) -> int:
    """Ping without end."""
    return await _frames(target, lambda n: frame(PING, SYN, 0, length=n), 10 * TIMES)


async def unknown_frames(target: Target) -> int:
    """Send frames of types and streams that there are not."""
    return await _frames(
        target, lambda n: FRAME.pack(n % 7, 3 + n % 200, 0xFFFF, n, n), 2 * TIMES, 10
    )


async def opened_and_reset(target: Target) -> int:
    """Open streams and reset them at once, as in HTTP/2's rapid reset."""
    return await _frames(
        target,
        lambda n: frame(WINDOW, SYN, 2 * n + 101) + frame(WINDOW, RST, 2 * n + 101),
        5 * TIMES,
    )


async def idle_streams(target: Target) -> int:
    """Open streams and say nothing on them."""
    return await _frames(target, lambda n: frame(WINDOW, SYN, 2 * n + 100_001), 5 * TIMES)


async def overruns(target: Target) -> int:
    """Push 60 MB into streams that nobody reads, whatever their windows."""

    def make(number: int) -> bytes:
        stream = 2 * (number // 20) + 1_000_001
        opening = frame(WINDOW, SYN, stream) if number % 20 == 0 else b""
        return opening + frame(DATA, 0, stream, bytes(60_000))

    return await _frames(target, make, TIMES + 100, batch=1)


# With a connection: streams


CUT_OFF = 10  # failures in a row: the connection is gone


async def _streams(
    target: Target,
    body: Callable[[Host, str, int], Awaitable[None]],
    at_once: int = 4,
    count: int = ATTACKERS,
) -> int:
    """Let each attacker run a body, `at_once` at a time, until it has been done `TIMES` times."""
    done, tries = 0, itertools.count()

    async def one(host: Host, peer: str) -> None:
        nonlocal done
        failures = 0
        while done < TIMES and (number := next(tries)) < 20 * TIMES:
            try:
                await body(host, peer, number)
                done, failures = done + 1, 0
            except Exception:
                failures += 1
                if failures == CUT_OFF:
                    raise

    async def all_of_them(host: Host, peer: str) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(at_once):
                nursery.start_soon(one, host, peer)

    async def again_and_again(attacker: Attacker) -> None:
        while done < TIMES and attacker.tries < 200:  # on a new connection when it was cut off
            await attacker.run(all_of_them)

    async with contextlib.AsyncExitStack() as stack:
        attackers = [await stack.enter_async_context(Attacker(target)) for _ in range(count)]
        await asyncio.gather(*(again_and_again(attacker) for attacker in attackers))
    return done


NEGOTIATIONS = (
    MULTISTREAM + b"\x04\xff\xfe\xfd\n",
    MULTISTREAM + b"\x00",
    MULTISTREAM + b"\x05/abc\xff",
    MULTISTREAM + b"\xff" * 9 + b"\x7f",
    b"\xff" * 200,
)


async def negotiations(target: Target) -> int:
    """Negotiate a protocol in bytes that are no UTF-8, empty, endless."""

    async def body(host: Host, peer: str, number: int) -> None:
        stream = await host.connections(peer)[0].new_stream()
        await stream.write(NEGOTIATIONS[number % len(NEGOTIATIONS)])
        await end_of(stream)

    return await _streams(target, body)


BAD_REQUESTS = (
    b"\xff\xff\xff\xff\x7f",  # 32 GiB
    b"\x80\x00",  # a length that is not minimal
    b"\x04\xff\xfe\xfd\xfc",
    b"\x02{}",
    encode_uvarint(60_000) + b"[" * 60_000,
    encode_uvarint(500) + b"{",  # and then nothing
    b"",
)


async def bad_requests(target: Target) -> int:
    """Ask all that can be asked, badly."""

    async def body(host: Host, peer: str, number: int) -> None:
        name = requests.NAMES[number % len(requests.NAMES)]
        stream = await host.open(peer, requests.protocol_id(name))
        await stream.write(BAD_REQUESTS[number % len(BAD_REQUESTS)])
        await end_of(stream)
        await stream.reset()

    return await _streams(target, body)


async def unread_answers(target: Target) -> int:
    """Ask for feeds and blobs, and read nothing of the answers."""
    asked = encode_uvarint(37) + b'{"cursor":0,"feed":"","limit":100000}'

    async def body(host: Host, peer: str, number: int) -> None:
        stream = await host.open(peer, requests.protocol_id("feed"))
        await stream.write(asked)
        await trio.sleep(UNREAD_SECONDS)
        await stream.reset()

    return await _streams(target, body)


# Gossip


async def _rpcs(target: Target, rpcs: tuple[bytes, ...], times: int = TIMES) -> int:
    """Send RPCs on gossip streams, on a new one when the node has ended the last."""
    sent = 0

    async def body(host: Host, peer: str) -> None:
        nonlocal sent
        stream = await host.open(peer, PROTOCOL)
        while sent < times:
            content = rpcs[sent % len(rpcs)]
            await stream.write(encode_uvarint(len(content)) + content)
            sent += 1
        await stream.close_write()
        with trio.move_on_after(HEARD_SECONDS):
            while await stream.read(65_536):
                pass

    async with Attacker(target) as attacker:
        while sent < times and attacker.tries < 200:
            await attacker.run(body)
    return sent


def rpc(**fields: Any) -> bytes:
    """Return an RPC's bytes."""
    return bytes(rpc_pb2.RPC(**fields).SerializeToString())


async def undecodable_rpcs(target: Target) -> int:
    """Gossip what is no protobuf; the node ends the stream each time."""
    bad = (b"\xff" * 300, b"\x12\x05abc", b"\x0a\x03\x12\x01\xff")

    async def body(host: Host, peer: str, number: int) -> None:
        stream = await host.open(peer, PROTOCOL)
        sent = bad[number % len(bad)]
        await stream.write(encode_uvarint(len(sent)) + sent)
        await end_of(stream)
        await stream.reset()

    return await _streams(target, body, at_once=3)


async def bad_messages(target: Target) -> int:
    """Gossip messages with keys, signatures, no topic, and no JSON."""
    tasks = topics(target.network.id)[0]

    def of(number: int) -> bytes:
        fields = [
            {"key": b"\xff\xff\xff"},
            {"signature": b"s", "seqno": b"1" * 8, "from_id": b"\x12\x20" * 17},
            {},
        ][number % 3]
        named = [] if number % 4 == 3 else [tasks]
        message = rpc_pb2.Message(data=b"%d" % number, topicIDs=named, **fields)
        return rpc(publish=[message])

    return await _rpcs(target, tuple(of(number) for number in range(TIMES)))


async def submissions(target: Target, many: bool = False) -> int:
    """Submit valid tasks of one requester, or each of another, one after another."""
    network = target.network
    key = Ed25519PrivateKey.generate()
    [compute_class] = network.classes

    def signed() -> bytes:
        now, nonce = int(time.time() * 1000), secrets.token_hex(16)
        body = task_body(network.id, "text-to-music", ARGS, compute_class, now, 600, nonce)
        signer = Ed25519PrivateKey.generate() if many else key
        request: Document = {"task": sign(body, signer).document(), "blobs": []}
        return canonical(request)

    async def body(host: Host, peer: str, number: int) -> None:
        stream = await host.open(peer, requests.protocol_id("submit"))
        asked = signed()
        await stream.write(encode_uvarint(len(asked)) + asked)
        await end_of(stream)
        await stream.reset()

    return await _streams(target, body, count=1)


async def messages(target: Target) -> int:
    """Gossip on a topic that there is not."""
    made = [rpc_pb2.Message(data=b"%d" % n, topicIDs=["none"]) for n in range(TIMES + 200)]
    rpcs = tuple(rpc(publish=made[n : n + 10]) for n in range(0, len(made), 10))
    return 10 * await _rpcs(target, rpcs, len(rpcs))


async def control_floods(target: Target) -> int:
    """Ask for 5,000 messages, offer 5,000, graft and prune unknown topics, in each RPC."""
    tasks = topics(target.network.id)[0]
    ids = [b"%020d" % number for number in range(2400)]
    control = rpc_pb2.ControlMessage()
    control.ihave.append(rpc_pb2.ControlIHave(topicID=tasks, messageIDs=ids))
    control.iwant.append(rpc_pb2.ControlIWant(messageIDs=ids[:1] * 2400))
    for number in range(50):
        control.graft.append(rpc_pb2.ControlGraft(topicID=f"unknown {number}"))
        control.prune.append(rpc_pb2.ControlPrune(topicID=f"unknown {number}", backoff=2**62))
    later = rpc_pb2.ControlMessage()
    later.idontwant.append(rpc_pb2.ControlIDontWant(messageIDs=ids))
    return await _rpcs(target, (rpc(control=control), rpc(control=later)))


async def submissions_of_many(target: Target) -> int:
    """Submit valid tasks over one connection, each with a requester's key of its own."""
    return await submissions(target, many=True)


PARSERS: tuple[Attack, ...] = (
    idle_sockets,
    garbage,
    plaintext,
    broken_handshake,
    connections,
    unknown_frames,
    negotiations,
    bad_requests,
    undecodable_rpcs,
    bad_messages,
    control_floods,
)
FLOODS: tuple[Attack, ...] = (
    pings,
    opened_and_reset,
    idle_streams,
    overruns,
    unread_answers,
    messages,
    submissions,
    submissions_of_many,
)
