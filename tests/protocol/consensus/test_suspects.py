"""Suspects: commits of members that failed before do not start the wait (specification 6.8)."""

import pytest

from protocol.consensus.committee import committees
from protocol.wire.messages import Commit, Reveal, Vote
from tests.protocol.driver import AgreementDriver
from tests.support import fixtures

T = fixtures.START
NET = fixtures.network(5)
TASK = fixtures.task(NET)
FIRST, SECOND = committees(NET, TASK)
ME, OLD, LIAR = FIRST  # of the three, two honest
NEW, LATE = (m for m in SECOND if m not in FIRST)
LIE = fixtures.outcome("lie")


def commit(member: str, attempt: int, lie: bool = False) -> Vote:
    return fixtures.commit(NET, TASK, member, LIE if lie else None, attempt)


def reveal(member: str, listed: tuple[str, ...], lie: bool = False) -> Vote:
    """Return a reveal of attempt 0 that lists these members."""
    commits = {
        m: fixtures.commitment_of(TASK, m, LIE if m == LIAR else fixtures.outcome()) for m in listed
    }
    return fixtures.reveal(NET, TASK, member, commits, LIE if lie else None)


def after_a_failed_attempt(*votes: Vote) -> AgreementDriver:
    """Return a node in attempt 1: it and a liar committed in attempt 0, which timed out."""
    node = AgreementDriver(NET, TASK, ME)
    node.executed(T + 1)
    node.receive(commit(LIAR, 0, lie=True), now=T + 1)
    node.advance(T + 5)  # closed after 2 s with the liar on the list, revealed after 4
    node.receive(*votes, now=T + 6)
    node.advance(T + 120)
    assert node.attempt == 1
    return node


def revealed_at(node: AgreementDriver, begin: float) -> float | None:
    """Return when this node reveals in attempt 1, in whole seconds after `begin`."""
    for second in range(100):
        node.advance(begin + second)
        if any(isinstance(v, Reveal) and v.attempt == 1 for v in node.sent):
            return float(second)
    return None


def test_commit_of_dissenter_does_not_start_the_wait() -> None:
    node = after_a_failed_attempt(reveal(LIAR, (ME, LIAR), lie=True))
    assert any(isinstance(v, Commit) and v.attempt == 1 for v in node.sent)
    node.receive(commit(LIAR, 1, lie=True), commit(OLD, 1), now=T + 121)
    assert revealed_at(node, T + 121) != 4.0  # two of the three that count
    node = after_a_failed_attempt(reveal(LIAR, (ME, LIAR), lie=True))
    node.receive(commit(LIAR, 1, lie=True), commit(OLD, 1), now=T + 121)
    node.receive(commit(NEW, 1), now=T + 125)
    assert revealed_at(node, T + 125) == 4.0  # both waits, from the third honest commit


def test_every_commit_counts_attempt_seconds_into_the_attempt() -> None:
    node = after_a_failed_attempt(reveal(LIAR, (ME, LIAR), lie=True))  # attempt 1 began at T + 6
    node.receive(commit(LIAR, 1, lie=True), commit(OLD, 1), now=T + 121)
    assert revealed_at(node, T + 121) == 9.0  # both waits, from T + 126


def test_suspects_of_earlier_tasks_do_not_start_the_wait_of_the_first_attempt() -> None:
    suspicious = AgreementDriver(NET, TASK, ME, suspects=frozenset({LIAR, ME}))
    trusting = AgreementDriver(NET, TASK, ME)
    for node, reveals in ((suspicious, False), (trusting, True)):
        node.executed(T + 1)
        node.receive(commit(LIAR, 0, lie=True), now=T + 1)
        node.advance(T + 100)
        assert any(isinstance(v, Reveal) for v in node.sent) is reveals
    # The slow honest member is on the list now: its commit is the second that counts.
    suspicious.receive(commit(OLD, 0), now=T + 100)
    suspicious.advance(T + 104)
    (own,) = (v for v in suspicious.sent if isinstance(v, Reveal))
    assert set(own.commits) == {ME, LIAR, OLD}


def test_suspects_alone_start_the_wait_attempt_seconds_into_the_last_attempt() -> None:
    net = fixtures.network(3)
    task = fixtures.task(net)
    me, liar, _ = committees(net, task)[0]
    node = AgreementDriver(net, task, me, suspects=frozenset({liar}))
    node.executed(T + 1)
    node.receive(fixtures.commit(net, task, liar, LIE), now=T + 1)
    node.advance(T + 123)
    assert not any(isinstance(v, Reveal) for v in node.sent)
    node.advance(T + 124)
    assert any(isinstance(v, Reveal) for v in node.sent)


def test_a_nodes_own_commit_always_counts() -> None:
    """Though its journal of an earlier task was lost, and it is on its own record."""
    node = AgreementDriver(NET, TASK, ME, suspects=frozenset({ME}))
    node.executed(T + 1)
    node.receive(commit(OLD, 0), now=T + 1)
    node.advance(T + 5)
    assert any(isinstance(v, Reveal) for v in node.sent)


