"""Daemons of a simulation, which crash at chosen points and whose disks fail."""

import asyncio
import io
import json
import random
import sqlite3
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, BinaryIO

from executor.errors import Abstained
from executor.job import Execution, Job
from node.config.limits import Limits
from node.daemon import Options
from protocol.wire.messages import Abstention
from tests.simulation import invariants
from tests.simulation.doubles import FakeExecutor, MemoryBlobs, SlowServingTransport
from tests.simulation.faults import CrashPoints, SimulatedCrash
from tests.simulation.network import SimulatedNode
from tests.simulation.scenario import LABELS
from tests.support.memory_transport.network import MemoryTransport

if TYPE_CHECKING:
    from tests.simulation.runner import Simulation

MAX_QUEUE = 8
DIALS = 5  # peers that a node of a large network dials


class FaultyNode(SimulatedNode):
    """One daemon of a simulation."""

    def __init__(self, simulation: "Simulation", index: int) -> None:
        self._simulation, scenario = simulation, simulation.scenario
        self.crash_points = CrashPoints(self._on_crash)
        self.disk: str | None = None
        self.unhealthy_at = 0.0
        self.dead = False
        self.settled: invariants.Settled = {}
        self._databases = 0
        self._copies: list[tuple[float, bytes]] = []  # of the database, with their times
        self.max_open = scenario.max_open
        role = scenario.roles[index]
        self.dialled = _dialled(index, len(scenario.roles))
        super().__init__(simulation.world, index, LABELS.get(role, "honest"))
        if role == "lying blobs":
            self.blobs = CorruptBlobs(simulation.random)

    def open_database(self) -> sqlite3.Connection:
        feed = f"{self._databases:016x}{self.index:016x}"
        connection = self._simulation.database_template.copy(feed)
        connection.prepare(self.crash_points, self._fails, partial(invariants.on_commit, self))
        return connection

    def skew(self) -> float:
        return self._simulation.scenario.skews[self.index]

    def make_transport(self) -> MemoryTransport:
        lies = isinstance(self.blobs, CorruptBlobs)
        return (SlowObservedTransport if lies else ObservedTransport)(self._simulation, self)

    def make_executor(self) -> FakeExecutor:
        scenario, rng = self._simulation.scenario, self._simulation.random
        return AbstainingExecutor(
            self.blobs, self._world.execution_seconds, self._label, scenario.abstains, rng
        )

    def options(self) -> Options:
        return Options(
            tuple(self._world.address(i) for i in sorted(self.dialled)),
            feed_seconds=self._simulation.scenario.feed_seconds,
            models=tuple(self.network.models),
            limits=Limits(max_queued_tasks=MAX_QUEUE),
        )

    # Life

    @property
    def up(self) -> bool:
        return self._running is not None and not self.dead

    async def start(self) -> None:
        """Start the daemon. Raises sqlite3.Error or SimulatedCrash if the start fails."""
        self.dead = False
        self.unhealthy_at = self.clock.now()
        await super().start()

    async def crash(self) -> None:
        """Stop at once. Raises what ended the daemon, unless that was a simulated crash."""
        try:
            await super().crash()
        except SimulatedCrash:
            pass
        except BaseExceptionGroup as group:
            unexpected = group.split(SimulatedCrash)[1]
            if unexpected is not None:
                raise unexpected from None

    async def keep_copies(self) -> None:
        """Copy the database every second, forever."""
        loop = asyncio.get_running_loop()
        while True:
            self._copies.append((loop.time(), self._connection.serialize()))
            await asyncio.sleep(1.0)

    def oldest_copy(self, since: float) -> bytes:
        """Return the first copy that is not older than `since`, else the last one."""
        return next((copy for at, copy in self._copies if at >= since), self._copies[-1][1])

    def irreplaceable(self) -> list[bytes]:
        """Return the tasks that have not expired, and this node's votes on them.

        Nobody accepts a task again that has expired, and so nobody votes on it.
        """
        messages: list[bytes] = []
        for task in self.tasks():
            accepted, *votes = self.journal.entries(task)
            body = json.loads(accepted.envelope)["body"]
            if self.clock.now() < body["created"] / 1000 + body["deadline"]:
                own = [vote for vote in votes if vote.signer == self.peer]
                messages += [entry.envelope.encode() for entry in (accepted, *own)]
        return messages

    def replace_database(self, copy: bytes | None) -> None:
        """Go on with a copy of the database, or with an empty one."""
        self.dead = False  # or the checks of the new database would fail
        self._databases += 1
        self._connection = self.open_database()
        if copy is not None:
            self._connection.deserialize(copy)
        self._open()
        self.settled.clear()

    def _fails(self) -> str | None:
        if self.disk is not None:
            self.unhealthy_at = self.clock.now()
        return "dead" if self.dead else self.disk

    def _on_crash(self, where: str) -> None:
        """Cut the node off: its remaining tasks have no effect."""
        if self.dead:
            return
        self.dead = True
        self._world.medium.crash(self.peer)
        self._simulation.on_crash(self, where)

    # For the invariants

    def resource_use(self) -> dict[str, tuple[int, int]]:
        """Return the size and the limit of what the daemon holds in memory (invariant 7)."""
        node, transport = self.node, self._world.medium.transport(self.peer)
        if node is None or transport is None:
            return {}
        assert self.coordinator is not None
        table = self.coordinator._tasks
        tasks = len(table._agreements) + len(table._rebuilds)
        peers = len(transport.peers())
        return {
            "messages to send": (len(node._outbox), 8 * (tasks + 1)),
            "executions waiting": (
                sum(len(queue._waiting) for queue in node._queues._queues.values()),
                MAX_QUEUE,
            ),
            "progress of tasks": (len(node._events._progress), 1),
            "feeds followed": (len(node._feeds._followers), peers),
            "tasks watched": (len(node._events._changes), tasks),
            "streams served": (len(transport._serving), 8 * (peers + 1)),
        }

    def certificate_texts(self, task: str) -> list[str]:
        return self._texts("SELECT document FROM certificates WHERE task = ? ORDER BY seq", task)

    def evidence(self) -> list[str]:
        return self._texts("SELECT document FROM evidence ORDER BY id")

    def tasks(self) -> list[str]:
        return self._texts("SELECT id FROM tasks ORDER BY id")

    def has_journalled(self, payload: bytes) -> bool:
        """Return whether the journal has an envelope, whatever the state of the disk."""
        query = "SELECT 1 FROM envelopes WHERE envelope = ?"
        cursor = sqlite3.Connection.execute(self._connection, query, (payload.decode(),))
        return cursor.fetchone() is not None

    def is_to_follow(self, owner: SimulatedNode) -> bool:
        """Return whether this node must read a member's feed (specification 7.9)."""
        few = len(self.network.roster) - 1 <= self.network.parameters.follow
        return few or (self.node is not None and owner.peer in self.node._feeds._followers)

    def has_read_feed(self, owner: SimulatedNode) -> bool:
        """Return whether this node has read what a member's feed has now (specification 7.9)."""
        last = owner.journal.last_cursor()
        return not last or self.ledger.cursor(owner.peer) == (owner.journal.feed_id, last)

    def _texts(self, query: str, *parameters: str) -> list[str]:
        return [text for (text,) in self._connection.execute(query, parameters)]


