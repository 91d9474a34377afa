"""The attacks of a hostile peer on a node's connections, each kind `TIMES` times."""

import asyncio
import contextlib
import json
import math
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

from node.rpc import codec as rpc_codec
from node.transport.interface import topics
from node.transport.libp2p.gossipsub import PROTOCOL, RPC_BYTES
from node.transport.libp2p.host import Host
from protocol.constants import DOCUMENT_LIMIT
from protocol.wire.encoding import Document, canonical, document_hash
from protocol.wire.messages import task_body
from protocol.wire.signing import peer_of, sign
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
    rpcs,
    streams,
    wait_processed,
)
from tests.integration.light import BUG

# Idle sockets of one address: the most that a node allows. Those of two addresses are over its
# limit for all.
IDLE_SOCKETS = 150
# For a connection attempt with all that follows: libp2p's own timeout.
SOCKET_SECONDS = 10.0
# Concurrent sockets of one address: a quarter of what a node allows before they are encrypted.
SOCKETS_PER_ADDRESS = 4
# Each has limits of its own. Honest peers use another one.
ADDRESSES = [f"127.0.0.{number}" for number in range(2, 6)]
# Bytes of a frame that is pushed into a stream which nobody reads.
PUSHED_BYTES = 100_000
# Bytes of a frame for a stream that has failed. libp2p kept all of `TIMES` such frames.
LEFTOVER_BYTES = 300_000
# Peers that push. A new connection takes each of them half a second.
PUSHERS = 6
# Frames into one stream. Those of all pushers are less than a node keeps unread.
PUSHES = 50
# libp2p gives up on a writer after 5 s.
STALLED_SECONDS = 6.0
# Peers that stall, and concurrent requests of each; a node answers two.
STALLERS, CONCURRENT_REQUESTS = 8, 30
# Envelopes in an answer. Tasks with long prompts are more than `WINDOW_BYTES`.
ENVELOPES, PROMPT_CHARACTERS = 128, 4000
# Bytes that a node sends before the reader must read.
WINDOW_BYTES = 256 * 1024
Socket = tuple[asyncio.StreamReader, asyncio.StreamWriter]
MULTISTREAM = b"\x13/multistream/1.0.0\n"
NOISE = b"\x07/noise\n"
NOT_AVAILABLE = b"\x03na\n"
ARGS: Document = {
    "model": "helium/embedded-music",
    "prompt": "a flood",
    "seed": 1,
    "generation_config": {"max_new_tokens": 53},
}
HEAVY_ARGS: Document = {**ARGS, "generation_config": {"max_new_tokens": 4 * 53}}


# Before the connection is encrypted


@contextlib.asynccontextmanager
async def _socket(target: Target, source: str) -> AsyncIterator[Socket]:
    async with asyncio.timeout(SOCKET_SECONDS):
        reader, writer = await asyncio.open_connection(*target.socket, local_addr=(source, 0))
        try:
            yield reader, writer
        finally:
            writer.close()


async def _read_to_end(reader: asyncio.StreamReader) -> None:
    """Wait until the node closes the connection."""
    with contextlib.suppress(ConnectionError):
        while await reader.read(65_536):
            pass


