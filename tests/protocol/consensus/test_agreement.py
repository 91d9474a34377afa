import random
from typing import Any

import pytest

from protocol.consensus import certificate
from protocol.consensus.agreement import Agreement
from protocol.consensus.committee import committees
from protocol.consensus.effects import (
    Certified,
    EquivocationProven,
    Execute,
    SignAndSend,
    State,
    StateChanged,
    StopExecution,
)
from protocol.consensus.vote_set import VoteStatus
from protocol.errors import Rejected, Rejection
from protocol.network import Network
from protocol.wire.encoding import canonical
from protocol.wire.messages import Abstain, Abstention, Commit, Reveal, Vote
from tests.protocol.expect import rejected
from tests.protocol.papers import listed
from tests.protocol.seat import Seat, names, only
from tests.support import fixtures

NET = fixtures.network(8)  # attempts of 3, 5 and 7 members; 120 s each
TASK = fixtures.task(NET, deadline=600)
TRIO, FIVE, SEVEN = committees(NET, TASK)
A, B, C = TRIO
D = FIVE[3]
OUTSIDER = next(iter(set(NET.roster) - set(SEVEN)))
T = fixtures.START
LIES = [fixtures.outcome(f"lie {n}") for n in range(7)]


def commit(member: str, found: Any = None, attempt: int = 0) -> Commit:
    return fixtures.commit(NET, TASK, member, found, attempt)


def reveal(member: str, seen: Any = TRIO, found: Any = None, attempt: int = 0) -> Reveal:
    commits = seen if isinstance(seen, dict) else listed(TASK, seen, found, attempt)
    return fixtures.reveal(NET, TASK, member, commits, found, attempt)


def abstain(member: str, attempt: int = 0) -> Vote:
    return fixtures.abstain(NET, TASK, member, attempt=attempt)


def seat(me: str = A, net: Network = NET) -> Seat:
    return Seat(net, TASK if net is NET else fixtures.task(net), me)


def committed(me: str = A) -> Seat:
    """A member of the first committee that committed ten seconds after the start."""
    found = seat(me)
    found.executed(T + 10)
    return found


def dispute(attempt: int = 0) -> list[Vote]:
    """Reveals of a whole committee, each of which says something else."""
    members = (TRIO, FIVE, SEVEN)[attempt]
    return [reveal(m, members, lie, attempt) for m, lie in zip(members, LIES, strict=False)]


# One attempt


def test_member_executes_when_attempt_begins() -> None:
    agreement = Agreement(NET, TASK, A, lambda a: fixtures.salt(A, a), T)
    assert agreement.state == "waiting"
    assert names(agreement.start(T)) == ["Execute", "StateChanged"]
    assert agreement.state == "executing"
    assert agreement.attempt == 0


@pytest.mark.parametrize("me", [OUTSIDER, D, fixtures.peer(50)])
def test_non_member_waits(me: str) -> None:
    found = Agreement(NET, TASK, me, lambda a: fixtures.salt(me, a), T)
    assert names(found.start(T)) == ["StateChanged"]
    assert found.state is State.WAITING


def test_outcome_leads_to_commit() -> None:
    found = seat()
    assert names(found.executed(T + 10))[0] == "SignAndSend"
    assert found.sent[0].envelope.body == commit(A).envelope.body
    assert found.state is State.COMMITTED


def test_commit_signed_before_journal_loss_is_not_repeated() -> None:
    """The journal with its salt was lost, and others give back what was signed."""
    found = seat()
    found.hear(commit(A), now=T + 5)
    found.executed(T + 10)
    assert found.sent == []
    assert found.salts == []
    assert found.state is State.COMMITTED
    found.advance(T + 120)
    assert [(type(v), v.attempt) for v in found.sent] == [(Commit, 1)]


def test_happy_path_from_task_to_certificate() -> None:
    found = committed()
    assert names(found.hear(commit(B), now=T + 11)) == []
    assert names(found.hear(commit(C), now=T + 12)) == ["SignAndSend", "StateChanged"]
    assert found.sent[1].envelope.body == reveal(A).envelope.body
    assert found.state == "revealed"
    effects = found.hear(reveal(B), now=T + 13)
    assert names(effects) == ["Certified", "StateChanged"]
    made = only(Certified, effects).certificate
    assert made == certificate.verify(made.document, NET)
    assert made.signers == tuple(sorted([A, B]))
    assert found.agreement.certificates == [made]
    assert found.state is State.AGREED
    assert found.agreement.wake_at() is None


