"""Who is held to have done what, whatever the order of its messages, and counted once."""

from collections.abc import Callable, Sequence

import pytest

from node.storage.ledger import Ledger
from protocol.consensus.agreement import Agreement
from protocol.consensus.committee import committees
from protocol.consensus.conduct import (
    MAX_DISSENT_PENALTY,
    PeerRecord,
    VoteOutcome,
    score_floor,
    vote_outcomes,
)
from protocol.network import Network
from protocol.wire.messages import Task, Vote
from tests.node.consensus.test_coordinator import (
    CASES,
    ME,
    Case,
    Life,
    commits_of,
    every_case,
    others,
)
from tests.support import fixtures

BAN = 20.0  # points: the default of the setting `ban_points`
NET = fixtures.network(3)
TASK = fixtures.task(NET)
A, B, C = committees(NET, TASK)[0]
LIE = fixtures.outcome("lie")
ALL = {
    A: fixtures.bound(TASK, A, fixtures.outcome()),
    B: fixtures.bound(TASK, B, fixtures.outcome()),
}
LIED = {**ALL, C: fixtures.bound(TASK, C, LIE)}
PAIR = [fixtures.reveal(NET, TASK, A, ALL), fixtures.reveal(NET, TASK, B, ALL)]


def seen(votes: Sequence[Vote], net: Network = NET, task: Task = TASK) -> Agreement:
    """The task at a node that votes in nothing and has received the votes."""
    agreement = Agreement(net, task, "", lambda attempt: "", fixtures.START)
    agreement.start(fixtures.START)
    for vote in votes:
        agreement.receive(vote, fixtures.START + 1)
    return agreement


def conduct(peer: str, votes: Sequence[Vote]) -> VoteOutcome:
    found = {(attempt, who): what for attempt, who, what in vote_outcomes(seen(votes))}
    assert {who for attempt, who in found if attempt == 0} == {A, B, C}
    return found[0, peer]


@pytest.mark.parametrize(
    ("expected", "votes"),
    [
        (VoteOutcome.SILENT, []),
        (VoteOutcome.SILENT, [fixtures.commit(NET, TASK, C)]),
        (VoteOutcome.ABSTAINED, [fixtures.abstain(NET, TASK, C)]),
        (
            VoteOutcome.DISSENTED,
            [fixtures.commit(NET, TASK, C, LIE), fixtures.reveal(NET, TASK, C, LIED, LIE)],
        ),
        (
            VoteOutcome.DISSENTED,
            [fixtures.abstain(NET, TASK, C), fixtures.reveal(NET, TASK, C, LIED, LIE)],
        ),
        (VoteOutcome.LATE, [fixtures.reveal(NET, TASK, C, ALL)]),
        (
            VoteOutcome.EQUIVOCATED,
            [fixtures.commit(NET, TASK, C), fixtures.commit(NET, TASK, C, LIE)],
        ),
        (
            VoteOutcome.EQUIVOCATED,
            [fixtures.commit(NET, TASK, C), fixtures.reveal(NET, TASK, C, LIED, LIE)],
        ),
    ],
)
@pytest.mark.parametrize("late", [False, True], ids=["before the end", "after the end"])
def test_what_the_third_member_did(expected: VoteOutcome, votes: list[Vote], late: bool) -> None:
    order = [*PAIR, *votes] if late else [*votes, *PAIR]
    assert conduct(C, order) is expected
    assert conduct(A, order) is VoteOutcome.AGREED


def test_a_signer_whose_reveal_came_after_the_certificate_agreed() -> None:
    whole = {member: fixtures.bound(TASK, member, fixtures.outcome()) for member in (A, B, C)}
    assert (
        conduct(C, [fixtures.reveal(NET, TASK, m, whole) for m in (A, B, C)]) is VoteOutcome.AGREED
    )


def test_without_a_certificate_nobody_agreed_or_dissented() -> None:
    third = fixtures.outcome("third")
    apart = [
        fixtures.reveal(NET, TASK, member, {}, found)
        for member, found in ((A, fixtures.outcome()), (B, LIE), (C, third))
    ]
    assert [what for *_, what in vote_outcomes(seen(apart))] == [VoteOutcome.UNSETTLED] * 3


def test_every_member_of_every_attempt_that_counts_is_named_once() -> None:
    net = fixtures.network(5)
    task = fixtures.task(net)
    first, second = committees(net, task)
    apart = [fixtures.abstain(net, task, member) for member in first]
    commits = {m: fixtures.bound(task, m, fixtures.outcome(), 1) for m in second}
    agreed = [fixtures.reveal(net, task, m, commits, attempt=1) for m in second[:3]]
    found = [
        (attempt, who) for attempt, who, _ in vote_outcomes(seen([*apart, *agreed], net, task))
    ]
    assert found == [(0, m) for m in first] + [(1, m) for m in second]


