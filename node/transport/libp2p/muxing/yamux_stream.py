"""A Yamux stream without locks, over py-libp2p 0.8.1.

libp2p's own takes two to four locks in each read and write, and each costs a turn of trio's loop.
It sends a window update after almost every read, and looks every 10 ms whether a window has opened.
All streams are used in one thread, and no method here waits between a look and a change.
"""

import contextlib
import struct
from typing import TYPE_CHECKING

import trio
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.network.connection.exceptions import RawConnError
from libp2p.security.noise.io import MAX_PLAINTEXT_LENGTH
from libp2p.stream_muxer.exceptions import MuxedStreamEOF, MuxedStreamError, MuxedStreamReset
from libp2p.stream_muxer.yamux.yamux import (
    FLAG_FIN,
    FLAG_RST,
    HEADER_SIZE,
    TYPE_DATA,
    TYPE_WINDOW_UPDATE,
    YAMUX_HEADER_FORMAT,
    YamuxStream,
)

if TYPE_CHECKING:
    from node.transport.libp2p.muxing.yamux import GuardedYamux

# Of the content of one frame: it fits one Noise message.
FRAME_CONTENT = MAX_PLAINTEXT_LENGTH - HEADER_SIZE
# Of the varint before a message: five bytes hold every length below 32 GiB.
LENGTH_BYTES = 5
# For the peer to open its window; as long as libp2p waits.
WINDOW_SECONDS = 5.0
# What a write raises when the connection has ended.
BROKEN = (RawConnError, ConnectionClosedError)


def header(kind: int, flags: int, stream: int, length: int) -> bytes:
    """Return a frame's 12 bytes of header."""
    return struct.pack(YAMUX_HEADER_FORMAT, 0, kind, flags, stream, length)


