"""One node's part in a round: journalled before it is said, the same after every crash."""

import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import pytest

from node.consensus.coordinator import Coordinator
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
from protocol.wire import messages
from protocol.wire.encoding import canonical
from protocol.wire.messages import Abstention, Commit, Message, Reveal, Task, Vote
from protocol.wire.signing import sign
from tests.support import fixtures

ME = fixtures.peer(0)
EXECUTION = 1.0  # seconds
TRACE = {"seconds": 1}
Slots: TypeAlias = tuple[tuple[str, int], ...]
ONCE: Slots = (("commit", 0), ("reveal", 0))


class Killed(BaseException):
    """The process ends here: nothing after this statement happens."""


class Disk(sqlite3.Connection):
    """A database in memory that outlives its process and may fail at one write, or kill there."""

    writes = 0
    fail_at: int | None = None
    error: type[BaseException] = Killed
    after = False  # whether the statement still took effect
    dead = False
    fired = False

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        if not sql.startswith(("BEGIN", "INSERT", "COMMIT")):
            return super().execute(sql, parameters)
        if self.dead:
            raise Killed
        self.writes += 1
        if self.writes - 1 != self.fail_at:
            return super().execute(sql, parameters)
        self.dead, self.fired = self.error is Killed, True
        if self.after:
            super().execute(sql, parameters)
        raise self.error(sql)

    def recover(self) -> None:
        self.rollback()
        self.dead = False


class Clock:
    def __init__(self) -> None:
        self.time = fixtures.START

    def now(self) -> float:
        return self.time


class Entropy:
    """Never the same bytes twice, so that a salt drawn anew shows."""

    def __init__(self) -> None:
        self.drawn = 0

    def __call__(self, n: int) -> bytes:
        self.drawn += 1
        return self.drawn.to_bytes(n, "big")


class Life:
    """A node through crashes: what it has said, and what the world does to it."""

    def __init__(self, net: Network, max_open: int = 1000) -> None:
        self.net, self.clock, self.entropy = net, Clock(), Entropy()
        self.disk = sqlite3.connect(":memory:", isolation_level=None, factory=Disk)
        self.max_open = max_open
        self.counts: Counter[str] = Counter()
        self.said: list[Message] = []
        self.effects: list[Effect] = []
        self.running: dict[str, float] = {}
        self.born()
        self.disk.writes = 0

    def born(self) -> None:
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
        self.take(self.coordinator.open())

    def restart(self) -> None:
        self.disk.recover()
        self.born()

    def take(self, effects: list[Effect]) -> None:
        self.effects += effects
        for effect in effects:
            match effect:
                case Publish(message):
                    stored = [text.encode() for _, text in self.journal.feed(0, 1000)]
                    assert message.envelope.encode() in stored, "sent before it was journalled"
                    self.said.append(message)
                case Execute(task):
                    self.running[task.id] = self.clock.time + EXECUTION
                case StopExecution(stopped):
                    self.running.pop(stopped, None)

    def step(self, call: Callable[[], list[Effect]], *, insist: bool) -> None:
        """Take one step; a failed one is taken again if the world insists, as feeds do."""
        for _ in range(2):
            try:
                self.take(call())
                return
            except Killed:
                self.restart()
            except sqlite3.OperationalError:
                assert not self.disk.in_transaction
            if not insist:
                return
        raise AssertionError("a store that fails once fails one step only")

    def hear(self, message: Message) -> None:
        self.step(lambda: self.coordinator.receive(message), insist=True)

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
                self.step(lambda t=task: self.executed(t), insist=False)  # type: ignore[misc]
            else:
                self.step(self.tick, insist=False)
        self.clock.time = end

    def tick(self) -> list[Effect]:
        return self.coordinator.tick()

    def executed(self, task: str) -> list[Effect]:
        return self.coordinator.executed(task, fixtures.outcome(), TRACE)

    def own(self, kind: type[Vote]) -> list[Vote]:
        return [m for m in self.said if isinstance(m, kind) and m.signer == ME]

    def state(self, task: Task) -> State:
        view = self.coordinator.view(task.id)
        assert view is not None
        return view.state


@pytest.fixture
def net() -> Network:
    return fixtures.network(3)


@pytest.fixture
def life(net: Network) -> Iterator[Life]:
    life = Life(net)
    yield life
    life.disk.close()


def others(net: Network, task: Task) -> list[str]:
    return [member for member in committees(net, task)[-1] if member != ME]


def commits_of(life: Life, task: Task, *peers: str, attempt: int = 0) -> dict[str, str]:
    own = [v for v in life.own(Commit) if isinstance(v, Commit) and v.attempt == attempt]
    (mine,) = {v.commitment for v in own}
    return {ME: mine} | {p: fixtures.bound(task, p, fixtures.outcome(), attempt) for p in peers}


