from functools import cache
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.consensus.certificate import assemble, lists, verify
from protocol.consensus.committee import committees, quorum
from protocol.consensus.vote_set import VoteSet, VoteStatus
from protocol.wire.messages import Abstain, Commit, Reveal, Vote, outcome_digest
from tests.protocol.certificates import commitments
from tests.protocol.rejections import PROPERTY
from tests.protocol.votes import abstain, commit, reveal
from tests.support import fixtures

NET = fixtures.network(5, committee_size=3, committee_max=5)
TASK = fixtures.task(NET)
TRIO = committees(NET, TASK)[0]
FIVE = committees(NET, TASK)[1]
A, B, C = TRIO
LIE = fixtures.outcome("lie")
DIGEST, LIE_DIGEST = outcome_digest(fixtures.outcome()), outcome_digest(LIE)
NEW, DUPLICATE, CONFLICTING = VoteStatus.NEW, VoteStatus.DUPLICATE, VoteStatus.CONFLICTING


def add(vote_set: VoteSet, vote: Vote, *, keep_conflicting: bool = False) -> VoteStatus:
    """Judge a vote and add it, as an agreement does."""
    status = vote_set.judge(vote, keep_conflicting=keep_conflicting)
    vote_set.add(vote, status)
    return status


# Status of a vote


def test_vote_is_new_once_then_duplicate() -> None:
    vote_set = VoteSet(TRIO)
    for vote in (commit(A), reveal(A), abstain(A), commit(B), reveal(C)):
        assert vote_set.judge(vote) is NEW
        assert vote_set.judge(vote) is NEW
        assert add(vote_set, vote) is NEW
        assert vote_set.judge(vote) is DUPLICATE
        assert add(vote_set, vote) is DUPLICATE
        assert vote_set.has(vote.signer, type(vote))
    assert not vote_set.has(C, Commit)
    assert vote_set.votes_of(A) == (reveal(A), abstain(A))
    assert vote_set.votes_of(B) == (None, None)


def test_reveal_is_kept_before_its_commit() -> None:
    vote_set = VoteSet(TRIO)
    assert add(vote_set, reveal(A)) is NEW
    assert add(vote_set, commit(A)) is NEW
    assert vote_set.commits == commitments(TASK, [A])
    assert vote_set.reveals == [reveal(A)]


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
def test_first_of_two_conflicting_votes_counts(first: Vote, second: Vote) -> None:
    for earlier, later in ((first, second), (second, first)):
        vote_set = VoteSet(TRIO)
        assert vote_set.conflicting_vote(later) is None
        add(vote_set, earlier)
        assert vote_set.conflicting_vote(later) == earlier
        assert vote_set.judge(later) is CONFLICTING
        assert add(vote_set, later) is CONFLICTING
        assert vote_set.judge(later) is DUPLICATE
        assert vote_set.judge(earlier) is DUPLICATE
        assert vote_set.has(A, type(earlier))
        assert vote_set.has(A, type(later)) is (type(earlier) is type(later))


def test_abstention_conflicts_with_no_other_vote() -> None:
    for votes in ([commit(A), abstain(A), reveal(A)], [abstain(A), commit(A), reveal(A)]):
        vote_set = VoteSet(TRIO)
        assert [add(vote_set, vote) for vote in votes] == [NEW] * 3


def test_reveal_that_opens_the_commit_counts_after_conflicting_reveal() -> None:
    vote_set = VoteSet(TRIO)
    add(vote_set, commit(A))
    assert add(vote_set, reveal(A, TRIO, LIE)) is CONFLICTING
    assert add(vote_set, reveal(A)) is NEW
    assert vote_set.reveals == [reveal(A)]


def test_one_conflicting_vote_per_type_is_kept() -> None:
    vote_set = VoteSet(TRIO)
    add(vote_set, commit(A))
    add(vote_set, commit(A, LIE))
    assert add(vote_set, commit(A, fixtures.outcome("another lie"))) is DUPLICATE
    add(vote_set, reveal(B))
    assert add(vote_set, reveal(B, trace={"n": 1})) is CONFLICTING
    assert add(vote_set, reveal(B, trace={"n": 2})) is DUPLICATE