def test_list_closes_and_reveal_follows_at_exact_times() -> None:
    found = committed()
    assert found.hear(commit(B), now=T + 20) == []
    assert found.agreement.wake_at() == T + 22
    assert found.advance(T + 21.999) == []
    assert found.advance(T + 22) == []
    assert found.hear(commit(C), now=T + 22) == []
    assert found.agreement.wake_at() == T + 24
    assert found.advance(T + 23.999) == []
    assert names(found.advance(T + 24)) == ["SignAndSend", "StateChanged"]
    assert found.sent[1].envelope.body == reveal(A, [A, B]).envelope.body


def test_timers_due_before_a_vote_fire_first() -> None:
    """Woken late, by a vote: the list is the one of the time at which it was to close."""
    found = committed()
    found.hear(commit(B), now=T + 20)
    effects = found.hear(commit(C), now=T + 30)
    assert names(effects) == ["SignAndSend", "StateChanged"]
    assert found.sent[1].envelope.body == reveal(A, [A, B]).envelope.body


def test_error_outcome_is_certified_as_agreed_error() -> None:
    error = {"error": "non-finite-output"}
    found = seat()
    found.executed(T + 10, error)
    found.hear(commit(B, error), commit(C, error), reveal(B, TRIO, error), now=T + 11)
    assert found.state is State.AGREED_ERROR
    assert found.agreement.certificates[0].outcome == error


@pytest.mark.parametrize("me", [OUTSIDER, D, fixtures.peer(50)])
def test_non_member_assembles_certificate(me: str) -> None:
    found = seat(me)
    assert found.hear(reveal(B), now=T + 1) == []
    assert names(found.hear(reveal(A), now=T + 1)) == ["Certified", "StateChanged"]
    assert found.state is State.AGREED
    assert found.sent == []


def test_certificate_stops_running_execution() -> None:
    found = seat()
    assert names(found.hear(reveal(B), reveal(C), now=T + 1)) == [
        "Certified",
        "StopExecution",
        "StateChanged",
    ]
    assert names(found.executed(T + 2)) == []
    assert found.sent == []


def test_one_certificate_per_outcome_is_assembled() -> None:
    found = seat(OUTSIDER)
    found.hear(reveal(A), reveal(B), now=T + 1)
    assert found.hear(reveal(C), now=T + 2) == []
    assert len(found.agreement.certificates) == 1


def test_committed_member_reveals_after_the_end() -> None:
    """Its dissent, or its assent, is worth knowing."""
    found = committed()
    found.hear(commit(B), now=T + 20)
    found.hear(reveal(B, [A, B, C]), reveal(C, [A, B, C]), now=T + 21)
    assert found.state is State.AGREED
    assert found.agreement.wake_at() == T + 22
    assert names(found.advance(T + 24)) == ["SignAndSend"]
    assert isinstance(found.sent[-1], Reveal)
    assert found.agreement.wake_at() is None


def test_dissent_after_the_end_is_kept_without_effect() -> None:
    found = seat(OUTSIDER)
    found.hear(reveal(A), reveal(B), now=T + 1)
    dissent = reveal(C, TRIO, LIES[0])
    assert found.agreement.judge(dissent) is VoteStatus.NEW
    assert found.hear(dissent, now=T + 2) == []
    assert found.agreement.vote_sets[0].votes_of(C) == (dissent, None)
    assert found.state is State.AGREED


@pytest.mark.parametrize("vain", TRIO)
def test_reveal_that_does_not_list_itself_is_left_out_of_the_certificate(vain: str) -> None:
    found = seat(OUTSIDER)
    spoiled = reveal(vain, [m for m in TRIO if m != vain])
    others = [reveal(m) for m in TRIO if m != vain]
    effects = found.hear(spoiled, *others, now=T + 1)
    assert only(Certified, effects).certificate.signers == tuple(sorted(set(TRIO) - {vain}))
    assert found.state is State.AGREED


# Votes that no round can keep


def test_votes_of_non_members_are_rejected() -> None:
    found = seat()
    for vote in (
        commit(D),
        reveal(OUTSIDER),
        abstain(fixtures.peer(50)),
        commit(SEVEN[6], attempt=1),
    ):
        with rejected(Rejection.NOT_A_MEMBER, vote.signer):
            found.agreement.judge(vote)
        with rejected(Rejection.NOT_A_MEMBER, vote.signer):
            found.agreement.receive(vote, T + 1)
    assert found.agreement.judge(commit(D, attempt=1)) is VoteStatus.NEW


