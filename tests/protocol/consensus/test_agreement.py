import itertools
import random
from typing import Any

import pytest

from protocol.consensus import certificate, evidence
from protocol.consensus.agreement import Agreement
from protocol.consensus.committee import committees
from protocol.consensus.effects import (
    Certified,
    Execute,
    MisconductProven,
    SignAndSend,
    State,
    StateChanged,
    StopExecution,
    Withdrawn,
)
from protocol.consensus.vote_set import VoteStatus
from protocol.errors import Rejected, Rejection
from protocol.network import Network
from protocol.wire.encoding import canonical
from protocol.wire.messages import Abstain, Abstention, Commit, Reveal, Vote
from tests.protocol.certificates import commitments
from tests.protocol.driver import AgreementDriver, effect_names, single
from tests.protocol.rejections import rejected
from tests.support import fixtures

NET = fixtures.network(8)  # attempts of 3, 5 and 7 members; 120 s each
TASK = fixtures.task(NET, deadline=600)
TRIO, FIVE, SEVEN = committees(NET, TASK)
A, B, C = TRIO
D = FIVE[3]
OUTSIDER = next(iter(set(NET.roster) - set(SEVEN)))
T = fixtures.START
# Abstentions after which no outcome is possible in the second and third attempts.
LOST = [fixtures.abstain(NET, TASK, m, attempt=1) for m in FIVE[:3]] + [
    fixtures.abstain(NET, TASK, m, attempt=2) for m in SEVEN[:4]
]
LIES = [fixtures.outcome(f"lie {n}") for n in range(7)]


def commit(member: str, outcome: Any = None, attempt: int = 0) -> Commit:
    return fixtures.commit(NET, TASK, member, outcome, attempt)


def reveal(member: str, seen: Any = TRIO, outcome: Any = None, attempt: int = 0) -> Reveal:
    commits = seen if isinstance(seen, dict) else commitments(TASK, seen, outcome, attempt)
    return fixtures.reveal(NET, TASK, member, commits, outcome, attempt)


def abstain(member: str, attempt: int = 0) -> Vote:
    return fixtures.abstain(NET, TASK, member, attempt=attempt)


def driver(me: str = A, net: Network = NET) -> AgreementDriver:
    return AgreementDriver(net, TASK if net is NET else fixtures.task(net), me)


def committed(me: str = A) -> AgreementDriver:
    """Return a member of the first committee that committed ten seconds after the start."""
    node = driver(me)
    node.executed(T + 10)
    return node


def dispute(attempt: int = 0) -> list[Vote]:
    """Return reveals of a whole committee, each with another outcome."""
    members = (TRIO, FIVE, SEVEN)[attempt]
    return [reveal(m, members, lie, attempt) for m, lie in zip(members, LIES, strict=False)]


# One attempt


def test_member_executes_when_attempt_begins() -> None:
    agreement = Agreement(NET, TASK, A, lambda a: fixtures.salt(A, a), T)
    assert agreement.state == "waiting"
    assert effect_names(agreement.start(T)) == ["Execute", "StateChanged"]
    assert agreement.state == "executing"
    assert agreement.attempt == 0


@pytest.mark.parametrize("me", [OUTSIDER, D, fixtures.peer(50)])
def test_non_member_waits(me: str) -> None:
    node = Agreement(NET, TASK, me, lambda a: fixtures.salt(me, a), T)
    assert effect_names(node.start(T)) == ["StateChanged"]
    assert node.state is State.WAITING


def test_outcome_leads_to_commit() -> None:
    node = driver()
    assert effect_names(node.executed(T + 10))[0] == "SignAndSend"
    assert node.sent[0].envelope.body == commit(A).envelope.body
    assert node.state is State.COMMITTED


def test_commit_signed_before_journal_loss_is_not_repeated() -> None:
    """The journal with the salt was lost; other nodes send back the own commit."""
    node = driver()
    node.receive(commit(A), now=T + 5)
    node.executed(T + 10)
    assert node.sent == []
    assert node.salts == []
    assert node.state is State.COMMITTED
    node.advance(T + 120)
    assert [(type(v), v.attempt) for v in node.sent] == [(Commit, 1)]