def vote_in_full(life: Life, task: Task) -> None:
    """All three commit, this node reveals at once, a second reveals: agreed."""
    one, two = others(life.net, task)
    life.hear(task)
    life.until(2)
    life.hear(fixtures.commit(life.net, task, one))
    life.hear(fixtures.commit(life.net, task, two))
    life.until(3)
    commits = commits_of(life, task, one, two)
    life.hear(fixtures.reveal(life.net, task, one, commits))
    life.hear(fixtures.reveal(life.net, task, two, commits))
    life.until(4)


def vote_late(life: Life, task: Task) -> None:
    """One commit of two in time, the list closes, the other commit comes late."""
    one, two = others(life.net, task)
    life.hear(task)
    life.until(2)
    life.hear(fixtures.commit(life.net, task, one))
    life.until(5)
    life.hear(fixtures.commit(life.net, task, two))
    life.until(7)
    life.hear(fixtures.reveal(life.net, task, one, commits_of(life, task, one)))
    life.until(8)


def vote_twice(life: Life, task: Task) -> None:
    """The other of a committee of two abstains; all three agree in the next attempt."""
    one, two = others(life.net, task)
    other = next(member for member in committees(life.net, task)[0] if member != ME)
    life.hear(task)
    life.until(5)
    life.hear(fixtures.abstain(life.net, task, other))
    life.until(7)
    for member in (one, two):
        life.hear(fixtures.commit(life.net, task, member, attempt=1))
    life.until(8)
    commits = commits_of(life, task, one, two, attempt=1)
    for member in (one, two):
        life.hear(fixtures.reveal(life.net, task, member, commits, attempt=1))
    life.until(9)


def check_round(life: Life, task: Task, slots: Slots = ONCE) -> None:
    """Agreed, and nothing was ever signed twice with two contents."""
    assert life.state(task) is State.AGREED
    view = life.coordinator.view(task.id)
    assert view is not None
    found = certificate.verify(view.certificates[0], life.net)
    assert ME in found.signers
    assert life.ledger.evidence() == []
    journal = [json.loads(e.envelope) for e in life.journal.entries(task.id)]
    bodies = {
        canonical(envelope["body"])
        for envelope in [*journal, *(m.envelope.document() for m in life.said)]
        if envelope["signer"] == ME
    }
    found_slots = [(body["type"], body["attempt"]) for body in map(json.loads, bodies)]
    assert sorted(found_slots) == sorted(slots)


def listed(life: Life) -> set[str]:
    reveals = [v for v in life.own(Reveal) if isinstance(v, Reveal)]
    assert len({canonical(r.envelope.body) for r in reveals}) == 1
    return set(reveals[0].commits)


@dataclass(frozen=True)
class Case:
    """A way in which a task goes, in a network of three, and what this node signs in it."""

    play: Callable[[Life, Task], None]
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


# A round, undisturbed


def test_a_full_round_reveals_at_once_and_agrees(life: Life) -> None:
    task = fixtures.task(life.net)
    vote_in_full(life, task)
    check_round(life, task)
    assert listed(life) == set(committees(life.net, task)[0])
    asked = [type(e) for e in life.effects if isinstance(e, Execute | StopExecution | Publish)]
    assert asked == [Execute, Publish, Publish]


def test_a_late_commit_is_not_listed(life: Life) -> None:
    task = fixtures.task(life.net)
    vote_late(life, task)
    check_round(life, task)
    assert listed(life) == {ME, others(life.net, task)[0]}


def test_signed_messages_are_journalled_before_they_are_published(life: Life) -> None:
    """The salt and the outcome too: without them the commit could never be opened again."""
    task = fixtures.task(life.net)
    life.hear(task)
    life.until(1)
    (commit,) = life.own(Commit)
    salt = life.journal.salt(task.id, 0)
    produced = life.journal.outcome(task.id)
    assert isinstance(commit, Commit)
    assert salt is not None
    assert produced is not None
    digest = messages.outcome_digest(produced.outcome)
    assert commit.commitment == messages.commitment(task.id, 0, ME, digest, salt)


def test_each_attempt_draws_a_new_salt() -> None:
    """One that was revealed hides nothing any more."""
    case = CASES["twice"]
    life = Life(case.net)
    case.play(life, case.task)
    first, second = (life.journal.salt(case.task.id, attempt) for attempt in (0, 1))
    assert None not in (first, second)
    assert first != second
    (reveal,) = life.own(Reveal)
    assert reveal.envelope.body["salt"] == second
    life.disk.close()


# A round, cut off at every write


def writes_of(case: Case) -> int:
    life = Life(case.net)
    case.play(life, case.task)
    check_round(life, case.task, case.slots)
    life.disk.close()
    return life.disk.writes