def _dialled(index: int, size: int) -> frozenset[int]:
    """Return whom a member dials: the next two in the ring, and some random ones."""
    others = [i for i in range(size) if i != index]
    ring = {(index + 1) % size, (index + 2) % size} - {index}
    return frozenset(ring.union(random.Random(index).sample(others, min(DIALS, len(others)))))


class ObservedTransport(MemoryTransport):
    """Reports what a node sends to the simulation. Sends are crash points."""

    def __init__(self, simulation: "Simulation", node: FaultyNode) -> None:
        super().__init__(simulation.world.medium, node.peer)
        self._simulation, self._node = simulation, node

    async def publish(self, topic: str, payload: bytes) -> None:
        self._node.crash_points.pass_point("before a send")
        self._simulation.on_send(self._node, payload)
        await super().publish(topic, payload)
        self._node.crash_points.pass_point("after a send")


class SlowObservedTransport(SlowServingTransport, ObservedTransport):
    """Serves some blobs slowly."""

    def is_slow(self) -> bool:
        return self._simulation.random.random() < 0.25


class AbstainingExecutor(FakeExecutor):
    """Abstains from some tasks."""

    def __init__(
        self,
        blobs: MemoryBlobs,
        seconds: Callable[[], float],
        label: str,
        abstains: float,
        rng: random.Random,
    ) -> None:
        super().__init__(blobs, seconds, label)
        self._abstains, self._rng = abstains, rng

    async def run(self, job: Job, seconds: float, progress: Callable[[float], None]) -> Execution:
        execution = await super().run(job, seconds, progress)
        if self._rng.random() < self._abstains:
            raise Abstained(Abstention.OUT_OF_MEMORY)
        return execution


class CorruptBlobs(MemoryBlobs):
    """Serves wrong, short or endless blobs. `SlowObservedTransport` also serves them slowly."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self._rng = rng

    def open(self, sha256: str, offset: int = 0) -> BinaryIO:
        right = self._kept[sha256][offset:]
        match self._rng.choice(("wrong", "short", "endless")):
            case "wrong":
                return io.BytesIO(bytes(len(right)))
            case "short":
                return io.BytesIO(right[: len(right) // 2])
            case _:
                return _Endless(right)


class _Endless(io.BytesIO):
    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(size) or bytes(size or 1)
