"""One node's part in agreement: journalled before it is published, and the same after a crash."""

import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import pytest

from node.consensus.coordinator import Coordinator
from node.consensus.validator import MAX_KNOWN
from node.errors import Busy
from node.storage.database import Database
from node.storage.journal import Journal
from node.storage.ledger import Ledger
from node.transport.interface import ValidationResult
from protocol.consensus import certificate, evidence
from protocol.consensus.committee import committees
from protocol.consensus.conduct import VoteOutcome
from protocol.consensus.effects import (
    Effect,
    Execute,
    Publish,
    State,
    StopExecution,
)
from protocol.errors import Rejected, Rejection
from protocol.network import Network
from protocol.wire import codec, messages
from protocol.wire.encoding import canonical
from protocol.wire.messages import Abstention, Commit, Message, Reveal, Task, Vote
from protocol.wire.signing import sign
from tests.support import fixtures
from tests.support.clock import ManualClock
from tests.support.journals import accepted

ME = fixtures.peer(0)
EXECUTION = 1.0  # seconds
TRACE = {"seconds": 1}
Slots: TypeAlias = tuple[tuple[str, int], ...]
ONCE: Slots = (("commit", 0), ("reveal", 0))


class ProcessKilled(BaseException):
    """The process ends at this statement."""


class Disk(sqlite3.Connection):
    """A database in memory that outlives its process; one write may fail or kill the process."""

    writes = 0
    fail_at: int | None = None
    error: type[BaseException] = ProcessKilled
    after = False  # whether the statement still took effect
    dead = False
    fired = False

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        if not sql.startswith(("BEGIN", "INSERT", "COMMIT")):
            return super().execute(sql, parameters)
        if self.dead:
            raise ProcessKilled
        self.writes += 1
        if self.writes - 1 != self.fail_at:
            return super().execute(sql, parameters)
        self.dead, self.fired = self.error is ProcessKilled, True
        if self.after:
            super().execute(sql, parameters)
        raise self.error(sql)

    def recover(self) -> None:
        self.rollback()
        self.dead = False


class Entropy:
    """Returns different bytes at each call, so that a second draw of a salt is noticed."""

    def __init__(self) -> None:
        self.drawn = 0

    def __call__(self, n: int) -> bytes:
        self.drawn += 1
        return self.drawn.to_bytes(n, "big")


class CrashableNode:
    """A coordinator on a disk that survives crashes, with a fake clock and executor."""

    def __init__(self, net: Network, max_open: int = 1000) -> None:
        self.net, self.clock, self.entropy = net, ManualClock(), Entropy()
        self.disk = sqlite3.connect(":memory:", isolation_level=None, factory=Disk)
        self.max_open, self.hold = max_open, False
        self.counts: Counter[str] = Counter()
        self.published: list[Message] = []
        self.effects: list[Effect] = []
        self.running: dict[str, float] = {}
        self.start()
        self.disk.writes = 0

    def start(self) -> None:
        database = Database(self.disk, self.net.id)
        self.journal, self.ledger = Journal(database), Ledger(database)
        self.coordinator = Coordinator(
            self.net,
            fixtures.key(0),
            self.journal,
            self.ledger,
            self.clock,
            self.entropy,
            self.max_open,
            self.counts,
        )
        self.running.clear()
        if self.hold:
            self.coordinator.hold_votes()
        self.carry_out(self.coordinator.open())

    def restart(self) -> None:
        self.disk.recover()
        self.start()

    def carry_out(self, effects: list[Effect]) -> None:
        self.effects += effects
        for effect in effects:
            match effect:
                case Publish(message):
                    stored = accepted(self.journal)
                    assert message.envelope.encode() in stored, "published before it was journalled"
                    self.published.append(message)
                case Execute(task):
                    self.running[task.id] = self.clock.time + EXECUTION
                case StopExecution(stopped):
                    self.running.pop(stopped, None)

    def step(self, call: Callable[[], list[Effect]], *, retry: bool) -> None:
        """Make one step; make a failed one again if `retry`, as feeds do."""
        for _ in range(2):
            try:
                self.carry_out(call())
                return
            except ProcessKilled:
                self.restart()
            except sqlite3.OperationalError:
                assert not self.disk.in_transaction
            if not retry:
                return
        raise AssertionError("a store that fails once fails one step only")

    def receive(self, message: Message) -> None:
        self.step(lambda: self.coordinator.receive(message), retry=True)

    def until(self, seconds: float) -> None:
        """Let time pass up to START + `seconds`: due ticks and finished executions."""
        end = fixtures.START + seconds
        while True:
            due = self.coordinator.wake_at()
            finished, task = min(((at, t) for t, at in self.running.items()), default=(None, ""))
            at = min((t for t in (due, finished) if t is not None and t <= end), default=None)
            if at is None:
                break
            self.clock.time = max(self.clock.time, at)
            if at == finished:
                del self.running[task]
                self.step(lambda t=task: self.executed(t), retry=False)  # type: ignore[misc]
            else:
                self.step(self.tick, retry=False)
        self.clock.time = end

    def tick(self) -> list[Effect]:
        return self.coordinator.tick()

    def executed(self, task: str) -> list[Effect]:
        return self.coordinator.executed(task, fixtures.outcome(), TRACE)

    def own_votes(self, kind: type[Vote]) -> list[Vote]:
        return [m for m in self.published if isinstance(m, kind) and m.signer == ME]

    def state(self, task: Task) -> State:
        view = self.coordinator.view(task.id)
        assert view is not None
        return view.state


@pytest.fixture
def node(net: Network) -> Iterator[CrashableNode]:
    node = CrashableNode(net)
    yield node
    node.disk.close()


def other_members(net: Network, task: Task) -> list[str]:
    return [member for member in committees(net, task)[-1] if member != ME]


def commits_of(node: CrashableNode, task: Task, *peers: str, attempt: int = 0) -> dict[str, str]:
    commits = [v for v in node.own_votes(Commit) if isinstance(v, Commit) and v.attempt == attempt]
    (mine,) = {v.commitment for v in commits}
    return {ME: mine} | {
        p: fixtures.commitment_of(task, p, fixtures.outcome(), attempt) for p in peers
    }


