"""Adversaries among real daemons: agents over the in-memory transport, and their lies in streams.

What `agents` does by gossip it does here too; beyond that, an actor answers requests with lies.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any

from node.rpc import client as rpc_client
from node.rpc.framing import write_frame
from node.sync.feed_sync import Batch
from node.transport.interface import Stream, StreamClosed, ValidationResult
from node.version import AGENT
from protocol.consensus.effects import State
from protocol.constants import DOCUMENT_LIMIT
from protocol.errors import Rejected
from protocol.network import Network
from protocol.wire.encoding import Document, parse
from tests.simulation.agents import Agent
from tests.simulation.certifying import CertificateForger
from tests.simulation.outsiders import FOREIGN, BadRequester, Garbler, LyingFeed
from tests.support import fixtures
from tests.support.memory_transport.network import MemoryNetwork, MemoryTransport

STREAMING = (LyingFeed, Garbler, BadRequester, CertificateForger)
PROTOCOLS = tuple(rpc_client.protocol_id(name) for name in rpc_client.NAMES)


class Stage:
    """The agents' `Ground` over a `MemoryNetwork` in a virtual loop."""

    def __init__(
        self,
        network: Network,
        medium: MemoryNetwork,
        dice: random.Random,
        hear: Callable[[str, bytes], None] | None = None,
        obedient: frozenset[str] = frozenset(),
    ) -> None:
        """`hear` is told of what each peer says."""
        self.obedient = obedient
        self.network, self.random, self._hear = network, dice, hear
        self.topics = (f"/helium/1/{network.id}/tasks", f"/helium/1/{network.id}/votes")
        self._medium = medium
        self._loop = asyncio.get_running_loop()

    def now(self) -> float:
        return fixtures.START + self._loop.time()

    def later(self, seconds: float, call: Callable[..., object], *args: Any) -> None:
        self._loop.call_later(seconds, call, *args)

    def neighbours(self, peer: str) -> list[str]:
        transport = self._medium.transport(peer)
        return [] if transport is None else sorted(transport.peers())

    def say(self, peer: str, topic: str, payload: bytes, to: Sequence[str] | None = None) -> None:
        transport = self._medium.transport(peer)
        if transport is None:  # the history is over
            return
        if self._hear is not None:
            self._hear(peer, payload)
        if to is None:
            transport.gossip(topic, payload)
            return
        for target in to:
            if target in transport.peers():
                self._medium.send(peer, target, topic, payload)


class Actor:
    """An agent's body: its transport, and how it answers streams."""

    def __init__(self, medium: MemoryNetwork, agent: Agent) -> None:
        self.agent = agent
        self.transport = MemoryTransport(medium, agent.peer)

    async def start(self, addresses: Sequence[str]) -> None:
        """Enter the network and connect with whom it can."""
        answers = PROTOCOLS if isinstance(self.agent, STREAMING) else ()
        await self.transport.start(self, self.agent.ground.topics, answers)
        for address in addresses:
            await self.transport.dial(address)
        self.agent.begin()

    # Listener

    def validate(self, topic: str, payload: bytes) -> ValidationResult:
        return self.agent.validate(topic, payload)

    def on_gossip(self, peer: str, topic: str, payload: bytes) -> None:
        self.agent.on_gossip(peer, topic, payload)

    async def serve(self, protocol: str, stream: Stream) -> None:
        try:
            if isinstance(self.agent, Garbler):
                await self._garble(stream)
            else:
                await self._lie(protocol.rpartition("/")[2], stream)
        except StreamClosed:
            await stream.reset()

    def connected(self, peer: str) -> None:
        return

    def disconnected(self, peer: str) -> None:
        return

    async def _lie(self, name: str, stream: Stream) -> None:
        """Greet as another network's peer, or as one of this one, and then give a false feed."""
        request: Any = await rpc_client.read_document(stream, f"{name}-request")
        net = self.agent.ground.network.id
        if name == "hello":
            foreign = isinstance(self.agent, LyingFeed) and self.agent.dice.random() < 0.3
            said = FOREIGN if foreign else net
            greeting: Document = {
                "network": said,
                "agent": AGENT,
                "class": None,
                "ready": True,
                "reasons": [],
                "models": [],
            }
            await rpc_client.answer(stream, greeting)
        elif name == "feed":
            await rpc_client.answer(
                stream, _told(self.agent.page(request["feed"], request["cursor"]))
            )
        elif name == "task" and (shown := self.agent.shows(request["task"])):
            answer: Document = {
                "state": State.AGREED,
                "attempt": 0,
                "envelopes": [],
                "certificate": self.agent.dice.choice(shown),
            }
            await rpc_client.answer(stream, answer)
        else:
            await rpc_client.refuse(stream, rpc_client.Status.BUSY, "busy", "never free")

    async def _garble(self, stream: Stream) -> None:
        """Answer with what is no answer: noise, a frame too large, one cut short, one for ever."""
        dice = self.agent.dice
        match dice.choice(("noise", "large", "short", "deep", "silence")):
            case "noise":
                await stream.write(dice.randbytes(1000))
            case "large":
                await stream.write(b"\0" + b"\xff\xff\xff\xff\x7f" + bytes(1000))
            case "short":
                await stream.write(b"\0" + b"\x80\x01" + bytes(10))
            case "deep":
                await stream.write(b"\0")
                await write_frame(stream, b"[" * 1000)
            case _:
                await stream.read_exactly(1_000_000)


def _told(batch: Batch) -> Document:
    envelopes: list[Any] = []
    for text in batch.envelopes:
        try:
            envelopes.append(parse(text, DOCUMENT_LIMIT))
        except Rejected:
            envelopes.append({"body": {}, "signer": "nobody", "signature": "none"})
    return {"feed": batch.feed, "cursor": batch.cursor, "envelopes": envelopes}