def test_further_conflicting_reveal_is_kept_if_it_completes_a_certificate() -> None:
    """Nodes that received the reveals in another order may hold the certificate already."""
    vote_set = VoteSet(TRIO)
    add(vote_set, reveal(A, TRIO, LIE))
    add(vote_set, reveal(A, TRIO, fixtures.outcome("another lie")))
    third = reveal(A)
    assert vote_set.judge(third) is DUPLICATE
    add(vote_set, reveal(B))
    assert vote_set.judge(third) is CONFLICTING
    assert add(vote_set, third) is CONFLICTING
    assert {r.signer for r in vote_set.agreeing_reveals(DIGEST)} == {A, B}
    assert vote_set.judge(reveal(A, trace={"n": 9})) is DUPLICATE


def test_at_most_three_conflicting_reveals_are_kept() -> None:
    vote_set = VoteSet(TRIO)
    lies = [fixtures.outcome(f"lie {n}") for n in range(6)]
    kept = []
    for lie in lies:
        seen = {member: fixtures.commitment_of(TASK, member, lie) for member in TRIO}
        add(vote_set, reveal(B, seen, lie), keep_conflicting=True)
        kept.append(add(vote_set, reveal(A, seen, lie)))
    assert kept == [NEW, CONFLICTING, CONFLICTING, CONFLICTING, DUPLICATE, DUPLICATE]


def test_keep_conflicting_overrides_the_limit_and_ignores_duplicates() -> None:
    vote_set = VoteSet(TRIO)
    lies = [reveal(A, trace={"n": n}) for n in range(6)]
    for lie in lies:
        add(vote_set, lie, keep_conflicting=True)
    assert {vote_set.judge(lie, keep_conflicting=True) for lie in lies} == {DUPLICATE}
    add(vote_set, reveal(B))
    assert {r.signer for r in vote_set.agreeing_reveals(DIGEST)} == {A, B}


# Agreeing reveals


def test_quorum_of_equal_reveals_that_list_each_other_agrees() -> None:
    vote_set = VoteSet(TRIO)
    add(vote_set, reveal(A))
    assert vote_set.agreeing_reveals(DIGEST) == []
    add(vote_set, reveal(C, TRIO, LIE))
    assert vote_set.agreeing_reveals(DIGEST) == []
    add(vote_set, reveal(B))
    assert [r.signer for r in vote_set.agreeing_reveals(DIGEST)] == sorted([A, B])
    assert vote_set.agreeing_reveals(LIE_DIGEST) == []


def test_unlisted_copycat_is_left_out() -> None:
    vote_set = VoteSet(TRIO)
    for vote in (reveal(A, [A, B]), reveal(B, [A, B]), reveal(C)):
        add(vote_set, vote)
    assert [r.signer for r in vote_set.agreeing_reveals(DIGEST)] == sorted([A, B])


def test_conflicting_reveals_count_for_certificates() -> None:
    vote_set = VoteSet(TRIO)
    add(vote_set, commit(A, LIE))
    assert add(vote_set, reveal(A)) is CONFLICTING
    add(vote_set, reveal(B))
    assert {r.signer for r in vote_set.agreeing_reveals(DIGEST)} == {A, B}


@pytest.mark.parametrize("vain", TRIO)
def test_reveal_that_does_not_list_itself_does_not_block_a_certificate(vain: str) -> None:
    """Section 4: every vote's list holds every signer's commitment, the vote's own included."""
    vote_set = VoteSet(TRIO)
    for member in TRIO:
        seen = [m for m in TRIO if m != vain] if member == vain else TRIO
        add(vote_set, reveal(member, seen))
    agreeing = vote_set.agreeing_reveals(DIGEST)
    assert {r.signer for r in agreeing} == set(TRIO) - {vain}
    verify(assemble(TASK, 0, agreeing, NET).document, NET)