def vote_in_full(node: CrashableNode, task: Task) -> None:
    """All three commit, this node reveals at once, a second reveals: agreed."""
    member, other_member = other_members(node.net, task)
    node.receive(task)
    node.until(2)
    node.receive(fixtures.commit(node.net, task, member))
    node.receive(fixtures.commit(node.net, task, other_member))
    node.until(3)
    commits = commits_of(node, task, member, other_member)
    node.receive(fixtures.reveal(node.net, task, member, commits))
    node.receive(fixtures.reveal(node.net, task, other_member, commits))
    node.until(4)


def vote_late(node: CrashableNode, task: Task) -> None:
    """One commit of two in time, the list closes, the other commit comes late."""
    first, second = other_members(node.net, task)
    node.receive(task)
    node.until(2)
    node.receive(fixtures.commit(node.net, task, first))
    node.until(5)
    node.receive(fixtures.commit(node.net, task, second))
    node.until(7)
    node.receive(fixtures.reveal(node.net, task, first, commits_of(node, task, first)))
    node.until(8)


def vote_twice(node: CrashableNode, task: Task) -> None:
    """The other of a committee of two abstains; all three agree in the next attempt."""
    first, second = other_members(node.net, task)
    other = next(member for member in committees(node.net, task)[0] if member != ME)
    node.receive(task)
    node.until(5)
    node.receive(fixtures.abstain(node.net, task, other))
    node.until(7)
    for member in (first, second):
        node.receive(fixtures.commit(node.net, task, member, attempt=1))
    node.until(8)
    commits = commits_of(node, task, first, second, attempt=1)
    for member in (first, second):
        node.receive(fixtures.reveal(node.net, task, member, commits, attempt=1))
    node.until(9)


def check_round(node: CrashableNode, task: Task, slots: Slots = ONCE) -> None:
    """Agreed, and nothing was ever signed twice with two contents."""
    assert node.state(task) is State.AGREED
    view = node.coordinator.view(task.id)
    assert view is not None
    verified = certificate.verify(view.certificates[0], node.net)
    assert ME in verified.signers
    assert node.ledger.evidence() == []
    journal = [json.loads(e.envelope) for e in node.journal.entries(task.id)]
    bodies = {
        canonical(envelope["body"])
        for envelope in [*journal, *(m.envelope.document() for m in node.published)]
        if envelope["signer"] == ME
    }
    found_slots = [(body["type"], body["attempt"]) for body in map(json.loads, bodies)]
    assert sorted(found_slots) == sorted(slots)


def listed(node: CrashableNode) -> set[str]:
    reveals = [v for v in node.own_votes(Reveal) if isinstance(v, Reveal)]
    assert len({canonical(r.envelope.body) for r in reveals}) == 1
    return set(reveals[0].commits)


@dataclass(frozen=True)
class Case:
    """A way in which a task goes, in a network of three, and what this node signs in it."""

    play: Callable[[CrashableNode, Task], None]
    size: int  # of the first committee
    slots: Slots
    listed: int  # commitments in the last reveal

    @property
    def net(self) -> Network:
        return fixtures.network(3, committee_size=self.size)

    @property
    def task(self) -> Task:
        tasks = (fixtures.task(self.net, nonce=nonce) for nonce in range(64))
        return next(task for task in tasks if ME in committees(self.net, task)[0])


CASES = {
    "in full": Case(vote_in_full, 3, ONCE, 3),
    "late": Case(vote_late, 3, ONCE, 2),
    "twice": Case(vote_twice, 2, (("commit", 0), ("commit", 1), ("reveal", 1)), 3),
}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))


# One round without failures


def test_a_full_round_reveals_at_once_and_agrees(node: CrashableNode) -> None:
    task = fixtures.task(node.net)
    vote_in_full(node, task)
    check_round(node, task)
    assert listed(node) == set(committees(node.net, task)[0])
    kinds = [type(e) for e in node.effects if isinstance(e, Execute | StopExecution | Publish)]
    assert kinds == [Execute, Publish, Publish]


def test_a_late_commit_is_not_listed(node: CrashableNode) -> None:
    task = fixtures.task(node.net)
    vote_late(node, task)
    check_round(node, task)
    assert listed(node) == {ME, other_members(node.net, task)[0]}


def test_signed_messages_are_journalled_before_they_are_published(node: CrashableNode) -> None:
    """The salt and the outcome too: a reveal needs both."""
    task = fixtures.task(node.net)
    node.receive(task)
    node.until(1)
    (commit,) = node.own_votes(Commit)
    salt = node.journal.salt(task.id, 0)
    produced = node.journal.outcome(task.id)
    assert isinstance(commit, Commit)
    assert salt is not None
    assert produced is not None
    digest = messages.outcome_digest(produced.outcome)
    assert commit.commitment == messages.commitment(task.id, 0, ME, digest, salt)


def test_each_attempt_draws_a_new_salt() -> None:
    """A revealed salt hides no later outcome."""
    case = CASES["twice"]
    node = CrashableNode(case.net)
    case.play(node, case.task)
    first, second = (node.journal.salt(case.task.id, attempt) for attempt in (0, 1))
    assert None not in (first, second)
    assert first != second
    (reveal,) = node.own_votes(Reveal)
    assert reveal.envelope.body["salt"] == second
    node.disk.close()


# One round, with a failure at each write


def writes_of(case: Case) -> int:
    node = CrashableNode(case.net)
    case.play(node, case.task)
    check_round(node, case.task, case.slots)
    node.disk.close()
    return node.disk.writes


@pytest.mark.parametrize("after", [False, True], ids=["before the write", "after the write"])
@every_case
def test_a_crash_at_any_write_changes_no_vote(case: Case, after: bool) -> None:
    task, total = case.task, writes_of(case)
    assert total > 20
    for index in range(total):
        node = CrashableNode(case.net)
        node.disk.fail_at, node.disk.after = index, after
        case.play(node, task)
        assert node.disk.fired, "no kill happened"
        check_round(node, task, case.slots)
        assert len(listed(node)) == case.listed
        node.disk.close()


@every_case
def test_a_failed_write_loses_one_step_and_never_equivocates(case: Case) -> None:
    """The same coordinator goes on, without what the failed step had put in memory."""
    task = case.task
    for index in range(writes_of(case)):
        node = CrashableNode(case.net)
        node.disk.fail_at, node.disk.error = index, sqlite3.OperationalError
        case.play(node, task)
        assert node.disk.fired, "no failure happened"
        check_round(node, task, case.slots)
        node.disk.close()


