from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.consensus.certificate import assemble, lists
from protocol.consensus.committee import committees, quorum
from protocol.consensus.round import Opening, Round
from protocol.consensus.vote_set import VoteStatus
from protocol.wire.messages import Abstain, Commit, Reveal, Vote, outcome_digest
from tests.protocol.expect import PROPERTY
from tests.protocol.papers import listed
from tests.support import fixtures

NET = fixtures.network(5, committee_size=3, committee_max=5)
TASK = fixtures.task(NET)
TRIO = committees(NET, TASK)[0]
FIVE = committees(NET, TASK)[1]
A, B, C = TRIO
LIE = fixtures.outcome("lie")
DIGEST, LIE_DIGEST = outcome_digest(fixtures.outcome()), outcome_digest(LIE)
NEW, KNOWN, OPPOSED = VoteStatus.NEW, VoteStatus.DUPLICATE, VoteStatus.CONFLICTING


def fresh(committee: tuple[str, ...] = TRIO, attempt: int = 0) -> Round:
    return Round(NET.id, TASK.id, attempt, committee, 2.0)


def commit(member: str, found: Any = None) -> Commit:
    return fixtures.commit(NET, TASK, member, found)


def reveal(member: str, seen: Any = TRIO, found: Any = None, **changes: Any) -> Reveal:
    commits = seen if isinstance(seen, dict) else listed(TASK, seen)
    body = fixtures.reveal(NET, TASK, member, commits, found).envelope.body
    vote = fixtures.signed_by(NET, {**body, **changes}, member)
    assert isinstance(vote, Reveal)
    return vote


def abstain(member: str, reason: str = "busy") -> Vote:
    return fixtures.abstain(NET, TASK, member, reason)


def receive(round_: Round, vote: Vote, at: float, *, keep_conflicting: bool = False) -> VoteStatus:
    """Judge a vote and let the round keep it, as an agreement does."""
    status = round_.votes.judge(vote, keep_conflicting=keep_conflicting)
    round_.receive(vote, status, at)
    return status


def committed(at: float, committee: tuple[str, ...] = TRIO) -> Round:
    """A round in which the first member has committed at this time."""
    found = fresh(committee)
    found.commit(A, Opening(fixtures.outcome(), fixtures.salt(A), {"seconds": 1}))
    receive(found, commit(A), at)
    return found


# Commit


def test_the_commit_is_bound_to_the_outcome() -> None:
    round_ = fresh()
    body = round_.commit(A, Opening(fixtures.outcome(), fixtures.salt(A), {}))
    assert body == commit(A).envelope.body
    later = fresh(FIVE, attempt=1)
    body = later.commit(A, Opening(fixtures.outcome(), fixtures.salt(A, 1), {}))
    assert body == fixtures.commit(NET, TASK, A, attempt=1).envelope.body


def test_a_member_commits_once() -> None:
    round_ = committed(10)
    with pytest.raises(ValueError, match="once"):
        round_.commit(A, Opening(LIE, fixtures.salt(A), {}))


# Time


def test_the_list_closes_a_grace_after_the_quorum_and_the_reveal_a_grace_later() -> None:
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


def test_the_grace_is_the_networks() -> None:
    round_ = Round(NET.id, TASK.id, 0, TRIO, 0.25)
    round_.commit(A, Opening(fixtures.outcome(), fixtures.salt(A), {"seconds": 1}))
    receive(round_, commit(A), 10)
    receive(round_, commit(B), 10)
    assert round_.wake_at() == 10.25
    round_.advance(10.25)
    assert round_.wake_at() == 10.5


def test_when_every_commit_is_in_the_reveal_is_due_at_once() -> None:
    round_ = committed(5)
    receive(round_, commit(B), 10)
    receive(round_, commit(C), 11.5)
    assert round_.wake_at() == 11.5
    assert round_.advance(11.5) == reveal(A, TRIO).envelope.body


def test_a_commit_after_the_list_closed_is_not_listed() -> None:
    round_ = committed(5)
    receive(round_, commit(B), 10)
    round_.advance(12)
    receive(round_, commit(C), 12)
    assert round_.wake_at() == 14
    assert round_.advance(14) == reveal(A, [A, B]).envelope.body


def test_a_commit_just_before_the_list_closes_is_listed() -> None:
    round_ = committed(5, FIVE)
    for member in FIVE[1:3]:
        receive(round_, commit(member), 10)
    receive(round_, commit(FIVE[3]), 11.999)
    assert round_.wake_at() == 12
    round_.advance(12)
    assert round_.advance(14) == reveal(A, FIVE[:4]).envelope.body


