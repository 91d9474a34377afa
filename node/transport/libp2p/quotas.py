"""What peers may still spend of this node's time and memory; used in the trio thread only."""

from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any, Protocol
from weakref import WeakSet

import trio
from libp2p.abc import IMuxedConn
from libp2p.security.secure_session import SecureSession

from node.admission.rate_limits import TokenBuckets
from node.config.limits import Limits
from node.transport.libp2p.slots import is_loopback, rate_limit_address

FRAME_BYTES = 32_768  # a frame takes as long as so many bytes: 0.2 ms against 5 us a KiB, measured
MESSAGE_SECONDS = 10.0  # so much may come at once: what gossip brings to a node that was away
STREAM_SECONDS = 10.0
BYTE_SECONDS = 2.0
TASK_SECONDS = 10.0
UNREAD_TOTAL = 32 * 1024 * 1024  # bytes of all connections; 32 whole windows
UNREAD_CHECK = 1024 * 1024  # bytes that come in before they are counted again


class Quotas:
    """The buckets that all connections of a host draw from; `counts` is the operator's."""

    def __init__(self, limits: Limits, counts: Counter[str]) -> None:
        now = trio.current_time
        self.limits, self.counts = limits, counts
        self.messages = TokenBuckets(limits.peer_messages, MESSAGE_SECONDS, now)
        self.streams = TokenBuckets(limits.peer_streams, STREAM_SECONDS, now)
        self.bytes = TokenBuckets(limits.peer_bytes, BYTE_SECONDS, now)
        self.answers = TokenBuckets(limits.peer_bytes, BYTE_SECONDS, now)
        self.tasks = TokenBuckets(limits.peer_submissions / 60.0, TASK_SECONDS, now)
        self.unread = UnreadBytes(counts)

    async def pay(
        self, buckets: TokenBuckets, rate_limit_key: str, amount: float, name: str
    ) -> None:
        """Wait until what was taken is paid for: a peer that is too fast is not read from."""
        seconds = buckets.take_with_debt(rate_limit_key, amount)
        if seconds > 0:
            self.counts[name] += 1
            await trio.sleep(seconds)


def rate_limit_key(connection: IMuxedConn) -> str:
    """Return who pays for a connection: its address, for keys are free; on loopback the peer."""
    remote = connection.get_remote_address()
    source = rate_limit_address(remote[0]) if remote else ""
    return str(connection.peer_id) if not source or is_loopback(source) else source


class Hoarder(Protocol):
    """A connection that may keep bytes unread."""

    @property
    def rate_limit_key(self) -> str:
        """Who pays for it, as for all its others."""

    def unread(self) -> int:
        """Return how many."""

    def close_soon(self) -> None:
        """Close, soon."""


class UnreadBytes:
    """Bounds what waits unread on all connections together; whoever keeps the most loses some.

    What one key keeps on all its connections counts: spread over many, none of them need be worse
    than an honest one. They are closed from the worst on, until the rest is within the bound.
    Yamux's window bounds a stream, but streams are many, and ended ones keep their bytes a while.
    """

    def __init__(self, counts: Counter[str]) -> None:
        self._connections: WeakSet[Any] = WeakSet()
        self._counts = counts
        self._came = 0

    def add(self, connection: Hoarder) -> None:
        """Watch a connection for as long as anything else knows it."""
        self._connections.add(connection)

    def came(self, count: int) -> None:
        """Learn that bytes have arrived."""
        self._came += count
        if self._came >= UNREAD_CHECK:
            self._came = 0
            self._check()

    def _check(self) -> None:
        kept: defaultdict[str, list[tuple[int, Hoarder]]] = defaultdict(list)
        for connection in self._connections:
            kept[connection.rate_limit_key].append((connection.unread(), connection))
        each = {key: sum(count for count, _ in found) for key, found in kept.items()}
        total = sum(each.values())
        if total <= UNREAD_TOTAL:
            return
        worst = kept[max(each, key=lambda key: each[key])]
        for count, connection in sorted(worst, key=lambda one: one[0], reverse=True):
            if total > UNREAD_TOTAL:
                self._counts["unread-cut"] += 1
                connection.close_soon()
                total -= count


class MeteredSession(SecureSession):  # type: ignore[misc]  # libp2p is untyped here
    """A secured connection whose bytes and frames are paid for before the next are read.

    Against: peers that keep this node decrypting, be it much or, frame by frame, next to nothing.
    """

    def __init__(self, session: SecureSession, pay: Callable[[float], Any]) -> None:
        self.__dict__.update(session.__dict__)  # what was read ahead included
        self._pay = pay

    async def read(self, n: int | None = None) -> bytes:
        """Read at most `n` bytes; Yamux reads twice for a frame with data."""
        payload: bytes = await super().read(n)
        await self._pay(len(payload) + FRAME_BYTES / 2)
        return payload