@pytest.mark.parametrize("after", [False, True], ids=["before the write", "after the write"])
@every_case
def test_a_crash_at_any_write_changes_no_vote(case: Case, after: bool) -> None:
    task, total = case.task, writes_of(case)
    assert total > 20
    for index in range(total):
        life = Life(case.net)
        life.disk.fail_at, life.disk.after = index, after
        case.play(life, task)
        assert life.disk.fired, "the kill never came"
        check_round(life, task, case.slots)
        assert len(listed(life)) == case.listed
        life.disk.close()


@every_case
def test_a_failed_write_loses_one_step_and_never_equivocates(case: Case) -> None:
    """The same coordinator goes on; what it had in memory of the failed step is gone."""
    task = case.task
    for index in range(writes_of(case)):
        life = Life(case.net)
        life.disk.fail_at, life.disk.error = index, sqlite3.OperationalError
        case.play(life, task)
        assert life.disk.fired, "the failure never came"
        check_round(life, task, case.slots)
        life.disk.close()


def test_a_task_whose_first_write_failed_is_accepted_when_it_comes_again(life: Life) -> None:
    task = fixtures.task(life.net)
    life.disk.fail_at, life.disk.error = life.disk.writes, sqlite3.OperationalError
    with pytest.raises(sqlite3.OperationalError):
        life.coordinator.receive(task)
    life.until(2)
    assert judged(life, task) is ValidationResult.ACCEPT
    life.hear(task)
    assert life.state(task) is State.EXECUTING


def test_a_task_lost_to_a_failed_write_still_counts_as_open(life: Life) -> None:
    life.coordinator._tasks.max_open = 1
    task, other = (fixtures.task(life.net, nonce=n) for n in (1, 2))
    life.hear(task)
    life.disk.fail_at, life.disk.error = life.disk.writes, sqlite3.OperationalError
    with pytest.raises(sqlite3.OperationalError):
        life.coordinator.failed(task.id, Abstention.BUSY)
    with pytest.raises(Busy):
        life.coordinator.submit(other)


def test_a_failed_tick_is_retried(life: Life) -> None:
    """Nothing else may come for this task: time alone has to bring it back."""
    task = fixtures.task(life.net)
    life.hear(task)
    life.until(2)
    life.hear(fixtures.commit(life.net, task, others(life.net, task)[0]))
    life.until(5.9)
    life.disk.fail_at, life.disk.error = life.disk.writes, sqlite3.OperationalError
    life.until(30)
    assert life.disk.fired, "the failure never came"
    assert len(life.own(Reveal)) == 1


def test_a_task_is_executed_again_if_its_outcome_was_not_written(life: Life) -> None:
    """The only copy of the outcome is gone, so the task has to be executed again."""
    task = fixtures.task(life.net)
    life.hear(task)
    life.disk.fail_at, life.disk.error = life.disk.writes, sqlite3.OperationalError
    life.until(30)
    assert life.disk.fired, "the failure never came"
    assert len(life.own(Commit)) == 1


def test_a_failed_tick_of_one_task_loses_no_effects_of_another(life: Life) -> None:
    tasks = [fixtures.task(life.net, nonce=n) for n in (1, 2)]
    for task in tasks:
        life.hear(task)
    life.until(2)
    for task in tasks:
        life.hear(fixtures.commit(life.net, task, others(life.net, task)[0]))
    life.until(5.9)
    writes = life.disk.writes
    life.disk.fail_at, life.disk.error = writes + 4, sqlite3.OperationalError
    life.until(6)
    assert life.disk.fired, "the failure never came"
    journalled = [e for task in tasks for e in life.journal.entries(task.id) if e.type == "reveal"]
    assert len(journalled) == len(life.own(Reveal)), "signed, journalled and never said"


# Restarts


def test_a_restart_publishes_only_what_was_signed_before(life: Life) -> None:
    task = fixtures.task(life.net)
    life.hear(task)
    life.until(3)
    (first,) = life.own(Commit)
    life.said.clear()
    life.restart()
    assert [m.envelope for m in life.said] == [task.envelope, first.envelope]
    assert not life.running


def test_a_restart_executes_an_interrupted_task_again(life: Life) -> None:
    task = fixtures.task(life.net)
    life.hear(task)
    life.until(0.5)
    assert life.state(task) is State.EXECUTING
    life.restart()
    assert set(life.running) == {task.id}
    life.until(2)
    assert life.state(task) is State.COMMITTED


