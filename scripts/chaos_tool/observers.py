"""Passive observers of a run: a gossip listener that records envelopes, and a log follower."""

import asyncio
import contextlib
import json
import random
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

from node.sync.dialer import keep_connected
from node.transport.interface import Stream, ValidationResult, topics
from node.transport.libp2p.transport import Libp2pTransport
from protocol.wire.messages import Message
from scripts.testnet_tool.nodes import LocalNode

Event = Mapping[str, Any]


class GossipListener:
    """Transport listener that stores every distinct envelope and forwards none."""

    def __init__(self, envelopes: set[bytes]) -> None:
        self._envelopes = envelopes

    def validate(self, topic: str, payload: bytes) -> tuple[ValidationResult, Message | None]:
        """Store the envelope. IGNORE stops it here, so the listener cannot bridge a partition."""
        self._envelopes.add(payload)
        return ValidationResult.IGNORE, None

    def on_gossip(self, peer: str, message: Message) -> None:
        """Never called, because `validate` accepts nothing."""

    async def serve(self, protocol: str, stream: Stream) -> None:
        """Reject every request."""
        await stream.reset()

    def connected(self, peer: str) -> None:
        """Do nothing."""

    def disconnected(self, peer: str) -> None:
        """Do nothing."""


@asynccontextmanager
async def record_gossip(
    network: str, addresses: Sequence[str], envelopes: set[bytes]
) -> AsyncIterator[None]:
    """Add all envelopes that the nodes at `addresses` gossip to `envelopes` during the block."""
    transport = Libp2pTransport(secrets.token_bytes(32), "/ip4/127.0.0.1/tcp/0")
    await transport.start(GossipListener(envelopes), topics(network), ())
    dialer = asyncio.create_task(keep_connected(transport, addresses, random.Random()))
    try:
        yield
    finally:
        dialer.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await dialer
        await transport.stop()


class LogTail:
    """Reads the events that a node logs after this object was created. A context manager."""

    def __init__(self, node: LocalNode) -> None:
        self._file = node.log.open("rb")
        self._file.seek(0, 2)
        self._partial_line = b""

    def __enter__(self) -> "LogTail":
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def new_events(self) -> list[Event]:
        """Return the events logged since the last call."""
        *lines, self._partial_line = (self._partial_line + self._file.read()).split(b"\n")
        return [event for line in lines if (event := parse_event(line)) is not None]

    async def wait_for(
        self, matches: Callable[[Event], bool], timeout: float, poll_seconds: float
    ) -> Event | None:
        """Return the first event that matches, or None after `timeout` seconds."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while loop.time() < deadline:
            for event in self.new_events():
                if matches(event):
                    return event
            await asyncio.sleep(poll_seconds)
        return None


def parse_event(line: bytes) -> Event | None:
    """Return the event of a log line, or None if the line is not an event."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) else None


def logged_at(event: Event) -> float:
    """Return when an event was logged, in Unix seconds."""
    return datetime.fromisoformat(event["timestamp"]).timestamp()