class GuardedStream(YamuxStream):  # type: ignore[misc]  # libp2p is untyped here
    """A stream for one reader and one writer at a time."""

    conn: "GuardedYamux"
    closed: bool
    send_closed: bool
    recv_closed: bool
    send_window: int
    _pending_recv_release: int

    def __init__(self, stream_id: int, conn: "GuardedYamux", is_initiator: bool) -> None:
        super().__init__(stream_id, conn, is_initiator)
        self._window_opened: trio.Event | None = None

    async def read(self, n: int | None = -1) -> bytes:
        """Return at most `n` bytes, or all that have arrived; wait for at least one.

        Raises MuxedStreamEOF at the end, and MuxedStreamReset.
        """
        while True:
            buffer = self.conn.stream_buffers.get(self.stream_id)
            if self.reset_received and not (buffer and self.recv_closed):
                raise MuxedStreamReset("the stream was reset")
            if buffer:
                return self._take(buffer, n)
            if self.recv_closed or self.closed or self.conn.event_shutting_down.is_set():
                raise MuxedStreamEOF("the stream has ended")
            await self._wait()

    async def read_length(self) -> int:
        """Return the unsigned varint that comes next, and read nothing behind it.

        Raises ValueError if it has over five bytes, MuxedStreamEOF at the end, MuxedStreamReset.
        """
        size = position = 0
        while position < LENGTH_BYTES:
            buffer = self.conn.stream_buffers.get(self.stream_id, b"")
            if position >= len(buffer):
                # What has arrived of it stays in the buffer, for which `read` would not wait.
                if self.recv_closed or self.closed or self.conn.event_shutting_down.is_set():
                    raise MuxedStreamReset if self.reset_received else MuxedStreamEOF
                await self._wait()
                continue
            byte = buffer[position]
            size |= (byte & 0x7F) << 7 * position
            position += 1
            if byte < 0x80:
                await self.read(position)
                return size
        raise ValueError(f"a length of over {LENGTH_BYTES} bytes")

    def read_nowait(self, n: int) -> bytes:
        """Return at most `n` bytes of what has arrived; none if the stream was reset."""
        buffer = self.conn.stream_buffers.get(self.stream_id)
        return self._take(buffer, n) if buffer and not self.reset_received else b""

    def unread(self) -> int:
        """Return how many bytes have arrived and wait to be read."""
        return len(self.conn.stream_buffers.get(self.stream_id, b""))

    def _take(self, buffer: bytearray, n: int | None) -> bytes:
        taken = bytes(buffer if n is None or n < 0 else buffer[:n])
        del buffer[: len(taken)]
        if self.closed:
            self.conn._finalize_stream_locked(self, fully_closed=True)
        elif not self.recv_closed:
            self._grant(len(taken), len(buffer))
        return taken

    def _grant(self, taken: int, unread: int) -> None:
        """Let the peer send as much again, once half of the window is used."""
        self._pending_recv_release += taken
        increment = self._pending_recv_release
        if increment < self.target_recv_window // 2:
            return
        self._pending_recv_release = 0
        self.recv_window += increment
        increment += self._apply_autotune_epoch(unread)
        self.conn.queue(header(TYPE_WINDOW_UPDATE, 0, self.stream_id, increment))
        self.conn.flush_soon()

    async def _wait(self) -> None:
        """Wait until something has come, after sending what the peer may be waiting for."""
        event = self.conn.stream_events.get(self.stream_id)
        if event is None:
            raise MuxedStreamEOF("the stream was removed")
        with contextlib.suppress(*BROKEN):  # then the muxer ends the stream
            await self.conn.flush()
        await event.wait()
        if self.stream_id in self.conn.stream_events:
            self.conn.stream_events[self.stream_id] = trio.Event()

    async def write(self, data: bytes, *, last: bool = False) -> None:
        """Send `data`, waiting for the peer's window; raise MuxedStreamError.

        With `last`, close this side in the same write.
        """
        start = 0
        while start < len(data):
            start += self.queue(data[start : start + FRAME_CONTENT])
            if last and start == len(data):
                await self.close()
                return
            await self.conn.flush()
            if start < len(data) and self.send_window <= 0:
                await self._wait_for_window()

    def queue(self, data: bytes) -> int:
        """Queue a frame with as much of `data` as the window allows; return how many bytes.

        They are sent by the next flush of the connection. Raises MuxedStreamError.
        """
        if self.closed or self.send_closed:
            raise MuxedStreamError("the stream is closed")
        size: int = min(len(data), max(self.send_window, 0), FRAME_CONTENT)
        if size:
            self.send_window -= size
            self.conn.queue(header(TYPE_DATA, 0, self.stream_id, size) + data[:size])
        return size

    async def _wait_for_window(self) -> None:
        with trio.move_on_after(WINDOW_SECONDS) as scope:
            await self.window_opened()
        if scope.cancelled_caught:
            raise MuxedStreamError(f"the window stayed closed for {WINDOW_SECONDS:g} s")

    async def window_opened(self) -> None:
        """Wait until the peer takes more bytes, or the stream is closed."""
        while self.send_window <= 0 and not (self.closed or self.send_closed):
            if self._window_opened is None:
                self._window_opened = trio.Event()
            await self._window_opened.wait()

    def wake_writer(self) -> None:
        """Note that the window has opened, or that the stream is closed."""
        if self._window_opened is not None:
            self._window_opened.set()
            self._window_opened = None

    async def close(self) -> None:
        """Close this side; reading goes on."""
        if not (self.send_closed or self.closed):
            self.send_closed = True
            self.conn.queue(header(TYPE_WINDOW_UPDATE, FLAG_FIN, self.stream_id, 0))
        self.closed = self.closed or self.recv_closed
        self.conn._finalize_stream_locked(self, fully_closed=self.closed)
        with contextlib.suppress(*BROKEN):
            await self.conn.flush()

    async def reset(self) -> None:
        """Abort both directions."""
        if self.closed:
            return
        self.closed = self.send_closed = self.recv_closed = self.reset_received = True
        self.conn.queue(header(TYPE_WINDOW_UPDATE, FLAG_RST, self.stream_id, 0))
        self.conn.forget(self)
        with contextlib.suppress(*BROKEN):
            await self.conn.flush()