def test_a_task_whose_first_write_failed_is_accepted_when_it_comes_again(
    node: CrashableNode,
) -> None:
    task = fixtures.task(node.net)
    node.disk.fail_at, node.disk.error = node.disk.writes, sqlite3.OperationalError
    with pytest.raises(sqlite3.OperationalError):
        node.coordinator.receive(task)
    node.until(2)
    assert validated(node, task) is ValidationResult.ACCEPT
    node.receive(task)
    assert node.state(task) is State.EXECUTING


def test_a_task_lost_to_a_failed_write_still_counts_as_open(node: CrashableNode) -> None:
    node.coordinator._tasks.max_open = 1
    task, second_task = (fixtures.task(node.net, nonce=n) for n in (1, 2))
    node.receive(task)
    node.disk.fail_at, node.disk.error = node.disk.writes, sqlite3.OperationalError
    with pytest.raises(sqlite3.OperationalError):
        node.coordinator.failed(task.id, Abstention.BUSY)
    with pytest.raises(Busy):
        node.coordinator.submit(second_task)


def test_a_failed_tick_is_retried(node: CrashableNode) -> None:
    """No further message may come for the task, so a timer must bring it back."""
    task = fixtures.task(node.net)
    node.receive(task)
    node.until(2)
    node.receive(fixtures.commit(node.net, task, other_members(node.net, task)[0]))
    node.until(5.9)
    node.disk.fail_at, node.disk.error = node.disk.writes, sqlite3.OperationalError
    node.until(30)
    assert node.disk.fired, "no failure happened"
    assert len(node.own_votes(Reveal)) == 1


def test_a_task_is_executed_again_if_its_outcome_was_not_written(node: CrashableNode) -> None:
    """The only copy of the outcome is lost."""
    task = fixtures.task(node.net)
    node.receive(task)
    node.disk.fail_at, node.disk.error = node.disk.writes, sqlite3.OperationalError
    node.until(30)
    assert node.disk.fired, "no failure happened"
    assert len(node.own_votes(Commit)) == 1


def test_a_failed_tick_of_one_task_loses_no_effects_of_another(node: CrashableNode) -> None:
    tasks = [fixtures.task(node.net, nonce=n) for n in (1, 2)]
    for task in tasks:
        node.receive(task)
    node.until(2)
    for task in tasks:
        node.receive(fixtures.commit(node.net, task, other_members(node.net, task)[0]))
    node.until(5.9)
    writes = node.disk.writes
    node.disk.fail_at, node.disk.error = writes + 4, sqlite3.OperationalError
    node.until(6)
    assert node.disk.fired, "no failure happened"
    journalled = [e for task in tasks for e in node.journal.entries(task.id) if e.type == "reveal"]
    assert len(journalled) == len(node.own_votes(Reveal)), "signed, journalled and never published"


# Restarts


def test_a_restart_publishes_only_what_was_signed_before(node: CrashableNode) -> None:
    task = fixtures.task(node.net)
    node.receive(task)
    node.until(3)
    (first,) = node.own_votes(Commit)
    node.published.clear()
    node.restart()
    assert [m.envelope for m in node.published] == [task.envelope, first.envelope]
    assert not node.running


def test_a_restart_publishes_the_messages_of_every_open_task(node: CrashableNode) -> None:
    tasks = [fixtures.task(node.net, seed=seed) for seed in (1, 2)]
    for task in tasks:
        node.receive(task)
    node.until(3)
    commits = node.own_votes(Commit)
    node.published.clear()
    node.restart()
    messages = [*tasks, *commits]
    assert len(messages) == 4
    encoded = [sorted(m.envelope.encode() for m in batch) for batch in (node.published, messages)]
    assert encoded[0] == encoded[1]


def test_a_restart_still_reveals_in_a_task_that_others_have_certified() -> None:
    """Other nodes would take the reveal for withheld (6.8)."""
    net = fixtures.network(5, committee_size=5)
    node = CrashableNode(net)
    task = fixtures.task(net)
    first, second, third, _ = other_members(net, task)
    node.receive(task)
    for peer in (first, second, third):
        node.receive(fixtures.commit(net, task, peer))
    node.until(1.5)  # it has executed and committed, and waits
    commits = {
        p: fixtures.commitment_of(task, p, fixtures.outcome()) for p in (first, second, third)
    }
    for peer in (first, second, third):
        node.receive(fixtures.reveal(net, task, peer, commits))
    assert node.state(task) is State.AGREED
    assert not node.own_votes(Reveal)
    node.restart()
    node.until(10)
    (own,) = node.own_votes(Reveal)
    node.restart()
    node.until(20)
    assert node.own_votes(Reveal) == [own]
    node.disk.close()


def test_a_restart_executes_an_interrupted_task_again(node: CrashableNode) -> None:
    task = fixtures.task(node.net)
    node.receive(task)
    node.until(0.5)
    assert node.state(task) is State.EXECUTING
    node.restart()
    assert set(node.running) == {task.id}
    node.until(2)
    assert node.state(task) is State.COMMITTED


def test_a_commit_list_closed_before_a_restart_stays_closed(node: CrashableNode) -> None:
    """A commit after the closing is journalled but not listed."""
    task = fixtures.task(node.net)
    first, second = other_members(node.net, task)
    node.receive(task)
    node.until(2)
    node.receive(fixtures.commit(node.net, task, first))  # the quorum: closed 2 s later
    node.until(5)
    node.receive(fixtures.commit(node.net, task, second))
    node.restart()
    node.until(7)
    assert listed(node) == {ME, first}


def test_a_reveal_due_during_downtime_lists_the_commits_that_came_in_time(
    node: CrashableNode,
) -> None:
    task = fixtures.task(node.net)
    first, second = other_members(node.net, task)
    node.receive(task)
    node.until(2)
    node.receive(fixtures.commit(node.net, task, first))
    node.clock.time = fixtures.START + 50
    node.restart()
    node.receive(fixtures.commit(node.net, task, second))
    node.until(51)
    assert listed(node) == {ME, first}


def test_an_attempt_that_timed_out_during_downtime_is_over(net: Network) -> None:
    node = CrashableNode(fixtures.network(3, committee_size=1))
    task = next(
        t
        for t in (fixtures.task(node.net, nonce=n) for n in range(64))
        if committees(node.net, t)[0] == (ME,)
    )
    node.receive(task)
    node.clock.time = fixtures.START + 121
    node.restart()
    assert position(node, task) == (State.EXECUTING, 1)
    node.disk.close()


