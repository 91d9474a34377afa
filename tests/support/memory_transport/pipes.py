"""Pipes with a delay and a bounded buffer: the streams of the in-memory transport."""

import asyncio
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from node.transport.interface import StreamClosed

# Bytes in flight or unread before a writer waits: Yamux's initial window.
CAPACITY = 262_144


class Pipe:
    """One direction of a stream: bounded, delayed, in order.

    | state  | entered by  | a read                           | a write                   |
    | ------ | ----------- | -------------------------------- | ------------------------- |
    | open   | -           | waits for bytes                  | waits for room            |
    | ending | `end`       | waits for bytes                  | `StreamClosed`            |
    | ended  | the end arrives | `StreamClosed` after the bytes | `StreamClosed`            |
    | broken | `break_off` | `StreamClosed`                   | `StreamClosed`            |
    """

    def __init__(self, delay: Callable[[], float]) -> None:
        self._delay = delay
        self._arrived = bytearray()
        self._in_flight = 0
        self._last_arrival = 0.0
        self._ended = False
        self._ending = False
        self._broken = False
        self._waiters: deque[asyncio.Future[None]] = deque()

    async def read_exactly(self, n: int) -> bytes:
        """Return `n` bytes; raise `StreamClosed` if the pipe ends or breaks first."""
        received = bytearray()
        while True:
            piece = self._arrived[: n - len(received)]
            if piece:
                del self._arrived[: len(piece)]
                received += piece
                self._wake()
            if len(received) == n:
                return bytes(received)
            if self._broken or self._ended:
                raise StreamClosed("the stream was reset" if self._broken else "the stream ended")
            await self._changed()

    async def write(self, payload: bytes) -> None:
        """Send everything, waiting for room; raise `StreamClosed` once the pipe is closed."""
        position = 0
        while position < len(payload):
            if self._broken or self._ending:
                raise StreamClosed("the stream is closed for writing")
            room = CAPACITY - self._in_flight - len(self._arrived)
            if room <= 0:
                await self._changed()
                continue
            piece = payload[position : position + room]
            position += len(piece)
            self._in_flight += len(piece)
            self._schedule(piece)

    def end(self) -> None:
        """Let the reader see the end after what was written."""
        if not self._ending and not self._broken:
            self._ending = True
            self._schedule(b"")

    @property
    def finished(self) -> bool:
        """Whether nothing more can be written."""
        return self._broken or self._ending

    async def broken(self) -> None:
        """Wait until both sides have failed."""
        while not self._broken:
            await self._changed()

    def break_off(self) -> None:
        """Fail both sides at once and forget what was under way."""
        self._broken = True
        self._arrived.clear()
        self._wake()

    def _schedule(self, piece: bytes) -> None:
        loop = asyncio.get_running_loop()
        after = math.nextafter(self._last_arrival, math.inf)  # loops keep no order among equals
        self._last_arrival = max(after, loop.time() + self._delay())
        loop.call_at(self._last_arrival, self._arrive, piece)

    def _arrive(self, piece: bytes) -> None:
        if not self._broken:
            self._in_flight -= len(piece)
            self._arrived += piece
            self._ended = not piece  # only the end is empty
            self._wake()

    async def _changed(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter

    def _wake(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)


@dataclass(slots=True)
class MemoryConnection:
    """A connection, until it is closed."""

    closed: bool = False


class MemoryStream:
    """One side of a pair of pipes."""

    def __init__(
        self, peer: str, connection: MemoryConnection, inbound: Pipe, outbound: Pipe
    ) -> None:
        self.peer = self.rate_limit_key = peer
        self.connection = connection
        self._inbound = inbound
        self._outbound = outbound

    @property
    def finished(self) -> bool:
        """Whether neither direction can take anything more."""
        return self._inbound.finished and self._outbound.finished

    async def read_exactly(self, n: int) -> bytes:
        """Return exactly `n` bytes, or raise `StreamClosed`."""
        return await self._inbound.read_exactly(n)

    async def write(self, payload: bytes) -> None:
        """Hand over all of `payload`; raise `StreamClosed`."""
        await self._outbound.write(payload)

    async def close_write(self) -> None:
        """End the outbound direction."""
        self._outbound.end()

    async def close(self) -> None:
        """End both directions; what was written is still delivered."""
        self._outbound.end()

    async def reset(self) -> None:
        """Break both directions."""
        self.break_off()

    async def wait_closed(self) -> None:
        """Wait until the other side has broken it off."""
        await self._inbound.broken()

    def break_off(self) -> None:
        """Break both directions at once, from any callback."""
        self._inbound.break_off()
        self._outbound.break_off()


def pair(
    opener: str,
    acceptor: str,
    delay: Callable[[], float],
    connections: tuple[MemoryConnection, MemoryConnection],
) -> tuple[MemoryStream, MemoryStream]:
    """Return the two ends of a stream between two peers: first the opener's."""
    there, back = Pipe(delay), Pipe(delay)
    near, far = connections
    return MemoryStream(acceptor, near, back, there), MemoryStream(opener, far, there, back)