def test_a_commit_list_closed_before_a_restart_stays_closed(life: Life) -> None:
    """A commit that came after the closing is in the journal, and still not in the list."""
    task = fixtures.task(life.net)
    one, two = others(life.net, task)
    life.hear(task)
    life.until(2)
    life.hear(fixtures.commit(life.net, task, one))  # the quorum: closed 2 s later
    life.until(5)
    life.hear(fixtures.commit(life.net, task, two))
    life.restart()
    life.until(7)
    assert listed(life) == {ME, one}


def test_a_reveal_due_during_downtime_lists_the_commits_that_came_in_time(
    life: Life,
) -> None:
    task = fixtures.task(life.net)
    one, two = others(life.net, task)
    life.hear(task)
    life.until(2)
    life.hear(fixtures.commit(life.net, task, one))
    life.clock.time = fixtures.START + 50
    life.restart()
    life.hear(fixtures.commit(life.net, task, two))
    life.until(51)
    assert listed(life) == {ME, one}


def test_an_attempt_that_timed_out_during_downtime_is_over(net: Network) -> None:
    life = Life(fixtures.network(3, committee_size=1))
    task = next(
        t
        for t in (fixtures.task(life.net, nonce=n) for n in range(64))
        if committees(life.net, t)[0] == (ME,)
    )
    life.hear(task)
    life.clock.time = fixtures.START + 121
    life.restart()
    view = life.coordinator.view(task.id)
    assert view is not None
    assert (view.state, view.attempt) == (State.EXECUTING, 1)
    life.disk.close()


def test_a_restart_does_not_prolong_an_attempt(life: Life) -> None:
    """It lasts from its start, not from what was journalled last."""
    task = fixtures.task(life.net)
    life.hear(task)
    life.until(2)
    assert life.own(Commit)
    life.restart()
    life.until(119.9)
    assert life.state(task) is State.COMMITTED
    life.until(120)
    assert life.state(task) is State.INCONCLUSIVE


def test_an_expired_task_is_not_resumed(life: Life) -> None:
    task = fixtures.task(life.net, deadline=60)
    life.hear(task)
    life.clock.time = fixtures.START + 61
    life.restart()
    assert life.state(task) is State.EXPIRED
    assert not life.running
    assert life.coordinator.wake_at() is None


# What a task does at one node


def test_submitting_a_known_task_changes_nothing(life: Life) -> None:
    task = fixtures.task(life.net)
    effects = life.coordinator.submit(task)
    assert isinstance(effects[0], Publish)
    assert any(isinstance(effect, Execute) for effect in effects)
    assert life.coordinator.submit(task) == []
    assert life.coordinator.receive(task) == []
    life.take(effects)
    vote_in_full(life, task)
    assert life.state(task) is State.AGREED
    life.coordinator.admit(task)
    assert life.coordinator.submit(task) == []
    assert life.coordinator.first_committee(task) == committees(life.net, task)[0]


def test_a_known_task_may_be_submitted_after_its_deadline(life: Life) -> None:
    """A requester that was cut off asks again, and is not told that it comes too late."""
    task = fixtures.task(life.net, deadline=60)
    life.hear(task)
    life.until(61)
    assert life.state(task) is State.EXPIRED
    life.coordinator.admit(task)
    assert life.coordinator.submit(task) == []
    unknown = fixtures.task(life.net, deadline=60, nonce=1)
    for take in (life.coordinator.admit, life.coordinator.submit):
        with pytest.raises(Rejected) as refused:
            take(unknown)
        assert refused.value.reason is Rejection.EXPIRED


@pytest.mark.parametrize("reason", list(Abstention))
def test_a_failed_execution_abstains(life: Life, reason: Abstention) -> None:
    task = fixtures.task(life.net)
    life.hear(task)
    life.running.clear()
    life.take(life.coordinator.failed(task.id, reason))
    (vote,) = [m for m in life.said if not isinstance(m, Task)]
    assert vote.envelope.body["reason"] == reason
    assert life.state(task) is State.ABSTAINED
    life.restart()
    assert not life.running, "an abstention is not taken back"


MANY: Any = {"result": {"outputs": fixtures.outcome()["result"]["outputs"] * 17}}


@pytest.mark.parametrize(
    ("outcome", "trace"),
    [
        (MANY, TRACE),
        (fixtures.outcome(), {"detail": ""}),
        (fixtures.outcome(), {"detail": "x" * 9000}),
        ({"error": "no-such-error"}, TRACE),
        (fixtures.outcome(), {"text": "\ufffe"}),
        (fixtures.outcome(), {"seconds": float("nan")}),
        (fixtures.outcome(), {"seconds": 2**53}),
    ],
    ids=[
        "too many outputs",
        "an empty detail",
        "a long trace",
        "another error",
        "a noncharacter",
        "not a number",
        "a large integer",
    ],
)
def test_an_outcome_that_does_not_fit_a_reveal_abstains(
    life: Life, outcome: Any, trace: Any
) -> None:
    """And is not journalled: neither this node nor its next life could go on with it."""
    task = fixtures.task(life.net)
    life.hear(task)
    life.running.clear()
    life.take(life.coordinator.executed(task.id, outcome, trace))
    assert life.state(task) is State.ABSTAINED
    (vote,) = [m for m in life.said if not isinstance(m, Task)]
    assert vote.envelope.body["reason"] == Abstention.WORKER_DIED
    life.restart()
    life.until(500)
    assert not life.own(Commit)


