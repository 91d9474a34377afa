"""A listener that records every call, so that a test can wait for events."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import cast

from node.transport.interface import Stream, ValidationResult
from protocol.wire.messages import Message

# Fails a test that hangs. It says nothing about speed: at load 20 a step may take 20 times as long.
HANG_SECONDS = 120.0


async def echo_reversed(protocol: str, stream: Stream) -> None:
    """Answer four bytes of length and as many bytes with the bytes reversed."""
    size = int.from_bytes(await stream.read_exactly(4), "big")
    await stream.write((await stream.read_exactly(size))[::-1])


async def request(stream: Stream, payload: bytes) -> bytes:
    """Send a request to `echo_reversed` and return its answer."""
    await stream.write(len(payload).to_bytes(4, "big") + payload)
    answer = await stream.read_exactly(len(payload))
    await stream.close()
    return answer


async def poll(condition: Callable[[], bool]) -> None:
    """Wait for a condition of which neither libp2p nor a listener sends an event."""
    async with asyncio.timeout(HANG_SECONDS):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


class Recorder:
    def __init__(self, serve: Callable[[str, Stream], Awaitable[None]] = echo_reversed) -> None:
        self.verdicts: dict[bytes, ValidationResult] = {}
        self.judged: list[bytes] = []
        self.gossip: list[tuple[str, str, bytes]] = []
        self.events: list[tuple[str, str]] = []
        self._serve = serve
        self._changed = asyncio.Event()

    @property
    def payloads(self) -> list[bytes]:
        return [payload for _, _, payload in self.gossip]

    def validate(self, topic: str, payload: bytes) -> tuple[ValidationResult, Message | None]:
        self.judged.append(payload)
        result = self.verdicts.get(payload, ValidationResult.ACCEPT)
        # Transports pass the message on and never look into it: any value will do.
        message = cast("Message", (topic, payload))
        return result, message if result is ValidationResult.ACCEPT else None

    def on_gossip(self, peer: str, message: Message) -> None:
        self.gossip.append((peer, *cast("tuple[str, bytes]", message)))
        self._changed.set()

    def connected(self, peer: str) -> None:
        self.events.append(("connected", peer))
        self._changed.set()

    def disconnected(self, peer: str) -> None:
        self.events.append(("disconnected", peer))
        self._changed.set()

    async def serve(self, protocol: str, stream: Stream) -> None:
        await self._serve(protocol, stream)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition that only a call of this listener makes true."""
        async with asyncio.timeout(HANG_SECONDS):
            while not condition():
                self._changed.clear()
                await self._changed.wait()