def test_suspects_wake_a_node_only_while_it_waits_for_a_quorum() -> None:
    suspects = frozenset({LIAR})
    stranger = AgreementDriver(NET, TASK, fixtures.peer(50), suspects=suspects)
    assert stranger.agreement.wake_at() == T + 120  # the end of the attempt
    net = fixtures.network(3)
    task = fixtures.task(net)
    me, liar, other = committees(net, task)[0]
    node = AgreementDriver(net, task, me, suspects=frozenset({liar}))
    assert node.agreement.wake_at() == T + 600
    node.executed(T + 1)
    assert node.agreement.wake_at() == T + 120
    node.receive(fixtures.commit(net, task, other), now=T + 2)
    assert node.agreement.wake_at() == T + 4
    node.advance(T + 6)
    assert node.agreement.wake_at() == T + 600


def test_member_that_commits_late_in_the_last_attempt_counts_suspects() -> None:
    """Its own commit comes after `attempt_seconds`: from the start every commit counts."""
    net = fixtures.network(3)
    task = fixtures.task(net)
    me, liar, _ = committees(net, task)[0]
    node = AgreementDriver(net, task, me, suspects=frozenset({liar}))
    node.receive(fixtures.commit(net, task, liar, LIE), now=T + 1)
    node.executed(T + 300)
    node.advance(T + 304)
    assert any(isinstance(v, Reveal) for v in node.sent)


def test_commit_of_dissenter_is_still_listed() -> None:
    node = after_a_failed_attempt(reveal(LIAR, (ME, LIAR), lie=True))
    node.receive(commit(LIAR, 1, lie=True), commit(OLD, 1), commit(NEW, 1), now=T + 121)
    assert revealed_at(node, T + 121) == 4.0
    (own_reveal,) = (v for v in node.sent if isinstance(v, Reveal) and v.attempt == 1)
    assert set(own_reveal.commits) == {ME, LIAR, OLD, NEW}


def test_all_commits_end_the_waits_despite_ignored_members() -> None:
    node = after_a_failed_attempt(reveal(LIAR, (ME, LIAR), lie=True))
    everyone = [commit(m, 1, lie=m == LIAR) for m in SECOND if m != ME]
    node.receive(*everyone, now=T + 121)
    assert revealed_at(node, T + 121) == 0.0


@pytest.mark.parametrize("others_revealed", [True, False])
def test_member_that_did_not_reveal_is_ignored_only_if_others_did(
    others_revealed: bool,
) -> None:
    """The own reveal counts as a reveal of another member."""
    if others_revealed:
        node = after_a_failed_attempt()
    else:  # alone with its commit in attempt 0, it never had a quorum, and nobody revealed
        node = AgreementDriver(NET, TASK, ME)
        node.advance(T + 119)
        node.receive(commit(LIAR, 0, lie=True), now=T + 119)
        node.advance(T + 120)
        node.executed(T + 120)
    node.receive(commit(LIAR, 1, lie=True), commit(OLD, 1), now=T + 121)
    assert revealed_at(node, T + 121) == (None if others_revealed else 4.0)


def test_late_reveal_makes_member_count_again() -> None:
    node = after_a_failed_attempt()
    node.receive(commit(OLD, 0), now=T + 121)  # late in attempt 0, and silent since
    node.receive(commit(OLD, 1), commit(NEW, 1), now=T + 121)
    assert revealed_at(node, T + 121) is None
    node.receive(reveal(OLD, (ME, OLD, LIAR)), now=T + 230)
    assert revealed_at(node, T + 230) == 4.0


def test_equivocator_stays_ignored_after_later_reveal() -> None:
    node = after_a_failed_attempt(commit(LIAR, 0))  # its second commit of attempt 0
    node.receive(reveal(LIAR, (ME, LIAR), lie=True), now=T + 120)
    node.receive(commit(LIAR, 1), commit(OLD, 1), now=T + 121)
    assert revealed_at(node, T + 121) is None


@pytest.mark.parametrize("contradicts", [True, False])
def test_equivocator_is_ignored_despite_correct_reveal(
    contradicts: bool,
) -> None:
    """Its list lacks this node's commit, so that attempt 0 cannot reach a quorum."""
    node = AgreementDriver(NET, TASK, ME)
    node.executed(T + 1)
    node.receive(commit(LIAR, 0), *([commit(LIAR, 0, lie=True)] if contradicts else []), now=T + 1)
    node.advance(T + 5)
    right = {LIAR: fixtures.commitment_of(TASK, LIAR, fixtures.outcome())}
    node.receive(fixtures.reveal(NET, TASK, LIAR, right), now=T + 6)
    assert node.attempt == (0 if contradicts else 1)  # an equivocator may still reveal anything
    node.advance(T + 120)
    node.receive(commit(LIAR, 1), commit(OLD, 1), now=T + 121)
    assert revealed_at(node, T + 121) == (None if contradicts else 4.0)


def test_own_commit_counts_before_own_reveal() -> None:
    """No other commit arrived, so the list is still open; a reveal of another member did."""
    node = AgreementDriver(NET, TASK, ME)
    node.executed(T + 1)
    node.receive(reveal(LIAR, (LIAR,), lie=True), now=T + 6)
    node.advance(T + 120)
    node.receive(commit(OLD, 1), commit(NEW, 1), now=T + 121)
    assert revealed_at(node, T + 121) == 4.0
