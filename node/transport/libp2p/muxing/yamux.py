"""Yamux with bounded memory, and whole frames or none, over py-libp2p 0.8.1.

libp2p only warns about a peer that ignores the receive window, and buffers on. Its windows bound a
stream, but a connection has many streams, and ended ones keep their bytes for a while. So three
things are bounded: the unread bytes of each stream (`BoundedBuffer`), the unread bytes of all
connections together (`UnreadBytes`), and the rate at which a peer's bytes are read
(`MeteredSession`).
"""

import contextlib
import logging
import struct
from typing import Any

import trio
from libp2p.abc import ISecureConn
from libp2p.custom_types import TProtocol
from libp2p.network.connection.exceptions import RawConnError
from libp2p.peer.id import ID
from libp2p.security.noise.io import MAX_PLAINTEXT_LENGTH
from libp2p.stream_muxer.exceptions import MuxedStreamError
from libp2p.stream_muxer.muxer_multistream import MuxerMultistream
from libp2p.stream_muxer.yamux import yamux
from libp2p.stream_muxer.yamux.yamux import (
    FLAG_ACK,
    FLAG_FIN,
    FLAG_RST,
    FLAG_SYN,
    HEADER_SIZE,
    PROTOCOL_ID,
    TYPE_DATA,
    TYPE_GO_AWAY,
    TYPE_PING,
    TYPE_WINDOW_UPDATE,
    YAMUX_HEADER_FORMAT,
    Yamux,
)

from node.transport.libp2p.muxing.session import MeteredSession
from node.transport.libp2p.muxing.unread import UnreadBytes
from node.transport.libp2p.muxing.yamux_stream import BROKEN, GuardedStream, header
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
# What a frame costs, in bytes, beside its Noise message.
FRAME_BYTES = 8192
# Of replies that wait for a peer which sends on and does not read them.
PENDING_BYTES = 64 * 1024

HEADER = struct.Struct(YAMUX_HEADER_FORMAT)

