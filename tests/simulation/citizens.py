"""Real daemons that can die at any effect boundary and whose disks fail, for random histories."""

import io
import random
import sqlite3
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, BinaryIO

from executor.errors import Abstained
from executor.job import Execution, Job
from node.daemon import Options
from protocol.consensus.effects import State
from protocol.wire.messages import Abstention
from tests.simulation import invariants
from tests.simulation.faults import Boundaries, Crashed
from tests.simulation.scenario import LABELS
from tests.simulation.trickling import Trickler
from tests.simulation.twins import TwinBlobs, TwinExecutor
from tests.simulation.world import Inhabitant
from tests.support.memory_transport.network import MemoryTransport

if TYPE_CHECKING:
    from tests.simulation.history import History

MAX_QUEUE = 8
DIALS = 5  # peers that a node of a large network dials


class Citizen(Inhabitant):
    """One daemon of a history."""

    def __init__(self, history: "History", index: int) -> None:
        self._history, scenario = history, history.scenario
        self.boundaries = Boundaries(self._die)
        self.disk: str | None = None
        self.unwell_at = 0.0
        self.dead = False
        self.kept: dict[str, tuple[State, list[str]]] = {}
        self.max_open = scenario.max_open
        role = scenario.roles[index]
        super().__init__(history.world, index, LABELS.get(role, "honest"))
        if role == "lying blobs":
            self.blobs = LyingBlobs(history.random)

    def database(self) -> sqlite3.Connection:
        connection = self._history.blank.copy(f"{self.index:032x}")
        connection.prepare(self.boundaries, self._fails, partial(invariants.settle, self))
        return connection

    def skew(self) -> float:
        return self._history.scenario.skews[self.index]

    def transport(self) -> MemoryTransport:
        lies = isinstance(self.blobs, LyingBlobs)
        return (SlowCarrier if lies else Carrier)(self._history, self)

    def work(self) -> TwinExecutor:
        scenario, dice = self._history.scenario, self._history.random
        return Moody(self.blobs, self._world.takes, self._label, scenario.abstains, dice)

    def options(self) -> Options:
        """Dial the next in the ring and some others."""
        size = len(self._world.network.roster)
        others = [i for i in range(size) if i != self.index]
        dialled = {(self.index + 1) % size, (self.index + 2) % size} - {self.index}
        dialled.update(random.Random(self.index).sample(others, min(DIALS, len(others))))
        addresses = tuple(self._world.address(i) for i in sorted(dialled))
        return Options(
            addresses, feed_seconds=self._history.scenario.feed_seconds, max_queue=MAX_QUEUE
        )

    # Life

    @property
    def up(self) -> bool:
        return self._running is not None and not self.dead

    async def start(self) -> None:
        """Come up. Raises sqlite3.Error where the disk prevents it, Crashed where it dies again."""
        self.dead = False
        self.unwell_at = self.clock.now()
        await super().start()

    async def crash(self) -> None:
        """Be gone; whatever ended the node but its own death is raised."""
        try:
            await super().crash()
        except Crashed:
            pass
        except BaseExceptionGroup as group:
            rest = group.split(Crashed)[1]
            if rest is not None:
                raise rest from None

    def _fails(self) -> str | None:
        if self.disk is not None:
            self.unwell_at = self.clock.now()
        return "dead" if self.dead else self.disk

    def _die(self, where: str) -> None:
        """Be gone from within: nothing that still runs has any effect."""
        if self.dead:
            return
        self.dead = True
        self._world.medium.crash(self.peer)
        self._history.fell(self, where)

    # What the invariants look at

    def holds(self) -> dict[str, tuple[int, int]]:
        """How much of what the daemon holds in memory, and the most that it may (invariant 7)."""
        node, transport = self.node, self._world.medium.transport(self.peer)
        if node is None or transport is None:
            return {}
        assert self.coordinator is not None
        tasks = len(self.coordinator._agreements) + len(self.coordinator._lost)
        peers = len(transport.peers())
        return {
            "messages to send": (node._outbox.qsize(), 8 * (tasks + 1)),
            "executions waiting": (len(node._executions._waiting), MAX_QUEUE),
            "progress of tasks": (len(node._progress), 1),
            "feeds followed": (len(node._feeds._followers), peers),
            "tasks watched": (len(node._changes), tasks),
            "streams served": (len(transport._serving), 8 * (peers + 1)),
        }

    def certificates(self, task: str) -> list[str]:  # type: ignore[override]
        return self._texts("SELECT document FROM certificates WHERE task = ? ORDER BY seq", task)

    def evidence(self) -> list[str]:
        return self._texts("SELECT document FROM evidence ORDER BY id")

    def tasks(self) -> list[str]:
        return self._texts("SELECT id FROM tasks ORDER BY id")

    def _texts(self, query: str, *parameters: str) -> list[str]:
        return [text for (text,) in self._connection.execute(query, parameters)]


class Carrier(MemoryTransport):
    """Lets the history hear what a citizen sends, and passes boundaries."""

    def __init__(self, history: "History", citizen: Citizen) -> None:
        super().__init__(history.world.medium, citizen.peer)
        self._history, self._citizen = history, citizen

    async def publish(self, topic: str, payload: bytes) -> None:
        self._citizen.boundaries.cross("before a sending")
        self._history.sent(self._citizen, payload)
        await super().publish(topic, payload)
        self._citizen.boundaries.cross("after a sending")


class SlowCarrier(Trickler, Carrier):
    """Trickles now and then."""

    def trickles(self) -> bool:
        return self._history.random.random() < 0.25


class Moody(TwinExecutor):
    """Gives no outcome now and then."""

    def __init__(
        self,
        blobs: TwinBlobs,
        seconds: Callable[[], float],
        label: str,
        abstains: float,
        dice: random.Random,
    ) -> None:
        super().__init__(blobs, seconds, label)
        self._abstains, self._dice = abstains, dice

    async def run(self, job: Job, seconds: float, progress: Callable[[float], None]) -> Execution:
        execution = await super().run(job, seconds, progress)
        if self._dice.random() < self._abstains:
            raise Abstained(Abstention.OUT_OF_MEMORY)
        return execution


class LyingBlobs(TwinBlobs):
    """Serves wrong bytes, too few, or without end; its node's `SlowCarrier` does, too slowly."""

    def __init__(self, dice: random.Random) -> None:
        super().__init__()
        self._dice = dice

    def open(self, sha256: str, offset: int = 0) -> BinaryIO:
        right = self._kept[sha256][offset:]
        match self._dice.choice(("wrong", "short", "endless")):
            case "wrong":
                return io.BytesIO(bytes(len(right)))
            case "short":
                return io.BytesIO(right[: len(right) // 2])
            case _:
                return _Endless(right)


class _Endless(io.BytesIO):
    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(size) or bytes(size or 1)
