"""A network of real daemons over the in-memory transport, in virtual time, from one seed.

Daemon, coordinator, journal (SQLite in memory), feeds, request handler and client are real. Test
doubles replace the wire, the clock, the blob store and the executor. A journal survives crashes of
its node.
"""

import asyncio
import contextlib
import random
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from node.client.client import Client
from node.config.limits import Limits
from node.consensus.coordinator import Coordinator
from node.daemon import Node, Options, Parts
from node.storage.database import Database
from node.storage.journal import Journal
from node.storage.ledger import Ledger
from protocol.consensus.effects import State
from protocol.network import Network
from protocol.wire.encoding import Document
from tests.simulation.doubles import FakeExecutor, MemoryBlobs
from tests.simulation.virtual_loop import VirtualClock
from tests.support import fixtures
from tests.support.memory_transport.network import Link, MemoryNetwork, MemoryTransport


@dataclass(frozen=True, slots=True)
class Conditions:
    """Link policy and execution time, in virtual seconds."""

    link: Link = field(default_factory=Link)
    execution: tuple[float, float] = (3.0, 8.0)
    skew: float = 0.0


class SimulatedNode:
    """One node through crashes and restarts. Its database survives them."""

    def __init__(self, world: "SimulatedNetwork", index: int, label: str) -> None:
        self.index, self.peer = index, fixtures.peer(index)
        self._world, self._label, self.network = world, label, world.network
        self._connection = self.open_database()
        self._open()
        self.blobs = MemoryBlobs()
        self.executor: FakeExecutor | None = None
        self.node: Node | None = None
        self.coordinator: Coordinator | None = None
        self._running: asyncio.Task[None] | None = None
        self.clock = VirtualClock(asyncio.get_running_loop(), fixtures.START, self.skew())

    def _open(self) -> None:
        database = Database(self._connection, self._world.network.id)
        self.journal, self.ledger = Journal(database), Ledger(database)

    # For subclasses

    def open_database(self) -> sqlite3.Connection:
        return sqlite3.connect(":memory:", isolation_level=None)

    def skew(self) -> float:
        return self._world.random.uniform(-self._world.conditions.skew, self._world.conditions.skew)

    def make_transport(self) -> MemoryTransport:
        return MemoryTransport(self._world.medium, self.peer)

    def make_executor(self) -> FakeExecutor:
        return FakeExecutor(self.blobs, self._world.execution_seconds, self._label)

    def options(self) -> Options:
        addresses = tuple(self._world.address(i) for i in range(len(self._world.network.roster)))
        return Options(addresses, feed_seconds=5.0, models=tuple(self._world.network.models))

    max_open = Limits().max_open_tasks

    # Life

    @property
    def up(self) -> bool:
        return self._running is not None

    async def start(self) -> None:
        world = self._world
        self._open()
        self.coordinator = Coordinator(
            world.network,
            fixtures.key(self.index),
            self.journal,
            self.ledger,
            self.clock,
            world.random.randbytes,
            self.max_open,
        )
        self.executor = self.make_executor()
        parts = Parts(
            self.coordinator,
            self.journal,
            self.ledger,
            self.blobs,  # type: ignore[arg-type]  # the twin of a folder
            self.make_transport(),
            dict.fromkeys(world.network.classes, self.executor),
            self.clock,
            world.random,
        )
        self.node = Node(parts, self.options())
        running = self._running = asyncio.create_task(self.node.run())
        started = asyncio.create_task(self.node.started.wait())
        await asyncio.wait([running, started], return_when=asyncio.FIRST_COMPLETED)
        if not started.done():
            started.cancel()
            self._running = None
            running.result()

    async def crash(self) -> None:
        """Stop at once, as after SIGKILL: no goodbye, no write finished."""
        running, self._running = self._running, None
        if running is None:
            return
        self._world.medium.crash(self.peer)
        running.cancel()
        await asyncio.wait([running])
        if self._connection.in_transaction:
            self._connection.rollback()
        if not running.cancelled():
            running.result()

    def state(self, task: str) -> State | None:
        standing = self.journal.state(task)
        return None if standing is None else standing[0]

    def certificates(self, task: str) -> list[Document]:
        return list(self.ledger.certificates(task))

    def fault(self) -> BaseException | None:
        """Return the exception that ended the node, if any."""
        running = self._running
        if running is None or not running.done() or running.cancelled():
            return None
        return running.exception()


class SimulatedNetwork:
    """All nodes and the medium between them."""

    def __init__(self, seed: int, network: Network, conditions: Conditions | None = None) -> None:
        self.random = random.Random(seed)
        self.network = network
        self.conditions = conditions or Conditions()
        self.medium = MemoryNetwork(self.random, self.conditions.link)
        self.nodes: list[SimulatedNode] = []

    def execution_seconds(self) -> float:
        return self.random.uniform(*self.conditions.execution)

    def address(self, index: int) -> str:
        return f"/memory/0/p2p/{fixtures.peer(index)}"

    async def populate(self, labels: list[str] | None = None) -> None:
        """Start a node for each roster member.

        `labels`: see `FakeExecutor`. "absent" starts no node, to leave the place to an adversary.
        """
        for index in range(len(self.network.roster)):
            label = labels[index] if labels else "honest"
            if label != "absent":
                self.nodes.append(SimulatedNode(self, index, label))
        for node in self.nodes:
            await node.start()
        await asyncio.sleep(1)  # all nodes dial and start their executors

    async def stop_all(self) -> None:
        for node in self.nodes:
            fault = node.fault()
            assert fault is None, fault
            await node.crash()

    @contextlib.asynccontextmanager
    async def client(self, indices: list[int] | None = None) -> AsyncIterator[Client]:
        chosen = range(len(self.nodes)) if indices is None else indices
        async with Client.connect(
            self.network,
            [self.address(i) for i in chosen],
            key=fixtures.key(1000),
            transport=MemoryTransport(self.medium, fixtures.peer(1000)),
            clock=VirtualClock(asyncio.get_running_loop(), fixtures.START),
            entropy=self.random.randbytes,
        ) as client:
            yield client


@contextlib.asynccontextmanager
async def run_network(
    seed: int,
    network: Network,
    conditions: Conditions | None = None,
    labels: list[str] | None = None,
) -> AsyncIterator[SimulatedNetwork]:
    """Run a network with all its nodes."""
    world = SimulatedNetwork(seed, network, conditions)
    await world.populate(labels)
    try:
        yield world
    finally:
        await world.stop_all()