async def idle_sockets(target: Target) -> Counts:
    """Open 300 sockets, send nothing, and wait until the node has closed them all."""
    closed = 0

    async def idle(source: str) -> None:
        nonlocal closed
        with contextlib.suppress(TimeoutError):
            async with _socket(target, source) as (reader, _):
                await _read_to_end(reader)
                closed += 1

    for number in range(1, -(-TIMES // (2 * IDLE_SOCKETS)) + 1):
        await asyncio.gather(*(idle(a) for a in ADDRESSES[:2] for _ in range(IDLE_SOCKETS)))
        assert closed == number * 2 * IDLE_SOCKETS, "the node lets them idle"
    return Counter(closed=closed)


async def _send_raw(target: Target, sent: bytes, answer: bytes = b"", more: bytes = b"") -> Counts:
    """On socket after socket, send bytes, require `answer`, and send `more`."""
    completed, tries = 0, 0

    async def send(source: str) -> None:
        nonlocal completed, tries
        while completed < TIMES and tries < 10 * TIMES:
            tries += 1
            with contextlib.suppress(TimeoutError, OSError, asyncio.IncompleteReadError):
                async with _socket(target, source) as (reader, writer):
                    await reader.readexactly(len(MULTISTREAM))  # the node is ready to read
                    writer.write(sent)
                    if await reader.readexactly(len(answer)) != answer:
                        continue
                    writer.write(more)
                    writer.write_eof()  # the node may wait for more
                    await _read_to_end(reader)
                    completed += 1

    await asyncio.gather(*(send(a) for a in ADDRESSES for _ in range(SOCKETS_PER_ADDRESS)))
    return Counter(completed=completed)


async def garbage(target: Target) -> Counts:
    """Send bytes of no protocol."""
    return await _send_raw(target, b"\xff" * 300)


async def plaintext(target: Target) -> Counts:
    """Propose an unencrypted connection; the node must answer that it has no such protocol."""
    return await _send_raw(target, MULTISTREAM + b"\x11/plaintext/2.0.0\n", NOT_AVAILABLE)


async def broken_handshake(target: Target) -> Counts:
    """Begin Noise, then send garbage: one message in place of the key, one that is forged."""
    garbage = b"\xff\xff" + b"\xaa" * 65_535
    return await _send_raw(target, MULTISTREAM + NOISE, NOISE, 2 * garbage)


async def connections(target: Target) -> Counts:
    """Connect as usual, announce a frame of 4 GB, and close; again and again."""
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

    return await streams(target, ["connected"], body, at_once=2)


# On a connection: Yamux


async def pings(target: Target) -> Counts:
    """Send pings only."""
    return await frames(target, lambda n: frame(PING, SYN, 0, length=n), 10 * TIMES)


async def unknown_frames(target: Target) -> Counts:
    """Send frames of unknown types and for streams that do not exist."""
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
    """Open streams and send nothing on them."""
    return await frames(target, lambda n: frame(WINDOW, SYN, 2 * n + 100_001), 5 * TIMES)


async def overruns(target: Target) -> Counts:
    """Ignore the window of streams that the node does not read, as it is writing to them.

    Frames count if the node ends the connection before it has received 5 MB. If it accepts all of
    them, the attack stops. libp2p accepted 300 MB.
    """
    request, piece, done = _requests(target)["blob"], bytes(PUSHED_BYTES), Counter(pushed=0)
    accepted_all = False

    async def body(host: Host, peer: str) -> None:
        nonlocal accepted_all
        stream, pushed = await host.open(peer, rpc_codec.protocol_id("blob")), 0
        await stream.write(request)
        muxed, number = stream.muxed_conn, stream.muxed_stream.stream_id
        try:
            while pushed < PUSHES:
                await muxed.secured_conn.write(frame(DATA, 0, number, piece))
                pushed += 1
            await (await host.open(peer, rpc_codec.protocol_id("hello"))).reset()
            accepted_all = True
        except Exception:  # disconnected, as required
            done["pushed"] += pushed
            raise

    async def reconnect(attacker: Attacker) -> None:
        while not accepted_all and done["pushed"] < TIMES and attacker.tries < CONNECTIONS:
            await attacker.run(body)

    async with contextlib.AsyncExitStack() as stack:
        attackers = [await stack.enter_async_context(Attacker(target)) for _ in range(PUSHERS)]
        await asyncio.gather(*(reconnect(attacker) for attacker in attackers))
    return done


async def leftovers(target: Target) -> Counts:
    """Send 300 MB to streams that have failed, each within its window."""

    def make(number: int) -> bytes:
        stream = 2 * (number // 4) + 1_000_001
        opening = frame(WINDOW, SYN, stream) if number % 4 == 0 else b""
        return opening + frame(DATA, 0, stream, bytes(LEFTOVER_BYTES))

    return await frames(target, make, TIMES, batch=1)


# On a connection: streams


async def _send(host: Host, peer: str, protocol: str, content: bytes, ends: bool = False) -> None:
    """Open a stream of a protocol, send `content`, and wait until the node ends the stream.

    With `ends`, close the writing side: the node might wait for more.
    """
    stream = await host.connections(peer)[0].new_stream()
    agreed = encode_uvarint(len(protocol) + 1) + protocol.encode() + b"\n"
    # Without waiting for the answer of the negotiation, which takes longer.
    await stream.write(MULTISTREAM + agreed + content)
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
    """Negotiate with messages that are no UTF-8, empty or too long."""

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
    """Send malformed requests, in turn of each kind to each protocol."""
    numbers = iter(range(100 * TIMES))

    async def body(host: Host, peer: str, kind: str) -> None:
        number = next(numbers)
        name = rpc_codec.REQUESTS[number % len(rpc_codec.REQUESTS)]
        bad = BAD_REQUESTS[number % len(BAD_REQUESTS)]
        await _send(host, peer, rpc_codec.protocol_id(name), bad, ends=True)

    return await streams(target, ["requested"], body)


async def failing_handlers(target: Target) -> Counts:
    """Send a request whose handler raises; the node must reset the stream."""
    request = _request({"task": BUG})

    async def body(host: Host, peer: str, kind: str) -> None:
        await _send(host, peer, rpc_codec.protocol_id("task"), request)

    return await streams(target, ["raised"], body)


def _request(document: Document) -> bytes:
    content: bytes = canonical(document)
    return bytes(encode_uvarint(len(content))) + content


FEED = _request({"cursor": 0, "feed": "", "limit": 1024, "wait": 0})


def _requests(target: Target) -> dict[str, bytes]:
    """Return requests with large answers, by protocol."""
    return {"feed": FEED, "blob": _request({"sha256": target.blob, "offset": 0})}


async def _open_answer(host: Host, peer: str, name: str, request: bytes) -> Any:
    """Return the stream of a request when its answer has begun. Raises LookupError if refused."""
    stream = await host.open(peer, rpc_codec.protocol_id(name))
    await stream.write(request)
    with trio.move_on_after(ENDED_SECONDS):
        if await stream.read(1) == bytes((rpc_codec.Status.OK,)):
            return stream
    await stream.reset()
    raise LookupError(f"no {name}")


async def unread_answers(target: Target) -> Counts:
    """Request feeds and blobs, and read no more than the beginning of each answer."""
    requests = _requests(target)

    async def body(host: Host, peer: str, kind: str) -> None:
        await (await _open_answer(host, peer, kind, requests[kind])).reset()

    return await streams(target, list(requests), body)


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
    """Send RPCs that are no protobuf or too long; the node must end the stream each time."""

    async def body(host: Host, peer: str, kind: str) -> None:
        await _send(host, peer, PROTOCOL, UNDECODABLE[kind])

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
        patience=math.inf,  # all are counted at the end; the test of a hang bounds it
    )


async def submissions(target: Target, many: bool = False, args: Document = ARGS) -> Counts:
    """Submit valid tasks one after another, of one requester or of as many as tasks."""
    network = target.network
    key = Ed25519PrivateKey.generate()
    [compute_class] = network.classes

    def submit_request() -> bytes:
        now, nonce = int(time.time() * 1000), secrets.token_hex(16)
        signer = Ed25519PrivateKey.generate() if many else key
        kind, requester = "text-to-music", peer_of(signer)
        body = task_body(network.id, kind, args, compute_class, now, 600, nonce, requester)
        return _request({"task": sign(body, signer).document(), "blobs": []})

    async def body(host: Host, peer: str, kind: str) -> None:
        stream = await host.open(peer, rpc_codec.protocol_id("submit"))
        await stream.write(submit_request())
        await end_of(stream)
        await stream.reset()

    return await streams(target, ["submitted"], body, attacker_count=1)


async def stalled_readers(target: Target) -> Counts:
    """Request envelopes 1,000 times, and stall longer than the 5 s that libp2p gives a writer.

    The node refuses most requests. If it answers, it must wait for the reader and send all.
    """
    done, stalled = Counter(requested=0), 0
    long: tuple[str, ...] = ()
    while len(long) < ENVELOPES:
        await submissions(target, args={**ARGS, "prompt": "p" * PROMPT_CHARACTERS})
        long = await _long_tasks(target)
    request = _request({"ids": long[:ENVELOPES]})

    async def stall(host: Host, peer: str) -> None:
        nonlocal stalled
        with contextlib.suppress(LookupError):
            stream = await _open_answer(host, peer, "envelopes", request)
            with trio.move_on_after(STALLED_SECONDS):
                await stream.muxed_conn.event_closed.wait()
            rest = await read_varint_prefixed_bytes_limited(stream, DOCUMENT_LIMIT)
            stalled += len(rest) > WINDOW_BYTES
            await stream.reset()
        done["requested"] += 1

    async def repeat(host: Host, peer: str) -> None:
        while done["requested"] < TIMES:
            await stall(host, peer)

    async def body(host: Host, peer: str) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(CONCURRENT_REQUESTS):
                nursery.start_soon(repeat, host, peer)

    async def reconnect(attacker: Attacker) -> None:
        # The node disconnects a reader that stalls; the attacker then connects again.
        while done["requested"] < TIMES:
            await attacker.run(body)

    async with contextlib.AsyncExitStack() as stack:
        attackers = [await stack.enter_async_context(Attacker(target)) for _ in range(STALLERS)]
        # One after another: the node would refuse some of many connections at once.
        for attacker in attackers:
            await attacker.run(wait_processed)
        await asyncio.gather(*(reconnect(attacker) for attacker in attackers))
    assert stalled >= STALLERS
    return done


async def _long_tasks(target: Target) -> tuple[str, ...]:
    """Return the ids of tasks with long prompts in the node's feed."""
    found: list[str] = []
    request: dict[str, Any] = {"cursor": 0, "feed": "", "limit": ENVELOPES, "wait": 0}
    while True:
        page = json.loads(await _answer(target, "feed", _request(request)))
        if not page["ids"]:
            return tuple(found)
        answer = await _answer(target, "envelopes", _request({"ids": page["ids"]}))
        for envelope in json.loads(answer)["envelopes"]:
            prompt = envelope["body"].get("args", {}).get("prompt", "")
            if len(prompt) >= PROMPT_CHARACTERS:
                found.append(document_hash("envelope", envelope))
        request |= {"cursor": page["cursor"], "feed": page["feed"]}


async def _answer(target: Target, name: str, request: bytes) -> bytes:
    """Return the node's answer to a request."""
    answer = b""

    async def body(host: Host, peer: str) -> None:
        nonlocal answer
        stream = await _open_answer(host, peer, name, request)
        answer = await read_varint_prefixed_bytes_limited(stream, DOCUMENT_LIMIT)
        await stream.reset()

    async with Attacker(target) as attacker:
        await attacker.run(body)
    return answer


async def messages(target: Target) -> Counts:
    """Gossip on an unknown topic."""
    unknown = [rpc_pb2.Message(data=b"%d" % n, topicIDs=["none"]) for n in range(TIMES + 200)]
    batches = [rpc(publish=unknown[n : n + 10]) for n in range(0, len(unknown), 10)]
    sent = await rpcs(target, {"batches": batches})
    return Counter(sent=10 * sent["batches"])


async def control_floods(target: Target) -> Counts:
    """Offer 2,400 messages, request one 2,400 times, graft and prune unknown topics in each RPC."""
    tasks = topics(target.network.id)[0]
    ids = [b"%020d" % number for number in range(2400)]
    control = rpc_pb2.ControlMessage()
    control.ihave.append(rpc_pb2.ControlIHave(topicID=tasks, messageIDs=ids))
    control.iwant.append(rpc_pb2.ControlIWant(messageIDs=ids[:1] * 2400))
    for number in range(50):
        control.graft.append(rpc_pb2.ControlGraft(topicID=f"unknown {number}"))
        control.prune.append(rpc_pb2.ControlPrune(topicID=f"unknown {number}", backoff=2**62))
    control_1_2 = rpc_pb2.ControlMessage()
    control_1_2.idontwant.append(rpc_pb2.ControlIDontWant(messageIDs=ids))
    return await rpcs(
        target,
        {"1.1": [rpc(control=control)] * TIMES, "1.2": [rpc(control=control_1_2)] * TIMES},
    )


async def submissions_of_many(target: Target) -> Counts:
    """Submit valid tasks over one connection, each signed with another key."""
    return await submissions(target, many=True)


async def heavy_submissions(target: Target) -> Counts:
    """Submit valid tasks that are four times as long as those of honest clients."""
    return await submissions(target, args=HEAVY_ARGS)


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
    stalled_readers,  # reads the tasks of the attacks before it
)
