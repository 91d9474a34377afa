"""Vote outcomes of members, in any order of messages, and the penalties for them."""

from collections.abc import Sequence

import pytest

from protocol.consensus.agreement import Agreement
from protocol.consensus.committee import committees
from protocol.consensus.conduct import (
    MAX_DISSENT_PENALTY,
    PeerRecord,
    VoteOutcome,
    score_floor,
    task_conduct,
)
from protocol.network import Network
from protocol.wire.messages import Task, Vote
from tests.support import fixtures

BAN = 20.0  # points: the default of the setting `ban_points`
NET = fixtures.network(3)
TASK = fixtures.task(NET)
A, B, C = committees(NET, TASK)[0]
LIE = fixtures.outcome("lie")
ALL = {
    A: fixtures.commitment_of(TASK, A, fixtures.outcome()),
    B: fixtures.commitment_of(TASK, B, fixtures.outcome()),
}
LIED = {**ALL, C: fixtures.commitment_of(TASK, C, LIE)}
PAIR = [fixtures.reveal(NET, TASK, A, ALL), fixtures.reveal(NET, TASK, B, ALL)]


def seen(votes: Sequence[Vote], net: Network = NET, task: Task = TASK) -> Agreement:
    """Return the agreement of a non-member that received the votes."""
    agreement = Agreement(net, task, "", lambda attempt: "", fixtures.START)
    agreement.start(fixtures.START)
    for vote in votes:
        agreement.receive(vote, fixtures.START + 1)
    return agreement


def conduct(peer: str, votes: Sequence[Vote]) -> VoteOutcome:
    outcomes = {(row.attempt, row.peer): row.outcome for row in task_conduct(seen(votes))}
    assert {who for attempt, who in outcomes if attempt == 0} == {A, B, C}
    return outcomes[0, peer]


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
def test_vote_outcome_of_third_member(expected: VoteOutcome, votes: list[Vote], late: bool) -> None:
    order = [*PAIR, *votes] if late else [*votes, *PAIR]
    assert conduct(C, order) is expected
    assert conduct(A, order) is VoteOutcome.AGREED


def test_reveal_after_the_certificate_still_counts_as_agreed() -> None:
    whole = {
        member: fixtures.commitment_of(TASK, member, fixtures.outcome()) for member in (A, B, C)
    }
    assert (
        conduct(C, [fixtures.reveal(NET, TASK, m, whole) for m in (A, B, C)]) is VoteOutcome.AGREED
    )


def test_reveals_without_certificate_are_unsettled() -> None:
    third = fixtures.outcome("third")
    apart = [
        fixtures.reveal(NET, TASK, member, {}, outcome)
        for member, outcome in ((A, fixtures.outcome()), (B, LIE), (C, third))
    ]
    assert [row.outcome for row in task_conduct(seen(apart))] == [VoteOutcome.UNSETTLED] * 3


def test_each_member_of_each_attempt_has_one_outcome() -> None:
    net = fixtures.network(5)
    task = fixtures.task(net)
    first, second = committees(net, task)
    apart = [fixtures.abstain(net, task, member) for member in first]
    commits = {m: fixtures.commitment_of(task, m, fixtures.outcome(), 1) for m in second}
    agreed = [fixtures.reveal(net, task, m, commits, attempt=1) for m in second[:3]]
    members = [(row.attempt, row.peer) for row in task_conduct(seen([*apart, *agreed], net, task))]
    assert members == [(0, m) for m in first] + [(1, m) for m in second]


def test_attempts_after_the_certified_one_have_no_outcomes() -> None:
    net = fixtures.network(5)
    task = fixtures.task(net)
    first = committees(net, task)[0]
    agreement = seen([], net, task)
    agreement.advance(fixtures.START + 121)  # attempt 0 has taken too long
    commits = {m: fixtures.commitment_of(task, m, fixtures.outcome()) for m in first}
    for member in first:
        agreement.receive(fixtures.reveal(net, task, member, commits), fixtures.START + 122)
    assert agreement.attempt == 1
    assert {row.attempt for row in task_conduct(agreement)} == {0}


# Penalties


def test_dissent_alone_never_reaches_the_ban_threshold() -> None:
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
def test_slow_peer_gets_no_penalty(conduct: VoteOutcome) -> None:
    assert score_floor(PeerRecord({conduct: 10**6})) == 0


def test_two_equivocations_reach_the_ban_threshold() -> None:
    assert score_floor(PeerRecord({VoteOutcome.EQUIVOCATED: 1, VoteOutcome.DISSENTED: 99})) < BAN
    assert score_floor(PeerRecord({VoteOutcome.EQUIVOCATED: 2})) >= BAN
