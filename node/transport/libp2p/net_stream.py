"""A stream of a connection without locks and state changes, over py-libp2p 0.8.1.

libp2p's own takes a lock in each call and notifies all parts of the host of each stream, in a task
for each; none of them listens. The muxer's stream knows its state.
"""

import contextlib

from libp2p.network.stream.exceptions import StreamEOF, StreamError, StreamReset
from libp2p.network.stream.net_stream import NetStream, StreamState
from libp2p.stream_muxer.exceptions import MuxedStreamEOF, MuxedStreamReset

# The longest message of a negotiation; other implementations have the same limit.
NEGOTIATION_BYTES = 1024


class GuardedNetStream(NetStream):  # type: ignore[misc]  # libp2p is untyped here
    """A stream for one reader and one writer at a time, of a `muxing.yamux.GuardedYamux`."""

    expected = b""
    """The answer to an assumed protocol, which the first read checks and drops."""

    async def read(self, n: int | None = None) -> bytes:
        """Return at most `n` bytes, or all that have arrived; raise StreamEOF or StreamReset."""
        if self.expected:
            await self._check_protocol()
        return await self._read(n)

    async def read_length(self, limit: int) -> int:
        """Return the unsigned varint that comes next.

        Raises ValueError if it is over `limit` or over five bytes; StreamEOF, StreamReset.
        """
        try:
            size: int = await self.muxed_stream.read_length()
        except MuxedStreamEOF as end:
            raise StreamEOF from end
        except MuxedStreamReset as reset:
            raise StreamReset from reset
        if size > limit:
            raise ValueError(f"a length of {size} is over {limit}")
        return size

    async def read_message(self, limit: int) -> bytes:
        """Return the next message with an unsigned varint of its length before it.

        Raises as `read_length` does.
        """
        size = await self.read_length(limit)
        received = bytearray()
        while len(received) < size:
            received += await self._read(size - len(received))
        return bytes(received)

    async def _read(self, n: int | None) -> bytes:
        try:
            received: bytes = await self.muxed_stream.read(n)
        except MuxedStreamEOF as end:
            raise StreamEOF from end
        except MuxedStreamReset as reset:
            raise StreamReset from reset
        except Exception as failure:
            raise StreamError(f"a read failed: {failure}") from failure
        return received

    async def _check_protocol(self) -> None:
        answer = b""
        while len(answer) < len(self.expected):
            answer += await self._read(len(self.expected) - len(answer))
            if not self.expected.startswith(answer):
                await self.reset()
                raise StreamError("the peer does not speak the protocol")
        self.expected = b""

    async def write(self, data: bytes, *, last: bool = False) -> None:
        """Send all of `data`; raise StreamReset if the stream or its connection has ended.

        With `last`, close this side in the same write.
        """
        try:
            await self.muxed_stream.write(data, last=last)
        except Exception as failure:
            raise StreamReset(str(failure)) from failure

    def read_nowait(self, n: int) -> bytes:
        """Return at most `n` bytes of what has arrived; none if the stream was reset."""
        received: bytes = b"" if self.expected else self.muxed_stream.read_nowait(n)
        return received

    async def close(self) -> None:
        """Close this side, and leave the rest to the muxer."""
        await self.muxed_stream.close()
        await self.remove()

    async def close_write(self) -> None:
        """Close this side; reading goes on."""
        await self.muxed_stream.close()

    async def reset(self) -> None:
        """Abort both directions; never raises."""
        with contextlib.suppress(Exception):
            await self.muxed_stream.reset()
        await self.remove()

    async def remove(self) -> None:
        """Take the stream off its connection's list."""
        if self.swarm_conn is not None:
            self.swarm_conn.remove_stream(self)

    async def set_state(self, state: StreamState) -> None:
        """Do nothing: the muxer's stream knows its state."""
