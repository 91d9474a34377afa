"""Real libp2p transports on loopback."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

from node.config.limits import Limits
from node.transport.libp2p.transport import Libp2pTransport
from tests.node.transport.recorder import Recorder

TOPICS = ("/helium/1/test/tasks", "/helium/1/test/votes")
PROTOCOLS = ("/helium/1/test/echo", "/helium/1/test/other")
ANYWHERE = "/ip4/127.0.0.1/tcp/0"

Start = Callable[..., Awaitable[Libp2pTransport]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Start transports, each with a key of its own, and stop them after the test."""
    async with AsyncExitStack() as stack:
        keys = iter(range(1, 256))

        async def start(
            recorder: Recorder,
            *,
            seed: bytes = b"",
            listen: str = ANYWHERE,
            limits: Limits | None = None,
        ) -> Libp2pTransport:
            transport = Libp2pTransport(seed or bytes([next(keys)]) * 32, listen, limits=limits)
            await transport.start(recorder, TOPICS, PROTOCOLS)
            stack.push_async_callback(transport.stop)
            return transport

        yield start
        async with asyncio.timeout(30):
            await stack.aclose()