def test_late_wake_ups_change_no_time() -> None:
    """Asked long after, it closes and reveals as if it had been asked in time."""
    round_ = committed(5)
    receive(round_, commit(B), 10)
    assert round_.advance(1000) is None
    assert round_.wake_at() == 14
    assert round_.advance(1000) == reveal(A, [A, B]).envelope.body


def test_the_quorum_is_first_held_with_ones_own_commit() -> None:
    round_ = fresh(FIVE)
    for member in FIVE[1:4]:
        receive(round_, commit(member), 10)
    assert round_.wake_at() is None
    round_.commit(A, Opening(fixtures.outcome(), fixtures.salt(A), {}))
    receive(round_, commit(FIVE[4]), 15)
    assert round_.wake_at() is None
    receive(round_, commit(A), 20)
    assert round_.wake_at() == 20


def test_further_commits_do_not_prolong_the_wait() -> None:
    round_ = committed(5, FIVE)
    for at, member in enumerate(FIVE[1:4]):
        receive(round_, commit(member), 10 + at)
    assert round_.wake_at() == 13


def test_who_has_not_committed_waits_for_nothing() -> None:
    round_ = fresh()
    for member in TRIO:
        receive(round_, commit(member), 10)
    assert round_.wake_at() is None
    assert round_.advance(100) is None


def test_one_alone_reveals_at_once() -> None:
    round_ = committed(10, (A,))
    assert round_.advance(10) == reveal(A, [A]).envelope.body


def test_a_contradicting_commit_is_neither_counted_nor_listed() -> None:
    round_ = committed(5)
    receive(round_, reveal(C, [C], LIE), 6)
    assert receive(round_, commit(C), 7) is OPPOSED
    assert round_.wake_at() is None
    assert receive(round_, commit(B), 10) is NEW
    assert receive(round_, commit(B, LIE), 11) is OPPOSED
    round_.advance(12)
    assert round_.advance(14) == reveal(A, [A, B]).envelope.body


# What a vote is


def test_votes_are_new_once() -> None:
    round_ = fresh()
    for vote in (commit(A), reveal(A), abstain(A), commit(B), reveal(C)):
        assert round_.votes.judge(vote) is NEW
        assert round_.votes.judge(vote) is NEW
        assert receive(round_, vote, 1) is NEW
        assert round_.votes.judge(vote) is KNOWN
        assert receive(round_, vote, 2) is KNOWN
        assert round_.votes.has(vote.signer, type(vote))
    assert not round_.votes.has(C, Commit)
    assert round_.votes.votes_of(A) == (reveal(A), abstain(A))
    assert round_.votes.votes_of(B) == (None, None)


def test_a_reveal_is_kept_before_its_commit() -> None:
    round_ = fresh()
    assert receive(round_, reveal(A), 1) is NEW
    assert receive(round_, commit(A), 2) is NEW
    assert round_.votes.commits == listed(TASK, [A])
    assert round_.votes.reveals == [reveal(A)]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (commit(A), commit(A, LIE)),
        (reveal(A), reveal(A, TRIO, LIE)),
        (reveal(A), reveal(A, [A, B])),
        (reveal(A), reveal(A, trace={})),
        (reveal(A), reveal(A, trace={"seconds": True})),
        (abstain(A), abstain(A, "timeout")),
        (commit(A), reveal(A, TRIO, LIE)),
        (reveal(A), commit(A, LIE)),
    ],
)
def test_of_two_that_contradict_the_first_stands(first: Vote, second: Vote) -> None:
    for one, other in ((first, second), (second, first)):
        round_ = fresh()
        assert round_.votes.conflicting_vote(other) is None
        receive(round_, one, 1)
        assert round_.votes.conflicting_vote(other) == one
        assert round_.votes.judge(other) is OPPOSED
        assert receive(round_, other, 2) is OPPOSED
        assert round_.votes.judge(other) is KNOWN
        assert round_.votes.judge(one) is KNOWN
        assert round_.votes.has(A, type(one))
        assert round_.votes.has(A, type(other)) is (type(one) is type(other))


def test_to_abstain_contradicts_no_other_vote() -> None:
    for votes in ([commit(A), abstain(A), reveal(A)], [abstain(A), commit(A), reveal(A)]):
        round_ = fresh()
        assert [receive(round_, vote, 1) for vote in votes] == [NEW] * 3


def test_a_reveal_that_opens_the_standing_commit_stands_beside_the_opposed() -> None:
    round_ = fresh()
    receive(round_, commit(A), 1)
    assert receive(round_, reveal(A, TRIO, LIE), 2) is OPPOSED
    assert receive(round_, reveal(A), 3) is NEW
    assert round_.votes.reveals == [reveal(A)]