def position(node: CrashableNode, task: Task) -> tuple[State, int]:
    view = node.coordinator.view(task.id)
    assert view is not None
    return view.state, view.attempt


def test_a_restart_does_not_prolong_an_attempt() -> None:
    """Its time counts from its start, not from the last journal entry."""
    case = CASES["twice"]
    node, task = CrashableNode(case.net), case.task
    node.receive(task)
    node.until(2)
    assert node.own_votes(Commit)
    node.restart()
    node.until(119.9)
    assert position(node, task) == (State.COMMITTED, 0)
    node.until(120)
    assert position(node, task) == (State.COMMITTED, 1)
    node.disk.close()


def test_a_restart_does_not_end_the_last_attempt_before_the_deadline(node: CrashableNode) -> None:
    task = fixtures.task(node.net)
    node.receive(task)
    node.until(300)
    node.restart()
    node.until(599.9)
    assert position(node, task) == (State.COMMITTED, 0)
    node.until(600)
    assert position(node, task) == (State.EXPIRED, 0)


def test_a_task_that_comes_late_has_a_full_first_attempt() -> None:
    """Attempt 0 starts when this node accepts the task, not when it was created."""
    case = CASES["twice"]
    node, task = CrashableNode(case.net), case.task
    node.clock.time = fixtures.START + 300
    node.receive(task)
    node.until(419.9)
    assert position(node, task) == (State.COMMITTED, 0)
    node.restart()
    node.until(420)
    assert position(node, task) == (State.COMMITTED, 1)
    node.disk.close()


def test_an_expired_task_is_not_resumed(node: CrashableNode) -> None:
    task = fixtures.task(node.net, deadline=60)
    node.receive(task)
    node.clock.time = fixtures.START + 61
    node.restart()
    assert node.state(task) is State.EXPIRED
    assert not node.running
    assert node.coordinator.wake_at() is None


# One task at one node


def test_submitting_a_known_task_changes_nothing(node: CrashableNode) -> None:
    task = fixtures.task(node.net)
    effects = node.coordinator.submit(task)
    assert isinstance(effects[0], Publish)
    assert any(isinstance(effect, Execute) for effect in effects)
    assert node.coordinator.submit(task) == []
    assert node.coordinator.receive(task) == []
    node.carry_out(effects)
    vote_in_full(node, task)
    assert node.state(task) is State.AGREED
    node.coordinator.admit(task)
    assert node.coordinator.submit(task) == []
    assert node.coordinator.first_committee(task) == committees(node.net, task)[0]


def test_a_known_task_may_be_submitted_after_its_deadline(node: CrashableNode) -> None:
    """A requester that lost its connection may repeat a submission late."""
    task = fixtures.task(node.net, deadline=60)
    node.receive(task)
    node.until(61)
    assert node.state(task) is State.EXPIRED
    node.coordinator.admit(task)
    assert node.coordinator.submit(task) == []
    unknown = fixtures.task(node.net, deadline=60, nonce=1)
    for take in (node.coordinator.admit, node.coordinator.submit):
        with pytest.raises(Rejected) as refused:
            take(unknown)
        assert refused.value.reason is Rejection.EXPIRED


@pytest.mark.parametrize("reason", list(Abstention))
def test_a_failed_execution_abstains(node: CrashableNode, reason: Abstention) -> None:
    task = fixtures.task(node.net)
    node.receive(task)
    node.running.clear()
    node.carry_out(node.coordinator.failed(task.id, reason))
    (vote,) = [m for m in node.published if not isinstance(m, Task)]
    assert vote.envelope.body["reason"] == reason
    assert node.state(task) is State.ABSTAINED
    node.restart()
    assert not node.running, "an abstention is not taken back"


OUTPUTS = fixtures.outcome()["result"]["outputs"]
MANY: Any = {"result": {"outputs": OUTPUTS * 17}}
TWO: Any = {"result": {"outputs": OUTPUTS * 2}}
INCONSISTENT: Any = {"result": {"outputs": [OUTPUTS[0] | {"frames": 17}]}}


@pytest.mark.parametrize(
    ("outcome", "trace"),
    [
        (MANY, TRACE),
        (TWO, TRACE),
        (INCONSISTENT, TRACE),
        (fixtures.outcome(), {"detail": ""}),
        (fixtures.outcome(), {"detail": "x" * 9000}),
        ({"error": "no-such-error"}, TRACE),
        (fixtures.outcome(), {"text": "\ufffe"}),
        (fixtures.outcome(), {"seconds": float("nan")}),
        (fixtures.outcome(), {"seconds": 2**53}),
    ],
    ids=[
        "too many outputs",
        "more outputs than the task asks for",
        "a size of other frames",
        "an empty detail",
        "a long trace",
        "another error",
        "a noncharacter",
        "not a number",
        "a large integer",
    ],
)
def test_an_outcome_that_does_not_fit_a_reveal_abstains(
    node: CrashableNode, outcome: Any, trace: Any
) -> None:
    """And is not journalled: neither this node nor its next node could go on with it."""
    task = fixtures.task(node.net)
    node.receive(task)
    node.running.clear()
    node.carry_out(node.coordinator.executed(task.id, outcome, trace))
    assert node.state(task) is State.ABSTAINED
    (vote,) = [m for m in node.published if not isinstance(m, Task)]
    assert vote.envelope.body["reason"] == Abstention.WORKER_DIED
    node.restart()
    node.until(500)
    assert not node.own_votes(Commit)


def test_a_certificate_stops_the_execution(node: CrashableNode) -> None:
    task = fixtures.task(node.net)
    first, second = other_members(node.net, task)
    node.receive(task)
    commits = {
        peer: fixtures.commitment_of(task, peer, fixtures.outcome()) for peer in (first, second)
    }
    for peer in (first, second):
        node.receive(fixtures.commit(node.net, task, peer))
        node.receive(fixtures.reveal(node.net, task, peer, commits))
    assert node.state(task) is State.AGREED
    assert StopExecution(task.id) in node.effects
    assert not node.running
    node.carry_out(node.executed(task.id))  # it was too late to stop it
    assert not node.own_votes(Commit)