def test_attempts_after_the_certified_one_are_nobodys_silence() -> None:
    net = fixtures.network(5)
    task = fixtures.task(net)
    first = committees(net, task)[0]
    agreement = seen([], net, task)
    agreement.advance(fixtures.START + 121)  # attempt 0 has taken too long
    commits = {m: fixtures.bound(task, m, fixtures.outcome()) for m in first}
    for member in first:
        agreement.receive(fixtures.reveal(net, task, member, commits), fixtures.START + 122)
    assert agreement.attempt == 1
    assert {attempt for attempt, *_ in vote_outcomes(agreement)} == {0}


# What it is worth


def test_dissent_alone_never_bans() -> None:
    assert score_floor(PeerRecord({VoteOutcome.DISSENTED: 1})) > 0
    assert score_floor(PeerRecord({VoteOutcome.DISSENTED: 10**9})) == MAX_DISSENT_PENALTY < BAN / 2


@pytest.mark.parametrize(
    "conduct",
    [
        VoteOutcome.AGREED,
        VoteOutcome.UNSETTLED,
        VoteOutcome.ABSTAINED,
        VoteOutcome.LATE,
        VoteOutcome.SILENT,
    ],
)
def test_what_a_slow_peer_does_costs_it_nothing(conduct: VoteOutcome) -> None:
    assert score_floor(PeerRecord({conduct: 10**6})) == 0


def test_after_a_second_proof_the_next_bad_message_bans() -> None:
    assert score_floor(PeerRecord({VoteOutcome.EQUIVOCATED: 1, VoteOutcome.DISSENTED: 99})) < BAN
    assert score_floor(PeerRecord({VoteOutcome.EQUIVOCATED: 2})) >= BAN


# In the store


def counts(ledger: Ledger) -> dict[str, dict[str, int]]:
    return {
        peer: {name: count for name, count in standing.document().items() if count}
        for peer, standing in ledger.peer_records().items()
    }


def played(
    case: Case, cut: Callable[[Life], None] = lambda life: None
) -> dict[str, dict[str, int]]:
    life = Life(case.net)
    cut(life)
    case.play(life, case.task)
    found = counts(life.ledger)
    life.disk.close()
    return found


def test_a_round_in_full_counts_once_for_each() -> None:
    members = committees(CASES["in full"].net, CASES["in full"].task)[0]
    assert played(CASES["in full"]) == {member: {"agreed": 1} for member in members}


def test_who_commits_after_the_lists_are_closed_and_reveals_nothing_is_silent() -> None:
    case = CASES["late"]
    one, two = others(case.net, case.task)
    assert played(case) == {ME: {"agreed": 1}, one: {"agreed": 1}, two: {"silent": 1}}


@pytest.mark.parametrize("after", [False, True], ids=["before the write", "after the write"])
@every_case
def test_a_kill_at_any_write_counts_nothing_twice_or_not_at_all(case: Case, after: bool) -> None:
    undisturbed = played(case)
    index, fired = 0, True
    while fired:
        lives: list[Life] = []

        def cut(life: Life, at: int = index, lives: list[Life] = lives) -> None:
            life.disk.fail_at, life.disk.after = at, after
            lives.append(life)

        assert played(case, cut) == undisturbed
        fired, index = lives[0].disk.fired, index + 1
    assert index > 20


def test_attempts_that_a_late_certificate_made_void_are_forgotten() -> None:
    life = Life(fixtures.network(3))
    journal, ledger = life.journal, life.ledger
    with journal.transaction():
        ledger.put_conduct(
            "a" * 64, [(i, fixtures.peer(1), VoteOutcome.UNSETTLED) for i in range(3)]
        )
    with journal.transaction():
        ledger.put_conduct("a" * 64, [(0, fixtures.peer(1), VoteOutcome.AGREED)])
    assert counts(ledger) == {fixtures.peer(1): {"agreed": 1}}


def test_a_late_dissent_replaces_the_silence_that_was_counted_and_a_restart_keeps_it() -> None:
    life = Life(fixtures.network(3))
    task = fixtures.task(life.net)
    one, two = others(life.net, task)
    life.hear(task)
    life.until(2)
    life.hear(fixtures.commit(life.net, task, one))
    life.hear(fixtures.commit(life.net, task, two, LIE))
    commits = {**commits_of(life, task, one), two: fixtures.bound(task, two, LIE)}
    life.hear(fixtures.reveal(life.net, task, one, commits))
    assert counts(life.ledger)[two] == {"silent": 1}
    for _ in range(2):
        life.hear(fixtures.reveal(life.net, task, two, commits, LIE))
        life.restart()
    assert counts(life.ledger) == {
        ME: {"agreed": 1},
        one: {"agreed": 1},
        two: {"dissented": 1},
    }
    life.disk.close()


def test_a_task_that_goes_on_counts_for_nothing() -> None:
    life = Life(fixtures.network(3))
    life.hear(fixtures.task(life.net))
    life.until(2)
    assert life.ledger.peer_records() == {}
    life.disk.close()