def test_one_contradiction_of_a_kind_is_kept() -> None:
    round_ = fresh()
    receive(round_, commit(A), 1)
    receive(round_, commit(A, LIE), 2)
    assert receive(round_, commit(A, fixtures.outcome("another lie")), 3) is KNOWN
    receive(round_, reveal(B), 1)
    assert receive(round_, reveal(B, trace={"n": 1}), 2) is OPPOSED
    assert receive(round_, reveal(B, trace={"n": 2}), 3) is KNOWN


def test_but_one_more_is_kept_if_a_certificate_rests_on_it() -> None:
    """Nodes that met an equivocator's reveals in another order hold the certificate already."""
    round_ = fresh()
    receive(round_, reveal(A, TRIO, LIE), 1)
    receive(round_, reveal(A, TRIO, fixtures.outcome("another lie")), 2)
    third = reveal(A)
    assert round_.votes.judge(third) is KNOWN
    receive(round_, reveal(B), 3)
    assert round_.votes.judge(third) is OPPOSED
    assert receive(round_, third, 4) is OPPOSED
    assert {r.signer for r in round_.votes.agreeing_reveals(DIGEST)} == {A, B}
    assert round_.votes.judge(reveal(A, trace={"n": 9})) is KNOWN


def test_three_contradictions_are_kept_at_most_whatever_they_complete() -> None:
    round_ = fresh()
    lies = [fixtures.outcome(f"lie {n}") for n in range(6)]
    kept = []
    for lie in lies:
        seen = {member: fixtures.bound(TASK, member, lie) for member in TRIO}
        receive(round_, reveal(B, seen, lie), 1, keep_conflicting=True)
        kept.append(receive(round_, reveal(A, seen, lie), 2))
    assert kept == [NEW, OPPOSED, OPPOSED, OPPOSED, KNOWN, KNOWN]


def test_what_is_wanted_is_kept_once() -> None:
    round_ = fresh()
    lies = [reveal(A, trace={"n": n}) for n in range(6)]
    for lie in lies:
        receive(round_, lie, 1, keep_conflicting=True)
    assert {round_.votes.judge(lie, keep_conflicting=True) for lie in lies} == {KNOWN}
    receive(round_, reveal(B), 1)
    assert {r.signer for r in round_.votes.agreeing_reveals(DIGEST)} == {A, B}


# What follows


def test_a_quorum_of_equal_reveals_that_list_each_other_agrees() -> None:
    round_ = fresh()
    receive(round_, reveal(A), 1)
    assert round_.votes.agreeing_reveals(DIGEST) == []
    receive(round_, reveal(C, TRIO, LIE), 1)
    assert round_.votes.agreeing_reveals(DIGEST) == []
    receive(round_, reveal(B), 1)
    assert [r.signer for r in round_.votes.agreeing_reveals(DIGEST)] == sorted([A, B])
    assert round_.votes.agreeing_reveals(LIE_DIGEST) == []


def test_a_copycat_that_nobody_listed_is_left_out() -> None:
    round_ = fresh()
    for vote in (reveal(A, [A, B]), reveal(B, [A, B]), reveal(C)):
        receive(round_, vote, 1)
    assert [r.signer for r in round_.votes.agreeing_reveals(DIGEST)] == sorted([A, B])


def test_reveals_that_contradict_earlier_ones_count() -> None:
    round_ = fresh()
    receive(round_, commit(A, LIE), 1)
    assert receive(round_, reveal(A), 1) is OPPOSED
    receive(round_, reveal(B), 1)
    assert {r.signer for r in round_.votes.agreeing_reveals(DIGEST)} == {A, B}


@pytest.mark.parametrize("vain", TRIO)
def test_who_does_not_list_itself_spoils_no_certificate(vain: str) -> None:
    """Section 4: every vote's list holds every signer's commitment, the vote's own included."""
    round_ = fresh()
    for member in TRIO:
        seen = [m for m in TRIO if m != vain] if member == vain else TRIO
        receive(round_, reveal(member, seen), 1)
    agreeing = round_.votes.agreeing_reveals(DIGEST)
    assert {r.signer for r in agreeing} == set(TRIO) - {vain}
    assemble(TASK, 0, agreeing, NET)


SEEN = st.lists(st.sets(st.sampled_from(FIVE)), min_size=5, max_size=5)


