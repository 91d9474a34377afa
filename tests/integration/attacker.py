"""A hostile peer, and the ways in which it repeats what it does; over real sockets."""

import asyncio
import contextlib
import itertools
import struct
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from libp2p.utils.varint import encode_uvarint

from node.rpc import codec as rpc_codec
from node.transport.interface import Stream, ValidationResult
from node.transport.libp2p.gossipsub import PROTOCOL
from node.transport.libp2p.host import Host
from node.transport.libp2p.transport import Libp2pTransport
from protocol.network import Network
from protocol.wire.messages import Message

TIMES = 1000  # of each kind of each attack
ATTACKERS = 4  # each with a key of its own
HEARD_SECONDS = 20.0
ENDED_SECONDS = 5.0  # until the node has ended a stream on which it was told nonsense
CUT_OFF = 10  # failures in a row: the connection is gone
CONNECTIONS = 200  # that one attacker makes at most
DATA, WINDOW, PING = 0, 1, 2
SYN, RST = 1, 8
FRAME = struct.Struct("!BBHII")  # version, type, flags, stream, length; all of Yamux

Counts = Counter[str]
"""How often each kind of an attack was carried out; no kind is missing."""


@dataclass(frozen=True, slots=True)
class Target:
    """The node that is attacked, and a blob that it keeps, by its SHA-256."""

    address: str  # multiaddr with its peer id
    network: Network
    blob: str = ""

    @property
    def peer(self) -> str:
        return self.address.rpartition("/")[2]

    @property
    def socket(self) -> tuple[str, int]:
        parts = self.address.split("/")
        return parts[2], int(parts[4])


Attack = Callable[[Target], Coroutine[None, None, Counts]]


class Mute:
    """A listener that hears and answers nothing."""

    def validate(self, topic: str, payload: bytes) -> tuple[ValidationResult, Message | None]:
        return ValidationResult.IGNORE, None

    def on_gossip(self, peer: str, message: Message) -> None:
        return

    async def serve(self, protocol: str, stream: Stream) -> None:
        await stream.reset()

    def connected(self, peer: str) -> None:
        return

    def disconnected(self, peer: str) -> None:
        return


def fresh_peer() -> Libp2pTransport:
    """Return a peer with a key of its own, not yet started."""
    key = Ed25519PrivateKey.generate()
    return Libp2pTransport(key.private_bytes_raw(), "/ip4/127.0.0.1/tcp/0")


class Attacker:
    """A peer with a key of its own; its bodies run in the trio thread, with the host at hand."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._transport = fresh_peer()
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
            await self._transport._bridge.run_in_trio(body, host, self.target.peer)
        except Exception:  # cut off, most likely; the next time is with a new connection
            await self._transport._bridge.run_in_trio(host.disconnect, self.target.peer)
            while self.target.peer in self._transport.peers():  # noqa: ASYNC110 - of no account
                await asyncio.sleep(0.01)


async def end_of(stream: Any) -> None:
    """Read until the node has ended the stream; raise `trio.TooSlowError` if it does not."""
    with trio.fail_after(ENDED_SECONDS), contextlib.suppress(Exception):
        while await stream.read(65_536):
            pass


def frame(kind: int, flags: int, stream: int, payload: bytes = b"", length: int = -1) -> bytes:
    """Return a Yamux frame, whose length may be a lie."""
    return FRAME.pack(0, kind, flags, stream, len(payload) if length < 0 else length) + payload


async def heard(host: Host, peer: str) -> None:
    """Wait until the node has come as far as answering; frames are taken in their order."""
    with trio.move_on_after(HEARD_SECONDS):
        await (await host.open(peer, rpc_codec.protocol_id("hello"))).reset()


async def frames(
    target: Target, make: Callable[[int], bytes], pieces: int, batch: int = 50, wait: bool = False
) -> Counts:
    """Send `pieces` of frames, a batch in each write, on a new connection when one has ended.

    With `wait`, a batch follows when the last was taken: of frames that may end the connection.
    """
    sent = 0

    async def body(host: Host, peer: str) -> None:
        nonlocal sent
        muxed = host.connections(peer)[0].muxed_conn
        while sent < pieces:
            until = min(sent + batch, pieces)
            await muxed.secured_conn.write(b"".join(make(number) for number in range(sent, until)))
            sent = until
            if wait:
                await heard(host, peer)
        await heard(host, peer)

    async with Attacker(target) as attacker:
        while sent < pieces and attacker.tries < CONNECTIONS:
            await attacker.run(body)
    return Counter(sent=sent)


async def streams(
    target: Target,
    kinds: Sequence[str],
    body: Callable[[Host, str, str], Awaitable[None]],
    at_once: int = 4,
    count: int = ATTACKERS,
) -> Counts:
    """Let each attacker run a body, `at_once` at a time, until each kind was done `TIMES` times.

    The body gets the host, the node's peer id and a kind; one that raises was not carried out.
    """
    done, tries = Counter(dict.fromkeys(kinds, 0)), itertools.count()
    enough = TIMES * len(kinds)

    def wanted() -> bool:
        return min(done.values()) < TIMES

    async def one(host: Host, peer: str) -> None:
        failures = 0
        while wanted() and next(tries) < 20 * enough:
            kind = min(kinds, key=done.__getitem__)
            try:
                await body(host, peer, kind)
                done[kind], failures = done[kind] + 1, 0
            except Exception:
                failures += 1
                if failures == CUT_OFF:
                    raise

    async def all_of_them(host: Host, peer: str) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(at_once):
                nursery.start_soon(one, host, peer)

    async def again_and_again(attacker: Attacker) -> None:
        while wanted() and attacker.tries < CONNECTIONS:  # on a new connection when it was cut off
            await attacker.run(all_of_them)

    async with contextlib.AsyncExitStack() as stack:
        attackers = [await stack.enter_async_context(Attacker(target)) for _ in range(count)]
        await asyncio.gather(*(again_and_again(attacker) for attacker in attackers))
    return done


async def rpcs(target: Target, made: dict[str, Sequence[bytes]]) -> Counts:
    """Send RPCs of each kind on gossip streams, on a new one when the node has ended the last."""
    sent = Counter(dict.fromkeys(made, 0))
    waiting = [(kind, content) for kind, contents in made.items() for content in contents]
    waiting.reverse()

    async def body(host: Host, peer: str) -> None:
        stream = await host.open(peer, PROTOCOL)
        while waiting:
            kind, content = waiting[-1]
            await stream.write(encode_uvarint(len(content)) + content)
            waiting.pop()
            sent[kind] += 1
        await stream.close_write()
        with trio.move_on_after(HEARD_SECONDS):
            while await stream.read(65_536):
                pass

    async with Attacker(target) as attacker:
        while waiting and attacker.tries < CONNECTIONS:
            await attacker.run(body)
    return sent