def test_happy_path_from_task_to_certificate() -> None:
    node = committed()
    assert effect_names(node.receive(commit(B), now=T + 11)) == []
    assert effect_names(node.receive(commit(C), now=T + 12)) == ["SignAndSend", "StateChanged"]
    assert node.sent[1].envelope.body == reveal(A).envelope.body
    assert node.state == "revealed"
    effects = node.receive(reveal(B), now=T + 13)
    assert effect_names(effects) == ["Certified", "StateChanged"]
    assembled = single(Certified, effects).certificate
    assert assembled == certificate.verify(assembled.document, NET)
    assert assembled.signers == tuple(sorted([A, B]))
    assert node.agreement.certificates == [assembled]
    assert node.state is State.AGREED
    assert node.agreement.wake_at() is None


def test_list_closes_and_reveal_follows_at_exact_times() -> None:
    node = committed()
    assert node.receive(commit(B), now=T + 20) == []
    assert node.agreement.wake_at() == T + 22
    assert node.advance(T + 21.999) == []
    assert node.advance(T + 22) == []
    assert node.receive(commit(C), now=T + 22) == []
    assert node.agreement.wake_at() == T + 24
    assert node.advance(T + 23.999) == []
    assert effect_names(node.advance(T + 24)) == ["SignAndSend", "StateChanged"]
    assert node.sent[1].envelope.body == reveal(A, [A, B]).envelope.body


def test_timers_due_before_a_vote_fire_first() -> None:
    """A late vote wakes the machine: the list has the commits of the scheduled closing time."""
    node = committed()
    node.receive(commit(B), now=T + 20)
    effects = node.receive(commit(C), now=T + 30)
    assert effect_names(effects) == ["SignAndSend", "StateChanged"]
    assert node.sent[1].envelope.body == reveal(A, [A, B]).envelope.body


def test_error_outcome_is_certified_as_agreed_error() -> None:
    error = {"error": "non-finite-output"}
    node = driver()
    node.executed(T + 10, error)
    node.receive(commit(B, error), commit(C, error), reveal(B, TRIO, error), now=T + 11)
    assert node.state is State.AGREED_ERROR
    assert node.agreement.certificates[0].outcome == error


@pytest.mark.parametrize("me", [OUTSIDER, D, fixtures.peer(50)])
def test_non_member_assembles_certificate(me: str) -> None:
    node = driver(me)
    assert node.receive(reveal(B), now=T + 1) == []
    assert effect_names(node.receive(reveal(A), now=T + 1)) == ["Certified", "StateChanged"]
    assert node.state is State.AGREED
    assert node.sent == []


def test_certificate_stops_running_execution() -> None:
    node = driver()
    assert effect_names(node.receive(reveal(B), reveal(C), now=T + 1)) == [
        "Certified",
        "StopExecution",
        "StateChanged",
    ]
    assert effect_names(node.executed(T + 2)) == []
    assert node.sent == []


def test_one_certificate_per_outcome_is_assembled() -> None:
    node = driver(OUTSIDER)
    node.receive(reveal(A), reveal(B), now=T + 1)
    assert node.receive(reveal(C), now=T + 2) == []
    assert len(node.agreement.certificates) == 1


def test_committed_member_reveals_after_the_end() -> None:
    """Its vote is still recorded as agreement or dissent."""
    node = committed()
    node.receive(commit(B), now=T + 20)
    node.receive(reveal(B, [A, B, C]), reveal(C, [A, B, C]), now=T + 21)
    assert node.state is State.AGREED
    assert node.agreement.wake_at() == T + 22
    assert effect_names(node.advance(T + 24)) == ["SignAndSend"]
    assert isinstance(node.sent[-1], Reveal)
    assert node.agreement.wake_at() is None


def test_dissent_after_the_end_is_kept_without_effect() -> None:
    node = driver(OUTSIDER)
    node.receive(reveal(A), reveal(B), now=T + 1)
    dissent = reveal(C, TRIO, LIES[0])
    assert node.agreement.judge(dissent) is VoteStatus.NEW
    assert node.receive(dissent, now=T + 2) == []
    assert node.agreement.vote_sets[0].votes_of(C) == (dissent, None)
    assert node.state is State.AGREED


@pytest.mark.parametrize("vain", TRIO)
def test_reveal_that_does_not_list_itself_is_left_out_of_the_certificate(vain: str) -> None:
    node = driver(OUTSIDER)
    spoiled = reveal(vain, [m for m in TRIO if m != vain])
    honest = [reveal(m) for m in TRIO if m != vain]
    effects = node.receive(spoiled, *honest, now=T + 1)
    assert single(Certified, effects).certificate.signers == tuple(sorted(set(TRIO) - {vain}))
    assert node.state is State.AGREED


# Votes that no round can keep