@given(SEEN, st.lists(st.booleans(), min_size=5, max_size=5))
@PROPERTY
def test_what_agrees_is_the_largest_valid_certificate(
    seen: list[set[str]], lying: list[bool]
) -> None:
    round_ = fresh(FIVE)
    votes = []
    for member, listing, lie in zip(FIVE, seen, lying, strict=True):
        found = LIE if lie else None
        commits = {m: fixtures.bound(TASK, m, LIE if lie else fixtures.outcome()) for m in listing}
        votes.append(reveal(member, commits, found))
        receive(round_, votes[-1], 1)
    for digest in (DIGEST, LIE_DIGEST):
        fit = [v for v in votes if v.digest == digest]
        best = max(
            n
            for n in range(len(fit) + 1)
            for chosen in combinations(fit, n)
            if all(lists(a, b) for a in chosen for b in chosen)
        )
        agreeing = round_.votes.agreeing_reveals(digest)
        assert len(agreeing) == (best if best >= 3 else 0)
        assert all(lists(a, b) for a in agreeing for b in agreeing)


# Whether it can still settle


def test_at_first_everything_is_possible() -> None:
    assert fresh().votes.can_reach_quorum()
    assert fresh((A,)).votes.can_reach_quorum()


@pytest.mark.parametrize(
    ("votes", "possible"),
    [
        ([abstain(A)], True),
        ([abstain(A), abstain(B)], False),
        ([reveal(A), reveal(B, TRIO, LIE)], True),
        ([reveal(A), reveal(B, TRIO, LIE), abstain(C)], False),
        ([reveal(A), reveal(B, TRIO, LIE), reveal(C, TRIO, fixtures.outcome("lie 2"))], False),
        ([reveal(A), abstain(B)], True),
        ([reveal(A), abstain(B), abstain(C)], False),
        ([reveal(A), reveal(B), abstain(C)], True),
        ([reveal(A, [A, B]), abstain(B)], False),
        ([reveal(A, [A, B]), reveal(B, [B, C]), abstain(C)], False),
        ([reveal(A, [A]), reveal(B, [B])], False),
        ([reveal(A, [A, C]), reveal(B, [B])], True),
        ([commit(C), reveal(A, [A, C]), abstain(B)], True),
        ([commit(C, LIE), reveal(A, [A, C]), abstain(B)], False),
        ([reveal(A, [A, C]), abstain(B), commit(C, LIE)], False),
        ([reveal(A, [B, C]), abstain(B)], False),
        ([abstain(A), abstain(B), reveal(A)], True),
    ],
)
def test_it_cannot_settle_once_no_outcome_reaches_the_quorum(
    votes: list[Vote], possible: bool
) -> None:
    round_ = fresh()
    for vote in votes:
        receive(round_, vote, 1)
    assert round_.votes.can_reach_quorum() is possible


@given(
    st.lists(st.sampled_from(["silent", "abstain", "honest", "lie"]), min_size=5, max_size=5),
    SEEN,
    st.sets(st.sampled_from(FIVE)),
)
@PROPERTY
def test_it_can_settle_while_some_quorum_can_still_form(
    roles: list[str], seen: list[set[str]], early: set[str]
) -> None:
    round_ = fresh(FIVE)
    for member in early:
        receive(round_, commit(member), 1)
    reveals: dict[str, Reveal] = {}
    silent = {m for m, role in zip(FIVE, roles, strict=True) if role == "silent"}
    for member, role, listing in zip(FIVE, roles, seen, strict=True):
        outcome = LIE if role == "lie" else fixtures.outcome()
        commits = {m: fixtures.bound(TASK, m, outcome) for m in listing | {member}}
        if role in ("honest", "lie"):
            vote = reveal(member, commits, outcome)
            if receive(round_, vote, 1) is NEW:
                reveals[member] = vote
            else:
                silent.add(member)
        elif role == "abstain":
            receive(round_, abstain(member), 1)

    def can_sign(group: tuple[str, ...], found: dict[str, Any]) -> bool:
        """Whether all of a group may come to stand in one certificate of this outcome."""
        told = [reveals[m] for m in group if m in reveals]
        return all(
            m in silent or (m in reveals and reveals[m].outcome == found) for m in group
        ) and all(
            vote.commits.get(m) is not None
            and (
                vote.commits[m] == reveals[m].commitment
                if m in reveals
                else round_.votes.commits.get(m, vote.commits[m]) == vote.commits[m]
            )
            for vote in told
            for m in group
        )

    possible = any(
        can_sign(group, found)
        for group in combinations(FIVE, quorum(5))
        for found in (fixtures.outcome(), LIE)
    )
    assert round_.votes.can_reach_quorum() is possible


def test_kinds_are_told_apart() -> None:
    round_ = fresh()
    receive(round_, commit(A), 1)
    assert [round_.votes.has(A, kind) for kind in (Commit, Reveal, Abstain)] == [True, False, False]
