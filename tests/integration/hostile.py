"""What a hostile peer can do to a node's wire, each kind `TIMES` times; over real sockets."""

import asyncio
import contextlib
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from libp2p.io.trio import TrioTCPStream
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.peer.id import ID
from libp2p.pubsub.pb import rpc_pb2
from libp2p.utils.varint import encode_uvarint, read_varint_prefixed_bytes_limited

from node.daemon import topics
from node.rpc import codec as rpc_codec
from node.transport.libp2p.gossipsub import PROTOCOL, RPC_BYTES
from node.transport.libp2p.host import Host
from protocol.constants import DOCUMENT_LIMIT
from protocol.wire.encoding import Document, canonical
from protocol.wire.messages import task_body
from protocol.wire.signing import sign
from tests.integration.attacker import (
    CONNECTIONS,
    DATA,
    ENDED_SECONDS,
    FRAME,
    PING,
    RST,
    SYN,
    TIMES,
    WINDOW,
    Attack,
    Attacker,
    Counts,
    Target,
    end_of,
    frame,
    frames,
    heard,
    rpcs,
    streams,
)
from tests.integration.light import BUG

HELD = 150  # idle sockets of one address, the most that a node allows; of two are over its limit
HELD_SECONDS = 10.0  # libp2p's own patience
SPEAKERS = 4  # sockets of one address at a time; whoever has more is not listened to
ADDRESSES = [f"127.0.0.{number}" for number in range(2, 6)]  # an origin each; not the honest ones'
PUSHED = 100_000  # bytes of a frame that nobody reads
LEFT = 300_000  # and of one whose stream has failed; `TIMES` of them are what libp2p once took
PUSHERS = 6  # peers, for a new connection takes each of them half a second
PUSHES = 50  # into one stream; of all of them less than the node keeps unread in all
STALLED_SECONDS = 6.0  # libp2p gives up a writer after 5
STALLERS, AT_ONCE = 8, 30  # peers, and requests of each at a time; two are answered
PAGE = 600  # envelopes; over `WINDOW_BYTES`, but 64 MB for all that may read would be allowed
WINDOW_BYTES = 256 * 1024  # what is sent before a reader has to read
Socket = tuple[asyncio.StreamReader, asyncio.StreamWriter]
MULTISTREAM = b"\x13/multistream/1.0.0\n"
NOISE = b"\x07/noise\n"
NOT_KNOWN = b"\x03na\n"
ARGS: Document = {
    "model": "helium/embedded-music",
    "prompt": "a flood",
    "seed": 1,
    "generation_config": {"max_new_tokens": 53},
}


# Before there is a peer


@contextlib.asynccontextmanager
async def _socket(target: Target, source: str) -> AsyncIterator[Socket]:
    async with asyncio.timeout(HELD_SECONDS):
        reader, writer = await asyncio.open_connection(*target.socket, local_addr=(source, 0))
        try:
            yield reader, writer
        finally:
            writer.close()


async def _end(reader: asyncio.StreamReader) -> bytes:
    """Return what the node says until it closes."""
    said = bytearray()
    with contextlib.suppress(ConnectionError):
        while piece := await reader.read(65_536):
            said += piece
    return bytes(said)