def test_votes_for_nonexistent_attempts_are_rejected() -> None:
    found = seat()
    with rejected(Rejection.NO_SUCH_ATTEMPT, "attempt: 3, this task has 3"):
        found.agreement.receive(commit(A, attempt=3), T + 1)
    assert found.agreement.judge(commit(A, attempt=2)) is VoteStatus.NEW


def test_duplicate_vote_has_no_effect() -> None:
    found = seat()
    found.hear(commit(B), now=T + 1)
    assert found.agreement.judge(commit(B)) is VoteStatus.DUPLICATE
    assert found.hear(commit(B), now=T + 2) == []


def test_conflicting_vote_gives_evidence() -> None:
    found = seat(OUTSIDER)
    found.hear(commit(B), now=T + 1)
    effects = found.hear(commit(B, LIES[0]), now=T + 2)
    proof = only(EquivocationProven, effects).evidence
    assert names(effects) == ["EquivocationProven"]
    assert (proof.signer, proof.task, proof.attempt) == (B, TASK.id, 0)
    assert found.hear(commit(B, LIES[0]), commit(B, LIES[1]), now=T + 3) == []


# The next attempt


def test_disagreement_starts_next_attempt() -> None:
    found = seat(OUTSIDER)
    first, second, third = dispute()
    assert found.hear(first, second, now=T + 30) == []
    assert names(found.hear(third, now=T + 31)) == ["StateChanged"]
    assert (found.attempt, found.state) == (1, State.WAITING)
    assert found.agreement.wake_at() == T + 31 + 120


def test_abstentions_start_next_attempt() -> None:
    found = seat(OUTSIDER)
    assert found.hear(abstain(A), now=T + 1) == []
    assert names(found.hear(abstain(B), now=T + 2)) == ["StateChanged"]
    assert found.attempt == 1


def test_attempt_timeout_starts_next_attempt_at_exact_time() -> None:
    found = seat(OUTSIDER)
    assert found.agreement.wake_at() == T + 120
    assert found.advance(T + 119.999) == []
    assert names(found.advance(T + 120)) == ["StateChanged"]
    assert found.attempt == 1
    assert found.agreement.wake_at() == T + 240


def test_late_advance_fires_missed_timeouts_in_order() -> None:
    found = seat(OUTSIDER)
    assert names(found.advance(T + 250)) == ["StateChanged", "StateChanged"]
    assert found.attempt == 2
    assert found.agreement.wake_at() == T + 360


def test_model_attempt_seconds_replace_the_network_default() -> None:
    document = fixtures.network_document(8)
    document["models"][0]["attempt_seconds"] = 500
    net = Network.parse(canonical(document))
    assert seat(fixtures.peer(50), net).agreement.wake_at() == T + 500


def test_member_of_both_committees_commits_again_without_executing() -> None:
    found = committed()
    effects = found.hear(abstain(B), abstain(C), now=T + 30)
    assert set(names(effects)) == {"SignAndSend", "StateChanged"}
    assert found.attempt == 1
    assert found.sent[-1].envelope.body == commit(A, attempt=1).envelope.body
    assert found.state is State.COMMITTED
    assert found.salts == [0, 1]


def test_new_member_of_the_committee_executes() -> None:
    found = seat(D)
    assert names(found.hear(abstain(A), abstain(B), now=T + 30)) == ["Execute", "StateChanged"]
    assert found.state is State.EXECUTING
    found.executed(T + 40)
    assert found.sent[-1].envelope.body == commit(D, attempt=1).envelope.body


def test_running_execution_continues_into_the_new_attempt() -> None:
    found = seat()
    assert names(found.advance(T + 120)) == ["StateChanged"]
    assert found.state is State.EXECUTING
    found.executed(T + 130)
    assert [v.envelope.body for v in found.sent] == [commit(A, attempt=1).envelope.body]


def test_member_that_abstained_executes_in_the_next_attempt() -> None:
    found = seat()
    found.did(found.agreement.failed(Abstention.BUSY, T + 1), T + 1)
    assert names(found.hear(abstain(B), now=T + 2)) == ["Execute", "StateChanged"]
    assert found.state is State.EXECUTING


