"""A node on a timeline: the real coordinator, store and feed reading, through crashes and restarts.

What the daemon does with asyncio tasks is done here by events, each of which enters the node at
one place, `enter`: there it dies if its life ends at a boundary, and a failing store costs it the
step, as in `node.daemon`.
"""

import sqlite3
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from node.consensus.commands import Action, Notify, Publish, Run, Stop
from node.consensus.coordinator import Coordinator
from node.errors import Busy
from node.rpc.client import ProtocolViolation
from node.rpc.server import feed_page
from node.storage.database import Database
from node.storage.journal import Journal
from node.storage.ledger import Ledger
from node.sync.feed_sync import FAILURE_BACKOFF, Batch, FeedSync
from node.transport.interface import ValidationResult
from protocol.consensus.certificate import Certificate
from protocol.consensus.effects import State
from protocol.errors import Rejected
from protocol.wire.encoding import Document
from protocol.wire.messages import Abstention, Task
from tests.simulation import invariants
from tests.simulation.ether import Ether
from tests.simulation.executing import Bench
from tests.simulation.faults import Boundaries, Crashed
from tests.simulation.timeline import TimelineClock
from tests.support import fixtures

if TYPE_CHECKING:
    from tests.simulation.arena import Arena

MAX_QUEUE = 8


class DirectFeedSync(FeedSync):
    """Feed reading over no stream: the page comes straight from the other node."""

    fetch: Callable[[str, str, int], Batch]
    show: Callable[[str, str], tuple[Certificate, ...]]

    async def _yield_to_loop(self, seconds: float = 0.0) -> None:
        pass

    async def _shown(self, peer: str, task: str) -> tuple[Certificate, ...]:
        return self.show(peer, task)

    async def _fetch(self, peer: str, feed: str, cursor: int) -> Batch:
        return self.fetch(peer, feed, cursor)


@dataclass(frozen=True, slots=True)
class Line:
    """What is left of a transport for feeds that come straight from the other node."""

    me: str
    ether: Ether

    def report(self, peer: str) -> None:
        self.ether.report(self.me, peer)