def test_votes_of_non_members_are_rejected() -> None:
    node = driver()
    for vote in (
        commit(D),
        reveal(OUTSIDER),
        abstain(fixtures.peer(50)),
        commit(SEVEN[6], attempt=1),
    ):
        with rejected(Rejection.NOT_A_MEMBER, vote.signer):
            node.agreement.judge(vote)
        with rejected(Rejection.NOT_A_MEMBER, vote.signer):
            node.agreement.receive(vote, T + 1)
    assert node.agreement.judge(commit(D, attempt=1)) is VoteStatus.NEW


def test_votes_for_nonexistent_attempts_are_rejected() -> None:
    node = driver()
    with rejected(Rejection.NO_SUCH_ATTEMPT, "attempt: 3, this task has 3"):
        node.agreement.receive(commit(A, attempt=3), T + 1)
    assert node.agreement.judge(commit(A, attempt=2)) is VoteStatus.NEW


def test_duplicate_vote_has_no_effect() -> None:
    node = driver()
    node.receive(commit(B), now=T + 1)
    assert node.agreement.judge(commit(B)) is VoteStatus.DUPLICATE
    assert node.receive(commit(B), now=T + 2) == []


def test_conflicting_vote_gives_evidence() -> None:
    node = driver(OUTSIDER)
    node.receive(commit(B), now=T + 1)
    effects = node.receive(commit(B, LIES[0]), now=T + 2)
    proof = single(MisconductProven, effects).evidence
    assert effect_names(effects) == ["MisconductProven"]
    assert (proof.signer, proof.task, proof.attempts) == (B, TASK.id, (0, 0))
    assert node.receive(commit(B, LIES[0]), commit(B, LIES[1]), now=T + 3) == []


# The next attempt


def test_disagreement_starts_next_attempt() -> None:
    node = driver(OUTSIDER)
    first, second, third = dispute()
    assert node.receive(first, second, now=T + 30) == []
    assert effect_names(node.receive(third, now=T + 31)) == ["StateChanged"]
    assert (node.attempt, node.state) == (1, State.WAITING)
    assert node.agreement.wake_at() == T + 31 + 120


def test_abstentions_start_next_attempt() -> None:
    node = driver(OUTSIDER)
    assert node.receive(abstain(A), now=T + 1) == []
    assert effect_names(node.receive(abstain(B), now=T + 2)) == ["StateChanged"]
    assert node.attempt == 1


def test_attempt_timeout_starts_next_attempt_at_exact_time() -> None:
    node = driver(OUTSIDER)
    assert node.agreement.wake_at() == T + 120
    assert node.advance(T + 119.999) == []
    assert effect_names(node.advance(T + 120)) == ["StateChanged"]
    assert node.attempt == 1
    assert node.agreement.wake_at() == T + 240


def test_late_advance_fires_missed_timeouts_in_order() -> None:
    node = driver(OUTSIDER)
    assert effect_names(node.advance(T + 250)) == ["StateChanged", "StateChanged"]
    assert node.attempt == 2
    assert node.agreement.wake_at() == T + 600  # the last attempt ends at the deadline only


def test_model_attempt_seconds_replace_the_network_default() -> None:
    document = fixtures.network_document(8)
    document["models"][0]["attempt_seconds"] = 500
    net = Network.parse(canonical(document))
    assert driver(fixtures.peer(50), net).agreement.wake_at() == T + 500


def test_member_of_both_committees_commits_again_without_executing() -> None:
    node = committed()
    effects = node.receive(abstain(B), abstain(C), now=T + 30)
    assert set(effect_names(effects)) == {"SignAndSend", "StateChanged"}
    assert node.attempt == 1
    assert node.sent[-1].envelope.body == commit(A, attempt=1).envelope.body
    assert node.state is State.COMMITTED
    assert node.salts == [0, 1]


def test_new_member_of_the_committee_executes() -> None:
    node = driver(D)
    assert effect_names(node.receive(abstain(A), abstain(B), now=T + 30)) == [
        "Execute",
        "StateChanged",
    ]
    assert node.state is State.EXECUTING
    node.executed(T + 40)
    assert node.sent[-1].envelope.body == commit(D, attempt=1).envelope.body


def test_running_execution_continues_into_the_new_attempt() -> None:
    node = driver()
    assert effect_names(node.advance(T + 120)) == ["StateChanged"]
    assert node.state is State.EXECUTING
    node.executed(T + 130)
    assert [v.envelope.body for v in node.sent] == [commit(A, attempt=1).envelope.body]


