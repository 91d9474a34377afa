"""TCP proxies on loopback, one for each direction of dialling, that can degrade a link."""

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

CHUNK = 65_536  # bytes


@dataclass(frozen=True, slots=True)
class LinkCondition:
    """The state of a link. `held` stops all bytes; `cut` also refuses and resets connections."""

    held: bool = False
    cut: bool = False
    delay: float = 0.0  # seconds that each chunk waits
    rate: float = 0.0  # bytes per second each way; 0 means no limit


HEALTHY = LinkCondition()


class Link:
    """The proxy through which one node dials another."""

    def __init__(self, target_port: int) -> None:
        """`target_port` is the port on which the dialled node listens."""
        self._target_port = target_port
        self._condition, self._flowing = HEALTHY, asyncio.Event()
        self._flowing.set()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0
        """The port of the proxy itself, set by `start`."""

    async def start(self) -> None:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening and close all connections."""
        if self._server is not None:
            self._server.close()
        self._abort_connections()

    def set_condition(self, condition: LinkCondition) -> None:
        """Change the condition. A cut resets the open connections at once."""
        self._condition = condition
        if condition.held:
            self._flowing.clear()
        else:
            self._flowing.set()
        if condition.cut:
            self._abort_connections()

    def _abort_connections(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError), self._tracked(writer):
            if self._condition.cut:
                return
            target = await asyncio.open_connection("127.0.0.1", self._target_port)
            with self._tracked(target[1]):
                pumps = (
                    asyncio.create_task(self._pump(reader, target[1])),
                    asyncio.create_task(self._pump(target[0], writer)),
                )
                try:
                    await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for pump in pumps:
                        pump.cancel()
                    await asyncio.gather(*pumps, return_exceptions=True)

    @contextmanager
    def _tracked(self, writer: asyncio.StreamWriter) -> Iterator[None]:
        self._writers.add(writer)
        try:
            yield
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while payload := await reader.read(CHUNK):
                await self._flowing.wait()
                pause = self._condition.delay
                if self._condition.rate:
                    pause += len(payload) / self._condition.rate
                if pause:
                    await asyncio.sleep(pause)
                writer.write(payload)
                await writer.drain()


@contextmanager
def degraded(links: Sequence[Link], condition: LinkCondition) -> Iterator[None]:
    """Put links into a condition during the block."""
    for link in links:
        link.set_condition(condition)
    try:
        yield
    finally:
        for link in links:
            link.set_condition(HEALTHY)
