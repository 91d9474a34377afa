"""The shares of sources, and the lock between the asyncio loop and the gossip validator."""

import contextlib
import random
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.consensus.coordinator import Coordinator
from node.consensus.task_table import TaskTable
from node.storage.database import Database
from node.storage.journal import Journal
from node.storage.ledger import Ledger
from node.transport.interface import ValidationResult
from protocol.consensus.agreement import Agreement
from protocol.consensus.committee import committees
from protocol.errors import Rejected
from protocol.wire.messages import Abstention, Task, Vote
from tests.support import fixtures
from tests.support.clock import ManualClock

NET = fixtures.network(7, committee_size=7)
ME = fixtures.peer(0)


class ObservedDisk(sqlite3.Connection):
    """A database in memory that calls `on_commit` before each commit."""

    on_commit: Callable[[], None] = staticmethod(lambda: None)

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        if sql.startswith("COMMIT"):
            self.on_commit()
        return super().execute(sql, parameters)


@pytest.fixture
def disk() -> Iterator[ObservedDisk]:
    disk = sqlite3.connect(":memory:", isolation_level=None, factory=ObservedDisk)
    yield disk
    disk.close()


@pytest.fixture
def coordinator(disk: ObservedDisk) -> Coordinator:
    database = Database(disk, NET.id)
    entropy = random.Random(1).randbytes
    return Coordinator(
        NET, fixtures.key(0), Journal(database), Ledger(database), ManualClock(), entropy
    )