def test_member_that_abstained_executes_in_the_next_attempt() -> None:
    node = driver()
    node.carry_out(node.agreement.failed(Abstention.BUSY, T + 1), T + 1)
    assert effect_names(node.receive(abstain(B), now=T + 2)) == ["Execute", "StateChanged"]
    assert node.state is State.EXECUTING


def test_member_still_reveals_in_an_earlier_attempt() -> None:
    """A member that committed to attempt 0 still reveals there, in attempt 1."""
    node = committed()
    node.receive(commit(B), now=T + 118)
    node.advance(T + 120)
    assert node.attempt == 1
    effects = node.advance(T + 122)
    assert effect_names(effects) == ["SignAndSend"]
    assert node.sent[-1].envelope.body == reveal(A, [A, B]).envelope.body
    assert effect_names(node.receive(reveal(B, [A, B]), now=T + 123)) == [
        "Certified",
        "StateChanged",
    ]
    assert node.agreement.certificates[0].attempt == 0


def test_votes_of_a_later_attempt_are_kept_and_do_not_start_it() -> None:
    node = driver()
    early: list[Vote] = [commit(m, attempt=1) for m in FIVE[1:]]
    assert node.receive(*early, abstain(B, 2), now=T + 1) == []
    assert (node.attempt, node.state) == (0, State.EXECUTING)
    assert node.agreement.wake_at() == T + 120
    node.advance(T + 120)
    node.executed(T + 130)
    assert [type(v) for v in node.sent] == [Commit, Reveal]
    assert node.sent[1].envelope.body == reveal(A, FIVE, None, 1).envelope.body


def test_later_attempt_without_possible_quorum_does_not_end_the_current_one() -> None:
    node = driver(OUTSIDER)
    assert node.receive(*dispute(1), now=T + 1) == []
    assert node.attempt == 0


def test_attempt_without_possible_quorum_is_skipped_when_it_begins() -> None:
    """Specification 6.6, whether the attempt began by time or by votes."""
    for by_time in (False, True):
        node = driver(OUTSIDER)
        node.receive(*(abstain(m, 1) for m in FIVE[:3]), now=T + 1)
        if by_time:
            node.advance(T + 120)
        else:
            node.receive(abstain(A), abstain(B), now=T + 120)
        assert node.attempt == 2, f"by time: {by_time}"
        assert node.agreement.wake_at() == T + 600


def test_several_attempts_without_possible_quorum_are_skipped() -> None:
    node = driver(OUTSIDER)
    node.receive(*(abstain(m, 1) for m in FIVE[:3]), *(abstain(m, 2) for m in SEVEN[:4]), now=T + 1)
    assert node.attempt == 0
    node.receive(abstain(A), abstain(B), now=T + 2)
    assert (node.attempt, node.state) == (2, State.INCONCLUSIVE)


def test_lost_last_attempt_does_not_end_a_task_that_an_earlier_one_may_certify() -> None:
    """Members that committed in attempt 0 still reveal in it (6.3)."""
    node = driver(OUTSIDER)
    committed = FIVE[:2]  # a quorum of the first committee
    node.receive(*(commit(m) for m in committed), now=T + 119)
    node.advance(T + 120)
    node.receive(*LOST, now=T + 121)
    assert node.attempt == 2
    assert not node.state.terminal
    node.receive(*(reveal(m, committed) for m in committed), now=T + 123)
    assert node.state is State.AGREED


def test_lost_tasks_end_inconclusive_whatever_single_commits_there_were() -> None:
    node = driver(OUTSIDER)
    node.receive(commit(A), now=T + 119)
    node.advance(T + 120)
    node.receive(*LOST, now=T + 121)
    assert node.state is State.INCONCLUSIVE


@pytest.mark.parametrize("abstains", [False, True])
def test_equivocator_gives_the_same_state_in_every_order_of_its_votes(abstains: bool) -> None:
    votes = [commit(A), reveal(A, [A], LIES[0]), *([abstain(A)] if abstains else [])]
    states = []
    for order in itertools.permutations(votes):
        node = driver(OUTSIDER)
        node.receive(*order, abstain(B), now=T + 1)
        states.append((node.attempt, node.state))
    assert len(set(states)) == 1


def test_later_attempt_can_be_certified_early() -> None:
    node = driver()
    votes = [reveal(m, FIVE, None, 1) for m in FIVE[2:]]
    effects = node.receive(*votes, now=T + 1)
    assert effect_names(effects) == ["Certified", "StopExecution", "StateChanged"]
    assert single(Certified, effects).certificate.attempt == 1
    assert node.state is State.AGREED


