import pytest

from protocol.consensus.committee import committees
from protocol.consensus.round import Opening, Round
from protocol.consensus.vote_set import VoteStatus
from protocol.wire.messages import Vote, outcome_digest
from tests.protocol.votes import commit, reveal
from tests.support import fixtures

NET = fixtures.network(5, committee_size=3, committee_max=5)
TASK = fixtures.task(NET)
TRIO = committees(NET, TASK)[0]
FIVE = committees(NET, TASK)[1]
A, B, C = TRIO
LIE = fixtures.outcome("lie")
DIGEST, LIE_DIGEST = outcome_digest(fixtures.outcome()), outcome_digest(LIE)
NEW, DUPLICATE, CONFLICTING = VoteStatus.NEW, VoteStatus.DUPLICATE, VoteStatus.CONFLICTING


def fresh(committee: tuple[str, ...] = TRIO, attempt: int = 0) -> Round:
    return Round(NET.id, TASK.id, attempt, committee, 2.0)


def receive(round_: Round, vote: Vote, at: float, *, keep_conflicting: bool = False) -> VoteStatus:
    """Judge a vote and let the round keep it, as an agreement does."""
    status = round_.votes.judge(vote, keep_conflicting=keep_conflicting)
    round_.receive(vote, status, at)
    return status


def committed(at: float, committee: tuple[str, ...] = TRIO) -> Round:
    """Return a round in which the first member committed at this time."""
    round_ = fresh(committee)
    round_.commit(A, Opening(fixtures.outcome(), fixtures.salt(A), {"seconds": 1}))
    receive(round_, commit(A), at)
    return round_


# Commit


def test_commit_is_bound_to_outcome() -> None:
    round_ = fresh()
    body = round_.commit(A, Opening(fixtures.outcome(), fixtures.salt(A), {}))
    assert body == commit(A).envelope.body
    later = fresh(FIVE, attempt=1)
    body = later.commit(A, Opening(fixtures.outcome(), fixtures.salt(A, 1), {}))
    assert body == fixtures.commit(NET, TASK, A, attempt=1).envelope.body


def test_second_commit_raises() -> None:
    round_ = committed(10)
    with pytest.raises(ValueError, match="once"):
        round_.commit(A, Opening(LIE, fixtures.salt(A), {}))


# Time


def test_list_closes_one_grace_after_quorum_and_reveal_follows_one_later() -> None:
    round_ = committed(5)
    assert round_.wake_at() is None
    receive(round_, commit(B), 10)
    assert round_.wake_at() == 12
    assert round_.advance(11.999) is None
    assert round_.wake_at() == 12
    assert round_.advance(12) is None
    assert round_.wake_at() == 14
    assert round_.advance(13.999) is None
    body = round_.advance(14)
    assert body == reveal(A, [A, B]).envelope.body
    assert round_.wake_at() is None
    assert round_.advance(100) is None


def test_grace_comes_from_the_network() -> None:
    round_ = Round(NET.id, TASK.id, 0, TRIO, 0.25)
    round_.commit(A, Opening(fixtures.outcome(), fixtures.salt(A), {"seconds": 1}))
    receive(round_, commit(A), 10)
    receive(round_, commit(B), 10)
    assert round_.wake_at() == 10.25
    round_.advance(10.25)
    assert round_.wake_at() == 10.5


def test_all_commits_make_the_reveal_due_at_once() -> None:
    round_ = committed(5)
    receive(round_, commit(B), 10)
    receive(round_, commit(C), 11.5)
    assert round_.wake_at() == 11.5
    assert round_.advance(11.5) == reveal(A, TRIO).envelope.body


def test_commit_after_closing_is_not_listed() -> None:
    round_ = committed(5)
    receive(round_, commit(B), 10)
    round_.advance(12)
    receive(round_, commit(C), 12)
    assert round_.wake_at() == 14
    assert round_.advance(14) == reveal(A, [A, B]).envelope.body


def test_commit_just_before_closing_is_listed() -> None:
    round_ = committed(5, FIVE)
    for member in FIVE[1:3]:
        receive(round_, commit(member), 10)
    receive(round_, commit(FIVE[3]), 11.999)
    assert round_.wake_at() == 12
    round_.advance(12)
    assert round_.advance(14) == reveal(A, FIVE[:4]).envelope.body


def test_late_advance_uses_scheduled_times() -> None:
    """A late call closes and reveals as a call in time would."""
    round_ = committed(5)
    receive(round_, commit(B), 10)
    assert round_.advance(1000) is None
    assert round_.wake_at() == 14
    assert round_.advance(1000) == reveal(A, [A, B]).envelope.body


def test_wait_starts_only_with_own_commit() -> None:
    round_ = fresh(FIVE)
    for member in FIVE[1:4]:
        receive(round_, commit(member), 10)
    assert round_.wake_at() is None
    round_.commit(A, Opening(fixtures.outcome(), fixtures.salt(A), {}))
    receive(round_, commit(FIVE[4]), 15)
    assert round_.wake_at() is None
    receive(round_, commit(A), 20)
    assert round_.wake_at() == 20


def test_further_commits_do_not_extend_the_wait() -> None:
    round_ = committed(5, FIVE)
    for at, member in enumerate(FIVE[1:4]):
        receive(round_, commit(member), 10 + at)
    assert round_.wake_at() == 13


def test_node_that_has_not_committed_never_wakes() -> None:
    round_ = fresh()
    for member in TRIO:
        receive(round_, commit(member), 10)
    assert round_.wake_at() is None
    assert round_.advance(100) is None


def test_single_member_reveals_at_once() -> None:
    round_ = committed(10, (A,))
    assert round_.advance(10) == reveal(A, [A]).envelope.body


def test_conflicting_commit_is_neither_counted_nor_listed() -> None:
    round_ = committed(5)
    receive(round_, reveal(C, [C], LIE), 6)
    assert receive(round_, commit(C), 7) is CONFLICTING
    assert round_.wake_at() is None
    assert receive(round_, commit(B), 10) is NEW
    assert receive(round_, commit(B, LIE), 11) is CONFLICTING
    round_.advance(12)
    assert round_.advance(14) == reveal(A, [A, B]).envelope.body
