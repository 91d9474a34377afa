"""A peer of no roster that hears all gossip, keeps it, and passes nothing on."""

import asyncio
import contextlib
import random
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from node.daemon import topics
from node.sync.dialer import keep_connected
from node.transport.interface import Stream, ValidationResult
from node.transport.libp2p.transport import Libp2pTransport


class Tap:
    """A listener that keeps each different envelope once."""

    def __init__(self, heard: set[bytes]) -> None:
        self._heard = heard

    def validate(self, topic: str, payload: bytes) -> ValidationResult:
        """Keep it, and let it go no further: partitions are not to be bridged here."""
        self._heard.add(payload)
        return ValidationResult.IGNORE

    def on_gossip(self, peer: str, topic: str, payload: bytes) -> None:
        """Never called: nothing is accepted."""

    async def serve(self, protocol: str, stream: Stream) -> None:
        """Serve nothing."""
        await stream.reset()

    def connected(self, peer: str) -> None:
        """Nothing follows from it."""

    def disconnected(self, peer: str) -> None:
        """Nothing follows from it."""


@asynccontextmanager
async def tapping(network: str, addresses: Sequence[str], heard: set[bytes]) -> AsyncIterator[None]:
    """Put what the nodes at `addresses` gossip into `heard` while the block runs."""
    transport = Libp2pTransport(secrets.token_bytes(32), "/ip4/127.0.0.1/tcp/0")
    await transport.start(Tap(heard), topics(network), ())
    keeping = asyncio.create_task(keep_connected(transport, addresses, random.Random()))
    try:
        yield
    finally:
        keeping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeping
        await transport.stop()