# This node's own abstention


def test_failed_execution_leads_to_abstention() -> None:
    node = driver()
    effects = node.carry_out(node.agreement.failed(Abstention.OUT_OF_MEMORY, T + 5), T + 5)
    vote = node.sent[0]
    assert isinstance(vote, Abstain)
    assert (vote.attempt, vote.reason) == (0, Abstention.OUT_OF_MEMORY)
    assert "StateChanged" in effect_names(effects)
    assert node.state is State.ABSTAINED


def test_replayed_own_abstention_ends_the_execution() -> None:
    """A replay does not call `failed`; the next attempt must execute again."""
    node = driver()
    node.receive(abstain(A), now=T + 1)
    assert node.state is State.ABSTAINED
    single(Execute, node.receive(abstain(B), now=T + 2))


def test_abstention_is_for_the_attempt_of_the_failure() -> None:
    node = driver()
    node.advance(T + 120)
    node.carry_out(node.agreement.failed(Abstention.TIMEOUT, T + 121), T + 121)
    assert node.sent[0].attempt == 1


def test_abstains_once_per_attempt_and_not_after_the_end() -> None:
    node = driver()
    node.carry_out(node.agreement.failed(Abstention.BUSY, T + 1), T + 1)
    node.carry_out(node.agreement.failed(Abstention.TIMEOUT, T + 2), T + 2)
    assert len(node.sent) == 1
    ended = driver()
    ended.receive(reveal(B), reveal(C), now=T + 1)
    assert ended.carry_out(ended.agreement.failed(Abstention.BUSY, T + 2), T + 2) == []


# The end


def test_disagreement_in_last_attempt_is_inconclusive() -> None:
    node = driver(OUTSIDER)
    for attempt in range(3):
        assert node.attempt == attempt
        node.receive(*dispute(attempt), now=T + 30 + attempt)
    assert (node.attempt, node.state) == (2, State.INCONCLUSIVE)
    assert node.agreement.wake_at() is None


def test_last_attempt_without_votes_expires_at_the_deadline() -> None:
    node = driver()
    assert effect_names(node.advance(T + 599.999)) == ["StateChanged", "StateChanged"]
    assert (node.attempt, node.state) == (2, State.EXECUTING)
    assert effect_names(node.advance(T + 600)) == ["StopExecution", "StateChanged"]
    assert node.state is State.EXPIRED


def test_last_attempt_certifies_long_after_attempt_seconds() -> None:
    node = driver()
    node.advance(T + 590)  # attempt 2 began at 240, and its 120 s are long over
    node.executed(T + 590)
    node.receive(*(commit(m, attempt=2) for m in SEVEN if m != A), now=T + 591)
    node.receive(*(reveal(m, SEVEN, None, 2) for m in SEVEN[1:4]), now=T + 592)
    assert (node.attempt, node.state) == (2, State.AGREED)
    assert node.agreement.certificates[0].attempt == 2


def test_only_attempt_lasts_until_the_deadline() -> None:
    net = fixtures.network(3, attempt_seconds=1)
    node = driver(fixtures.peer(0), net)
    assert node.agreement.wake_at() == T + 600
    assert node.advance(T + 599) == []
    assert (node.attempt, node.state) == (0, State.EXECUTING)


def test_deadline_expires_task_at_exact_time() -> None:
    task = fixtures.task(NET, deadline=60)
    node = AgreementDriver(NET, task, committees(NET, task)[0][0])
    assert node.agreement.wake_at() == T + 60
    assert node.advance(T + 59.999) == []
    assert effect_names(node.advance(T + 60)) == ["StopExecution", "StateChanged"]
    assert (node.attempt, node.state) == (0, State.EXPIRED)
    assert node.agreement.wake_at() is None
    assert node.executed(T + 61) == []


def test_deadline_takes_precedence_over_attempt_timeout() -> None:
    task = fixtures.task(NET, deadline=120)
    node = AgreementDriver(NET, task, OUTSIDER)
    node.advance(T + 1000)
    assert (node.attempt, node.state) == (0, State.EXPIRED)


def test_deadline_counts_from_task_creation() -> None:
    task = fixtures.task(NET, now=T - 550, deadline=600)
    assert AgreementDriver(NET, task, OUTSIDER, now=T).agreement.wake_at() == T + 50