def test_member_still_reveals_in_an_earlier_attempt() -> None:
    """A member that committed to attempt 0 still reveals there, in attempt 1."""
    found = committed()
    found.hear(commit(B), now=T + 118)
    found.advance(T + 120)
    assert found.attempt == 1
    effects = found.advance(T + 122)
    assert names(effects) == ["SignAndSend"]
    assert found.sent[-1].envelope.body == reveal(A, [A, B]).envelope.body
    assert names(found.hear(reveal(B, [A, B]), now=T + 123)) == ["Certified", "StateChanged"]
    assert found.agreement.certificates[0].attempt == 0


def test_votes_of_a_later_attempt_are_kept_and_do_not_start_it() -> None:
    found = seat()
    early: list[Vote] = [commit(m, attempt=1) for m in FIVE[1:]]
    assert found.hear(*early, abstain(B, 2), now=T + 1) == []
    assert (found.attempt, found.state) == (0, State.EXECUTING)
    assert found.agreement.wake_at() == T + 120
    found.advance(T + 120)
    found.executed(T + 130)
    assert [type(v) for v in found.sent] == [Commit, Reveal]
    assert found.sent[1].envelope.body == reveal(A, FIVE, None, 1).envelope.body


def test_later_attempt_without_possible_quorum_does_not_end_the_current_one() -> None:
    found = seat(OUTSIDER)
    assert found.hear(*dispute(1), now=T + 1) == []
    assert found.attempt == 0


def test_attempt_without_possible_quorum_is_skipped_when_it_begins() -> None:
    """Specification 6.6: the next starts when no outcome can reach the quorum, however it began."""
    for by_time in (False, True):
        found = seat(OUTSIDER)
        found.hear(*(abstain(m, 1) for m in FIVE[:3]), now=T + 1)
        if by_time:
            found.advance(T + 120)
        else:
            found.hear(abstain(A), abstain(B), now=T + 120)
        assert found.attempt == 2, f"by time: {by_time}"
        assert found.agreement.wake_at() == T + 240


def test_several_attempts_without_possible_quorum_are_skipped() -> None:
    found = seat(OUTSIDER)
    found.hear(*(abstain(m, 1) for m in FIVE[:3]), *(abstain(m, 2) for m in SEVEN[:4]), now=T + 1)
    assert found.attempt == 0
    found.hear(abstain(A), abstain(B), now=T + 2)
    assert (found.attempt, found.state) == (2, State.INCONCLUSIVE)


def test_later_attempt_can_be_certified_early() -> None:
    found = seat()
    votes = [reveal(m, FIVE, None, 1) for m in FIVE[2:]]
    effects = found.hear(*votes, now=T + 1)
    assert names(effects) == ["Certified", "StopExecution", "StateChanged"]
    assert only(Certified, effects).certificate.attempt == 1
    assert found.state is State.AGREED


# This node's own abstention


def test_failed_execution_leads_to_abstention() -> None:
    found = seat()
    effects = found.did(found.agreement.failed(Abstention.OUT_OF_MEMORY, T + 5), T + 5)
    vote = found.sent[0]
    assert isinstance(vote, Abstain)
    assert (vote.attempt, vote.reason) == (0, Abstention.OUT_OF_MEMORY)
    assert "StateChanged" in names(effects)
    assert found.state is State.ABSTAINED


def test_replayed_own_abstention_ends_the_execution() -> None:
    """After a restart nobody calls `failed` again: the next attempt must execute anew."""
    found = seat()
    found.hear(abstain(A), now=T + 1)
    assert found.state is State.ABSTAINED
    only(Execute, found.hear(abstain(B), now=T + 2))


def test_abstention_is_for_the_attempt_of_the_failure() -> None:
    found = seat()
    found.advance(T + 120)
    found.did(found.agreement.failed(Abstention.TIMEOUT, T + 121), T + 121)
    assert found.sent[0].attempt == 1


def test_abstains_once_per_attempt_and_not_after_the_end() -> None:
    found = seat()
    found.did(found.agreement.failed(Abstention.BUSY, T + 1), T + 1)
    found.did(found.agreement.failed(Abstention.TIMEOUT, T + 2), T + 2)
    assert len(found.sent) == 1
    ended = seat()
    ended.hear(reveal(B), reveal(C), now=T + 1)
    assert ended.did(ended.agreement.failed(Abstention.BUSY, T + 2), T + 2) == []


# The end


def test_disagreement_in_last_attempt_is_inconclusive() -> None:
    found = seat(OUTSIDER)
    for attempt in range(3):
        assert found.attempt == attempt
        found.hear(*dispute(attempt), now=T + 30 + attempt)
    assert (found.attempt, found.state) == (2, State.INCONCLUSIVE)
    assert found.agreement.wake_at() is None


