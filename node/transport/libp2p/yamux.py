"""Yamux with bounded memory, and whole frames or none, over py-libp2p 0.8.1.

libp2p only warns about a peer that ignores the receive window, and buffers on. Its windows bound a
stream, but a connection has many streams, and ended ones keep their bytes for a while. So three
things are bounded here: the unread bytes of each stream (`BoundedBuffer`), the unread bytes of all
connections together (`UnreadBytes`), and the rate at which a peer's bytes are read
(`MeteredSession`).
"""

import logging
import struct
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from typing import Any, Protocol
from weakref import WeakSet

import trio
from libp2p.abc import ISecureConn
from libp2p.custom_types import TProtocol
from libp2p.network.connection.exceptions import RawConnError
from libp2p.peer.id import ID
from libp2p.security.secure_session import SecureSession
from libp2p.stream_muxer.muxer_multistream import MuxerMultistream
from libp2p.stream_muxer.yamux import yamux
from libp2p.stream_muxer.yamux.yamux import (
    FLAG_SYN,
    PROTOCOL_ID,
    TYPE_PING,
    YAMUX_HEADER_FORMAT,
    Yamux,
    YamuxStream,
)

from node.transport.libp2p.quotas import Quotas, rate_limit_key
from schemas.errors import HeliumError

YAMUX = TProtocol(PROTOCOL_ID)
# The time in which a frame must be written. A reader that is slower is dead or hostile.
STALLED_SECONDS = 10.0
# Between Yamux's own pings, which every Yamux answers; 12 bytes each.
PING_EVERY = 5.0
# A peer from which nothing came for this long hangs: three pings have had no answer. A busy peer
# answers in 0.04 s, measured.
SILENT_SECONDS = 15.0
# Per stream, the most that Yamux grants: 20 MB/s at a round trip of 50 ms.
WINDOW_BYTES = 1024 * 1024
# Per stream. libp2p's windows are not exact, so an honest peer may go a little over one.
UNREAD_BYTES = 2 * WINDOW_BYTES
# Of all connections together: 32 whole windows.
UNREAD_TOTAL = 32 * 1024 * 1024
# Bytes that arrive between two counts of all unread bytes; counting at each read costs too much.
UNREAD_CHECK = 1024 * 1024
# What a frame costs, in bytes: decrypting it takes 0.2 ms, a KiB of its content 5 us, measured.
FRAME_BYTES = 32_768

_log = logging.getLogger(__name__)


class UnreadConnection(Protocol):
    """What `UnreadBytes` needs of a connection."""

    @property
    def rate_limit_key(self) -> str:
        """The key that the connection is charged to."""

    def unread(self) -> int:
        """Return the number of its bytes that nobody has read."""

    def close_soon(self) -> None:
        """Close the connection, without waiting for it."""


class UnreadBytes:
    """Bounds the unread bytes of all connections; above it, the key with the most loses some.

    All connections of a key count together: spread over many connections, none of them need have
    more than an honest one. They are closed from the largest on, until the rest is within bounds.
    """

    def __init__(self, counts: Counter[str]) -> None:
        self._connections: WeakSet[Any] = WeakSet()
        self._counts = counts
        self._unchecked = 0

    def add(self, connection: UnreadConnection) -> None:
        """Watch a connection for as long as anything else refers to it."""
        self._connections.add(connection)

    def count_read(self, count: int) -> None:
        """Count bytes that have arrived; check the bound from time to time."""
        self._unchecked += count
        if self._unchecked >= UNREAD_CHECK:
            self._unchecked = 0
            self._enforce_bound()

    def _enforce_bound(self) -> None:
        by_key: defaultdict[str, list[tuple[int, UnreadConnection]]] = defaultdict(list)
        for connection in self._connections:
            by_key[connection.rate_limit_key].append((connection.unread(), connection))
        totals = {key: sum(size for size, _ in sizes) for key, sizes in by_key.items()}
        total = sum(totals.values())
        if total <= UNREAD_TOTAL:
            return
        largest = by_key[max(totals, key=lambda key: totals[key])]
        for size, connection in sorted(largest, key=lambda pair: pair[0], reverse=True):
            if total > UNREAD_TOTAL:
                self._counts["unread-cut"] += 1
                connection.close_soon()
                total -= size


class MeteredSession(SecureSession):  # type: ignore[misc]  # libp2p is untyped here
    """A secured connection whose bytes and frames are paid for before the next are read.

    Against peers that keep this node decrypting, with many bytes or with many empty frames.
    """

    def __init__(
        self, session: SecureSession, throttle: Callable[[float], Awaitable[None]]
    ) -> None:
        self.__dict__.update(session.__dict__)  # what was read ahead included
        self._throttle = throttle
        self._waiting_since: float | None = None

    @property
    def silent_seconds(self) -> float:
        """For how long this node has waited for the peer's next bytes; 0 if it does not wait."""
        since = self._waiting_since
        return 0.0 if since is None else trio.current_time() - since

    async def read(self, n: int | None = None) -> bytes:
        """Read at most `n` bytes."""
        self._waiting_since = trio.current_time()
        payload: bytes = await super().read(n)
        self._waiting_since = None
        # Yamux reads twice for a frame with content: its header, then its body.
        await self._throttle(len(payload) + FRAME_BYTES / 2)
        return payload