async def idle_sockets(target: Target) -> Counts:
    """Connect 300 times, say nothing, and wait until the node has cut them all."""
    cut = 0

    async def one(source: str) -> None:
        nonlocal cut
        with contextlib.suppress(TimeoutError):
            async with _socket(target, source) as (reader, _):
                await _end(reader)
                cut += 1

    for number in range(1, -(-TIMES // (2 * HELD)) + 1):
        await asyncio.gather(*(one(a) for a in ADDRESSES[:2] for _ in range(HELD)))
        assert cut == number * 2 * HELD, "the node lets them idle"
    return Counter(cut=cut)


async def _spoken(target: Target, sent: bytes, answer: bytes = b"", more: bytes = b"") -> Counts:
    """Say something on socket after socket, and more after the answer; it must be this one."""
    heard, tries = 0, 0

    async def speak(source: str) -> None:
        nonlocal heard, tries
        while heard < TIMES and tries < 10 * TIMES:
            tries += 1
            with contextlib.suppress(TimeoutError, OSError, asyncio.IncompleteReadError):
                async with _socket(target, source) as (reader, writer):
                    await reader.readexactly(len(MULTISTREAM))  # or it does not listen
                    writer.write(sent)
                    if await reader.readexactly(len(answer)) != answer:
                        continue
                    writer.write(more)
                    writer.write_eof()  # or it waits for what it knows
                    await _end(reader)
                    heard += 1

    await asyncio.gather(*(speak(a) for a in ADDRESSES for _ in range(SPEAKERS)))
    return Counter(heard=heard)


async def garbage(target: Target) -> Counts:
    """Connect and say what no protocol knows."""
    return await _spoken(target, b"\xff" * 300)


async def plaintext(target: Target) -> Counts:
    """Ask for a connection that is not encrypted, which the node must not know."""
    return await _spoken(target, MULTISTREAM + b"\x11/plaintext/2.0.0\n", NOT_KNOWN)


async def broken_handshake(target: Target) -> Counts:
    """Begin Noise and go on with garbage: the first is taken for a key, the second is forged."""
    garbage = b"\xff\xff" + b"\xaa" * 65_535
    return await _spoken(target, MULTISTREAM + NOISE, NOISE, 2 * garbage)


async def connections(target: Target) -> Counts:
    """Connect properly, announce a frame of 4 GB, and do it all again with the next."""
    endless = frame(DATA, SYN, 1, length=2**32 - 1)

    async def body(host: Host, peer: str, kind: str) -> None:
        upgrader = host.swarm.upgrader
        raw = RawConnection(TrioTCPStream(await trio.open_tcp_stream(*target.socket)), True)
        try:
            secured = await upgrader.upgrade_security(raw, True, ID.from_base58(peer))
            await upgrader.upgrade_connection(secured, ID.from_base58(peer))
            await secured.write(endless)
        finally:
            await raw.close()

    return await streams(target, ["made"], body, at_once=2)


# With a connection: the muxer


async def pings(target: Target) -> Counts:
    """Ping without end."""
    return await frames(target, lambda n: frame(PING, SYN, 0, length=n), 10 * TIMES)


async def unknown_frames(target: Target) -> Counts:
    """Send frames of types and streams that there are not."""
    return await frames(
        target, lambda n: FRAME.pack(n % 7, 3 + n % 200, 0xFFFF, n, n), 2 * TIMES, 10, wait=True
    )


async def opened_and_reset(target: Target) -> Counts:
    """Open streams and reset them at once, as in HTTP/2's rapid reset."""
    return await frames(
        target,
        lambda n: frame(WINDOW, SYN, 2 * n + 101) + frame(WINDOW, RST, 2 * n + 101),
        5 * TIMES,
    )


async def idle_streams(target: Target) -> Counts:
    """Open streams and say nothing on them."""
    return await frames(target, lambda n: frame(WINDOW, SYN, 2 * n + 100_001), 5 * TIMES)


async def overruns(target: Target) -> Counts:
    """Push into streams that the node does not read, for it waits there for its own reader.

    What was pushed counts if the node has ended the connection by the time that 5 MB were, and the
    first that takes them ends the attack; libp2p took 300 MB.
    """
    asked, piece, done = _reads(target)["blob"], bytes(PUSHED), Counter(pushed=0)
    taken = False

    async def body(host: Host, peer: str) -> None:
        nonlocal taken
        stream, pushed = await host.open(peer, rpc_codec.protocol_id("blob")), 0
        await stream.write(asked)
        muxed, number = stream.muxed_conn, stream.muxed_stream.stream_id
        try:
            while pushed < PUSHES:
                await muxed.secured_conn.write(frame(DATA, 0, number, piece))
                pushed += 1
            await (await host.open(peer, rpc_codec.protocol_id("hello"))).reset()
            taken = True
        except Exception:  # cut off, as it should be
            done["pushed"] += pushed
            raise

    async def again_and_again(attacker: Attacker) -> None:
        while not taken and done["pushed"] < TIMES and attacker.tries < CONNECTIONS:
            await attacker.run(body)

    async with contextlib.AsyncExitStack() as stack:
        attackers = [await stack.enter_async_context(Attacker(target)) for _ in range(PUSHERS)]
        await asyncio.gather(*(again_and_again(attacker) for attacker in attackers))
    return done


async def leftovers(target: Target) -> Counts:
    """Push 300 MB into streams that have failed, no more into one than its window's growth."""

    def make(number: int) -> bytes:
        stream = 2 * (number // 4) + 1_000_001
        opening = frame(WINDOW, SYN, stream) if number % 4 == 0 else b""
        return opening + frame(DATA, 0, stream, bytes(LEFT))

    return await frames(target, make, TIMES, batch=1)


# With a connection: streams


async def _told(host: Host, peer: str, protocol: str, content: bytes, ends: bool = False) -> None:
    """Open a stream of a protocol, say something, and wait until the node has ended the stream.

    One that `ends` says nothing more; otherwise the node might wait for it.
    """
    stream = await host.connections(peer)[0].new_stream()
    agreed = encode_uvarint(len(protocol) + 1) + protocol.encode() + b"\n"
    await stream.write(MULTISTREAM + agreed + content)  # no answer is waited for: it takes longer
    if ends:
        await stream.close_write()
    await end_of(stream)
    await stream.reset()


NEGOTIATIONS = {
    "not UTF-8": MULTISTREAM + b"\x04\xff\xfe\xfd\n",
    "empty": MULTISTREAM + b"\x00",
    "no newline": MULTISTREAM + b"\x05/abc\xff",
    "huge length": MULTISTREAM + b"\xff" * 9 + b"\x7f",
    "garbage": b"\xff" * 200,
}


async def negotiations(target: Target) -> Counts:
    """Negotiate a protocol in bytes that are no UTF-8, empty, endless."""

    async def body(host: Host, peer: str, kind: str) -> None:
        stream = await host.connections(peer)[0].new_stream()
        await stream.write(NEGOTIATIONS[kind])
        await stream.close_write()
        await end_of(stream)
        await stream.reset()

    return await streams(target, list(NEGOTIATIONS), body)


BAD_REQUESTS = (
    b"\xff\xff\xff\xff\x7f",  # 32 GiB
    b"\x80\x00",  # a length that is not minimal
    b"\x04\xff\xfe\xfd\xfc",
    b"\x02{}",
    encode_uvarint(60_000) + b"[" * 60_000,
    encode_uvarint(500) + b"{",  # and then nothing
    b"",
)


async def bad_requests(target: Target) -> Counts:
    """Ask all that can be asked, badly; each protocol in each way, `TIMES` in all."""
    numbers = iter(range(100 * TIMES))

    async def body(host: Host, peer: str, kind: str) -> None:
        number = next(numbers)
        name = rpc_codec.REQUESTS[number % len(rpc_codec.REQUESTS)]
        bad = BAD_REQUESTS[number % len(BAD_REQUESTS)]
        await _told(host, peer, rpc_codec.protocol_id(name), bad, ends=True)

    return await streams(target, ["asked"], body)


async def failing_handlers(target: Target) -> Counts:
    """Ask for what makes the handler raise; the node resets the stream."""
    asked = _request({"task": BUG})

    async def body(host: Host, peer: str, kind: str) -> None:
        await _told(host, peer, rpc_codec.protocol_id("task"), asked)

    return await streams(target, ["raised"], body)


def _request(document: Document) -> bytes:
    content: bytes = canonical(document)
    return bytes(encode_uvarint(len(content))) + content


def _reads(target: Target, envelopes: int = 1000) -> dict[str, bytes]:
    feed: Document = {"cursor": 0, "feed": "", "limit": envelopes}
    return {
        "feed": _request(feed),
        "blob": _request({"sha256": target.blob, "offset": 0}),
    }


async def _begun(host: Host, peer: str, name: str, asked: bytes) -> Any:
    """Ask, and return the stream when the answer has begun; raise if it is a refusal."""
    stream = await host.open(peer, rpc_codec.protocol_id(name))
    await stream.write(asked)
    with trio.move_on_after(ENDED_SECONDS):
        if await stream.read(1) == bytes((rpc_codec.Status.OK,)):
            return stream
    await stream.reset()
    raise LookupError(f"no {name}")


async def unread_answers(target: Target) -> Counts:
    """Ask for feeds and blobs, and read nothing of the answers but that they have begun."""
    asked = _reads(target)

    async def body(host: Host, peer: str, kind: str) -> None:
        await (await _begun(host, peer, kind, asked[kind])).reset()

    return await streams(target, list(asked), body)


# Gossip


def rpc(**fields: Any) -> bytes:
    """Return an RPC's bytes."""
    return bytes(rpc_pb2.RPC(**fields).SerializeToString())


UNDECODABLE = {
    "garbage": encode_uvarint(300) + b"\xff" * 300,
    "cut off": b"\x05\x12\x05abc",
    "topic not UTF-8": b"\x05\x0a\x03\x12\x01\xff",
    "over the limit": encode_uvarint(RPC_BYTES + 1) + b"\xff" * 300,
}


async def undecodable_rpcs(target: Target) -> Counts:
    """Gossip what is no protobuf, or announce too much; the node ends the stream each time."""

    async def body(host: Host, peer: str, kind: str) -> None:
        await _told(host, peer, PROTOCOL, UNDECODABLE[kind])

    return await streams(target, list(UNDECODABLE), body, at_once=3)


async def bad_messages(target: Target) -> Counts:
    """Gossip messages with keys, signatures, no topic, and no JSON."""
    tasks = topics(target.network.id)[0]
    signed = {"signature": b"s", "seqno": b"1" * 8, "from_id": b"\x12\x20" * 17}
    kinds: dict[str, dict[str, Any]] = {
        "key": {"topicIDs": [tasks], "key": b"\xff\xff\xff"},
        "key and no topic": {"key": b"\xff\xff\xff"},
        "signature": {"topicIDs": [tasks], **signed},
        "no topic": {},
        "no JSON": {"topicIDs": [tasks]},
    }
    return await rpcs(
        target,
        {
            kind: [rpc(publish=[rpc_pb2.Message(data=b"%d" % n, **f)]) for n in range(TIMES)]
            for kind, f in kinds.items()
        },
    )


async def submissions(target: Target, many: bool = False) -> Counts:
    """Submit valid tasks of one requester, or each of another, one after another."""
    network = target.network
    key = Ed25519PrivateKey.generate()
    [compute_class] = network.classes

    def signed() -> bytes:
        now, nonce = int(time.time() * 1000), secrets.token_hex(16)
        body = task_body(network.id, "text-to-music", ARGS, compute_class, now, 600, nonce)
        signer = Ed25519PrivateKey.generate() if many else key
        return _request({"task": sign(body, signer).document(), "blobs": []})

    async def body(host: Host, peer: str, kind: str) -> None:
        stream = await host.open(peer, rpc_codec.protocol_id("submit"))
        await stream.write(signed())
        await end_of(stream)
        await stream.reset()

    return await streams(target, ["submitted"], body, count=1)


async def stalled_readers(target: Target) -> Counts:
    """Ask for the feed 1,000 times, and read on only after libp2p's 5 s for a writer.

    The node turns most away; whom it answers it must wait for, and give the whole page.
    """
    asked, done, stalled = _reads(target, PAGE)["feed"], Counter(asked=0), 0
    while await _feed_page(target, asked) <= WINDOW_BYTES:
        await submissions(target)

    async def one(host: Host, peer: str) -> None:
        nonlocal stalled
        with contextlib.suppress(LookupError):
            stream = await _begun(host, peer, "feed", asked)
            with trio.move_on_after(STALLED_SECONDS):
                await stream.muxed_conn.event_closed.wait()
            rest = await read_varint_prefixed_bytes_limited(stream, DOCUMENT_LIMIT)
            stalled += len(rest) > WINDOW_BYTES
            await stream.reset()
        done["asked"] += 1

    async def some(host: Host, peer: str) -> None:
        while done["asked"] < TIMES:
            await one(host, peer)

    async def body(host: Host, peer: str) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(AT_ONCE):
                nursery.start_soon(some, host, peer)

    async def repeated(attacker: Attacker) -> None:
        # The node cuts off a reader that stalls; the attacker then connects again.
        while done["asked"] < TIMES:
            await attacker.run(body)

    async with contextlib.AsyncExitStack() as stack:
        attackers = [await stack.enter_async_context(Attacker(target)) for _ in range(STALLERS)]
        for attacker in attackers:  # all at once, some would be turned away
            await attacker.run(heard)
        await asyncio.gather(*(repeated(attacker) for attacker in attackers))
    assert stalled >= STALLERS
    return done


async def _feed_page(target: Target, asked: bytes) -> int:
    """Return how long the first page of the node's feed is, bytes."""
    found = 0

    async def body(host: Host, peer: str) -> None:
        nonlocal found
        stream = await _begun(host, peer, "feed", asked)
        found = len(await read_varint_prefixed_bytes_limited(stream, DOCUMENT_LIMIT))
        await stream.reset()

    async with Attacker(target) as attacker:
        await attacker.run(body)
    return found


async def messages(target: Target) -> Counts:
    """Gossip on a topic that there is not."""
    made = [rpc_pb2.Message(data=b"%d" % n, topicIDs=["none"]) for n in range(TIMES + 200)]
    batches = [rpc(publish=made[n : n + 10]) for n in range(0, len(made), 10)]
    sent = await rpcs(target, {"batches": batches})
    return Counter(sent=10 * sent["batches"])


async def control_floods(target: Target) -> Counts:
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
    return await rpcs(
        target,
        {"1.1": [rpc(control=control)] * TIMES, "1.2": [rpc(control=later)] * TIMES},
    )


async def submissions_of_many(target: Target) -> Counts:
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
    failing_handlers,
    undecodable_rpcs,
    bad_messages,
    control_floods,
)
FLOODS: tuple[Attack, ...] = (
    pings,
    opened_and_reset,
    idle_streams,
    overruns,
    leftovers,
    unread_answers,
    messages,
    submissions,
    submissions_of_many,
    stalled_readers,  # of what was submitted
)