def test_a_certificate_stops_the_execution(life: Life) -> None:
    task = fixtures.task(life.net)
    one, two = others(life.net, task)
    life.hear(task)
    commits = {peer: fixtures.bound(task, peer, fixtures.outcome()) for peer in (one, two)}
    for peer in (one, two):
        life.hear(fixtures.commit(life.net, task, peer))
        life.hear(fixtures.reveal(life.net, task, peer, commits))
    assert life.state(task) is State.AGREED
    assert StopExecution(task.id) in life.effects
    assert not life.running
    life.take(life.executed(task.id))  # it was too late to stop it
    assert not life.own(Commit)


def test_an_outcome_after_the_end_of_the_task_is_never_signed(life: Life) -> None:
    """Not even when a late vote brings the ended task back from the journal."""
    task = fixtures.task(life.net)
    one, two = others(life.net, task)
    life.hear(task)
    commits = {peer: fixtures.bound(task, peer, fixtures.outcome()) for peer in (one, two)}
    for peer in (one, two):
        life.hear(fixtures.reveal(life.net, task, peer, commits))
    life.take(life.executed(task.id))
    life.restart()
    life.hear(fixtures.commit(life.net, task, one))
    assert life.state(task) is State.AGREED
    assert not life.own(Commit)
    assert not life.running


def test_equivocation_is_recorded(life: Life) -> None:
    task = fixtures.task(life.net)
    one = others(life.net, task)[0]
    life.hear(task)
    for label in ("one", "two"):
        life.hear(fixtures.commit(life.net, task, one, fixtures.outcome(label)))
    (document,) = life.ledger.evidence()
    proof = evidence.verify(document, life.net.id)
    assert (proof.signer, proof.task, proof.attempt) == (one, task.id, 0)
    assert len(life.journal.entries(task.id)) == 3


def test_duplicates_and_further_equivocations_are_not_journalled(life: Life) -> None:
    """A third contradiction too: whoever contradicts itself without end fills no disk."""
    task = fixtures.task(life.net)
    one = others(life.net, task)[0]
    contradictions = [
        fixtures.commit(life.net, task, one, fixtures.outcome(f"lie {n}")) for n in range(9)
    ]
    life.hear(task)
    for vote in (*contradictions, *contradictions):
        life.hear(vote)
    kept = [e.envelope.encode() for e in life.journal.entries(task.id)]
    expected: list[Message] = [task, *contradictions[:2]]
    assert kept == [message.envelope.encode() for message in expected]
    assert life.coordinator.receive(contradictions[0]) == []


def certified(life: Life, task: Task, label: str) -> certificate.Certificate:
    """What the two other members certified between them."""
    found = fixtures.outcome(label)
    commits = {peer: fixtures.bound(task, peer, found) for peer in others(life.net, task)}
    votes = [fixtures.reveal(life.net, task, peer, commits, found) for peer in commits]
    return certificate.assemble(task, 0, votes, life.net)


def contradictory(life: Life, task: Task, *labels: str) -> None:
    """Both other members reveal everything, none of it together with anything of the other."""
    for label in labels:
        for peer in others(life.net, task):
            found = fixtures.outcome(label)
            alone = {peer: fixtures.bound(task, peer, found)}
            life.hear(fixtures.reveal(life.net, task, peer, alone, found))


def test_a_certificate_brings_the_votes_that_were_not_kept(life: Life) -> None:
    """Two equivocators: one by one, neither's reveal would complete anything (correction 6h)."""
    task = fixtures.task(life.net)
    life.hear(task)
    contradictory(life, task, "a", "b")
    found = certified(life, task, "c")
    for vote in found.votes:
        life.hear(vote)
    assert not life.ledger.certificates(task.id)
    for _ in range(2):
        life.step(lambda: life.coordinator.receive_certificate(found), insist=True)
        assert life.state(task) is State.AGREED
        assert life.ledger.certificates(task.id) == [found.document]
    kept = len(life.journal.entries(task.id))
    life.restart()
    life.hear(fixtures.commit(life.net, task, found.signers[0]))  # brings the task back
    life.step(lambda: life.coordinator.receive_certificate(found), insist=True)
    assert life.state(task) is State.AGREED
    assert len(life.journal.entries(task.id)) == kept + 1
    assert not life.own(Commit)