def test_timeout_of_last_attempt_is_inconclusive() -> None:
    found = seat()
    assert names(found.advance(T + 359.999)) == ["StateChanged", "StateChanged"]
    assert names(found.advance(T + 360)) == ["StopExecution", "StateChanged"]
    assert found.state is State.INCONCLUSIVE


def test_deadline_expires_task_at_exact_time() -> None:
    task = fixtures.task(NET, deadline=60)
    found = Seat(NET, task, committees(NET, task)[0][0])
    assert found.agreement.wake_at() == T + 60
    assert found.advance(T + 59.999) == []
    assert names(found.advance(T + 60)) == ["StopExecution", "StateChanged"]
    assert (found.attempt, found.state) == (0, State.EXPIRED)
    assert found.agreement.wake_at() is None
    assert found.executed(T + 61) == []


def test_deadline_takes_precedence_over_attempt_timeout() -> None:
    task = fixtures.task(NET, deadline=120)
    found = Seat(NET, task, OUTSIDER)
    found.advance(T + 1000)
    assert (found.attempt, found.state) == (0, State.EXPIRED)


def test_deadline_counts_from_task_creation() -> None:
    task = fixtures.task(NET, now=T - 550, deadline=600)
    assert Seat(NET, task, OUTSIDER, now=T).agreement.wake_at() == T + 50


def test_agreement_started_after_deadline_is_expired() -> None:
    found = Seat(NET, TASK, A, now=T + 600)
    assert names(found.effects) == []
    assert found.state is State.EXPIRED


def test_ends_at_is_the_latest_time_of_giving_up() -> None:
    found = seat(OUTSIDER)
    assert found.agreement.ends_at == T + 360
    found.hear(abstain(A), abstain(B), now=T + 30)
    assert found.agreement.ends_at == T + 30 + 240
    short = fixtures.task(NET, deadline=100)
    assert Seat(NET, short, OUTSIDER).agreement.ends_at == T + 100


@pytest.mark.parametrize("error", [False, True])
@pytest.mark.parametrize(("late", "state"), [(360, State.INCONCLUSIVE), (600, State.EXPIRED)])
def test_late_certificate_replaces_inconclusive_and_expired(
    late: int, state: State, error: bool
) -> None:
    document = fixtures.network_document(
        8, attempt_seconds=1 if state is State.INCONCLUSIVE else 900
    )
    net = Network.parse(canonical(document))
    task = fixtures.task(net)
    trio = committees(net, task)[0]
    outcome = {"error": "no-notes"} if error else fixtures.outcome()
    found = Seat(net, task, fixtures.peer(50))
    found.advance(T + late)
    assert found.state is state
    commits = listed(task, trio, outcome)
    votes = [fixtures.reveal(net, task, m, commits, outcome) for m in trio[:2]]
    assert names(found.hear(*votes, now=T + 1000)) == ["Certified", "StateChanged"]
    assert found.state is (State.AGREED_ERROR if error else State.AGREED)


def conflict() -> list[Vote]:
    """B says one thing with A and another with C."""
    lie = LIES[0]
    truth = listed(TASK, [A, B])
    other = listed(TASK, [B, C], lie)
    return [
        fixtures.reveal(NET, TASK, A, truth),
        fixtures.reveal(NET, TASK, B, truth),
        fixtures.reveal(NET, TASK, B, other, lie),
        fixtures.reveal(NET, TASK, C, other, lie),
    ]


def test_second_certificate_is_a_conflict_and_the_first_stands() -> None:
    found = seat(OUTSIDER)
    effects = found.hear(*conflict(), now=T + 1)
    assert names(effects) == ["Certified", "StateChanged", "EquivocationProven", "Certified"]
    first, second = found.agreement.certificates
    assert first.outcome == fixtures.outcome()
    assert second.outcome == LIES[0]
    for each in (first, second):
        certificate.verify(each.document, NET)
    assert found.state is State.AGREED


def test_certified_error_after_result_does_not_change_state() -> None:
    found = seat(OUTSIDER)
    error = {"error": "no-notes"}
    both = listed(TASK, [B, C], error)
    found.hear(*conflict()[:2], now=T + 1)
    found.hear(
        fixtures.reveal(NET, TASK, B, both, error),
        fixtures.reveal(NET, TASK, C, both, error),
        now=T + 2,
    )
    assert len(found.agreement.certificates) == 2
    assert found.state is State.AGREED


