"""Members that failed in earlier tasks do not start the wait of later ones (specification 6.8)."""

from collections.abc import Callable, Iterator
from typing import TypeAlias

import pytest

from protocol.consensus.conduct import SUSPECT_TASKS, VoteOutcome
from protocol.consensus.effects import State
from protocol.wire.messages import Abstention, Commit, Reveal, Task, Vote
from tests.node.consensus.test_coordinator import ME, CrashableNode
from tests.support import fixtures

HONEST, LIAR = fixtures.peer(1), fixtures.peer(2)
HONEST_OUTCOME, LIE = fixtures.outcome(), fixtures.outcome("lie")
Fault: TypeAlias = Callable[["Scene"], Task]


class Scene(CrashableNode):
    """This node and two members: an honest one, and one that may fail. All are in each task."""

    def __init__(self) -> None:
        super().__init__(fixtures.network(3))
        self.tasks = 0

    @property
    def elapsed(self) -> float:
        return self.clock.time - fixtures.START

    def accept(self) -> Task:
        """Accept a new task."""
        self.tasks += 1
        task = fixtures.task(self.net, nonce=self.tasks, now=self.clock.time)
        self.receive(task)
        return task

    def suspects(self, task: Task) -> frozenset[str]:
        return self.journal.suspects(task.id)

    def commits(self, task: Task) -> dict[str, str]:
        votes = (v for v in self.own_votes(Commit) if isinstance(v, Commit))
        own = next(v.commitment for v in votes if v.task == task.id)
        return {HONEST: fixtures.commitment_of(task, HONEST, fixtures.outcome()), ME: own}

    def agree(self, *liars_commits: Vote, task: Task) -> None:
        """This node and the honest member agree, with these votes of the liar before."""
        self.receive(fixtures.commit(self.net, task, HONEST))
        for vote in liars_commits:
            self.receive(vote)
        self.until(self.elapsed + 2)
        self.receive(fixtures.reveal(self.net, task, HONEST, self.commits(task)))
        self.until(self.elapsed + 4)
        assert self.state(task) is State.AGREED

    def agree_all(self) -> Task:
        """End a task in which all three agree."""
        task = self.accept()
        self.until(self.elapsed + 1.5)  # executed
        for member in (HONEST, LIAR):
            self.receive(fixtures.commit(self.net, task, member))
        commits = self.commits(task) | {LIAR: fixtures.commitment_of(task, LIAR, HONEST_OUTCOME)}
        for member in (HONEST, LIAR):
            self.receive(fixtures.reveal(self.net, task, member, commits))
        self.until(self.elapsed + 0.5)
        assert self.state(task) is State.AGREED
        return task

    def end_cleanly(self) -> Task:
        """End a task in which nobody fails: all abstain."""
        task = self.accept()
        self.running.clear()
        self.carry_out(self.coordinator.failed(task.id, Abstention.BUSY))
        for member in (HONEST, LIAR):
            self.receive(fixtures.abstain(self.net, task, member))
        assert self.state(task) is State.INCONCLUSIVE
        return task

    def reveals(self, task: Task) -> bool:
        return any(v.task == task.id for v in self.own_votes(Reveal))


@pytest.fixture
def scene() -> Iterator[Scene]:
    scene = Scene()
    yield scene
    scene.disk.close()


def equivocate(scene: Scene) -> Task:
    task = scene.accept()
    commits = [fixtures.commit(scene.net, task, LIAR, o) for o in (None, LIE)]
    scene.agree(*commits, task=task)
    return task


def dissent(scene: Scene) -> Task:
    task = scene.accept()
    scene.agree(fixtures.commit(scene.net, task, LIAR, LIE), task=task)
    lies = {LIAR: fixtures.commitment_of(task, LIAR, LIE)}
    scene.receive(fixtures.reveal(scene.net, task, LIAR, lies, LIE))
    return task


def withhold(scene: Scene) -> Task:
    task = scene.accept()
    scene.agree(fixtures.commit(scene.net, task, LIAR, LIE), task=task)
    return task


@pytest.mark.parametrize("fault", [equivocate, dissent], ids=["equivocation", "dissent"])
def test_fault_that_votes_prove_makes_a_suspect_in_the_next_task(
    scene: Scene, fault: Fault
) -> None:
    assert scene.suspects(fault(scene)) == frozenset()
    assert scene.suspects(scene.accept()) == {LIAR}


def test_other_outcome_than_ones_own_makes_a_suspect_where_none_is_certified(scene: Scene) -> None:
    task = scene.accept()
    scene.until(2)
    scene.receive(fixtures.reveal(scene.net, task, LIAR, {}, LIE))
    scene.receive(fixtures.abstain(scene.net, task, HONEST))
    assert scene.state(task) is State.INCONCLUSIVE
    assert scene.suspects(scene.accept()) == {LIAR}


def test_withheld_reveal_makes_a_suspect_after_attempt_seconds(scene: Scene) -> None:
    """120 s after the first reveal of the attempt, which this node's own may be."""
    task = withhold(scene)
    first = next(e.at for e in scene.journal.entries(task.id) if e.type == "reveal")
    scene.clock.time = first + 119.9
    assert scene.suspects(scene.accept()) == frozenset()
    scene.clock.time = first + 120
    assert scene.suspects(scene.accept()) == {LIAR}


