"""Real libp2p transports on loopback."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

from node.config.limits import Limits
from node.transport.libp2p import swarm, transport
from node.transport.libp2p.muxing import yamux
from node.transport.libp2p.transport import Libp2pTransport
from tests.node.transport.recorder import HANG_SECONDS, Recorder

TOPICS = ("/helium/2/test/tasks", "/helium/2/test/votes")
PROTOCOLS = ("/helium/2/test/echo", "/helium/2/test/other")
ANYWHERE = "/ip4/127.0.0.1/tcp/0"

# The timeouts of the product do not fit a machine at load 20: an honest peer would miss them.
NEVER_SECONDS = 600.0

Start = Callable[..., Awaitable[Libp2pTransport]]


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no timeout of a transport pass during a test; the test of a timeout sets its own."""
    for module, name in (
        (transport, "DIAL_SECONDS"),
        (transport, "OPEN_SECONDS"),
        (transport, "START_SECONDS"),
        (swarm, "NEGOTIATION_SECONDS"),
        (yamux, "SILENT_SECONDS"),
        (swarm, "UPGRADE_SECONDS"),
    ):
        monkeypatch.setattr(module, name, NEVER_SECONDS)


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
            started = Libp2pTransport(seed or bytes([next(keys)]) * 32, listen, limits=limits)
            await started.start(recorder, TOPICS, PROTOCOLS)
            stack.push_async_callback(started.stop)
            return started

        yield start
        async with asyncio.timeout(HANG_SECONDS):
            await stack.aclose()
