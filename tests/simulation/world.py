"""A small world: real nodes over the in-memory transport in virtual time, all from one seed.

Real are the coordinator, the agreement, the store (SQLite in memory, which outlives a crash of its
node), the daemon, feeds, serving and the client. Twins stand in for the wire, the clock, the blob
folder and the executor.
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
from tests.simulation.twins import TwinBlobs, TwinExecutor
from tests.simulation.virtual import VirtualClock
from tests.support import fixtures
from tests.support.memory_transport.network import Link, MemoryNetwork, MemoryTransport


@dataclass(frozen=True, slots=True)
class Weather:
    """What the links do, and how long an execution takes (virtual seconds)."""

    link: Link = field(default_factory=Link)
    execution: tuple[float, float] = (3.0, 8.0)
    skew: float = 0.0


class Inhabitant:
    """One node of the world, through crashes and restarts; what it stored stays."""

    def __init__(self, world: "World", index: int, label: str) -> None:
        self.index, self.peer = index, fixtures.peer(index)
        self._world, self._label = world, label
        self._connection = self.database()
        self._open()
        self.blobs = TwinBlobs()
        self.executor: TwinExecutor | None = None
        self.node: Node | None = None
        self.coordinator: Coordinator | None = None
        self._running: asyncio.Task[None] | None = None
        self.clock = VirtualClock(asyncio.get_running_loop(), fixtures.START, self.skew())

    def _open(self) -> None:
        database = Database(self._connection, self._world.network.id)
        self.journal, self.ledger = Journal(database), Ledger(database)

    # What a kind of inhabitant may have otherwise

    def database(self) -> sqlite3.Connection:
        return sqlite3.connect(":memory:", isolation_level=None)

    def skew(self) -> float:
        return self._world.random.uniform(-self._world.weather.skew, self._world.weather.skew)

    def transport(self) -> MemoryTransport:
        return MemoryTransport(self._world.medium, self.peer)

    def work(self) -> TwinExecutor:
        return TwinExecutor(self.blobs, self._world.takes, self._label)

    def options(self) -> Options:
        addresses = tuple(self._world.address(i) for i in range(len(self._world.network.roster)))
        return Options(addresses, feed_seconds=5.0)

    max_open = Limits().max_open

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
        self.executor = self.work()
        parts = Parts(
            self.coordinator,
            self.journal,
            self.ledger,
            self.blobs,  # type: ignore[arg-type]  # the twin of a folder
            self.transport(),
            self.executor,
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
        """Be gone at once, as after SIGKILL: nothing is said to anyone, no write is finished."""
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
        """What ended the node, if something did."""
        running = self._running
        if running is None or not running.done() or running.cancelled():
            return None
        return running.exception()


class World:
    """All nodes and the medium between them."""

    def __init__(self, seed: int, network: Network, weather: Weather | None = None) -> None:
        self.random = random.Random(seed)
        self.network = network
        self.weather = weather or Weather()
        self.medium = MemoryNetwork(self.random, self.weather.link)
        self.inhabitants: list[Inhabitant] = []

    def takes(self) -> float:
        return self.random.uniform(*self.weather.execution)

    def address(self, index: int) -> str:
        return f"/memory/0/p2p/{fixtures.peer(index)}"

    async def populate(self, labels: list[str] | None = None) -> None:
        """Start a node for each roster member.

        `labels`: see `TwinExecutor`; "absent" leaves the place to an adversary.
        """
        for index in range(len(self.network.roster)):
            label = labels[index] if labels else "honest"
            if label != "absent":
                self.inhabitants.append(Inhabitant(self, index, label))
        for inhabitant in self.inhabitants:
            await inhabitant.start()
        await asyncio.sleep(1)  # virtual: all have dialled and tested their executors

    async def clear(self) -> None:
        for inhabitant in self.inhabitants:
            fault = inhabitant.fault()
            assert fault is None, fault
            await inhabitant.crash()

    @contextlib.asynccontextmanager
    async def client(self, indices: list[int] | None = None) -> AsyncIterator[Client]:
        chosen = range(len(self.inhabitants)) if indices is None else indices
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
async def inhabited(
    seed: int,
    network: Network,
    weather: Weather | None = None,
    labels: list[str] | None = None,
) -> AsyncIterator[World]:
    """A world with all its nodes running."""
    world = World(seed, network, weather)
    await world.populate(labels)
    try:
        yield world
    finally:
        await world.clear()