LISTS = st.lists(st.frozensets(st.sampled_from(FIVE)), min_size=5, max_size=5)


@cache
def reveal_listing(member: str, members: frozenset[str], lie: bool) -> Reveal:
    """Return a reveal that lists these members, who all committed to its outcome."""
    outcome = LIE if lie else fixtures.outcome()
    return reveal(member, {m: fixtures.commitment_of(TASK, m, outcome) for m in members}, outcome)


@given(LISTS, st.lists(st.booleans(), min_size=5, max_size=5))
@PROPERTY
def test_agreeing_reveals_are_the_largest_valid_certificate(
    listings: list[frozenset[str]], lying: list[bool]
) -> None:
    vote_set = VoteSet(FIVE)
    votes = [
        reveal_listing(member, listing, lie)
        for member, listing, lie in zip(FIVE, listings, lying, strict=True)
    ]
    for vote in votes:
        add(vote_set, vote)
    for digest in (DIGEST, LIE_DIGEST):
        fit = [v for v in votes if v.digest == digest]
        best = max(
            n
            for n in range(len(fit) + 1)
            for chosen in combinations(fit, n)
            if all(lists(a, b) for a in chosen for b in chosen)
        )
        agreeing = vote_set.agreeing_reveals(digest)
        assert len(agreeing) == (best if best >= 3 else 0)
        assert all(lists(a, b) for a in agreeing for b in agreeing)


# Reaching the quorum


def test_empty_vote_set_can_reach_quorum() -> None:
    assert VoteSet(TRIO).can_reach_quorum()
    assert VoteSet((A,)).can_reach_quorum()


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
def test_can_reach_quorum_examples(votes: list[Vote], possible: bool) -> None:
    vote_set = VoteSet(TRIO)
    for vote in votes:
        add(vote_set, vote)
    assert vote_set.can_reach_quorum() is possible


@given(
    st.lists(st.sampled_from(["silent", "abstain", "honest", "lie"]), min_size=5, max_size=5),
    LISTS,
    st.sets(st.sampled_from(FIVE)),
)
@PROPERTY
def test_can_reach_quorum_matches_brute_force(
    roles: list[str], listings: list[frozenset[str]], early: set[str]
) -> None:
    vote_set = VoteSet(FIVE)
    for member in early:
        add(vote_set, commit(member))
    reveals: dict[str, Reveal] = {}
    silent = {m for m, role in zip(FIVE, roles, strict=True) if role == "silent"}
    for member, role, listing in zip(FIVE, roles, listings, strict=True):
        if role in ("honest", "lie"):
            vote = reveal_listing(member, listing | {member}, role == "lie")
            if add(vote_set, vote) is NEW:
                reveals[member] = vote
            else:
                silent.add(member)
        elif role == "abstain":
            add(vote_set, abstain(member))

    def can_sign(group: tuple[str, ...], outcome: dict[str, Any]) -> bool:
        """Whether all of a group may still be in one certificate of this outcome."""
        revealed = [reveals[m] for m in group if m in reveals]
        return all(
            m in silent or (m in reveals and reveals[m].outcome == outcome) for m in group
        ) and all(
            vote.commits.get(m) is not None
            and (
                vote.commits[m] == reveals[m].commitment
                if m in reveals
                else vote_set.commits.get(m, vote.commits[m]) == vote.commits[m]
            )
            for vote in revealed
            for m in group
        )

    possible = any(
        can_sign(group, outcome)
        for group in combinations(FIVE, quorum(5))
        for outcome in (fixtures.outcome(), LIE)
    )
    assert vote_set.can_reach_quorum() is possible


def test_has_distinguishes_vote_types() -> None:
    vote_set = VoteSet(TRIO)
    add(vote_set, commit(A))
    assert [vote_set.has(A, kind) for kind in (Commit, Reveal, Abstain)] == [True, False, False]