@pytest.mark.parametrize("seed", range(6))
def test_certificates_do_not_depend_on_order_of_votes(seed: int) -> None:
    votes = conflict()
    random.Random(seed).shuffle(votes)
    found = seat(OUTSIDER)
    found.hear(*votes, now=T + 1)
    assert {c.votes[0].digest for c in found.agreement.certificates} == {
        reveal(A).digest,
        reveal(A, TRIO, LIES[0]).digest,
    }


# After a restart


def test_resume_restarts_interrupted_execution() -> None:
    found = seat()
    only(Execute, found.did(found.agreement.resume(T + 10), T + 10))
    assert found.state is State.EXECUTING


def test_resume_starts_nothing_when_no_execution_is_needed() -> None:
    abstained, outsider, ended, done = seat(), seat(OUTSIDER), seat(), committed()
    abstained.did(abstained.agreement.failed(Abstention.BUSY, T + 1), T + 1)
    ended.hear(reveal(B), reveal(C), now=T + 1)
    for found in (abstained, outsider, ended, done):
        assert not any(isinstance(e, Execute) for e in found.agreement.resume(T + 20))


def test_resume_fires_missed_timers_first() -> None:
    found = seat()
    assert "Execute" not in names(found.agreement.resume(T + 360))
    assert found.state is State.INCONCLUSIVE
    late = seat(D)
    only(Execute, late.agreement.resume(T + 130))
    assert (late.attempt, late.state) == (1, State.EXECUTING)


# The same calls give the same effects


def play(agreement: Agreement, seed: int) -> list[object]:
    """A hundred calls at random; what each of them gave."""
    dice = random.Random(seed)
    seen: list[object] = [agreement.start(T)]
    now = T
    outcomes = [None, None, None, LIES[0], {"error": "no-notes"}]
    done = False
    for _ in range(100):
        now += dice.choice((0, 0, 0.5, 1, 2, 5, 30))
        attempt = dice.choice((0, 0, 1, 2))
        members = agreement.vote_sets[attempt].committee
        member = dice.choice((*members, OUTSIDER))
        found = dice.choice(outcomes)
        match dice.choice(("commit", "commit", "reveal", "reveal", "abstain", "time", "own")):
            case "commit":
                seen.append(heard(agreement, commit(member, found, attempt), now))
            case "reveal":
                listing = dice.sample(list(members), dice.randint(2, len(members)))
                vote = reveal(member, [*listing, member], found, attempt)
                seen.append(heard(agreement, vote, now))
            case "abstain":
                if dice.random() < 0.3:
                    seen.append(heard(agreement, abstain(member, attempt), now))
            case "time":
                seen.append(agreement.advance(now))
            case _ if not done:
                done = True
                seen.append(agreement.executed(found or fixtures.outcome(), {}, now))
        seen.append((agreement.state, agreement.attempt, agreement.wake_at()))
    return seen


def heard(agreement: Agreement, vote: Vote, now: float) -> object:
    try:
        return agreement.receive(vote, now)
    except Rejected as refused:
        return refused.reason


def fresh() -> Agreement:
    return Agreement(NET, TASK, A, lambda a: fixtures.salt(A, a), T)


@pytest.mark.parametrize("seed", range(12))
def test_same_calls_and_times_give_same_effects(seed: int) -> None:
    assert play(fresh(), seed) == play(fresh(), seed)


def test_random_calls_cover_all_effects() -> None:
    seen = [part for seed in range(12) for part in play(fresh(), seed)]
    effects = {type(e) for part in seen if isinstance(part, list) for e in part}
    assert {Execute, SignAndSend, Certified, EquivocationProven, StateChanged} <= effects
    assert {Rejection.NOT_A_MEMBER} <= {r for r in seen if isinstance(r, Rejection)}


def test_salt_is_drawn_once_per_attempt() -> None:
    found = committed()
    found.hear(abstain(B), abstain(C), now=T + 30)
    found.hear(*(abstain(m, 1) for m in FIVE[1:4]), now=T + 31)
    assert found.salts == [0, 1, 2]
    assert [v.attempt for v in found.sent] == [0, 1, 2]
    assert len({v.commitment for v in found.sent if isinstance(v, Commit)}) == 3


def test_execution_is_stopped_once() -> None:
    found = seat()
    effects = found.hear(reveal(B), reveal(C), now=T + 1)
    only(StopExecution, effects)
    assert found.advance(T + 1000) == []