class WindowExceeded(HeliumError, trio.TooSlowError):
    """More bytes wait unread than were granted.

    It is a `TooSlowError`, as Yamux closes a connection for no other exception of a read.
    """


class BoundedBuffer(bytearray):
    """The unread bytes of one stream."""

    def extend(self, payload: Any) -> None:
        """Append, or raise `WindowExceeded`."""
        if len(self) + len(payload) > UNREAD_BYTES:
            raise WindowExceeded(f"over {UNREAD_BYTES} bytes wait unread")
        super().extend(payload)


class _Buffers(dict[int, bytearray]):
    def __setitem__(self, stream: int, buffer: bytearray) -> None:
        super().__setitem__(stream, BoundedBuffer(buffer))


class GuardedYamux(Yamux):  # type: ignore[misc]
    """A muxer with bounded buffers, whose frames are written whole or end the connection."""

    def __init__(self, quotas: Quotas, unread: UnreadBytes, conn: ISecureConn, peer: ID) -> None:
        super().__init__(conn, peer, is_initiator=conn.is_initiator)
        self.stream_buffers = _Buffers()
        self._quotas, self._unread = quotas, unread
        self._scope = trio.CancelScope()
        self._has_ended = False
        self.rate_limit_key = rate_limit_key(self)
        self.secured_conn = MeteredSession(conn, self._throttle)
        unread.add(self)

    async def start(self) -> None:
        """Run the muxer; an exception ends this connection instead of the host."""
        try:
            with self._scope:
                await super().start()
            if self._scope.cancelled_caught:
                await self._cleanup_on_error()
        except Exception as failure:
            _log.warning("muxer of %s failed: %r", self.peer_id, failure)
            await self._cleanup_on_error()
        finally:
            self._has_ended = True
            self._wake_readers()

    async def open_stream(self) -> YamuxStream:
        """Open a stream; one of a muxer that has ended meanwhile ends at once."""
        stream = await super().open_stream()
        if self._has_ended:
            self._wake_readers()
        return stream

    async def _measure_rtt_loop(self) -> None:
        """Ping the peer's Yamux, and end the connection when the peer has become silent.

        It replaces libp2p's own loop, which measures only. A process that hangs keeps its sockets
        open, so that nothing else would notice it.
        """
        while not self.event_shutting_down.is_set():
            self._ping_id += 1
            self._ping_sent_time = trio.current_time()
            ping = struct.pack(YAMUX_HEADER_FORMAT, 0, TYPE_PING, FLAG_SYN, 0, self._ping_id)
            try:
                await self._write_frame(ping)
            except Exception as failure:  # the connection has ended
                _log.debug("ping of %s failed: %r", self.peer_id, failure)
                return
            with trio.move_on_after(PING_EVERY):
                await self.event_shutting_down.wait()
            if self.secured_conn.silent_seconds > SILENT_SECONDS:
                self._quotas.counts["silent-cut"] += 1
                self.close_soon()

    def _wake_readers(self) -> None:
        """End all streams: libp2p cancels the muxers of a host that stops, but not their streams.

        A stream that is being opened is shielded, and would wait for the end of the negotiation.
        """
        for identity, stream in self.streams.items():
            stream.closed = stream.recv_closed = stream.reset_received = True
            self.stream_events[identity].set()

    async def _throttle(self, count: float) -> None:
        self._unread.count_read(int(count))
        quotas = self._quotas
        await quotas.throttle(quotas.read_bytes, self.rate_limit_key, count, "reads-slowed")

    def unread(self) -> int:
        """Return how many bytes wait unread."""
        return sum(map(len, self.stream_buffers.values()))

    def close_soon(self) -> None:
        """End the connection, without waiting for it."""
        self._scope.cancel()

    async def _write_frame(self, frame: bytes) -> None:
        """Write one frame, shielded: half a frame would garble all streams of the connection."""
        with trio.CancelScope(shield=True) as scope:
            scope.deadline = trio.current_time() + STALLED_SECONDS
            await super()._write_frame(frame)
        if scope.cancelled_caught:
            self.event_shutting_down.set()
            await self.secured_conn.close()
            raise RawConnError("the peer does not read")


class GuardedMuxers(MuxerMultistream):  # type: ignore[misc]
    """Makes `GuardedYamux` the muxer: libp2p's own builds its `Yamux` whatever it was given."""

    def __init__(self, quotas: Quotas) -> None:
        super().__init__({YAMUX: GuardedYamux})
        self._quotas, self._unread = quotas, UnreadBytes(quotas.counts)
        # libp2p grants windows of 16 MiB. This also bounds the body of a frame.
        yamux.MAX_WINDOW_SIZE = WINDOW_BYTES

    async def new_conn(self, conn: ISecureConn, peer_id: ID) -> GuardedYamux:
        """Negotiate Yamux and build a guarded one."""
        protocol, _ = await self._selector.select(conn, conn.is_initiator, self.negotiate_timeout)
        muxed = GuardedYamux(self._quotas, self._unread, conn, peer_id)
        self._annotate_connection(muxed, conn, protocol)
        return muxed