def test_an_outcome_after_the_end_of_the_task_is_never_signed(node: CrashableNode) -> None:
    """Not even if a late vote rebuilds the ended task from the journal."""
    task = fixtures.task(node.net)
    first, second = other_members(node.net, task)
    node.receive(task)
    commits = {
        peer: fixtures.commitment_of(task, peer, fixtures.outcome()) for peer in (first, second)
    }
    for peer in (first, second):
        node.receive(fixtures.reveal(node.net, task, peer, commits))
    node.carry_out(node.executed(task.id))
    node.restart()
    node.receive(fixtures.commit(node.net, task, first))
    assert node.state(task) is State.AGREED
    assert not node.own_votes(Commit)
    assert not node.running


def test_equivocation_is_recorded(node: CrashableNode) -> None:
    task = fixtures.task(node.net)
    member = other_members(node.net, task)[0]
    node.receive(task)
    for label in ("one", "two"):
        node.receive(fixtures.commit(node.net, task, member, fixtures.outcome(label)))
    (document,) = node.ledger.evidence()
    proof = evidence.verify(document, node.net.id)
    assert (proof.signer, proof.task, proof.attempts) == (member, task.id, (0, 0))
    assert len(node.journal.entries(task.id)) == 3


def test_duplicates_and_further_equivocations_are_not_journalled(node: CrashableNode) -> None:
    """One conflicting vote is evidence enough; further ones must not fill the disk."""
    task = fixtures.task(node.net)
    member = other_members(node.net, task)[0]
    contradictions = [
        fixtures.commit(node.net, task, member, fixtures.outcome(f"lie {n}")) for n in range(9)
    ]
    node.receive(task)
    for vote in (*contradictions, *contradictions):
        node.receive(vote)
    kept = [e.envelope.encode() for e in node.journal.entries(task.id)]
    expected: list[Message] = [task, *contradictions[:2]]
    assert kept == [message.envelope.encode() for message in expected]
    assert node.coordinator.receive(contradictions[0]) == []


def certified(node: CrashableNode, task: Task, label: str) -> certificate.Certificate:
    """Return the certificate of the two other members."""
    outcome = fixtures.outcome(label)
    commits = {
        peer: fixtures.commitment_of(task, peer, outcome) for peer in other_members(node.net, task)
    }
    votes = [fixtures.reveal(node.net, task, peer, commits, outcome) for peer in commits]
    return certificate.assemble(task, 0, votes, node.net)


def reveal_separately(node: CrashableNode, task: Task, *labels: str) -> None:
    """Let both other members reveal each outcome, in reveals that list only themselves."""
    for label in labels:
        for peer in other_members(node.net, task):
            revealed = fixtures.outcome(label)
            alone = {peer: fixtures.commitment_of(task, peer, revealed)}
            node.receive(fixtures.reveal(node.net, task, peer, alone, revealed))


def test_a_certificate_brings_the_votes_that_were_not_kept(node: CrashableNode) -> None:
    """Of two equivocators, no single further reveal completes a certificate (6.4)."""
    task = fixtures.task(node.net)
    node.receive(task)
    reveal_separately(node, task, "a", "b")
    third = certified(node, task, "c")
    for vote in third.votes:
        node.receive(vote)
    assert not node.ledger.certificates(task.id)
    for _ in range(2):
        node.step(lambda: node.coordinator.receive_certificate(third), retry=True)
        assert node.state(task) is State.AGREED
        assert node.ledger.certificates(task.id) == [third.document]
    kept = len(node.journal.entries(task.id))
    node.restart()
    node.receive(fixtures.commit(node.net, task, third.signers[0]))  # brings the task back
    node.step(lambda: node.coordinator.receive_certificate(third), retry=True)
    assert node.state(task) is State.AGREED
    assert len(node.journal.entries(task.id)) == kept + 1
    assert not node.own_votes(Commit)


def test_votes_of_a_certificate_survive_a_restart(node: CrashableNode) -> None:
    """Otherwise the task would be open again and end inconclusive."""
    task = fixtures.task(node.net)
    node.receive(task)
    node.until(2)
    for peer in other_members(node.net, task):
        node.receive(fixtures.commit(node.net, task, peer))
    node.until(3)
    reveal_separately(node, task, "a", "b")
    node.step(lambda: node.coordinator.receive_certificate(certified(node, task, "c")), retry=True)
    records = node.ledger.peer_records()
    assert records[ME].times(VoteOutcome.DISSENTED) == 1
    node.restart()
    late = fixtures.commit(node.net, task, other_members(node.net, task)[0], fixtures.outcome("a"))
    node.receive(late)  # brings the task back
    node.until(121)
    assert node.state(task) is State.AGREED
    assert node.ledger.peer_records() == records


def test_a_second_certified_outcome_is_a_conflict_and_a_third_is_ignored(
    node: CrashableNode,
) -> None:
    task = fixtures.task(node.net)
    node.receive(task)
    node.receive(certified(node, task, "a").votes[0])
    for label in ("a", "b", "c"):
        certificate = certified(node, task, label)
        node.step(lambda f=certificate: node.coordinator.receive_certificate(f), retry=True)  # type: ignore[misc]
    documents = [certified(node, task, label).document for label in ("a", "b")]
    assert node.ledger.certificates(task.id) == documents
    kept = [entry.envelope.encode() for entry in node.journal.entries(task.id)]
    assert len(kept) == len(set(kept)) == 5, "a task, and each vote once"


def test_a_dissent_after_the_end_is_recorded(node: CrashableNode) -> None:
    task = fixtures.task(node.net)
    first, second = other_members(node.net, task)
    node.receive(task)
    node.until(2)
    node.receive(fixtures.commit(node.net, task, first))
    node.receive(fixtures.commit(node.net, task, second, fixtures.outcome("other")))
    commits = {
        **commits_of(node, task, first),
        second: fixtures.commitment_of(task, second, fixtures.outcome("other")),
    }
    node.receive(fixtures.reveal(node.net, task, first, commits))
    assert node.state(task) is State.AGREED
    dissent = fixtures.reveal(node.net, task, second, commits, fixtures.outcome("other"))
    node.receive(dissent)
    assert node.journal.entries(task.id)[-1].envelope.encode() == dissent.envelope.encode()
    assert node.state(task) is State.AGREED
    assert len(node.ledger.certificates(task.id)) == 1
    assert node.ledger.evidence() == []