def test_votes_of_a_certificate_survive_a_restart(life: Life) -> None:
    """Else the task would be open again, and end as if nobody had agreed."""
    task = fixtures.task(life.net)
    life.hear(task)
    life.until(2)
    for peer in others(life.net, task):
        life.hear(fixtures.commit(life.net, task, peer))
    life.until(3)
    contradictory(life, task, "a", "b")
    life.step(lambda: life.coordinator.receive_certificate(certified(life, task, "c")), insist=True)
    before = life.ledger.peer_records()
    assert before[ME].times(VoteOutcome.DISSENTED) == 1
    life.restart()
    late = fixtures.commit(life.net, task, others(life.net, task)[0], fixtures.outcome("a"))
    life.hear(late)  # brings the task back
    life.until(121)
    assert life.state(task) is State.AGREED
    assert life.ledger.peer_records() == before


def test_a_second_certified_outcome_is_a_conflict_and_a_third_is_ignored(life: Life) -> None:
    task = fixtures.task(life.net)
    life.hear(task)
    life.hear(certified(life, task, "a").votes[0])
    for label in ("a", "b", "c"):
        found = certified(life, task, label)
        life.step(lambda f=found: life.coordinator.receive_certificate(f), insist=True)  # type: ignore[misc]
    shown = [certified(life, task, label).document for label in ("a", "b")]
    assert life.ledger.certificates(task.id) == shown
    kept = [entry.envelope.encode() for entry in life.journal.entries(task.id)]
    assert len(kept) == len(set(kept)) == 5, "a task, and each vote once"


def test_a_dissent_after_the_end_is_recorded(life: Life) -> None:
    task = fixtures.task(life.net)
    one, two = others(life.net, task)
    life.hear(task)
    life.until(2)
    life.hear(fixtures.commit(life.net, task, one))
    life.hear(fixtures.commit(life.net, task, two, fixtures.outcome("other")))
    commits = {
        **commits_of(life, task, one),
        two: fixtures.bound(task, two, fixtures.outcome("other")),
    }
    life.hear(fixtures.reveal(life.net, task, one, commits))
    assert life.state(task) is State.AGREED
    dissent = fixtures.reveal(life.net, task, two, commits, fixtures.outcome("other"))
    life.hear(dissent)
    assert life.journal.entries(task.id)[-1].envelope.encode() == dissent.envelope.encode()
    assert life.state(task) is State.AGREED
    assert len(life.ledger.certificates(task.id)) == 1
    assert life.ledger.evidence() == []


def test_an_unknown_task_has_no_view(life: Life) -> None:
    assert life.coordinator.view("0" * 64) is None
    vote = fixtures.commit(life.net, fixtures.task(life.net), ME)
    calls: tuple[Callable[[], object], ...] = (
        lambda: life.coordinator.failed("0" * 64, Abstention.BUSY),
        lambda: life.executed("0" * 64),
        lambda: life.coordinator.receive(vote),
    )
    for call in calls:
        with pytest.raises(Rejected) as refused:
            call()
        assert refused.value.reason is Rejection.UNKNOWN_TASK


# Room


def test_tasks_beyond_max_open_are_refused_as_busy(net: Network) -> None:
    life = Life(net, max_open=2)
    tasks = [fixtures.task(net, nonce=n) for n in range(3)]
    for task in tasks[:2]:
        life.hear(task)
    with pytest.raises(Busy, match="2 tasks are open"):
        life.coordinator.receive(tasks[2])
    assert life.coordinator.view(tasks[2].id) is None
    assert judged(life, tasks[2]) is ValidationResult.IGNORE
    life.hear(tasks[0])  # a known one is not refused
    life.disk.close()


def test_one_source_holds_at_most_half_of_the_open_tasks(net: Network) -> None:
    life = Life(net, max_open=4)
    tasks = [fixtures.task(net, nonce=n, requester=2000 + n) for n in range(6)]
    life.take(life.coordinator.submit(tasks[0], "flooder"))
    life.take(life.coordinator.receive(tasks[1], "flooder"))
    takes = (life.coordinator.admit, life.coordinator.submit, life.coordinator.receive)
    for refused in takes:
        with pytest.raises(Busy, match="half of 4"):
            refused(tasks[2], "flooder")
    assert life.counts == {"tasks-refused": 3}
    assert life.coordinator.receive(tasks[0], "flooder") == [], "a known one is not refused"
    life.take(life.coordinator.receive(tasks[3], "honest"))
    life.take(life.coordinator.receive(tasks[2]))  # nobody is charged
    with pytest.raises(Busy, match="4 tasks are open"):
        life.coordinator.receive(tasks[4], "honest")
    assert judged(life, tasks[4]) is ValidationResult.IGNORE
    assert life.counts == {"tasks-refused": 5}
    life.disk.close()


