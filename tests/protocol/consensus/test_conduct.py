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
from protocol.consensus.effects import State
from protocol.network import Network
from protocol.wire.encoding import Document
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
WHOLE = {**ALL, C: fixtures.commitment_of(TASK, C, fixtures.outcome())}
COMMITS = [fixtures.commit(NET, TASK, A), fixtures.commit(NET, TASK, B)]
PAIR: list[Vote] = [
    *COMMITS,
    fixtures.reveal(NET, TASK, A, ALL),
    fixtures.reveal(NET, TASK, B, ALL),
]


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
        (VoteOutcome.WITHHELD, [fixtures.commit(NET, TASK, C)]),
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
        (VoteOutcome.LATE, [fixtures.reveal(NET, TASK, C, WHOLE)]),  # only its own list has it
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
    reveals = [fixtures.reveal(NET, TASK, member, WHOLE) for member in (A, B, C)]
    assert conduct(C, reveals) is VoteOutcome.AGREED


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


# Suspects (6.8)


def suspicions(agreement: Agreement) -> dict[tuple[int, str], float]:
    """From when which member is a suspect, by attempt."""
    rows = task_conduct(agreement)
    return {(r.attempt, r.peer): r.suspect_from for r in rows if r.suspect_from is not None}


def test_equivocator_and_dissenter_are_suspects_at_once() -> None:
    equivocation = [fixtures.commit(NET, TASK, C), fixtures.commit(NET, TASK, C, LIE)]
    dissent = [fixtures.reveal(NET, TASK, C, LIED, LIE)]
    for votes in (equivocation, dissent):
        assert suspicions(seen([*PAIR, *votes])) == {(0, C): 0.0}


def test_other_outcome_than_ones_own_is_a_fault_only_where_none_was_certified() -> None:
    def outcomes(own: Document | None, votes: Sequence[Vote]) -> dict[str, VoteOutcome]:
        agreement = Agreement(NET, TASK, A, lambda attempt: "5" * 64, fixtures.START)
        agreement.start(fixtures.START)
        if own is not None:
            agreement.executed(own, {}, fixtures.START + 1)
        for vote in votes:
            agreement.receive(vote, fixtures.START + 1)
        return {peer: row.outcome for row in task_conduct(agreement) for peer in [row.peer]}

    alone = [fixtures.reveal(NET, TASK, B, {}), fixtures.reveal(NET, TASK, C, {}, LIE)]
    unsettled = outcomes(None, alone)
    assert (unsettled[B], unsettled[C]) == (VoteOutcome.UNSETTLED, VoteOutcome.UNSETTLED)
    judged = outcomes(fixtures.outcome(), alone)
    assert (judged[B], judged[C]) == (VoteOutcome.UNSETTLED, VoteOutcome.DIVERGED)
    outvoted = outcomes(LIE, PAIR)  # this node's own outcome is not the certified one
    assert (outvoted[A], outvoted[B]) == (VoteOutcome.AGREED, VoteOutcome.AGREED)


def test_commit_without_reveal_is_a_fault_attempt_seconds_after_reveals_are_due() -> None:
    """The pair's votes come one second after the start; an attempt has 120 s."""
    agreement = seen([fixtures.commit(NET, TASK, C), *PAIR])
    assert suspicions(agreement) == {(0, C): fixtures.START + 121}


def test_late_reveal_takes_the_fault_back() -> None:
    agreement = seen([fixtures.commit(NET, TASK, C), *PAIR])
    agreement.receive(fixtures.reveal(NET, TASK, C, ALL), fixtures.START + 10_000)
    assert suspicions(agreement) == {}


def test_commit_is_no_fault_while_nobody_revealed() -> None:
    agreement = seen([fixtures.commit(NET, TASK, C), fixtures.abstain(NET, TASK, A)])
    agreement.advance(fixtures.START + 600)
    assert agreement.state is State.EXPIRED
    assert suspicions(agreement) == {}


def test_reveal_that_does_not_open_its_commit_makes_no_reveal_due() -> None:
    agreement = seen([fixtures.commit(NET, TASK, B), fixtures.commit(NET, TASK, C)])
    agreement.receive(fixtures.reveal(NET, TASK, C, ALL, LIE), fixtures.START + 2)
    assert agreement.withheld_at(0) is None
    agreement.receive(fixtures.commit(NET, TASK, A), fixtures.START + 3)
    assert agreement.withheld_at(0) is None
    agreement.receive(fixtures.reveal(NET, TASK, A, ALL), fixtures.START + 4)
    assert agreement.withheld_at(0) == fixtures.START + 124
    assert suspicions(agreement) == {(0, B): fixtures.START + 124, (0, C): 0.0}