def test_agreement_started_after_deadline_is_expired() -> None:
    node = AgreementDriver(NET, TASK, A, now=T + 600)
    assert effect_names(node.effects) == [
        "Execute",
        "StateChanged",
        "StopExecution",
        "StateChanged",
    ]
    assert node.state is State.EXPIRED


@pytest.mark.parametrize("error", [False, True])
@pytest.mark.parametrize("state", [State.INCONCLUSIVE, State.EXPIRED])
def test_late_certificate_replaces_inconclusive_and_expired(state: State, error: bool) -> None:
    outcome = {"error": "no-notes"} if error else fixtures.outcome()
    node = driver(fixtures.peer(50))
    if state is State.INCONCLUSIVE:  # every member abstains in every attempt
        for attempt, members in enumerate((TRIO, FIVE, SEVEN)):
            node.receive(*(abstain(m, attempt) for m in members), now=T + 1)
    node.advance(T + 600)
    assert node.state is state
    votes = [reveal(m, TRIO, outcome) for m in TRIO[:2]]
    assert effect_names(node.receive(*votes, now=T + 1000)) == ["Certified", "StateChanged"]
    assert node.state is (State.AGREED_ERROR if error else State.AGREED)


def conflict() -> list[Vote]:
    """Return votes for two certificates: B reveals one outcome with A and another with C."""
    lie = LIES[0]
    truth = commitments(TASK, [A, B])
    lying = commitments(TASK, [B, C], lie)
    return [
        fixtures.reveal(NET, TASK, A, truth),
        fixtures.reveal(NET, TASK, B, truth),
        fixtures.reveal(NET, TASK, B, lying, lie),
        fixtures.reveal(NET, TASK, C, lying, lie),
    ]


def test_second_certificate_is_a_conflict_and_the_first_stands() -> None:
    node = driver(OUTSIDER)
    effects = node.receive(*conflict(), now=T + 1)
    assert effect_names(effects) == ["Certified", "StateChanged", "MisconductProven", "Certified"]
    first, second = node.agreement.certificates
    assert first.outcome == fixtures.outcome()
    assert second.outcome == LIES[0]
    for stored in (first, second):
        certificate.verify(stored.document, NET)
    assert node.state is State.AGREED


def test_certified_error_after_result_does_not_change_state() -> None:
    node = driver(OUTSIDER)
    error = {"error": "no-notes"}
    both = commitments(TASK, [B, C], error)
    node.receive(*conflict()[:2], now=T + 1)
    node.receive(
        fixtures.reveal(NET, TASK, B, both, error),
        fixtures.reveal(NET, TASK, C, both, error),
        now=T + 2,
    )
    assert len(node.agreement.certificates) == 2
    assert node.state is State.AGREED


@pytest.mark.parametrize("seed", range(6))
def test_certificates_do_not_depend_on_order_of_votes(seed: int) -> None:
    votes = conflict()
    random.Random(seed).shuffle(votes)
    node = driver(OUTSIDER)
    node.receive(*votes, now=T + 1)
    assert {c.votes[0].digest for c in node.agreement.certificates} == {
        reveal(A).digest,
        reveal(A, TRIO, LIES[0]).digest,
    }


# Inconstancy


def test_other_outcome_in_another_attempt_gives_evidence_once() -> None:
    node = driver(OUTSIDER)
    assert node.receive(reveal(B, TRIO, LIES[0]), now=T + 1) == []
    node.receive(abstain(A), abstain(C), now=T + 2)
    assert node.attempt == 1
    proof = single(MisconductProven, node.receive(reveal(B, FIVE, None, 1), now=T + 3)).evidence
    assert (proof.kind, proof.signer, proof.attempts) == ("inconstancy", B, (0, 1))
    assert evidence.verify_bytes(proof.encode(), NET) == proof
    assert node.agreement.inconstant == {B}
    assert node.receive(reveal(B, FIVE, None, 1), now=T + 4) == []
    assert node.receive(reveal(B, SEVEN, LIES[1], 2), now=T + 5) == []


def test_inconstancy_is_found_whichever_reveal_comes_first() -> None:
    node = driver(OUTSIDER)
    node.receive(reveal(B, FIVE, None, 1), now=T + 1)
    proof = single(MisconductProven, node.receive(reveal(B, TRIO, LIES[0]), now=T + 2)).evidence
    assert proof.attempts == (1, 0)