def test_another_outcome_in_another_attempt_is_recorded_once() -> None:
    node = CrashableNode(fixtures.network(5))
    task = next(
        t
        for t in (fixtures.task(node.net, nonce=n) for n in range(64))
        if committees(node.net, t)[0][0] != ME
    )
    first = committees(node.net, task)[0]
    liar = first[0]
    node.receive(task)
    node.receive(fixtures.reveal(node.net, task, liar, {}, fixtures.outcome("lie")))
    for member in first[1:]:
        if member != ME:
            node.receive(fixtures.abstain(node.net, task, member))
    later = fixtures.reveal(node.net, task, liar, {}, attempt=1)
    for _ in range(2):
        node.receive(later)
        (document,) = node.ledger.evidence()
        node.restart()
    proof = evidence.verify(document, node.net.id)
    assert (proof.kind, proof.signer, proof.attempts) == ("inconstancy", liar, (0, 1))
    # No vote of an inconstant member is left out, so that nothing has to be asked for.
    assert not node.ledger.votes_may_be_missing(task.id)
    node.receive(fixtures.abstain(node.net, task, liar, "busy"))
    node.receive(fixtures.abstain(node.net, task, liar, "timeout"))
    assert node.ledger.votes_may_be_missing(task.id)
    node.disk.close()


def test_a_view_has_the_task_first_and_all_else_in_the_order_of_acceptance(
    node: CrashableNode,
) -> None:
    """Not by signer, attempt or type: a reveal may come before its commit."""
    task = fixtures.task(node.net)
    one, two = other_members(node.net, task)
    node.receive(task)
    votes: list[Message] = [
        fixtures.reveal(node.net, task, two, {}),
        fixtures.commit(node.net, task, two),
        fixtures.withdraw(node.net, task),
        fixtures.abstain(node.net, task, one),
        fixtures.commit(node.net, task, one),
    ]
    for vote in votes:
        node.receive(vote)
    node.restart()
    view = node.coordinator.view(task.id)
    assert view is not None
    own = [message for message in node.published if message.envelope.signer == ME]
    expected = [m.envelope.encode().decode() for m in (task, *votes)]
    assert [text for text in view.envelopes if text in expected] == expected
    assert len(view.envelopes) == len(expected) + len({m.envelope.encode() for m in own})


def test_an_unknown_task_has_no_view(node: CrashableNode) -> None:
    assert node.coordinator.view("0" * 64) is None
    vote = fixtures.commit(node.net, fixtures.task(node.net), ME)
    calls: tuple[Callable[[], object], ...] = (
        lambda: node.coordinator.failed("0" * 64, Abstention.BUSY),
        lambda: node.executed("0" * 64),
        lambda: node.coordinator.receive(vote),
        lambda: node.coordinator.receive(fixtures.withdraw(node.net, fixtures.task(node.net))),
    )
    for call in calls:
        with pytest.raises(Rejected) as refused:
            call()
        assert refused.value.reason is Rejection.UNKNOWN_TASK


# Limits and eviction


def test_tasks_beyond_max_open_are_refused_as_busy(net: Network) -> None:
    node = CrashableNode(net, max_open=2)
    tasks = [fixtures.task(net, nonce=n) for n in range(3)]
    for task in tasks[:2]:
        node.receive(task)
    with pytest.raises(Busy, match="2 tasks are open"):
        node.coordinator.receive(tasks[2])
    assert node.coordinator.view(tasks[2].id) is None
    assert validated(node, tasks[2]) is ValidationResult.IGNORE
    node.receive(tasks[0])  # a known one is not refused
    node.disk.close()


def test_one_source_holds_at_most_half_of_the_open_tasks(net: Network) -> None:
    node = CrashableNode(net, max_open=4)
    tasks = [fixtures.task(net, nonce=n, requester=2000 + n) for n in range(6)]
    node.carry_out(node.coordinator.submit(tasks[0], "flooder"))
    node.carry_out(node.coordinator.receive(tasks[1], "flooder"))
    takes = (node.coordinator.admit, node.coordinator.submit, node.coordinator.receive)
    for refused in takes:
        with pytest.raises(Busy, match="half of 4"):
            refused(tasks[2], "flooder")
    assert node.counts == {"tasks-refused": 3}
    assert node.coordinator.receive(tasks[0], "flooder") == [], "a known one is not refused"
    node.carry_out(node.coordinator.receive(tasks[3], "honest"))
    node.carry_out(node.coordinator.receive(tasks[2]))  # nobody is charged
    with pytest.raises(Busy, match="4 tasks are open"):
        node.coordinator.receive(tasks[4], "honest")
    assert validated(node, tasks[4]) is ValidationResult.IGNORE
    assert node.counts == {"tasks-refused": 5}
    node.disk.close()


def test_a_member_may_be_the_source_of_all_open_tasks(net: Network) -> None:
    node = CrashableNode(net, max_open=2)
    for number in range(2):
        task = fixtures.task(net, nonce=number)
        node.carry_out(node.coordinator.receive(task, fixtures.peer(1)))
    assert node.counts == {}
    node.disk.close()


def test_the_sources_of_evicted_tasks_are_forgotten(net: Network) -> None:
    node = CrashableNode(net, max_open=2)
    for number in range(10):
        task = fixtures.task(net, nonce=number, deadline=60, now=node.clock.time)
        node.carry_out(node.coordinator.receive(task, "one"))
        node.until(node.clock.time - fixtures.START + 100)
        assert len(node.coordinator._tasks._sources) <= 3
    node.disk.close()


def test_the_source_of_a_task_is_known_until_a_restart(net: Network) -> None:
    node = CrashableNode(net)
    task = fixtures.task(net)
    node.carry_out(node.coordinator.receive(task, "one"))
    assert node.coordinator.source(task.id) == "one"
    node.restart()  # which forgets it
    assert set(node.running) == {task.id}
    assert node.coordinator.source(task.id) == ""
    node.disk.close()


