"""A TCP proxy on loopback, one for each direction of dialling, that spoils what passes through."""

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

CHUNK = 65_536  # bytes


@dataclass(frozen=True, slots=True)
class Weather:
    """How a link is: nothing passes while `held`, nobody connects while `cut`."""

    held: bool = False
    cut: bool = False
    delay: float = 0.0  # seconds that each chunk waits
    rate: float = 0.0  # bytes a second each way, 0 for no limit


CLEAR = Weather()


class Link:
    """The way by which one node dials another."""

    def __init__(self, port: int) -> None:
        """`port` is where the other really listens."""
        self._port = port
        self._weather, self._flowing = CLEAR, asyncio.Event()
        self._flowing.set()
        self._server: asyncio.Server | None = None
        self._ends: set[asyncio.StreamWriter] = set()
        self.port = 0
        """Where the proxy listens, once it does."""

    async def start(self) -> None:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close everything."""
        if self._server is not None:
            self._server.close()
        self._abort()

    def become(self, weather: Weather) -> None:
        """Change how the link is; a cut ends its connections at once, with a reset."""
        self._weather = weather
        if weather.held:
            self._flowing.clear()
        else:
            self._flowing.set()
        if weather.cut:
            self._abort()

    def _abort(self) -> None:
        for end in list(self._ends):
            end.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError), self._holding(writer):
            if self._weather.cut:
                return
            onwards = await asyncio.open_connection("127.0.0.1", self._port)
            with self._holding(onwards[1]):
                ways = (
                    asyncio.create_task(self._pump(reader, onwards[1])),
                    asyncio.create_task(self._pump(onwards[0], writer)),
                )
                try:
                    await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for way in ways:
                        way.cancel()
                    await asyncio.gather(*ways, return_exceptions=True)

    @contextmanager
    def _holding(self, end: asyncio.StreamWriter) -> Iterator[None]:
        self._ends.add(end)
        try:
            yield
        finally:
            self._ends.discard(end)
            end.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while payload := await reader.read(CHUNK):
                await self._flowing.wait()
                pause = self._weather.delay
                if self._weather.rate:
                    pause += len(payload) / self._weather.rate
                if pause:
                    await asyncio.sleep(pause)
                writer.write(payload)
                await writer.drain()


@contextmanager
def spoilt(links: Sequence[Link], weather: Weather) -> Iterator[None]:
    """Let links be bad while the block runs."""
    for link in links:
        link.become(weather)
    try:
        yield
    finally:
        for link in links:
            link.become(CLEAR)