_log = logging.getLogger(__name__)


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
    """A muxer with bounded buffers, whose frames are written whole or end the connection.

    It reads all frames that have arrived at once, and writes all that wait at once. libp2p's own
    reads and writes each singly, and takes locks for it.
    """

    def __init__(self, quotas: Quotas, unread: UnreadBytes, conn: ISecureConn, peer: ID) -> None:
        super().__init__(conn, peer, is_initiator=conn.is_initiator)
        self.stream_buffers = _Buffers()
        self._quotas, self._unread = quotas, unread
        self._scope = trio.CancelScope()
        self._has_ended = False
        self.rate_limit_key = rate_limit_key(self)
        self.secured_conn = MeteredSession(conn, self._throttle, quotas.traffic)
        self._pending = bytearray()  # frames to be written
        self._queued = self._written = 0  # bytes of frames, since the start
        self._writing = self._broken = False
        self._writers = trio.lowlevel.ParkingLot()
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

    async def open_stream(self) -> GuardedStream:
        """Open a stream; one of a muxer that has ended meanwhile ends at once.

        The frame that opens it is sent with the first bytes.
        """
        await self.stream_backlog_semaphore.acquire()
        if self.event_shutting_down.is_set():
            self.stream_backlog_semaphore.release()
            raise MuxedStreamError("the connection has ended")
        stream = self._add(GuardedStream(self.next_stream_id, self, True))
        self.next_stream_id += 2
        stream._owns_backlog_slot = True
        self.queue(header(TYPE_WINDOW_UPDATE, FLAG_SYN, stream.stream_id, 0))
        if self._has_ended:
            self._wake_readers()
        return stream

    def _add(self, stream: GuardedStream) -> GuardedStream:
        self.streams[stream.stream_id] = stream
        self.stream_buffers[stream.stream_id] = bytearray()
        self.stream_events[stream.stream_id] = trio.Event()
        return stream

    def forget(self, stream: GuardedStream) -> None:
        """Drop a stream that was reset, with its unread bytes; wake whoever waits for it."""
        identity = stream.stream_id
        if identity in self.stream_buffers:
            self.stream_buffers[identity].clear()
            self.stream_events[identity].set()
        stream.wake_writer()
        self._finalize_stream_locked(stream, fully_closed=True)

    async def handle_incoming(self) -> None:
        """Read frames until the connection ends."""
        received = bytearray()  # the beginning of a frame
        try:
            while not self.event_shutting_down.is_set():
                content = await self.secured_conn.receive()
                if not content:
                    break
                received += content
                used, frames = await self._take_frames(received)
                del received[:used]
                await self.secured_conn.charge(FRAME_BYTES * frames)
                if len(self._pending) > PENDING_BYTES:
                    await self.flush()  # a peer that does not read the replies is not read
        except Exception as failure:
            _log.debug("connection with %s ended: %r", self.peer_id, failure)
        await self._cleanup_on_error()

    async def _take_frames(self, received: bytearray) -> tuple[int, int]:
        """Handle all whole frames; return how many bytes they had, and how many they were."""
        start = frames = 0
        while len(received) >= start + HEADER_SIZE:
            _, kind, flags, identity, length = HEADER.unpack_from(received, start)
            body = start + HEADER_SIZE
            end = body
            if kind == TYPE_DATA:
                if length > WINDOW_BYTES:
                    raise WindowExceeded(f"a frame of {length} bytes")
                end += length
                if end > len(received):
                    break
            if kind in (TYPE_DATA, TYPE_WINDOW_UPDATE):
                await self._take_frame(kind, flags, identity, length, received[body:end])
            elif kind == TYPE_PING:
                self._take_ping(flags, length)
            elif kind == TYPE_GO_AWAY:
                self.event_shutting_down.set()
                break
            start, frames = end, frames + 1
        return start, frames

    async def _take_frame(
        self, kind: int, flags: int, identity: int, length: int, content: bytearray
    ) -> None:
        is_new = bool(flags & FLAG_SYN)
        if is_new and identity in self.streams:
            self.queue(header(TYPE_WINDOW_UPDATE, FLAG_RST, identity, 0))
            self.flush_soon()
            return
        stream = self.streams.get(identity)
        if is_new:
            stream = self._add(GuardedStream(identity, self, False))
            if not flags & FLAG_RST:
                # It is sent with the first answer.
                self.queue(header(TYPE_WINDOW_UPDATE, FLAG_ACK, identity, 0))
        if stream is None:  # it has ended
            return
        if kind == TYPE_WINDOW_UPDATE:
            stream.send_window += length
            stream.wake_writer()
        elif content:
            self.stream_buffers[identity].extend(content)
            stream.recv_window -= len(content)
        if kind == TYPE_DATA or flags & (FLAG_FIN | FLAG_RST):
            self.stream_events[identity].set()
        self._take_flags(stream, flags)
        if is_new:
            await self.new_stream_send_channel.send(stream)

    def _take_flags(self, stream: GuardedStream, flags: int) -> None:
        if flags & FLAG_FIN:
            stream.recv_closed = True
            stream.closed = stream.closed or stream.send_closed
        if flags & FLAG_RST:
            stream.closed = stream.reset_received = True
            stream.wake_writer()
            if not stream.recv_closed:  # what came before a FIN may still be read
                self.forget(stream)
        if stream.closed:
            self._finalize_stream_locked(stream, fully_closed=True)

    def _take_ping(self, flags: int, value: int) -> None:
        if flags & FLAG_SYN:
            self.queue(header(TYPE_PING, FLAG_ACK, 0, value))
            self.flush_soon()
        elif flags & FLAG_ACK:
            latest = trio.current_time() - self._ping_sent_time
            self._rtt: float = (self.rtt() + latest) / 2 if self.rtt() else latest

    async def _measure_rtt_loop(self) -> None:
        """Ping the peer's Yamux, and end the connection when the peer has become silent.

        It replaces libp2p's own loop, which measures only. A process that hangs keeps its sockets
        open, so that nothing else would notice it. A peer of which something came lately, its own
        ping for example, is not pinged: most of what idle nodes cost are pings.
        """
        while not self.event_shutting_down.is_set():
            try:
                if not self._ping_id or self.secured_conn.silent_seconds >= PING_EVERY:
                    self._ping_id += 1
                    self._ping_sent_time = trio.current_time()
                    self.queue(header(TYPE_PING, FLAG_SYN, 0, self._ping_id))
                if self._queued > self._written:
                    await self.flush()
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
            stream.wake_writer()

    async def _cleanup_on_error(self) -> None:
        streams = list(self.streams.values())
        await super()._cleanup_on_error()
        for stream in streams:
            stream.wake_writer()
        self._writers.unpark_all()

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

    def queue(self, frame: bytes) -> None:
        """Queue a frame for the next flush; the ping loop flushes every `PING_EVERY`."""
        self._pending += frame
        self._queued += len(frame)

    def flush_soon(self) -> None:
        """Flush, without waiting for it."""
        if self._nursery is not None and not self._has_ended:
            self._nursery.start_soon(self._flush_quietly)

    async def _flush_quietly(self) -> None:
        with contextlib.suppress(*BROKEN):
            await self.flush()

    async def flush(self) -> None:
        """Write what is queued, together with what other tasks have queued.

        Raises RawConnError or ConnectionClosedError.
        """
        until = self._queued
        while self._written < until:
            if self._writing:
                await self._writers.park()
            elif self._broken:
                raise RawConnError("the connection has ended")
            else:
                await self._write_pending()

    async def _write_pending(self) -> None:
        """Write queued frames, shielded: half a frame would garble all streams."""
        piece = bytes(self._pending[:MAX_PLAINTEXT_LENGTH])
        del self._pending[:MAX_PLAINTEXT_LENGTH]
        self._writing = self._broken = True
        try:
            with trio.CancelScope(shield=True) as scope:
                scope.deadline = trio.current_time() + STALLED_SECONDS
                await self.secured_conn.write(piece)
                self._written += len(piece)
                self._broken = False
        finally:
            self._writing = False
            self._writers.unpark_all()
        if scope.cancelled_caught:
            self.event_shutting_down.set()
            await self.secured_conn.close()
            raise RawConnError("the peer does not read")

    async def _write_frame(self, frame: bytes) -> None:
        """Write one frame, and those that wait."""
        self.queue(frame)
        await self.flush()


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