def test_late_reveal_of_the_certified_outcome_takes_the_suspicion_back(scene: Scene) -> None:
    task = scene.accept()
    scene.agree(fixtures.commit(scene.net, task, LIAR), task=task)
    scene.until(scene.elapsed + 300)
    assert scene.suspects(scene.accept()) == {LIAR}
    commits = {**scene.commits(task), LIAR: fixtures.commitment_of(task, LIAR, fixtures.outcome())}
    scene.receive(fixtures.reveal(scene.net, task, LIAR, commits))
    assert scene.suspects(scene.accept()) == frozenset()


def test_member_that_has_not_revealed_by_the_end_has_done_nothing_wrong(scene: Scene) -> None:
    """A task ends at the quorum's reveal; the third one is on its way."""
    withhold(scene)
    assert scene.suspects(scene.accept()) == frozenset()


def test_suspect_is_forgotten_after_it_agreed_20_times_and_not_after_19(scene: Scene) -> None:
    equivocate(scene)
    for _ in range(19):
        assert scene.suspects(scene.agree_all()) == {LIAR}
    assert scene.suspects(scene.agree_all()) == {LIAR}  # accepted after 19
    assert SUSPECT_TASKS == 20
    assert scene.suspects(scene.accept()) == frozenset()


def test_tasks_in_which_a_suspect_did_not_agree_do_not_clear_it(scene: Scene) -> None:
    """Anybody could submit many tasks of one second in its favour."""
    equivocate(scene)
    for _ in range(25):
        scene.end_cleanly()
    assert scene.suspects(scene.accept()) == {LIAR}


def test_task_that_has_not_ended_counts_for_nothing(scene: Scene) -> None:
    equivocate(scene)
    for _ in range(25):
        scene.accept()
    assert scene.suspects(scene.accept()) == {LIAR}


def test_another_fault_starts_the_count_again(scene: Scene) -> None:
    equivocate(scene)
    for _ in range(10):
        scene.agree_all()
    dissent(scene)
    for _ in range(19):
        scene.agree_all()
    assert scene.suspects(scene.agree_all()) == {LIAR}
    assert scene.suspects(scene.accept()) == frozenset()


def test_fault_that_is_recorded_after_acceptance_changes_nothing(scene: Scene) -> None:
    task = scene.accept()
    equivocate(scene)
    assert scene.suspects(task) == frozenset()
    scene.receive(fixtures.commit(scene.net, task, LIAR, LIE))
    scene.restart()
    scene.until(scene.elapsed + 5)
    assert scene.reveals(task)  # the liar's commit started the wait


def test_commit_of_a_suspect_starts_no_wait_and_is_listed(scene: Scene) -> None:
    equivocate(scene)
    task = scene.accept()
    scene.receive(fixtures.commit(scene.net, task, LIAR, LIE))
    scene.until(scene.elapsed + 60)
    assert scene.state(task) is State.COMMITTED
    assert not scene.reveals(task)
    scene.receive(fixtures.commit(scene.net, task, HONEST))  # all commits end the wait
    scene.until(scene.elapsed + 1)
    (own,) = (v for v in scene.own_votes(Reveal) if v.task == task.id)
    assert set(own.envelope.body["commits"]) == {ME, HONEST, LIAR}  # type: ignore[arg-type]


def test_suspects_survive_a_restart_though_the_record_has_changed(scene: Scene) -> None:
    """They are replayed from the journal, so that no time and no list changes."""
    first = scene.accept()
    scene.agree(fixtures.commit(scene.net, first, LIAR), task=first)
    scene.until(scene.elapsed + 300)
    task = scene.accept()
    assert scene.suspects(task) == {LIAR}
    scene.receive(fixtures.commit(scene.net, task, LIAR, LIE))
    commits = {
        **scene.commits(first),
        LIAR: fixtures.commitment_of(first, LIAR, fixtures.outcome()),
    }
    scene.receive(fixtures.reveal(scene.net, first, LIAR, commits))  # takes the suspicion back
    scene.restart()
    accepted = scene.elapsed
    scene.until(accepted + 60)
    assert scene.state(task) is State.COMMITTED
    assert not scene.reveals(task)
    scene.restart()
    scene.until(accepted + 130)  # every commit counts `attempt_seconds` after acceptance
    assert scene.reveals(task)


def test_own_node_is_never_a_suspect(scene: Scene) -> None:
    """Its own outcome was outvoted; its own commit still counts."""
    task = scene.accept()
    scene.until(2)
    commits = {m: fixtures.commitment_of(task, m, LIE) for m in (HONEST, LIAR)}
    for member in (HONEST, LIAR):
        scene.receive(fixtures.commit(scene.net, task, member, LIE))
    scene.until(3)
    assert scene.reveals(task)
    for member in (HONEST, LIAR):
        scene.receive(fixtures.reveal(scene.net, task, member, commits, LIE))
    assert scene.state(task) is State.AGREED
    assert scene.ledger.peer_records()[ME].times(VoteOutcome.DISSENTED) == 1
    following = scene.accept()
    scene.receive(fixtures.commit(scene.net, following, HONEST))
    scene.until(scene.elapsed + 6)
    assert scene.reveals(following)
