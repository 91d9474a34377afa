"""Own votes that a lost journal held: the node signs nothing that contradicts them (6.12)."""

import itertools
from typing import Any

import pytest

from protocol.consensus.committee import committees
from protocol.consensus.evidence import is_equivocation, is_inconstancy
from protocol.wire.messages import Abstain, Abstention, Commit, Reveal, Vote
from tests.protocol.certificates import commitments
from tests.protocol.driver import AgreementDriver
from tests.support import fixtures

NET = fixtures.network(8)  # attempts of 3, 5 and 7 members; 120 s each
TASK = fixtures.task(NET, deadline=600)
TRIO, FIVE, SEVEN = committees(NET, TASK)
A, B, C = TRIO
T = fixtures.START
LIE = fixtures.outcome("lie")


def commit(member: str, attempt: int = 0) -> Commit:
    return fixtures.commit(NET, TASK, member, None, attempt)


def own_reveal(outcome: Any = None) -> Reveal:
    seen = commitments(TASK, (A, B), outcome)
    return fixtures.reveal(NET, TASK, A, seen, outcome)


def sent(node: AgreementDriver) -> list[tuple[type[Vote], int]]:
    return [(type(vote), vote.attempt) for vote in node.sent]


def finish(node: AgreementDriver) -> None:
    """Let all others commit in each attempt, and the time pass."""
    for attempt, members in enumerate((TRIO, FIVE, SEVEN)):
        votes = [commit(member, attempt) for member in members if member != A]
        node.receive(*votes, now=T + 120 * attempt + 20)
        node.advance(T + 120 * attempt + 100)
    node.advance(T + 500)


def contradictions(votes: list[Vote]) -> list[tuple[Vote, Vote]]:
    pairs = itertools.combinations(votes, 2)
    return [
        (a, b)
        for a, b in pairs
        if (a.attempt == b.attempt and is_equivocation(a, b)) or is_inconstancy(a, b)
    ]


def test_commit_whose_salt_is_lost_is_not_revealed() -> None:
    node = AgreementDriver(NET, TASK, A)
    node.receive(fixtures.commit(NET, TASK, A, LIE), now=T + 5)  # a commitment that it cannot open
    node.executed(T + 10)
    finish(node)
    assert sent(node)[:2] == [(Commit, 1), (Reveal, 1)], "nothing in attempt 0"


def test_reveal_that_came_back_is_not_repeated() -> None:
    node = AgreementDriver(NET, TASK, A)
    node.executed(T + 10)
    node.receive(own_reveal(), now=T + 11)
    finish(node)
    assert (Reveal, 0) not in sent(node)


def test_reveal_without_its_commit_hinders_a_commit() -> None:
    node = AgreementDriver(NET, TASK, A)
    node.receive(own_reveal(), now=T + 5)
    node.executed(T + 10)
    finish(node)
    assert sent(node)[0] == (Commit, 1)


def test_no_vote_follows_a_reveal_of_another_outcome() -> None:
    node = AgreementDriver(NET, TASK, A)
    node.receive(own_reveal(LIE), now=T + 5)
    node.executed(T + 10)
    finish(node)
    assert node.sent == []


def test_reveal_of_another_outcome_hinders_a_reveal_that_is_due() -> None:
    """It comes back from a slow peer, after this node has committed in the next attempt."""
    node = AgreementDriver(NET, TASK, A)
    node.advance(T + 120)
    node.executed(T + 121)
    node.receive(*(commit(member, 1) for member in FIVE if member != A), now=T + 121.5)
    assert sent(node) == [(Commit, 1), (Reveal, 1)]
    node = AgreementDriver(NET, TASK, A)
    node.advance(T + 120)
    node.executed(T + 121)
    node.receive(own_reveal(LIE), now=T + 121.2)
    finish(node)
    assert sent(node) == [(Commit, 1)]


def test_member_does_not_execute_for_an_attempt_in_which_it_voted() -> None:
    node = AgreementDriver(NET, TASK, A)
    node.receive(fixtures.abstain(NET, TASK, A, attempt=1), now=T + 1)
    node.agreement.failed(Abstention.BUSY, T + 2)
    assert "Execute" not in [type(effect).__name__ for effect in node.advance(T + 121)]


@pytest.mark.parametrize("seed", range(40))
def test_votes_of_two_lives_never_contradict(seed: int) -> None:
    """One life is lost, and comes back vote by vote, at any point of the next one."""
    order = (T + 9.5, T + 10.5, T + 19.5, T + 21.5, T + 130, T + 260)
    first = AgreementDriver(NET, TASK, A)
    lost_at = order[seed % len(order)]
    if lost_at > T + 10:
        first.executed(T + 10, LIE if seed % 5 == 0 else None)
    for attempt, members in enumerate((TRIO, FIVE, SEVEN)):
        at = T + 120 * attempt + 20
        if at < lost_at:
            first.receive(*(commit(m, attempt) for m in members if m != A), now=at)
            first.advance(min(lost_at, at + 100))
    second = AgreementDriver(NET, TASK, A, salt_of="another life")
    signed = list(first.sent)
    # The votes of the first life come back before the second one executes, which is held so long.
    second.receive(*first.sent, now=T + 5)
    second.executed(T + 10)
    finish(second)
    signed += second.sent
    assert contradictions(signed) == []
    assert all(isinstance(vote, Commit | Reveal | Abstain) for vote in signed)