def test_a_member_may_be_the_source_of_all_open_tasks(net: Network) -> None:
    life = Life(net, max_open=2)
    for number in range(2):
        task = fixtures.task(net, nonce=number)
        life.take(life.coordinator.receive(task, fixtures.peer(1)))
    assert life.counts == {}
    life.disk.close()


def test_the_sources_of_evicted_tasks_are_forgotten(net: Network) -> None:
    life = Life(net, max_open=2)
    for number in range(10):
        task = fixtures.task(net, nonce=number, deadline=60, now=life.clock.time)
        life.take(life.coordinator.receive(task, "one"))
        life.until(life.clock.time - fixtures.START + 100)
        assert len(life.coordinator._tasks._sources) <= 3
    life.disk.close()


def test_the_source_of_a_task_is_known_until_a_restart(net: Network) -> None:
    life = Life(net)
    task = fixtures.task(net)
    life.take(life.coordinator.receive(task, "one"))
    assert life.coordinator.source(task.id) == "one"
    life.restart()  # which forgets it
    assert set(life.running) == {task.id}
    assert life.coordinator.source(task.id) == ""
    life.disk.close()


def test_evicted_tasks_are_rebuilt_for_a_late_vote(net: Network) -> None:
    life = Life(net, max_open=1)
    first = fixtures.task(net, deadline=60)
    one, two = others(net, first)
    life.hear(first)
    with pytest.raises(Busy):
        life.coordinator.receive(fixtures.task(net, nonce=2))
    life.until(2)
    life.hear(fixtures.commit(net, first, one))
    life.hear(fixtures.commit(net, first, two))
    commits = commits_of(life, first, one, two)
    life.hear(fixtures.reveal(net, first, one, commits))
    life.until(30)
    second = fixtures.task(net, nonce=1, now=fixtures.START + 61)
    life.until(61)
    life.hear(second)
    late = fixtures.reveal(net, first, two, commits)
    assert judged(life, late) is ValidationResult.IGNORE
    said = len(life.said)
    life.hear(late)
    assert life.journal.entries(first.id)[-1].envelope.encode() == late.envelope.encode()
    assert life.state(first) is State.AGREED
    assert len(life.said) == said, "nothing is signed for a task that has ended"
    life.disk.close()