@pytest.mark.parametrize(
    "votes",
    [
        [fixtures.reveal(NET, TASK, C, LIED)],  # it never commits
        [fixtures.reveal(NET, TASK, C, LIED), fixtures.commit(NET, TASK, C, LIE)],  # too late
        [fixtures.commit(NET, TASK, C, LIE), fixtures.reveal(NET, TASK, C, ALL)],
    ],
    ids=["no commit", "a wrong commit afterwards", "a wrong commit before"],
)
def test_reveal_without_its_commit_does_not_accuse_a_member_that_committed(
    votes: list[Vote],
) -> None:
    """Before it holds the commits of a quorum, an honest member does not reveal."""
    honest = fixtures.commit(NET, TASK, A)
    for order in ([honest, *votes], [*votes, honest]):
        agreement = seen(order)
        agreement.advance(fixtures.START + 600)
        assert suspicions(agreement).keys() <= {(0, C)}
        assert not agreement.vote_sets[0].has_failed(A, fixtures.reveal(NET, TASK, A, ALL).digest)


def test_reveal_without_a_quorum_of_commits_does_not_accuse_a_member_that_committed() -> None:
    net = fixtures.network(5, committee_size=5)
    task = fixtures.task(net)
    honest, faulty, *rest = committees(net, task)[0]
    commits = {p: fixtures.commitment_of(task, p, fixtures.outcome()) for p in (honest, faulty)}
    votes: list[Vote] = [fixtures.commit(net, task, p) for p in (honest, faulty)]
    votes.append(fixtures.reveal(net, task, faulty, commits))
    agreement = seen([*votes, *(fixtures.abstain(net, task, p) for p in rest[:2])], net, task)
    agreement.advance(fixtures.START + 600)
    assert suspicions(agreement) == {}


def test_silent_and_late_members_do_nothing_wrong() -> None:
    for votes in ([], [fixtures.abstain(NET, TASK, C)], [fixtures.reveal(NET, TASK, C, ALL)]):
        assert suspicions(seen([*votes, *PAIR])) == {}


def test_equivocation_after_the_certified_attempt_counts() -> None:
    net = fixtures.network(5)
    task = fixtures.task(net)
    first, second = committees(net, task)
    commits = {m: fixtures.commitment_of(task, m, fixtures.outcome()) for m in first}
    agreed = [fixtures.reveal(net, task, m, commits) for m in first]
    equivocator, silent = (m for m in second if m not in first)
    votes = [fixtures.commit(net, task, equivocator, o, 1) for o in (None, LIE)]
    withheld = [fixtures.commit(net, task, silent, attempt=1)]
    agreement = seen([*agreed, *votes, *withheld], net, task)
    rows = [(r.attempt, r.peer, r.outcome) for r in task_conduct(agreement) if r.attempt]
    assert rows == [(1, equivocator, VoteOutcome.EQUIVOCATED)]


# Inconstancy


def test_inconstancy_counts_as_one_dissent_and_not_as_equivocation() -> None:
    """Without a certificate, and at a node that has no outcome to compare with."""
    net = fixtures.network(5)
    task = fixtures.task(net)
    first, second = committees(net, task)
    liar = first[0]
    votes: list[Vote] = [
        fixtures.reveal(net, task, liar, {}),
        fixtures.reveal(net, task, liar, {}, LIE, attempt=1),
        *(fixtures.abstain(net, task, m) for m in first[1:]),
        *(fixtures.abstain(net, task, m, attempt=1) for m in second if m != liar),
    ]
    agreement = seen(votes, net, task)
    outcomes = [r.outcome for r in task_conduct(agreement) if r.peer == liar]
    assert outcomes == [VoteOutcome.UNSETTLED, VoteOutcome.DISSENTED]
    assert suspicions(agreement) == {}


def test_inconstancy_adds_nothing_to_a_dissent() -> None:
    net = fixtures.network(5)
    task = fixtures.task(net)
    first, second = committees(net, task)
    liar = first[0]
    commits = {m: fixtures.commitment_of(task, m, fixtures.outcome(), 1) for m in second}
    votes: list[Vote] = [
        fixtures.reveal(net, task, liar, {}, LIE),
        *(fixtures.abstain(net, task, m) for m in first[1:]),
        *(fixtures.reveal(net, task, m, commits, attempt=1) for m in second[:3]),
    ]
    agreement = seen(votes, net, task)
    assert agreement.inconstant == {liar}
    outcomes = [r.outcome for r in task_conduct(agreement) if r.peer == liar]
    assert outcomes == [VoteOutcome.DISSENTED, VoteOutcome.AGREED]


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
        VoteOutcome.WITHHELD,
    ],
)
def test_slow_peer_gets_no_penalty(conduct: VoteOutcome) -> None:
    assert score_floor(PeerRecord({conduct: 10**6})) == 0


def test_two_equivocations_reach_the_ban_threshold() -> None:
    assert score_floor(PeerRecord({VoteOutcome.EQUIVOCATED: 1, VoteOutcome.DISSENTED: 99})) < BAN
    assert score_floor(PeerRecord({VoteOutcome.EQUIVOCATED: 2})) >= BAN