class Member:
    """One node of the arena; its database outlives it."""

    def __init__(self, arena: "Arena", index: int, label: str, skew: float) -> None:
        self.index, self.peer = index, fixtures.peer(index)
        self.up, self.life = False, 0
        self.clock = TimelineClock(arena.timeline, fixtures.START, skew)
        self.boundaries = Boundaries()
        self.disk: str | None = None
        self.unwell_at = 0.0
        self.kept: dict[str, tuple[State, list[str]]] = {}  # what was settled, for invariant 4
        self._arena = arena
        self._connection = arena.blank.copy(f"{index:032x}")
        self._connection.prepare(self.boundaries, self._fails, partial(invariants.settle, self))
        self._tasks, self._votes = arena.topics
        self._bench = Bench(arena.scenario, arena.random, label)
        self._wakes_at: float | None = None
        self._open()
        self.coordinator: Coordinator
        self._feeds: DirectFeedSync

    def _open(self) -> None:
        database = Database(self._connection, self._arena.network.id)
        self.journal, self.ledger = Journal(database), Ledger(database)

    # Life

    def start(self) -> None:
        """Come up with what the database holds; a broken disk prevents it for a while."""
        arena = self._arena
        self.life += 1
        self.unwell_at = self.clock.now()
        try:
            self._open()
            self.coordinator = Coordinator(
                arena.network,
                fixtures.key(self.index),
                self.journal,
                self.ledger,
                self.clock,
                arena.random.randbytes,
                arena.scenario.max_open,
            )
            line = Line(self.peer, arena.ether)
            self._feeds = DirectFeedSync(
                line,  # type: ignore[arg-type]
                self.coordinator,
                self.journal,
                self.ledger,
                0.0,
                self.act,
                str,
            )
            self._feeds.fetch = self._page_of
            self._feeds.show = self._shown_by
            self._bench.clear()
            self._wakes_at = None
            self.up = True
            self.act(self.coordinator.open())
        except sqlite3.Error:  # the process ends and is started again
            self.down()
            arena.timeline.after(3.0, self.start)
            return
        except Crashed as crash:
            arena.fell(self, str(crash))
            return
        self._wake()
        for neighbour in arena.ether.places[self.peer].neighbours:
            first = arena.random.uniform(0.05, arena.scenario.feed_seconds)
            arena.timeline.after(first, self.enter, self.life, self._poll, neighbour)

    def down(self) -> None:
        """Be gone at once: nothing is said to anyone, no write is finished."""
        self.up = False
        self._arena.ether.forget(self.peer)
        if self._connection.in_transaction:
            self._connection.rollback()

    def _fails(self) -> str | None:
        if self.disk is not None:
            self.unwell_at = self.clock.now()
        return self.disk

    def enter(self, life: int, call: Callable[..., object], *args: Any) -> None:
        """Let something happen in this life of the node, if it still lives."""
        if not self.up or life != self.life:
            return
        try:
            call(*args)
        except sqlite3.Error as error:
            self._arena.store_failed(self, error)
        except Crashed as crash:
            self._arena.fell(self, str(crash))
            return
        self._wake()

    def _wake(self) -> None:
        due = self.coordinator.wake_at()
        if due is None:
            return
        at = max(self.clock.when(due), self._arena.timeline.now)
        if self._wakes_at is None or at < self._wakes_at:
            self._wakes_at = at
            self._arena.timeline.at(at, self.enter, self.life, self._tick, at)

    def _tick(self, at: float) -> None:
        if self._wakes_at == at:
            self._wakes_at = None
        self.act(self.coordinator.tick())

    # What the daemon does

    def act(self, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case Publish(message):
                    self.boundaries.cross("before a sending")
                    topic = self._tasks if isinstance(message, Task) else self._votes
                    payload = message.envelope.encode()
                    self._arena.sent(self, payload)
                    self._arena.ether.publish(self.peer, topic, payload)
                    self.boundaries.cross("after a sending")
                case Run():
                    self._add(action)
                case Stop(task):
                    self._bench.remove(task)
                    self._next()
                case Notify(task):
                    self._arena.changed(self, task)

    def validate(self, topic: str, payload: bytes) -> ValidationResult:
        return self.coordinator.validate(payload, tasks=topic == self._tasks)

    def on_gossip(self, source: str, topic: str, payload: bytes) -> None:
        self.enter(self.life, self._receive, source, payload)

    def _receive(self, source: str, payload: bytes) -> None:
        try:
            self.act(self.coordinator.receive(payload, source))
        except (Rejected, Busy):
            return

    def submitted(self, payload: bytes) -> bool:
        """Take a task from a requester; return whether it was taken."""
        taken = False

        def take() -> None:
            nonlocal taken
            try:
                _, actions = self.coordinator.submit(payload)
            except (Rejected, Busy):
                return
            taken = True
            self.act(actions)

        self.enter(self.life, take)
        return taken and self.up

    # Executions

    def _add(self, action: Run) -> None:
        if self._bench.waits_for(action.task.id):
            return
        if len(self._bench.waiting) >= MAX_QUEUE:
            self.act(self.coordinator.failed(action.task.id, Abstention.BUSY))
            return
        self._bench.waiting[action.task.id] = action
        self._next()

    def _next(self) -> None:
        started = self._bench.begin(self.clock.now())
        if started is not None:
            seconds, number = started
            self._arena.timeline.after(seconds, self.enter, self.life, self._ended, number)

    def _ended(self, number: int) -> None:
        ended = self._bench.end(number)
        if ended is None:
            return
        task, given = ended
        try:
            if isinstance(given, Abstention):
                self.act(self.coordinator.failed(task, given))
            else:
                self.act(self.coordinator.executed(task, given, {"seconds": 1}))
        finally:
            self._next()

    # Feeds

    def page(self, feed: str, cursor: int, limit: int) -> Batch:
        """Answer a feed request as `node.rpc.server` does, but for the JSON."""
        return Batch(*feed_page(self.journal, feed, cursor, limit))

    def _page_of(self, peer: str, feed: str, cursor: int) -> Batch:
        return self._arena.page(self.peer, peer, feed, cursor)

    def shown(self, task: str) -> list[Document]:
        """What whoever asks for a task learns to be certified."""
        view = self.coordinator.view(task)
        return [] if view is None else view.certificates

    def _shown_by(self, peer: str, task: str) -> tuple[Certificate, ...]:
        return self._arena.shown(self.peer, peer, task)

    def _poll(self, peer: str) -> None:
        pause = self._arena.scenario.feed_seconds
        try:
            _finish(self._feeds.read_to_end(peer))
        except ProtocolViolation:
            pause *= FAILURE_BACKOFF
        except ConnectionError:
            pass
        finally:
            later = self._arena.timeline.now + pause * self._arena.random.uniform(0.9, 1.0)
            self._arena.timeline.at(later, self.enter, self.life, self._poll, peer)

    # What can be seen from outside

    def state(self, task: str) -> State | None:
        standing = self.journal.state(task)
        return None if standing is None else standing[0]

    def certificates(self, task: str) -> list[str]:
        """The certificates of a task as they are kept."""
        return self._texts("SELECT document FROM certificates WHERE task = ? ORDER BY seq", task)

    def evidence(self) -> list[str]:
        """All evidence as it is kept."""
        return self._texts("SELECT document FROM evidence ORDER BY id")

    def tasks(self) -> list[str]:
        """Every task that was accepted."""
        return self._texts("SELECT id FROM tasks ORDER BY id")

    def keeps(self, payload: bytes) -> bool:
        """Whether an envelope stands in the journal."""
        query = "SELECT 1 FROM envelopes WHERE envelope = ?"
        return self._connection.execute(query, (payload.decode(),)).fetchone() is not None

    def _texts(self, query: str, *parameters: str) -> list[str]:
        return [text for (text,) in self._connection.execute(query, parameters)]


def _finish(coroutine: Coroutine[Any, Any, Any]) -> None:
    """Run a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    coroutine.close()
    raise AssertionError("it waits for something")