def test_a_duplicate_vote_does_not_rebuild_an_evicted_task(
    net: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A peer's feed begins with all that was ever said: none of it may cost more than a look."""
    life = Life(net)
    task = fixtures.task(net, deadline=60)
    one, two = others(net, task)
    life.hear(task)
    life.until(2)
    for peer in (one, two):
        life.hear(fixtures.commit(net, task, peer))
    commits = commits_of(life, task, one, two)
    life.hear(fixtures.reveal(net, task, one, commits))
    life.until(30)
    assert life.state(task) is State.AGREED
    life.restart()
    read: list[str] = []
    entries = Journal.entries

    def counted(journal: Journal, of: str) -> Any:
        read.append(of)
        return entries(journal, of)

    monkeypatch.setattr(Journal, "entries", counted)
    journal = len(life.journal.feed(0, 1000))
    life.hear(fixtures.commit(net, task, one))
    life.hear(fixtures.reveal(net, task, one, commits))
    assert not read
    assert len(life.journal.feed(0, 1000)) == journal
    life.hear(fixtures.reveal(net, task, two, commits))
    assert read == [task.id]


def test_ended_tasks_do_not_count_as_open(net: Network) -> None:
    """Long before their deadlines: a thousand quick tasks must not close a node for an hour."""
    life = Life(net, max_open=2)
    done = []
    for nonce in range(7):
        task = fixtures.task(net, nonce=nonce, deadline=3600)
        life.hear(task)
        for member in others(net, task):
            life.hear(fixtures.abstain(net, task, member))
        assert life.state(task) is State.INCONCLUSIVE
        done.append(task)
    assert len(life.coordinator._tasks._agreements) <= 4
    assert judged(life, done[0]) is ValidationResult.IGNORE, (
        "a task that is over is not spread again"
    )
    life.hear(fixtures.task(net, nonce=100))
    life.disk.close()


# Judging


def judged(life: Life, message: Message, *, tasks: bool | None = None) -> ValidationResult:
    topic = isinstance(message, Task) if tasks is None else tasks
    result, parsed = life.coordinator.validator.validate(message.envelope.encode(), tasks=topic)
    assert parsed == (message if result is ValidationResult.ACCEPT else None)
    return result


def test_new_valid_messages_are_accepted(life: Life) -> None:
    task = fixtures.task(life.net)
    assert judged(life, task) is ValidationResult.ACCEPT
    life.hear(task)
    assert judged(life, fixtures.commit(life.net, task, ME)) is ValidationResult.ACCEPT
    assert judged(life, fixtures.abstain(life.net, task, ME)) is ValidationResult.ACCEPT


def test_validation_changes_nothing(life: Life) -> None:
    task = fixtures.task(life.net)
    judged(life, task)
    assert life.coordinator.view(task.id) is None
    life.hear(task)
    vote = fixtures.commit(life.net, task, others(life.net, task)[0])
    judged(life, vote)
    assert judged(life, vote) is ValidationResult.ACCEPT
    assert len(life.journal.entries(task.id)) == 1


def test_duplicates_are_ignored(life: Life) -> None:
    task = fixtures.task(life.net)
    vote = fixtures.commit(life.net, task, others(life.net, task)[0])
    life.hear(task)
    life.hear(vote)
    assert judged(life, task) is ValidationResult.IGNORE
    assert judged(life, vote) is ValidationResult.IGNORE


def test_untimely_messages_are_ignored(life: Life) -> None:
    unknown = fixtures.task(life.net)
    assert judged(life, fixtures.commit(life.net, unknown, ME)) is ValidationResult.IGNORE
    assert judged(life, fixtures.task(life.net, now=fixtures.START + 61)) is ValidationResult.IGNORE
    assert (
        judged(life, fixtures.task(life.net, now=fixtures.START - 600)) is ValidationResult.IGNORE
    )
    for untimely, reason in ((61, Rejection.CREATED_AHEAD), (-600, Rejection.EXPIRED)):
        task = fixtures.task(life.net, now=fixtures.START + untimely)
        with pytest.raises(Rejected) as refused:
            life.coordinator.receive(task)
        assert refused.value.reason is reason


@pytest.mark.parametrize(
    "payload",
    [b"", b"{", b"\xff", b"[]", b"{}", b"[" * 50_000, b" " * 65_537],
    ids=lambda payload: repr(payload[:4]),
)
def test_malformed_messages_are_rejected(life: Life, payload: bytes) -> None:
    for tasks in (False, True):
        assert life.coordinator.validator.validate(payload, tasks=tasks) == (
            ValidationResult.REJECT,
            None,
        )


def test_a_bad_signature_is_rejected(life: Life) -> None:
    task = fixtures.task(life.net)
    vote = fixtures.commit(life.net, task, ME)
    life.hear(task)
    for message, topic in ((fixtures.task(life.net, nonce=9), True), (vote, False)):
        forged = sign(message.envelope.body, fixtures.key(2)).document()
        payload = canonical({**forged, "signer": fixtures.peer(1)})
        assert life.coordinator.validator.validate(payload, tasks=topic) == (
            ValidationResult.REJECT,
            None,
        )


def test_a_voter_outside_the_committee_is_rejected(life: Life) -> None:
    task = fixtures.task(life.net)
    life.hear(task)
    bound = fixtures.bound(task, ME, fixtures.outcome())
    body = messages.commit_body(life.net.id, task.id, 0, bound)
    stranger = fixtures.signed(life.net, body, 1001)
    assert judged(life, stranger) is ValidationResult.REJECT
    with pytest.raises(Rejected) as refused:
        life.coordinator.receive(stranger)
    assert refused.value.reason is Rejection.NOT_A_MEMBER
    assert len(life.journal.entries(task.id)) == 1


def test_a_vote_for_a_nonexistent_attempt_is_rejected(life: Life) -> None:
    task = fixtures.task(life.net)
    life.hear(task)
    assert judged(life, fixtures.commit(life.net, task, ME, attempt=1)) is ValidationResult.REJECT


def test_a_message_on_the_wrong_topic_is_rejected(life: Life) -> None:
    task = fixtures.task(life.net)
    assert judged(life, task, tasks=False) is ValidationResult.REJECT
    life.hear(task)
    assert judged(life, fixtures.commit(life.net, task, ME), tasks=True) is ValidationResult.REJECT


def test_a_message_of_another_network_is_rejected(life: Life) -> None:
    other = fixtures.network(4)
    task = fixtures.task(other)
    assert judged(life, task) is ValidationResult.REJECT
    assert judged(life, fixtures.abstain(other, task, ME)) is ValidationResult.REJECT


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
    life: Life, changes: dict[str, Any], reason: Rejection
) -> None:
    task = fixtures.task(life.net, **changes)
    assert judged(life, task) is ValidationResult.REJECT
    for take in (life.coordinator.admit, life.coordinator.receive):
        with pytest.raises(Rejected) as refused:
            take(task)
        assert refused.value.reason is reason
    assert life.coordinator.view(task.id) is None
