"""A requester withdraws its task: journalled once, obeyed by members that have not begun (6.9)."""

import itertools
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from node.storage.journal import Journal
from node.transport.interface import ValidationResult
from protocol.consensus.committee import committees
from protocol.consensus.effects import Execute, State, Withdrawn
from protocol.errors import Rejected, Rejection
from protocol.network import Network
from protocol.wire import codec
from protocol.wire.messages import Abstain, Abstention, Commit, Task, Withdraw
from tests.node.consensus.test_coordinator import (
    ME,
    CrashableNode,
    commits_of,
    other_members,
    validated,
)
from tests.support import fixtures
from tests.support.journals import accepted


class QueueingNode(CrashableNode):
    """Its executions wait in a queue until `begun`; a withdrawal takes a waiting one out."""

    def __init__(self, net: Network) -> None:
        self.begun = False
        super().__init__(net)

    def carry_out(self, effects: list[Any]) -> None:
        super().carry_out(effects)
        for effect in effects:
            if isinstance(effect, Withdrawn) and not self.begun:
                del self.running[effect.task]
                self.step(lambda t=effect.task: self.withdrawn(t), retry=False)  # type: ignore[misc]

    def withdrawn(self, task: str) -> list[Any]:
        return self.coordinator.failed(task, Abstention.WITHDRAWN)

    def abstentions(self) -> list[tuple[Abstention, int]]:
        bodies = {v.envelope.body_bytes: v for v in self.own_votes(Abstain)}
        votes = [v for v in bodies.values() if isinstance(v, Abstain)]
        return [(vote.reason, vote.attempt) for vote in votes]

    def kept(self, task: Task) -> list[str]:
        return [entry.type for entry in self.journal.entries(task.id)]


@pytest.fixture
def node() -> Iterator[QueueingNode]:
    """A node in a network of three, whose committees have one, then three members."""
    node = QueueingNode(fixtures.network(3, committee_size=1))
    yield node
    node.disk.close()


def first_committees_task(net: Network) -> Task:
    """Return a task whose first committee has this node and others."""
    tasks = (fixtures.task(net, nonce=nonce) for nonce in itertools.count())
    return next(task for task in tasks if ME in committees(net, task)[0])


def own_task(net: Network) -> Task:
    """A task whose first committee is this node."""
    tasks = (fixtures.task(net, nonce=nonce) for nonce in range(64))
    return next(task for task in tasks if committees(net, task)[0] == (ME,))


def other_task(net: Network) -> Task:
    """A task for whose first committee this node was not chosen."""
    tasks = (fixtures.task(net, nonce=nonce) for nonce in range(64))
    return next(task for task in tasks if committees(net, task)[0] != (ME,))


def test_member_that_has_not_begun_abstains_in_every_attempt(node: QueueingNode) -> None:
    """Alone in the first committee, so that its abstention ends that attempt at once."""
    task = own_task(node.net)
    node.receive(task)
    node.receive(fixtures.withdraw(node.net, task))
    assert node.abstentions() == [(Abstention.WITHDRAWN, 0), (Abstention.WITHDRAWN, 1)]
    assert not node.running
    node.receive(fixtures.abstain(node.net, task, other_members(node.net, task)[0], attempt=1))
    assert node.state(task) is State.INCONCLUSIVE
    assert not any(isinstance(e, Execute) for e in node.effects[2:])


def test_member_that_has_begun_goes_on(node: QueueingNode) -> None:
    task = own_task(node.net)
    node.begun = True
    node.receive(task)
    node.receive(fixtures.withdraw(node.net, task))
    assert set(node.running) == {task.id}
    node.until(5)
    assert node.state(task) is State.AGREED
    assert node.abstentions() == []


def test_member_with_an_outcome_goes_on_after_a_restart_too() -> None:
    node = QueueingNode(fixtures.network(3))
    task = fixtures.task(node.net)
    node.receive(task)
    node.until(2)
    node.receive(fixtures.withdraw(node.net, task))
    node.restart()
    one, two = other_members(node.net, task)
    for member in (one, two):
        node.receive(fixtures.commit(node.net, task, member))
    node.until(3)
    commits = commits_of(node, task, one, two)
    node.receive(fixtures.reveal(node.net, task, one, commits))
    assert node.state(task) is State.AGREED
    assert node.abstentions() == []
    node.disk.close()


def test_execution_that_a_restart_cut_short_is_not_begun_again(node: QueueingNode) -> None:
    task = own_task(node.net)
    node.begun = True
    node.receive(task)
    node.receive(fixtures.withdraw(node.net, task))
    node.restart()
    assert not node.running
    assert node.abstentions() == [(Abstention.WITHDRAWN, 0), (Abstention.WITHDRAWN, 1)]


def test_withdrawal_is_remembered_across_restarts_for_later_attempts(node: QueueingNode) -> None:
    task = other_task(node.net)
    (chosen,) = committees(node.net, task)[0]
    node.receive(task)
    node.receive(fixtures.withdraw(node.net, task))
    node.restart()
    assert node.abstentions() == []  # it is in no committee yet
    node.receive(fixtures.abstain(node.net, task, chosen))
    assert node.abstentions() == [(Abstention.WITHDRAWN, 1)]
    node.restart()
    assert node.abstentions() == [(Abstention.WITHDRAWN, 1)]


@pytest.mark.parametrize("after", [False, True], ids=["before the write", "after the write"])
def test_a_crash_at_any_write_changes_no_vote(after: bool) -> None:
    net = fixtures.network(3, committee_size=1)
    task, index, fired = own_task(net), 0, True
    while fired:
        node = QueueingNode(net)
        node.disk.fail_at, node.disk.after = index, after
        node.receive(task)
        node.receive(fixtures.withdraw(net, task))
        node.until(5)
        assert node.abstentions() == [(Abstention.WITHDRAWN, 0), (Abstention.WITHDRAWN, 1)]
        assert sorted(node.kept(task)) == ["abstain", "abstain", "task", "withdraw"]
        assert node.own_votes(Commit) == []
        fired, index = node.disk.fired, index + 1
        node.disk.close()
    assert index > 8


