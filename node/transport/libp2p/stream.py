"""One libp2p stream, used from asyncio through the bridge.

| state       | entered by                                   | a read         | a write        |
| ----------- | -------------------------------------------- | -------------- | -------------- |
| open        | `open` on either side                        | waits          | waits for room |
| half-closed | `close_write`                                | waits          | `StreamClosed` |
| ended       | the peer has closed its side                 | `StreamClosed` | waits for room |
| closed      | `close`, `reset` on either side, any failure | `StreamClosed` | `StreamClosed` |
"""

import contextlib
import weakref

import trio
from libp2p.abc import IMuxedConn, INetStream
from libp2p.network.stream.exceptions import StreamEOF

from node.transport.interface import StreamClosed
from node.transport.libp2p.quotas import Quotas, rate_limit_key
from node.transport.libp2p.trio_bridge import TrioBridge

# Bytes that are read ahead, so that small reads need no round trip over the bridge each.
READ_AHEAD = 65_536
# A bit more than the longest deadline of a task; whoever reads sets a shorter timeout.
READ_SECONDS = 3_900.0
# For a reader to begin.
WRITE_SECONDS = 30.0
# Bytes per second that a reader must take after that, or it is disconnected: 128 MiB in under
# five hours.
MIN_READ_RATE = 8192
# Closing takes one frame. If the peer does not read even that, a reset is as good.
CLOSE_SECONDS = 5.0
# For the peer to read an answer and close its side.
LINGER_SECONDS = 10.0
# Between looks whether a stream was reset; libp2p has no event for it.
RESET_POLL_SECONDS = 1.0


class Libp2pConnection:
    """A `node.transport.interface.Connection`, which keeps nothing of an ended one in memory."""

    __slots__ = ("_muxed",)

    def __init__(self, muxed: IMuxedConn) -> None:
        self._muxed = weakref.ref(muxed)

    @property
    def closed(self) -> bool:
        """Whether the connection has ended."""
        muxed = self._muxed()
        return muxed is None or bool(muxed.is_closed)


