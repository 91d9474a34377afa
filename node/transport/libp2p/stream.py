"""One libp2p stream, used from asyncio through the bridge."""

import contextlib

import trio
from libp2p.abc import INetStream
from libp2p.network.stream.exceptions import StreamEOF

from node.transport.interface import StreamClosed
from node.transport.libp2p.quotas import Quotas, rate_limit_key
from node.transport.libp2p.trio_bridge import TrioBridge

READ_AHEAD = 65_536  # bytes taken over the bridge at once, so that small reads cost no round trip
READ_SECONDS = 3_900.0  # the longest deadline of a task and some; shorter ones are the reader's
WRITE_SECONDS = 30.0  # for a reader to begin; how fast it must go on is a setting
CLOSE_SECONDS = 5.0  # one frame, unless the peer does not read; then a reset is as good
LINGER_SECONDS = 10.0  # for an answer to be read, after which a stream is of no use to anyone
GONE_SECONDS = 1.0  # until a reset is noticed while nothing is read or written
POLL_SECONDS = 0.01  # a slow reader costs 100 wake-ups a second, and a window waits 10 ms at most


class Libp2pStream:
    """A `node.transport.interface.Stream`; its methods are called on the asyncio loop."""

    def __init__(self, bridge: TrioBridge, stream: INetStream, quotas: Quotas) -> None:
        self.peer = str(stream.muxed_conn.peer_id)
        self.rate_limit_key = rate_limit_key(stream.muxed_conn)
        self._bridge, self._quotas = bridge, quotas
        self._stream = stream
        self._ahead = bytearray()

    async def read_exactly(self, n: int) -> bytes:
        """Return exactly `n` bytes, or raise `StreamClosed`."""
        if len(self._ahead) < n:
            self._ahead += await self._bridge.run_in_trio(self._read, n - len(self._ahead))
        wanted = bytes(self._ahead[:n])
        del self._ahead[:n]
        return wanted

    async def write(self, payload: bytes) -> None:
        """Hand over all of `payload`, waiting for a slow reader; raise `StreamClosed`."""
        await self._bridge.run_in_trio(self._write, payload)

    async def close_write(self) -> None:
        """Half-close; raise `StreamClosed`."""
        await self._bridge.run_in_trio(self._close_write)

    async def close(self) -> None:
        """Close both directions; never raises."""
        with contextlib.suppress(ConnectionError):
            await self._bridge.run_in_trio(self._close)

    async def reset(self) -> None:
        """Abort both directions; never raises."""
        with contextlib.suppress(ConnectionError):
            await self._bridge.run_in_trio(self.reset_in_trio)

    async def wait_closed(self) -> None:
        """Wait until the other side has reset the stream, or is away; never raises."""
        with contextlib.suppress(ConnectionError):
            await self._bridge.run_in_trio(self._wait_closed)

    # What follows runs on the trio side.

    async def _close(self) -> None:
        """Close the stream, also from a scope that is being cancelled; if that fails, reset it.

        Half a closing would leave the other side's end open, which counts among the streams that
        this peer may have there for as long as it is waited for.
        """
        try:
            with trio.fail_after(CLOSE_SECONDS) as scope:
                scope.shield = True
                await self._stream.close()
        except Exception:
            await self.reset_in_trio()

    async def close_gracefully(self) -> None:
        """Close the stream, and reset it if the other side does not close it soon.

        A stream that is closed on one side alone costs memory for as long as the connection lives.
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

    async def _read(self, n: int) -> bytes:
        taken = bytearray()
        try:
            while len(taken) < n:
                with trio.fail_after(READ_SECONDS):
                    piece = await self._stream.read(max(n - len(taken), READ_AHEAD))
                if not piece:
                    raise StreamEOF
                taken += piece
        except StreamEOF as end:  # the other direction may still be open
            raise StreamClosed("the stream ended") from end
        except Exception as failure:
            await self._fail(failure)
        return bytes(taken)

    async def _write(self, payload: bytes) -> None:
        """Write in pieces that fit the window.

        libp2p gives a writer up who has waited 5 s for window; here it is `WRITE_SECONDS`, and as
        long again as the slowest reader allowed takes for all of it.
        """
        rest = memoryview(payload)
        await self._quotas.pay(
            self._quotas.answers, self.rate_limit_key, len(rest), "answers-slowed"
        )
        try:
            with trio.fail_after(WRITE_SECONDS + len(rest) / self._quotas.limits.reader_bytes):
                while rest:
                    room = await self._room()
                    await self._stream.write(bytes(rest[:room]))
                    rest = rest[room:]
        except Exception as failure:
            if isinstance(failure, trio.TooSlowError):
                self._quotas.counts["readers-cut"] += 1
            await self._fail(failure)

    async def _room(self) -> int:
        muxed = self._stream.muxed_stream
        # libp2p tells nobody when the window opens
        while muxed.send_window <= 0 and not (muxed.closed or muxed.send_closed):  # noqa: ASYNC110
            await trio.sleep(POLL_SECONDS)
        return max(int(muxed.send_window), 1)

    async def _wait_closed(self) -> None:
        # libp2p wakes readers alone, and a read cannot tell a reset from an end
        while not self._stream.muxed_stream.closed:  # noqa: ASYNC110
            await trio.sleep(GONE_SECONDS)

    async def _close_write(self) -> None:
        try:
            with trio.fail_after(CLOSE_SECONDS):
                await self._stream.close_write()
        except Exception as failure:
            await self._fail(failure)

    async def _fail(self, failure: Exception) -> None:
        """Reset the stream, or the other side hangs in a read, and raise `StreamClosed`."""
        await self.reset_in_trio()
        raise StreamClosed(str(failure) or type(failure).__name__) from failure