def test_same_outcome_in_every_attempt_is_no_evidence() -> None:
    """Salts, lists and traces differ from attempt to attempt."""
    node = driver(OUTSIDER)
    effects = node.receive(
        reveal(B), reveal(B, FIVE, None, 1), reveal(B, SEVEN, None, 2), now=T + 1
    )
    assert effects == []
    assert node.agreement.inconstant == set()


def test_equivocator_may_be_inconstant_too() -> None:
    node = driver(OUTSIDER)
    node.receive(reveal(B), now=T + 1)
    node.receive(reveal(B, FIVE, None, 1), now=T + 2)
    effects = node.receive(reveal(B, FIVE, LIES[0], 1), now=T + 3)
    kinds = [e.evidence.kind for e in effects if isinstance(e, MisconductProven)]
    assert sorted(kinds) == ["equivocation", "inconstancy"]


# Withdrawal


def withdrawn_abstentions(node: AgreementDriver) -> list[int]:
    votes = [v for v in node.sent if isinstance(v, Abstain) and v.reason is Abstention.WITHDRAWN]
    assert len(votes) == len(node.sent)
    return [v.attempt for v in votes]


def test_withdrawn_member_abstains_in_every_attempt() -> None:
    node = driver()
    single(Withdrawn, node.carry_out(node.agreement.withdraw(T + 1), T + 1))
    assert node.state == "executing"  # only the node knows whether it has begun
    node.carry_out(node.agreement.failed(Abstention.WITHDRAWN, T + 1), T + 1)
    assert node.state == "abstained"
    assert "Execute" not in effect_names(node.advance(T + 240))
    assert withdrawn_abstentions(node) == [0, 1, 2]


def test_withdrawal_does_not_stop_a_member_that_has_abstained() -> None:
    node = driver()
    node.carry_out(node.agreement.failed(Abstention.BUSY, T + 1), T + 1)
    assert node.carry_out(node.agreement.withdraw(T + 2), T + 2) == []


def test_member_of_a_later_committee_abstains_when_it_joins() -> None:
    node = driver(D)
    assert node.carry_out(node.agreement.withdraw(T + 1), T + 1) == []
    assert withdrawn_abstentions(node) == []
    assert "Execute" not in effect_names(node.advance(T + 120))
    assert withdrawn_abstentions(node) == [1]


def test_members_that_abstain_end_a_withdrawn_task_at_once() -> None:
    nodes = {m: driver(m) for m in SEVEN}
    for node in nodes.values():
        if node.carry_out(node.agreement.withdraw(T + 1), T + 1):  # none has begun
            node.carry_out(node.agreement.failed(Abstention.WITHDRAWN, T + 1), T + 1)
    for _ in range(3):
        votes = [v for node in nodes.values() for v in node.sent]
        for node in nodes.values():
            node.receive(*votes, now=T + 2)
    assert {node.state for node in nodes.values()} == {State.INCONCLUSIVE}


def test_member_that_has_begun_goes_on() -> None:
    """The node reports no failure, since the execution runs already."""
    node = driver()
    node.carry_out(node.agreement.withdraw(T + 1), T + 1)
    node.executed(T + 10)
    node.advance(T + 120)
    assert [(type(v), v.attempt) for v in node.sent] == [(Commit, 0), (Commit, 1)]


def test_member_with_an_outcome_goes_on() -> None:
    node = committed()
    assert node.carry_out(node.agreement.withdraw(T + 11), T + 11) == []
    node.advance(T + 120)
    assert [(type(v), v.attempt) for v in node.sent] == [(Commit, 0), (Commit, 1)]


def test_execution_that_a_restart_cut_short_has_not_begun() -> None:
    node = driver()
    node.carry_out(node.agreement.withdraw(T + 1), T + 1)
    effects = node.carry_out(node.agreement.resume(T + 2), T + 2)
    assert "Execute" not in effect_names(effects)
    assert withdrawn_abstentions(node) == [0]


def test_withdrawn_member_does_not_abstain_where_it_has_voted() -> None:
    """Its commit of attempt 1 was signed before the journal was lost."""
    node = driver(D)
    node.receive(commit(D, attempt=1), now=T + 1)
    node.agreement.withdraw(T + 2)
    node.advance(T + 240)
    assert withdrawn_abstentions(node) == [2]


def test_only_the_requester_withdraws_and_once() -> None:
    node = driver()
    withdrawal = fixtures.withdraw(NET, TASK)
    with rejected(Rejection.NOT_THE_REQUESTER, fixtures.peer(1001)):
        node.agreement.judge_withdrawal(fixtures.withdraw(NET, TASK, requester=1001))
    assert node.agreement.judge_withdrawal(withdrawal)
    node.agreement.withdraw(T + 1)
    assert not node.agreement.judge_withdrawal(withdrawal)