def test_evicted_tasks_are_rebuilt_for_a_late_vote(net: Network) -> None:
    node = CrashableNode(net, max_open=1)
    first = fixtures.task(net, deadline=60)
    first_member, second_member = other_members(net, first)
    node.receive(first)
    with pytest.raises(Busy):
        node.coordinator.receive(fixtures.task(net, nonce=2))
    node.until(2)
    node.receive(fixtures.commit(net, first, first_member))
    node.receive(fixtures.commit(net, first, second_member))
    commits = commits_of(node, first, first_member, second_member)
    node.receive(fixtures.reveal(net, first, first_member, commits))
    node.until(30)
    second = fixtures.task(net, nonce=1, now=fixtures.START + 61)
    node.until(61)
    node.receive(second)
    late = fixtures.reveal(net, first, second_member, commits)
    assert validated(node, late) is ValidationResult.IGNORE
    published = len(node.published)
    node.receive(late)
    assert node.journal.entries(first.id)[-1].envelope.encode() == late.envelope.encode()
    assert node.state(first) is State.AGREED
    assert len(node.published) == published, "nothing is signed for an ended task"
    node.disk.close()


def test_a_duplicate_vote_does_not_rebuild_an_evicted_task(
    net: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A feed begins with all old votes. Each may cost one query, not a rebuild."""
    node = CrashableNode(net)
    task = fixtures.task(net, deadline=60)
    first, second = other_members(net, task)
    node.receive(task)
    node.until(2)
    for peer in (first, second):
        node.receive(fixtures.commit(net, task, peer))
    commits = commits_of(node, task, first, second)
    node.receive(fixtures.reveal(net, task, first, commits))
    node.until(30)
    assert node.state(task) is State.AGREED
    node.restart()
    read: list[str] = []
    entries = Journal.entries

    def counted(journal: Journal, of: str) -> Any:
        read.append(of)
        return entries(journal, of)

    monkeypatch.setattr(Journal, "entries", counted)
    journal = len(node.journal.feed(0, 1000))
    node.receive(fixtures.commit(net, task, first))
    node.receive(fixtures.reveal(net, task, first, commits))
    assert not read
    assert len(node.journal.feed(0, 1000)) == journal
    node.receive(fixtures.reveal(net, task, second, commits))
    assert read == [task.id]


def test_ended_tasks_do_not_count_as_open(net: Network) -> None:
    """Even long before their deadlines: quick tasks must not block a node for an hour."""
    node = CrashableNode(net, max_open=2)
    done = []
    for nonce in range(7):
        task = fixtures.task(net, nonce=nonce, deadline=3600)
        node.receive(task)
        for member in other_members(net, task):
            node.receive(fixtures.abstain(net, task, member))
        assert node.state(task) is State.INCONCLUSIVE
        done.append(task)
    assert len(node.coordinator._tasks._agreements) <= 4
    assert validated(node, done[0]) is ValidationResult.IGNORE, (
        "a task that is over is not spread again"
    )
    node.receive(fixtures.task(net, nonce=100))
    node.disk.close()


# Gossip validation


def validated(
    node: CrashableNode, message: Message, *, tasks: bool | None = None
) -> ValidationResult:
    topic = isinstance(message, Task) if tasks is None else tasks
    result, parsed = node.coordinator.validator.validate(message.envelope.encode(), tasks=topic)
    assert parsed == (message if result is ValidationResult.ACCEPT else None)
    return result


def test_new_valid_messages_are_accepted(node: CrashableNode) -> None:
    task = fixtures.task(node.net)
    assert validated(node, task) is ValidationResult.ACCEPT
    node.receive(task)
    assert validated(node, fixtures.commit(node.net, task, ME)) is ValidationResult.ACCEPT
    assert validated(node, fixtures.abstain(node.net, task, ME)) is ValidationResult.ACCEPT


def test_an_accepted_envelope_is_ignored_without_being_parsed(
    node: CrashableNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its id, on either topic; another spelling has another id, and is rejected as before."""
    task = fixtures.task(node.net)
    vote = fixtures.abstain(node.net, task, other_members(node.net, task)[0])
    for message in (task, vote):
        assert validated(node, message) is ValidationResult.ACCEPT
        node.receive(message)
    spaced = task.envelope.encode() + b" "
    assert node.coordinator.validator.validate(spaced, tasks=True)[0] is ValidationResult.REJECT

    def parse_nothing(payload: bytes, network: str) -> Message:
        raise AssertionError("it was parsed")

    monkeypatch.setattr(codec, "decode", parse_nothing)
    for message in (task, vote):
        for tasks in (True, False):
            verdict = node.coordinator.validator.validate(message.envelope.encode(), tasks=tasks)
            assert verdict == (ValidationResult.IGNORE, None)


def test_the_ids_of_accepted_envelopes_are_bounded(node: CrashableNode) -> None:
    validator = node.coordinator.validator
    validator.note_accepted([f"{number:064x}" for number in range(MAX_KNOWN + 10)])
    assert len(validator._known) == MAX_KNOWN


def test_validation_changes_nothing(node: CrashableNode) -> None:
    task = fixtures.task(node.net)
    validated(node, task)
    assert node.coordinator.view(task.id) is None
    node.receive(task)
    vote = fixtures.commit(node.net, task, other_members(node.net, task)[0])
    validated(node, vote)
    assert validated(node, vote) is ValidationResult.ACCEPT
    assert len(node.journal.entries(task.id)) == 1


def test_duplicates_are_ignored(node: CrashableNode) -> None:
    task = fixtures.task(node.net)
    vote = fixtures.commit(node.net, task, other_members(node.net, task)[0])
    node.receive(task)
    node.receive(vote)
    assert validated(node, task) is ValidationResult.IGNORE
    assert validated(node, vote) is ValidationResult.IGNORE


def test_untimely_messages_are_ignored(node: CrashableNode) -> None:
    unknown = fixtures.task(node.net)
    assert validated(node, fixtures.commit(node.net, unknown, ME)) is ValidationResult.IGNORE
    assert (
        validated(node, fixtures.task(node.net, now=fixtures.START + 61)) is ValidationResult.IGNORE
    )
    assert (
        validated(node, fixtures.task(node.net, now=fixtures.START - 600))
        is ValidationResult.IGNORE
    )
    for untimely, reason in ((61, Rejection.CREATED_AHEAD), (-600, Rejection.EXPIRED)):
        task = fixtures.task(node.net, now=fixtures.START + untimely)
        with pytest.raises(Rejected) as refused:
            node.coordinator.receive(task)
        assert refused.value.reason is reason


@pytest.mark.parametrize(
    "payload",
    [b"", b"{", b"\xff", b"[]", b"{}", b"[" * 50_000, b" " * 65_537],
    # Without a backslash: pytest escapes given ids anew at each collection in a process, and mutmut
    # then does not find the test.
    ids=["empty", "open", "not-utf-8", "list", "no-type", "too-deep", "too-large"],
)
def test_malformed_messages_are_rejected(node: CrashableNode, payload: bytes) -> None:
    for tasks in (False, True):
        assert node.coordinator.validator.validate(payload, tasks=tasks) == (
            ValidationResult.REJECT,
            None,
        )


@pytest.mark.parametrize(
    "respelled",
    [
        lambda text: text + b"\n",
        lambda text: b" " + text,
        lambda text: text.replace(b'"attempt":0', b'"attempt":0.0', 1),
        lambda text: text.replace(b'"signer"', b'"\\u0073igner"', 1),
        lambda text: json.dumps(dict(reversed(json.loads(text).items()))).encode(),
    ],
    ids=["line-feed", "space", "number", "escape", "order"],
)
def test_another_spelling_of_a_valid_envelope_is_rejected(
    node: CrashableNode, respelled: Callable[[bytes], bytes]
) -> None:
    """A peer could otherwise make any number of messages of one envelope, each with its own id."""
    task = fixtures.task(node.net)
    node.receive(task)
    vote = fixtures.commit(node.net, task, ME)
    validate = node.coordinator.validator.validate
    for message, tasks in ((vote, False), (fixtures.task(node.net, nonce=9), True)):
        text = message.envelope.encode()
        changed = respelled(text)
        if changed != text:
            assert codec.decode(changed, node.net.id) == message
            assert validate(changed, tasks=tasks) == (ValidationResult.REJECT, None)
        assert validate(text, tasks=tasks) == (ValidationResult.ACCEPT, message)


def test_a_bad_signature_is_rejected(node: CrashableNode) -> None:
    task = fixtures.task(node.net)
    vote = fixtures.commit(node.net, task, ME)
    node.receive(task)
    for message, topic in ((fixtures.task(node.net, nonce=9), True), (vote, False)):
        forged = sign(message.envelope.body, fixtures.key(2)).document()
        payload = canonical({**forged, "signer": fixtures.peer(1)})
        assert node.coordinator.validator.validate(payload, tasks=topic) == (
            ValidationResult.REJECT,
            None,
        )


def test_a_voter_outside_the_committee_is_rejected(node: CrashableNode) -> None:
    task = fixtures.task(node.net)
    node.receive(task)
    bound = fixtures.commitment_of(task, ME, fixtures.outcome())
    body = messages.commit_body(node.net.id, task.id, 0, bound)
    stranger = fixtures.signed(node.net, body, 1001)
    assert validated(node, stranger) is ValidationResult.REJECT
    with pytest.raises(Rejected) as refused:
        node.coordinator.receive(stranger)
    assert refused.value.reason is Rejection.NOT_A_MEMBER
    assert len(node.journal.entries(task.id)) == 1


@pytest.mark.parametrize("outputs", [2, 3])
def test_a_reveal_whose_outputs_the_task_does_not_ask_for_is_rejected(
    node: CrashableNode, outputs: int
) -> None:
    task = fixtures.task(node.net)
    node.receive(task)
    result = {"result": {"outputs": OUTPUTS * outputs}}
    vote = fixtures.reveal(node.net, task, other_members(node.net, task)[0], {}, result)
    assert validated(node, vote) is ValidationResult.REJECT
    with pytest.raises(Rejected) as refused:
        node.coordinator.receive(vote)
    assert refused.value.reason is Rejection.INVALID_FIELD
    assert len(node.journal.entries(task.id)) == 1


def test_outputs_over_max_output_bytes_are_rejected() -> None:
    node = CrashableNode(fixtures.network(3, max_output_bytes=63))
    task = fixtures.task(node.net)
    node.receive(task)
    vote = fixtures.reveal(node.net, task, other_members(node.net, task)[0], {})
    assert validated(node, vote) is ValidationResult.REJECT
    node.disk.close()


def test_a_vote_counts_whoever_brings_it(node: CrashableNode) -> None:
    """The signer counts; the peer that forwards may be in no roster."""
    task = fixtures.task(node.net)
    node.receive(task)
    vote = fixtures.commit(node.net, task, other_members(node.net, task)[0])
    node.carry_out(node.coordinator.receive(vote, fixtures.peer(1050)))
    assert [e.signer for e in node.journal.entries(task.id)] == [fixtures.peer(1000), vote.signer]


def test_a_vote_for_a_nonexistent_attempt_is_rejected(node: CrashableNode) -> None:
    task = fixtures.task(node.net)
    node.receive(task)
    assert (
        validated(node, fixtures.commit(node.net, task, ME, attempt=1)) is ValidationResult.REJECT
    )


def test_a_message_on_the_wrong_topic_is_rejected(node: CrashableNode) -> None:
    task = fixtures.task(node.net)
    assert validated(node, task, tasks=False) is ValidationResult.REJECT
    node.receive(task)
    assert (
        validated(node, fixtures.commit(node.net, task, ME), tasks=True) is ValidationResult.REJECT
    )


def test_a_message_of_another_network_is_rejected(node: CrashableNode) -> None:
    other_network = fixtures.network(4)
    task = fixtures.task(other_network)
    assert validated(node, task) is ValidationResult.REJECT
    assert validated(node, fixtures.abstain(other_network, task, ME)) is ValidationResult.REJECT


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"generation_config": {"max_new_tokens": 1504}}, Rejection.OVER_LIMIT),
        ({"deadline": 3601}, Rejection.OVER_LIMIT),
        ({"model": "nobody/knows"}, Rejection.UNKNOWN_MODEL),
        ({"seed": 2**32}, Rejection.INVALID_FIELD),
        ({"kind": "pop2piano"}, Rejection.UNSUPPORTED_KIND),
    ],
    ids=["over the model's limit", "deadline", "model", "seed", "kind"],
)
def test_a_task_over_the_networks_limits_is_rejected(
    node: CrashableNode, changes: dict[str, Any], reason: Rejection
) -> None:
    task = fixtures.task(node.net, **changes)
    assert validated(node, task) is ValidationResult.REJECT
    for take in (node.coordinator.admit, node.coordinator.receive):
        with pytest.raises(Rejected) as refused:
            take(task)
        assert refused.value.reason is reason
    assert node.coordinator.view(task.id) is None
