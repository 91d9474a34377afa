"""What the ledger records of each member's votes: once per attempt, also after a crash."""

from collections.abc import Callable

import pytest

from node.storage.ledger import Ledger
from protocol.consensus.committee import committees
from protocol.consensus.conduct import Conduct, VoteOutcome
from tests.node.consensus.test_coordinator import (
    CASES,
    ME,
    Case,
    CrashableNode,
    commits_of,
    every_case,
    other_members,
)
from tests.support import fixtures

LIE = fixtures.outcome("lie")


def counts(ledger: Ledger) -> dict[str, dict[str, int]]:
    return {
        peer: {name: count for name, count in standing.document().items() if count}
        for peer, standing in ledger.peer_records().items()
    }


def played(
    case: Case, cut: Callable[[CrashableNode], None] = lambda life: None
) -> dict[str, dict[str, int]]:
    life = CrashableNode(case.net)
    cut(life)
    case.play(life, case.task)
    records = counts(life.ledger)
    life.disk.close()
    return records


def test_complete_round_counts_once_per_member() -> None:
    members = committees(CASES["in full"].net, CASES["in full"].task)[0]
    assert played(CASES["in full"]) == {member: {"agreed": 1} for member in members}


def test_late_committer_that_never_reveals_has_withheld() -> None:
    case = CASES["late"]
    first, second = other_members(case.net, case.task)
    assert played(case) == {ME: {"agreed": 1}, first: {"agreed": 1}, second: {"withheld": 1}}


@pytest.mark.parametrize("after", [False, True], ids=["before the write", "after the write"])
@every_case
def test_crash_at_any_write_neither_loses_nor_doubles_counts(case: Case, after: bool) -> None:
    undisturbed = played(case)
    index, fired = 0, True
    while fired:
        lives: list[CrashableNode] = []

        def cut(life: CrashableNode, at: int = index, lives: list[CrashableNode] = lives) -> None:
            life.disk.fail_at, life.disk.after = at, after
            lives.append(life)

        assert played(case, cut) == undisturbed
        fired, index = lives[0].disk.fired, index + 1
    assert index > 20


def test_late_certificate_removes_outcomes_of_later_attempts() -> None:
    life = CrashableNode(fixtures.network(3))
    journal, ledger = life.journal, life.ledger
    with journal.transaction():
        ledger.put_conduct(
            "a" * 64, [Conduct(i, fixtures.peer(1), VoteOutcome.UNSETTLED) for i in range(3)]
        )
    with journal.transaction():
        ledger.put_conduct("a" * 64, [Conduct(0, fixtures.peer(1), VoteOutcome.AGREED)])
    assert counts(ledger) == {fixtures.peer(1): {"agreed": 1}}


def test_late_dissent_replaces_withheld_reveal_across_restarts() -> None:
    life = CrashableNode(fixtures.network(3))
    task = fixtures.task(life.net)
    first, second = other_members(life.net, task)
    life.receive(task)
    life.until(2)
    life.receive(fixtures.commit(life.net, task, first))
    life.receive(fixtures.commit(life.net, task, second, LIE))
    commits = {**commits_of(life, task, first), second: fixtures.commitment_of(task, second, LIE)}
    life.receive(fixtures.reveal(life.net, task, first, commits))
    assert counts(life.ledger)[second] == {"withheld": 1}
    for _ in range(2):
        life.receive(fixtures.reveal(life.net, task, second, commits, LIE))
        life.restart()
    assert counts(life.ledger) == {
        ME: {"agreed": 1},
        first: {"agreed": 1},
        second: {"dissented": 1},
    }
    life.disk.close()


def test_open_task_is_not_counted() -> None:
    life = CrashableNode(fixtures.network(3))
    life.receive(fixtures.task(life.net))
    life.until(2)
    assert life.ledger.peer_records() == {}
    life.disk.close()