def test_agreements_in_the_table_change_under_the_lock(
    coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes: list[str] = []

    def observe(name: str) -> None:
        method = getattr(Agreement, name)

        def observed(agreement: Agreement, *args: Any) -> Any:
            if coordinator._tasks.get(agreement.task.id) is agreement:
                owned = coordinator._tasks.lock._is_owned()  # type: ignore[attr-defined]
                changes.append(name if owned else f"{name} without the lock")
            return method(agreement, *args)

        monkeypatch.setattr(Agreement, name, observed)

    for name in ("start", "advance", "receive", "executed", "failed"):
        observe(name)
    task, second_task = (fixtures.task(NET, nonce=nonce) for nonce in (1, 2))
    for accepted in (task, second_task):
        coordinator.submit(accepted)
    coordinator.executed(task.id, fixtures.outcome(), {})
    coordinator.failed(second_task.id, Abstention.BUSY)
    coordinator.receive(fixtures.commit(NET, task, fixtures.peer(1)))
    assert set(changes) == {"start", "advance", "receive", "executed", "failed"}


def test_the_lock_is_free_during_a_commit_to_disk(
    coordinator: Coordinator, disk: ObservedDisk
) -> None:
    """A slow disk must not hold up the transport's thread."""
    free: list[bool] = []

    def try_lock() -> bool:
        acquired = coordinator._tasks.lock.acquire(blocking=False)
        if acquired:
            coordinator._tasks.lock.release()
        return acquired

    with ThreadPoolExecutor(1) as transport:
        disk.on_commit = lambda: free.append(transport.submit(try_lock).result())
        task = fixtures.task(NET)
        coordinator.submit(task)
        coordinator.executed(task.id, fixtures.outcome(), {})
        coordinator.receive(fixtures.commit(NET, task, fixtures.peer(1)))
    assert free == [True] * 3


def test_votes_are_validated_while_others_are_received(coordinator: Coordinator) -> None:
    task = fixtures.task(NET)
    coordinator.submit(task)
    members = [member for member in committees(NET, task)[0] if member != ME]
    votes = [
        fixtures.commit(NET, task, member, fixtures.outcome(label))
        for member in members
        for label in ("a", "b")
    ]
    payloads = [vote.envelope.encode() for vote in votes]
    done = threading.Event()

    def validate() -> set[ValidationResult]:
        results = set()
        while not done.is_set():
            for payload in payloads:
                results.add(coordinator.validator.validate(payload, tasks=False)[0])
        return results

    with ThreadPoolExecutor(1) as transport:
        validating = transport.submit(validate)
        for vote in votes:
            coordinator.receive(vote)
        done.set()
        assert validating.result() <= {ValidationResult.ACCEPT, ValidationResult.IGNORE}
    for payload in payloads:
        result = coordinator.validator.validate(payload, tasks=False)
        assert result == (ValidationResult.IGNORE, None)


@pytest.mark.parametrize("seed", range(5))
def test_timers_and_open_tasks_are_those_of_the_agreements(
    coordinator: Coordinator, disk: ObservedDisk, seed: int
) -> None:
    """After every kind of step, those included that the disk does not take."""
    rng = random.Random(seed)
    table, clock = coordinator._tasks, coordinator.clock
    assert isinstance(clock, ManualClock)
    tasks = [fixtures.task(NET, nonce=nonce, deadline=60) for nonce in range(8)]

    def fail() -> None:
        raise sqlite3.OperationalError("disk I/O error")

    def submit() -> None:
        coordinator.submit(rng.choice(tasks))

    def vote() -> None:
        task, attempt = rng.choice(tasks), 0
        members = [member for member in committees(NET, task)[attempt] if member != ME]
        makers: list[Callable[..., Vote]] = [fixtures.commit, fixtures.abstain]
        coordinator.receive(rng.choice(makers)(NET, task, rng.choice(members)))

    def execute() -> None:
        coordinator.executed(rng.choice(tasks).id, fixtures.outcome(), {})

    def fail_to_execute() -> None:
        coordinator.failed(rng.choice(tasks).id, Abstention.BUSY)

    def withdraw() -> None:
        coordinator.receive(fixtures.withdraw(NET, rng.choice(tasks)))

    def tick() -> None:
        clock.time += rng.choice([0.0, 0.5, 5.0])
        coordinator.tick()

    steps = [submit, vote, vote, execute, fail_to_execute, withdraw, tick, tick]
    lost = 0
    for _ in range(300):
        disk.on_commit = fail if rng.random() < 0.1 else lambda: None
        with contextlib.suppress(Rejected, sqlite3.OperationalError):
            rng.choice(steps)()
        lost += len(table._rebuilds)
        assert table._open.keys() == {
            t for t, a in table._agreements.items() if not a.state.terminal
        }
        due = {task: agreement.wake_at() for task, agreement in table._agreements.items()}
        timers = [at for at in due.values() if at is not None]
        rebuilds = {task: at for task, (at, _) in table._rebuilds._at.items()}
        assert table.wake_at() == min([*timers, *rebuilds.values()], default=None)
        for now in (clock.time, clock.time + 5):
            expected = {task for task, at in due.items() if at is not None and at <= now}
            expected |= {task for task, at in rebuilds.items() if at <= now}
            assert set(table.due(now)) == expected
    assert lost


TASKS = [fixtures.task(NET, nonce=nonce, deadline=60 * (1 + nonce % 2)) for nonce in range(6)]
SOURCES = ["", "flooder", "honest", fixtures.peer(1)]
CHANGES = st.tuples(
    st.sampled_from(["add", "end", "lose", "rebuild", "forget"]),
    st.sampled_from(TASKS),
    st.sampled_from(SOURCES),
    st.integers(0, 200),
)


def agreement(task: Task) -> Agreement:
    return Agreement(NET, task, ME, lambda attempt: "00", fixtures.START, frozenset())


def full_share_by_a_scan(table: TaskTable, source: str) -> bool:
    held = [task for task, charged in table._sources.items() if charged == source]
    open_ = sum(task in table._open or task in table._rebuilds for task in held)
    return source in ("flooder", "honest") and open_ >= max(1, table.max_open // 2)


@given(st.integers(1, 7), st.lists(CHANGES, max_size=40))
def test_the_counted_share_of_a_source_is_that_of_a_scan(
    max_open: int, changes: list[tuple[str, Task, str, int]]
) -> None:
    table = TaskTable(max_open, NET.roster)
    for change, task, source, seconds in changes:
        held, lost = table.get(task.id), table.is_lost(task.id)
        match change:
            case "add":
                table.add(held or agreement(task), fixtures.START + seconds, source)
            case "end" if held:
                held.advance(task.expires_at + 3600)
                table.update(held)
            case "lose":
                table.lose(task.id, fixtures.START)
            case "rebuild" if lost:
                table.set_rebuilt(task.id)
            case "forget" if lost:
                table.forget(task.id)
        for name in SOURCES:
            assert table.has_full_share(name) is full_share_by_a_scan(table, name)
        assert all(table._places.values()), "a source without open tasks is forgotten"


class PlainTable:
    """What the table decides, by a walk over all tasks at each question."""

    def __init__(self, max_open: int) -> None:
        self.max_open = max_open
        self.held: dict[str, Agreement] = {}
        self.known: dict[str, float] = {}
        self.lost: dict[str, float] = {}
        self.ended: list[str] = []  # in the order in which they ended

    def add(self, added: Agreement, now: float) -> None:
        self.held[added.task.id] = added
        self.known[added.task.id] = added.task.expires_at
        self.note_ended()
        self.known = {t: at for t, at in self.known.items() if at > now or t in self.held}
        expired = [t for t in self.ended if self.held[t].task.expires_at <= now]
        others = [t for t in self.ended if t not in expired or t == added.task.id]
        for task in expired + others[: max(0, len(others) - self.max_open)]:
            if task != added.task.id:
                del self.held[task]
        self.note_ended()

    def note_ended(self) -> None:
        ended = [t for t, a in self.held.items() if a.wake_at() is None]
        self.ended = [t for t in self.ended if t in ended]
        self.ended += [t for t in ended if t not in self.ended]

    def lose(self, task: str, at: float) -> None:
        self.held.pop(task, None)
        self.lost[task] = at
        self.note_ended()

    def wake_at(self) -> float | None:
        timers = [at for a in self.held.values() if (at := a.wake_at()) is not None]
        return min([*timers, *self.lost.values()], default=None)

    def due(self, now: float) -> tuple[set[str], set[str]]:
        timers = {t: a.wake_at() for t, a in self.held.items()}
        return (
            {task for task, at in self.lost.items() if at <= now},
            {task for task, at in timers.items() if at is not None and at <= now},
        )

    def open(self) -> list[Agreement]:
        return [a for a in self.held.values() if not a.state.terminal]

    def voters(self) -> set[str]:
        return {peer for a in self.open() for peer in a.vote_sets[a.attempt].committee}


@given(st.integers(1, 4), st.lists(CHANGES, max_size=60))
def test_decisions_are_those_of_a_walk_over_all_tasks(
    max_open: int, changes: list[tuple[str, Task, str, int]]
) -> None:
    table, plain = TaskTable(max_open, NET.roster), PlainTable(max_open)
    for change, task, source, seconds in changes:
        now, held = fixtures.START + seconds, table.get(task.id)
        is_lost = table.is_lost(task.id)
        match change:
            case "add":
                added = held or agreement(task)
                table.add(added, now, source)
                plain.add(added, now)
            case "end" if held:
                held.advance(now)
                table.update(held)
                plain.note_ended()
            case "lose":
                table.lose(task.id, now)
                plain.lose(task.id, now)
            case "rebuild" if is_lost:
                table.set_rebuilt(task.id)
                del plain.lost[task.id]
            case "forget" if is_lost:
                table.forget(task.id)
                del plain.lost[task.id]
                plain.known.pop(task.id, None)
        assert table._agreements == plain.held
        assert {t.id for t in TASKS if table.is_known(t.id)} == set(plain.known)
        assert {t.id for t in TASKS if table.is_lost(t.id)} == set(plain.lost)
        assert table.is_full() == (len(plain.open()) + len(plain.lost) >= max_open)
        assert table.voters() == plain.voters()
        assert table.wake_at() == plain.wake_at()
        for moment in (now, now + 60, now + 3600):
            lost, timers = plain.due(moment)
            due = table.due(moment)
            assert (set(due[: len(lost)]), set(due[len(lost) :])) == (lost, timers)
            assert len(due) == len(lost) + len(timers)


class Unread(dict[str, str]):
    """Sources that nobody may go through."""

    def items(self) -> Any:
        raise AssertionError("all tasks are scanned")

    __iter__ = keys = values = items


def test_the_share_of_a_source_is_found_without_a_scan() -> None:
    table = TaskTable(4, NET.roster)
    table._sources = Unread()
    for task in TASKS[:2]:
        assert not table.has_full_share("flooder")
        table.add(agreement(task), fixtures.START, "flooder")
    assert table.has_full_share("flooder")


def test_the_voters_are_those_of_the_current_committees_of_open_tasks() -> None:
    network = fixtures.network(7, committee_size=2, attempt_seconds=120)
    tasks = [fixtures.task(network, nonce=nonce) for nonce in range(3)]
    table = TaskTable(10, network.roster)
    agreements = []
    for task in tasks:
        opened = Agreement(network, task, ME, lambda attempt: "0" * 64, fixtures.START)
        opened.start(fixtures.START)
        table.add(opened, fixtures.START)
        agreements.append(opened)
    first = [set(committees(network, task)[0]) for task in tasks]
    assert table.voters() == set().union(*first)
    agreements[0].advance(fixtures.START + 121)  # its second attempt
    table.update(agreements[0])
    assert table.voters() == set().union(committees(network, tasks[0])[1], *first)
    agreements[1].advance(tasks[1].expires_at)
    table.update(agreements[1])
    assert table.voters() == set().union(committees(network, tasks[0])[1], first[2])


class CountedLooks(Agreement):
    """An agreement that counts how often anyone looks at it."""

    looks = 0

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("_"):
            CountedLooks.looks += 1
        return super().__getattribute__(name)


def test_adding_a_task_looks_at_no_other_task() -> None:
    table = TaskTable(10_000, NET.roster)
    looks = []
    for nonce in range(64):
        opened = CountedLooks(NET, fixtures.task(NET, nonce=nonce), ME, lambda _: "", 0.0)
        if nonce % 2:  # half of them have ended
            opened.advance(opened.task.expires_at)
        CountedLooks.looks = 0
        table.add(opened, fixtures.START, "flooder")
        table.due(fixtures.START)
        table.wake_at()
        table.voters()
        looks.append(CountedLooks.looks)
    assert set(looks) == {looks[0], looks[1]}