class Libp2pStream:
    """A `node.transport.interface.Stream`; its methods are called on the asyncio loop."""

    def __init__(self, bridge: TrioBridge, stream: INetStream, quotas: Quotas) -> None:
        self.peer = str(stream.muxed_conn.peer_id)
        self.rate_limit_key = rate_limit_key(stream.muxed_conn)
        self.connection = Libp2pConnection(stream.muxed_conn)
        self._bridge, self._quotas = bridge, quotas
        self._stream = stream
        self._read_ahead = bytearray()

    async def read_exactly(self, n: int) -> bytes:
        """Return exactly `n` bytes, or raise `StreamClosed`."""
        if len(self._read_ahead) < n:
            missing = n - len(self._read_ahead)
            self._read_ahead += await self._bridge.run_in_trio(self._read, missing)
        payload = bytes(self._read_ahead[:n])
        del self._read_ahead[:n]
        return payload

    async def write(self, payload: bytes) -> None:
        """Send all of `payload`, waiting for a slow reader; raise `StreamClosed`."""
        await self._bridge.run_in_trio(self._write, payload)

    async def close_write(self) -> None:
        """Close the outbound direction; raise `StreamClosed`."""
        await self._bridge.run_in_trio(self._close_write)

    async def close(self) -> None:
        """Close both directions, without waiting for it; never raises."""
        self._bridge.spawn(self._close)

    async def reset(self) -> None:
        """Abort both directions; never raises."""
        with contextlib.suppress(ConnectionError):
            await self._bridge.run_in_trio(self.reset_in_trio)

    async def wait_closed(self) -> None:
        """Wait until the other side has reset the stream or disconnected; never raises."""
        with contextlib.suppress(ConnectionError):
            await self._bridge.run_in_trio(self._wait_closed)

    # What follows runs on the trio side.

    def read_ahead(self) -> None:
        """Take what has arrived, so that reading it needs no call over the bridge."""
        self._read_ahead += self._stream.read_nowait(READ_AHEAD)

    async def send(self, request: bytes, *, half_close: bool) -> None:
        """Send the first bytes of a stream that was opened just now, and its end with them.

        Resets the stream if that fails, or is cancelled.
        """
        try:
            await self._write(request, half_close=half_close)
        except trio.Cancelled:
            await self.reset_in_trio()
            raise

    async def close_gracefully(self) -> None:
        """Close the stream; reset it if the peer does not close its side in `LINGER_SECONDS`.

        A half-closed stream leaks memory in py-libp2p until the connection ends.
        """
        await self._close()
        with trio.move_on_after(LINGER_SECONDS), contextlib.suppress(Exception):
            while await self._stream.read(READ_AHEAD):
                pass
        if not self._stream.muxed_stream.closed:
            await self.reset_in_trio()

    async def reset_in_trio(self) -> None:
        """Reset the stream, also from a scope that is being cancelled."""
        with trio.move_on_after(CLOSE_SECONDS) as scope, contextlib.suppress(Exception):
            scope.shield = True
            await self._stream.reset()

    async def _close(self) -> None:
        """Close the stream, also from a scope that is being cancelled; if that fails, reset it.

        An interrupted close would leave the other side open. There it counts among the streams
        that this peer may have, for as long as that side waits for the close.
        """
        try:
            with trio.fail_after(CLOSE_SECONDS) as scope:
                scope.shield = True
                await self._stream.close()
        except Exception:
            await self.reset_in_trio()

    async def _read(self, n: int) -> bytes:
        received = bytearray()
        try:
            while len(received) < n:
                with trio.fail_after(READ_SECONDS):
                    piece = await self._stream.read(max(n - len(received), READ_AHEAD))
                if not piece:
                    raise StreamEOF
                received += piece
        except StreamEOF as end:  # the other direction may still be open
            raise StreamClosed("the stream ended") from end
        except Exception as failure:
            await self._fail(failure)
        return bytes(received)

    async def _write(self, payload: bytes, *, half_close: bool = False) -> None:
        """Write in pieces that fit the window.

        libp2p itself gives up after it has waited 5 s for the window. Here a writer waits for
        `WRITE_SECONDS`, plus the time that the slowest permitted reader takes for all of it.
        """
        rest, quotas = memoryview(payload), self._quotas
        await quotas.throttle(
            quotas.written_bytes, self.rate_limit_key, len(rest), "answers-slowed"
        )
        try:
            with trio.fail_after(WRITE_SECONDS + len(rest) / MIN_READ_RATE):
                while rest:
                    room = await self._wait_for_window()
                    last = half_close and len(rest) <= room
                    await self._stream.write(bytes(rest[:room]), last=last)
                    rest = rest[room:]
        except Exception as failure:
            if isinstance(failure, trio.TooSlowError):
                quotas.counts["readers-cut"] += 1
            await self._fail(failure)

    async def _wait_for_window(self) -> int:
        """Return the bytes that the peer takes now; 1 if the stream is closed and a write fails."""
        muxed = self._stream.muxed_stream
        await muxed.window_opened()
        return max(int(muxed.send_window), 1)

    async def _wait_closed(self) -> None:
        # A read would end at a reset too, but cannot tell it from the end of the data.
        while not self._stream.muxed_stream.closed:  # noqa: ASYNC110
            await trio.sleep(RESET_POLL_SECONDS)

    async def _close_write(self) -> None:
        try:
            with trio.fail_after(CLOSE_SECONDS):
                await self._stream.close_write()
        except Exception as failure:
            await self._fail(failure)

    async def _fail(self, failure: Exception) -> None:
        """Reset the stream and raise `StreamClosed`; without a reset the peer's read would hang."""
        await self.reset_in_trio()
        raise StreamClosed(str(failure) or type(failure).__name__) from failure
