"""A hostile peer over real sockets, and the ways in which it repeats an attack."""

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

# Repetitions of each kind of each attack.
TIMES = 1000
# Peers that attack together, each with a key of its own.
ATTACKERS = 4
# For the node to answer after all that was sent before.
ANSWER_SECONDS = 20.0
# For the node to end a stream on which it has received nonsense.
ENDED_SECONDS = 5.0
# So many failures in a row mean that the connection is closed.
MAX_FAILURES = 10
# Connections of one attacker, after which the attack counts as failed.
CONNECTIONS = 200
# Yamux: frame types, flags, and the header (version, type, flags, stream, length).
DATA, WINDOW, PING = 0, 1, 2
SYN, RST = 1, 8
FRAME = struct.Struct("!BBHII")

Counts = Counter[str]
"""How often each kind of an attack was carried out; no kind is missing."""


@dataclass(frozen=True, slots=True)
class Target:
    """The node that is attacked, and the SHA-256 of a blob that it stores."""

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


class SilentListener:
    """Ignores all gossip and resets all streams."""

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
    """A peer with a key of its own. Attacks run in its trio thread and get its libp2p host."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._transport = fresh_peer()
        self.tries = 0

    async def __aenter__(self) -> "Attacker":
        await self._transport.start(SilentListener(), (), ())
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._transport.stop()

    async def run(self, body: Callable[[Host, str], Awaitable[Any]]) -> None:
        """Connect if necessary, and run a body once; ignore its failure."""
        self.tries += 1
        with contextlib.suppress(ConnectionError):
            if self.target.peer not in self._transport.peers():
                await self._transport.dial(self.target.address)
        host = self._transport._host
        assert host is not None
        try:
            await self._transport._bridge.run_in_trio(body, host, self.target.peer)
        except Exception:  # most likely the node has disconnected: the next run connects again
            await self._transport._bridge.run_in_trio(host.disconnect, self.target.peer)
            while self.target.peer in self._transport.peers():  # noqa: ASYNC110 - no event
                await asyncio.sleep(0.01)


async def end_of(stream: Any) -> None:
    """Read until the node has ended the stream; raise `trio.TooSlowError` if it does not."""
    with trio.fail_after(ENDED_SECONDS), contextlib.suppress(Exception):
        while await stream.read(65_536):
            pass


def frame(kind: int, flags: int, stream: int, payload: bytes = b"", length: int = -1) -> bytes:
    """Return a Yamux frame; its header may state another `length` than the payload's."""
    return FRAME.pack(0, kind, flags, stream, len(payload) if length < 0 else length) + payload


async def wait_processed(host: Host, peer: str) -> None:
    """Wait until the node answers a request: it has then processed all earlier frames."""
    with trio.move_on_after(ANSWER_SECONDS):
        await (await host.open(peer, rpc_codec.protocol_id("hello"))).reset()


async def frames(
    target: Target, make: Callable[[int], bytes], count: int, batch: int = 50, wait: bool = False
) -> Counts:
    """Send `make(0)` to `make(count - 1)`, a batch in each write; connect again if disconnected.

    With `wait`, each batch waits until the node has processed the last one. Use it for frames that
    may end the connection.
    """
    sent = 0

    async def body(host: Host, peer: str) -> None:
        nonlocal sent
        muxed = host.connections(peer)[0].muxed_conn
        while sent < count:
            until = min(sent + batch, count)
            await muxed.secured_conn.write(b"".join(make(number) for number in range(sent, until)))
            sent = until
            if wait:
                await wait_processed(host, peer)
        await wait_processed(host, peer)

    async with Attacker(target) as attacker:
        while sent < count and attacker.tries < CONNECTIONS:
            await attacker.run(body)
    return Counter(sent=sent)


async def streams(
    target: Target,
    kinds: Sequence[str],
    body: Callable[[Host, str, str], Awaitable[None]],
    at_once: int = 4,
    attacker_count: int = ATTACKERS,
) -> Counts:
    """Run a body at several attackers until each kind has succeeded `TIMES` times.

    Each attacker runs `at_once` of them concurrently. The body gets the host, the node's peer id
    and a kind. If it raises, it does not count.
    """
    done, tries = Counter(dict.fromkeys(kinds, 0)), itertools.count()
    max_tries = 20 * TIMES * len(kinds)

    def is_unfinished() -> bool:
        return min(done.values()) < TIMES

    async def repeat(host: Host, peer: str) -> None:
        failures = 0
        while is_unfinished() and next(tries) < max_tries:
            kind = min(kinds, key=done.__getitem__)
            try:
                await body(host, peer, kind)
                done[kind], failures = done[kind] + 1, 0
            except Exception:
                failures += 1
                if failures == MAX_FAILURES:
                    raise

    async def repeat_concurrently(host: Host, peer: str) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(at_once):
                nursery.start_soon(repeat, host, peer)

    async def reconnect(attacker: Attacker) -> None:
        while is_unfinished() and attacker.tries < CONNECTIONS:
            await attacker.run(repeat_concurrently)

    async with contextlib.AsyncExitStack() as stack:
        attackers = [
            await stack.enter_async_context(Attacker(target)) for _ in range(attacker_count)
        ]
        await asyncio.gather(*(reconnect(attacker) for attacker in attackers))
    return done


async def rpcs(
    target: Target, contents_by_kind: dict[str, Sequence[bytes]], patience: float = ANSWER_SECONDS
) -> Counts:
    """Send RPCs on a gossip stream; open a new one whenever the node has ended the last.

    At the end wait for `patience` seconds until the node has read them: the stream's end would
    discard those that it has not. A node with limits reads slowly.
    """
    sent = Counter(dict.fromkeys(contents_by_kind, 0))
    unsent = [(kind, rpc) for kind, contents in contents_by_kind.items() for rpc in contents]
    unsent.reverse()

    async def body(host: Host, peer: str) -> None:
        stream = await host.open(peer, PROTOCOL)
        while unsent:
            kind, content = unsent[-1]
            await stream.write(encode_uvarint(len(content)) + content)
            unsent.pop()
            sent[kind] += 1
        await stream.close_write()
        with trio.move_on_after(patience):
            while await stream.read(65_536):
                pass

    async with Attacker(target) as attacker:
        while unsent and attacker.tries < CONNECTIONS:
            await attacker.run(body)
    return sent