def test_withdrawal_changes_nothing_after_the_end() -> None:
    node = driver(OUTSIDER)
    node.receive(reveal(A), reveal(B), now=T + 1)
    assert node.carry_out(node.agreement.withdraw(T + 2), T + 2) == []
    assert node.state is State.AGREED


# A manifest that does not fit the task


def test_reveal_whose_outputs_the_task_does_not_ask_for_is_rejected() -> None:
    entry = fixtures.outcome()["result"]["outputs"][0]
    two = reveal(B, TRIO, {"result": {"outputs": [entry, entry]}})
    node = driver(OUTSIDER)
    with rejected(Rejection.INVALID_FIELD, "outcome.result.outputs"):
        node.agreement.judge(two)
    with rejected(Rejection.INVALID_FIELD, "outcome.result.outputs"):
        node.agreement.receive(two, T + 1)
    assert node.agreement.vote_sets[0].reveals == []


# After a restart


def test_resume_restarts_interrupted_execution() -> None:
    node = driver()
    single(Execute, node.carry_out(node.agreement.resume(T + 10), T + 10))
    assert node.state is State.EXECUTING


def test_resume_starts_nothing_when_no_execution_is_needed() -> None:
    abstained, outsider, ended, done = driver(), driver(OUTSIDER), driver(), committed()
    abstained.carry_out(abstained.agreement.failed(Abstention.BUSY, T + 1), T + 1)
    ended.receive(reveal(B), reveal(C), now=T + 1)
    for node in (abstained, outsider, ended, done):
        assert not any(isinstance(e, Execute) for e in node.agreement.resume(T + 20))


def test_resume_fires_missed_timers_first() -> None:
    node = driver()
    assert "Execute" not in effect_names(node.agreement.resume(T + 600))
    assert node.state is State.EXPIRED
    late = driver(D)
    single(Execute, late.agreement.resume(T + 130))
    assert (late.attempt, late.state) == (1, State.EXECUTING)


# The same calls give the same effects


def play(agreement: Agreement, seed: int) -> list[object]:
    """Make a hundred random calls and return their results."""
    rng = random.Random(seed)
    results: list[object] = [agreement.start(T)]
    now = T
    outcomes = [None, None, None, LIES[0], {"error": "no-notes"}]
    done = False
    for _ in range(100):
        now += rng.choice((0, 0, 0.5, 1, 2, 5, 30))
        attempt = rng.choice((0, 0, 1, 2))
        members = agreement.vote_sets[attempt].committee
        member = rng.choice((*members, OUTSIDER))
        outcome = rng.choice(outcomes)
        match rng.choice(("commit", "commit", "reveal", "reveal", "abstain", "time", "own")):
            case "commit":
                results.append(receive(agreement, commit(member, outcome, attempt), now))
            case "reveal":
                listing = rng.sample(list(members), rng.randint(2, len(members)))
                vote = reveal(member, [*listing, member], outcome, attempt)
                results.append(receive(agreement, vote, now))
            case "abstain":
                if rng.random() < 0.3:
                    results.append(receive(agreement, abstain(member, attempt), now))
            case "time":
                results.append(agreement.advance(now))
            case _ if not done:
                done = True
                results.append(agreement.executed(outcome or fixtures.outcome(), {}, now))
        results.append((agreement.state, agreement.attempt, agreement.wake_at()))
    return results


def receive(agreement: Agreement, vote: Vote, now: float) -> object:
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
    assert {Execute, SignAndSend, Certified, MisconductProven, StateChanged} <= effects
    assert {Rejection.NOT_A_MEMBER} <= {r for r in seen if isinstance(r, Rejection)}


def test_salt_is_drawn_once_per_attempt() -> None:
    node = committed()
    node.receive(abstain(B), abstain(C), now=T + 30)
    node.receive(*(abstain(m, 1) for m in FIVE[1:4]), now=T + 31)
    assert node.salts == [0, 1, 2]
    assert [v.attempt for v in node.sent] == [0, 1, 2]
    assert len({v.commitment for v in node.sent if isinstance(v, Commit)}) == 3


def test_execution_is_stopped_once() -> None:
    node = driver()
    effects = node.receive(reveal(B), reveal(C), now=T + 1)
    single(StopExecution, effects)
    assert node.advance(T + 1000) == []