def test_only_the_requester_withdraws(node: QueueingNode) -> None:
    task = own_task(node.net)
    node.receive(task)
    stranger = fixtures.withdraw(node.net, task, requester=1001)
    assert validated(node, stranger) is ValidationResult.REJECT
    with pytest.raises(Rejected) as refused:
        node.coordinator.receive(stranger)
    assert refused.value.reason is Rejection.NOT_THE_REQUESTER
    assert node.kept(task) == ["task"]
    assert set(node.running) == {task.id}


def test_withdrawal_is_accepted_once(node: QueueingNode) -> None:
    task = own_task(node.net)
    node.begun = True
    node.receive(task)
    withdrawal = fixtures.withdraw(node.net, task)
    assert validated(node, withdrawal) is ValidationResult.ACCEPT
    for _ in range(2):
        node.receive(withdrawal)
        assert validated(node, withdrawal) is ValidationResult.IGNORE
        assert node.coordinator.receive(withdrawal) == []
    assert node.kept(task) == ["task", "withdraw"]
    node.restart()
    node.receive(withdrawal)
    assert node.kept(task).count("withdraw") == 1


def test_withdrawal_of_an_unknown_task_is_ignored(node: QueueingNode) -> None:
    withdrawal = fixtures.withdraw(node.net, own_task(node.net))
    assert validated(node, withdrawal) is ValidationResult.IGNORE
    with pytest.raises(Rejected) as refused:
        node.coordinator.receive(withdrawal)
    assert refused.value.reason is Rejection.UNKNOWN_TASK
    assert node.journal.feed(0, 10) == []


def test_withdrawal_on_the_topic_of_tasks_is_rejected(node: QueueingNode) -> None:
    task = own_task(node.net)
    node.receive(task)
    withdrawal = fixtures.withdraw(node.net, task)
    assert validated(node, withdrawal, tasks=True) is ValidationResult.REJECT


def test_withdrawal_of_a_task_that_has_ended_is_kept_for_the_feed(node: QueueingNode) -> None:
    task = own_task(node.net)
    node.receive(task)
    node.until(5)
    assert node.state(task) is State.AGREED
    withdrawal = fixtures.withdraw(node.net, task)
    node.receive(withdrawal)
    assert node.kept(task)[-1] == "withdraw"
    assert accepted(node.journal)[-1] == (withdrawal.envelope.encode())
    assert node.state(task) is State.AGREED


def test_a_known_withdrawal_does_not_rebuild_a_task_that_has_ended(
    node: QueueingNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A feed begins with all old messages. Each may cost one query, not a rebuild."""
    task = own_task(node.net)
    node.receive(task)
    node.until(5)
    withdrawal = fixtures.withdraw(node.net, task)
    node.receive(withdrawal)
    node.restart()
    monkeypatch.delattr(Journal, "entries")
    assert node.coordinator.receive(withdrawal) == []
    # Its signer can make any number of valid signatures of one body.
    signed_anew = replace(withdrawal.envelope, signature="B" * 86)
    assert node.coordinator.receive(replace(withdrawal, envelope=signed_anew)) == []


def test_member_abstains_once_in_an_attempt() -> None:
    """Two reasons in one attempt would prove an equivocation."""
    node = QueueingNode(fixtures.network(5))
    node.begun = True
    task = first_committees_task(node.net)
    node.receive(task)
    node.running[task.id] += 1000.0
    node.receive(fixtures.withdraw(node.net, task))
    node.disk.fail_at, node.disk.error = node.disk.writes, sqlite3.OperationalError
    other = next(m for m in committees(node.net, task)[0] if m != ME)
    with pytest.raises(sqlite3.OperationalError):
        node.coordinator.receive(fixtures.commit(node.net, task, other))
    node.until(60)  # rebuilt, while the execution runs on
    node.clock.time = fixtures.START + 120.02  # the next attempt is due, and no tick has come
    node.step(lambda: node.coordinator.failed(task.id, Abstention.OUT_OF_MEMORY), retry=False)
    node.restart()
    node.until(130)
    kinds = [entry.type for entry in node.journal.entries(task.id) if entry.signer == ME]
    assert kinds == ["abstain", "abstain"]
    assert [attempt for _, attempt in node.abstentions()] == [0, 1]
    assert node.ledger.evidence() == []
    node.disk.close()


def test_restart_after_the_attempts_end_abstains_once() -> None:
    node = QueueingNode(fixtures.network(5))
    task = first_committees_task(node.net)
    node.receive(task)
    node.receive(fixtures.withdraw(node.net, task))
    node.disk.recover()
    node.clock.time = fixtures.START + 121
    node.start()
    kinds = [entry.type for entry in node.journal.entries(task.id) if entry.signer == ME]
    assert kinds == ["abstain"] * len(node.abstentions())
    node.disk.close()


def test_withdrawal_comes_by_feed_as_bytes(node: QueueingNode) -> None:
    """The bytes of one node's feed, read by another."""
    task = own_task(node.net)
    node.receive(task)
    node.receive(fixtures.withdraw(node.net, task))
    reader = QueueingNode(node.net)
    for text in accepted(node.journal):
        message = codec.decode(text, node.net.id)
        if isinstance(message, Task | Withdraw):
            reader.receive(message)
    assert reader.kept(task)[:2] == ["task", "withdraw"]
    reader.disk.close()
