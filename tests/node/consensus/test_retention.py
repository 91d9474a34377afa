"""What a node keeps of tasks that ended long ago, and what it refuses once it has dropped them."""

import sqlite3
from collections.abc import Iterator

import pytest

from node.rpc.feeds import FeedServer
from protocol.consensus import certificate
from protocol.consensus.certificate import assemble
from protocol.consensus.committee import committees
from protocol.consensus.effects import State
from protocol.constants import SIGNING_SECONDS
from protocol.errors import Rejected, Rejection
from protocol.network import Network
from protocol.wire.messages import Commit, Message, Reveal, Task
from tests.node.consensus.test_coordinator import (
    ME,
    CrashableNode,
    other_members,
    vote_in_full,
)
from tests.support import fixtures

DAY = 86_400.0
LATER = fixtures.START + 10 * DAY
TABLES = ("envelopes", "suspects", "salts", "outcomes")


@pytest.fixture
def node(net: Network) -> Iterator[CrashableNode]:
    node = CrashableNode(net)
    yield node
    node.disk.close()


def page(node: CrashableNode, cursor: int) -> tuple[int, list[str]]:
    """The cursor and the ids of the node's answer to a reader that has read up to a cursor."""
    server = FeedServer(node.journal, None)  # type: ignore[arg-type]  # a page needs no slot
    answer = server._page({"feed": node.journal.feed_id, "cursor": cursor, "limit": 1024})
    return answer["cursor"], answer["ids"]


def rows(node: CrashableNode, table: str, task: Task) -> int:
    query = f"SELECT count(*) FROM {table} WHERE task = ?"  # noqa: S608
    (count,) = node.disk.execute(query, (task.id,)).fetchone()
    return int(count)


def drop(node: CrashableNode, task: Task) -> None:
    """Let ten days pass, and drop what ended before the last of them."""
    node.clock.time = LATER
    node.carry_out(node.tick())
    assert node.coordinator.drop_ended(LATER - DAY, 50) == 1
    assert [rows(node, table, task) for table in TABLES] == [0, 0, 0, 0]


def refusal(node: CrashableNode, message: Message) -> Rejection:
    with pytest.raises(Rejected) as rejected:
        node.coordinator.receive(message)
    return rejected.value.reason


def test_the_certificate_and_the_state_are_kept(node: CrashableNode) -> None:
    task = fixtures.task(node.net)
    vote_in_full(node, task)
    assert [rows(node, table, task) > 0 for table in TABLES] == [True, False, True, True]
    drop(node, task)
    node.restart()
    view = node.coordinator.view(task.id)
    assert view is not None
    assert (view.state, view.envelopes) == (State.AGREED, [])
    assert certificate.verify(view.certificates[0], node.net).task.id == task.id
    assert node.ledger.peer_records()[ME].counts


@pytest.mark.parametrize("restarts", [False, True])
def test_what_comes_for_a_dropped_task_is_expired_and_changes_nothing(
    node: CrashableNode, *, restarts: bool
) -> None:
    task = fixtures.task(node.net)
    vote_in_full(node, task)
    drop(node, task)
    if restarts:
        node.restart()
    member = other_members(node.net, task)[0]
    for late in (
        fixtures.commit(node.net, task, member),
        fixtures.reveal(node.net, task, member, {}, fixtures.outcome("a lie")),
        fixtures.abstain(node.net, task, member),
        fixtures.withdraw(node.net, task),
    ):
        assert refusal(node, late) is Rejection.EXPIRED
    assert node.coordinator.receive(task) == []
    assert rows(node, "envelopes", task) == 0
    assert node.state(task) is State.AGREED


def test_the_task_is_open_or_young(node: CrashableNode) -> None:
    """Neither is dropped; of the others, as many at once as may be, the first ones first."""
    tasks = [fixtures.task(node.net, nonce=nonce, deadline=600) for nonce in range(4)]
    for task in tasks[:3]:
        node.receive(task)
        node.until(node.clock.time - fixtures.START + 100)
    assert node.coordinator.drop_ended(LATER, 50) == 0  # all are open
    node.until(900)
    node.receive(fixtures.task(node.net, nonce=9, now=node.clock.time))
    assert node.coordinator.drop_ended(fixtures.START, 50) == 0  # none is so old
    assert node.coordinator.drop_ended(fixtures.START + 150, 1) == 1
    assert [rows(node, "envelopes", task) > 0 for task in tasks[:3]] == [False, True, True]
    assert node.coordinator.drop_ended(fixtures.START + 150, 50) == 1
    assert [rows(node, "envelopes", task) > 0 for task in tasks[:3]] == [False, False, True]


def test_readers_go_on_where_they_were(node: CrashableNode) -> None:
    """With a cursor before, in and after what is left out; cursors are not given again."""
    old = fixtures.task(node.net)
    vote_in_full(node, old)
    end = node.journal.last_cursor()
    assert len(page(node, 0)[1]) == end > 3
    gone = page(node, 0)[1]
    drop(node, old)
    for cursor in (0, 3, end):
        assert page(node, cursor) == (cursor, [])
    assert [node.journal.envelope(id_) for id_ in gone] == [None] * len(gone)
    young = fixtures.task(node.net, nonce=7, now=LATER)
    node.receive(young)
    for cursor in (0, 3, end):
        assert page(node, cursor) == (end + 1, [young.envelope.id])


def test_a_failed_write_drops_nothing(node: CrashableNode) -> None:
    task = fixtures.task(node.net)
    vote_in_full(node, task)
    kept = rows(node, "envelopes", task)
    node.clock.time = LATER
    node.disk.writes, node.disk.fail_at = 0, 1  # BEGIN succeeds, COMMIT does not
    node.disk.error = sqlite3.OperationalError
    with pytest.raises(sqlite3.OperationalError):
        node.coordinator.drop_ended(LATER - DAY, 50)
    assert rows(node, "envelopes", task) == kept
    late = fixtures.abstain(node.net, task, other_members(node.net, task)[0])
    node.coordinator.receive(late)
    assert node.state(task) is State.AGREED


def test_evidence_and_conflicts_outlive_the_votes(node: CrashableNode) -> None:
    """A second certificate is stored that is learnt of when the votes are gone."""
    task = fixtures.task(node.net)
    vote_in_full(node, task)
    liar, second = other_members(node.net, task)
    node.receive(fixtures.commit(node.net, task, liar, fixtures.outcome("a lie")))
    assert len(node.ledger.evidence()) == 1
    drop(node, task)
    assert len(node.ledger.evidence()) == 1
    lie = fixtures.outcome("a lie")
    commits = {peer: fixtures.commitment_of(task, peer, lie) for peer in (liar, second)}
    reveals = [fixtures.reveal(node.net, task, peer, commits, lie) for peer in (liar, second)]
    conflict = assemble(task, 0, reveals, node.net)
    assert node.coordinator.receive_certificate(conflict) == []
    node.restart()
    view = node.coordinator.view(task.id)
    assert view is not None
    assert len(view.certificates) == 2
    assert view.certificates[1] == conflict.document
    # An answer has the first certificate; these show the other one.
    shown = [task.envelope, *(vote.envelope for vote in conflict.votes)]
    assert view.envelopes == [envelope.encode().decode() for envelope in shown]


def test_a_certificate_of_an_unknown_task_is_refused(node: CrashableNode) -> None:
    task = fixtures.task(node.net)
    outcome = fixtures.outcome()
    commits = {
        peer: fixtures.commitment_of(task, peer, outcome) for peer in committees(node.net, task)[0]
    }
    reveals = [fixtures.reveal(node.net, task, peer, commits, outcome) for peer in commits]
    with pytest.raises(Rejected) as rejected:
        node.coordinator.receive_certificate(assemble(task, 0, reveals, node.net))
    assert rejected.value.reason is Rejection.UNKNOWN_TASK


@pytest.mark.parametrize(("after", "reveals"), [(-1.0, 1), (1.0, 0)])
def test_nothing_is_signed_a_day_after_the_deadline(
    node: CrashableNode, after: float, reveals: int
) -> None:
    """An old copy of the data holds a commit without its reveal, which peers may have dropped."""
    task = fixtures.task(node.net, deadline=600)
    node.receive(task)
    node.until(2)
    (commit,) = node.own_votes(Commit)
    assert isinstance(commit, Commit)
    for member in other_members(node.net, task):
        node.receive(fixtures.commit(node.net, task, member))
        assert not node.own_votes(Reveal) or member == other_members(node.net, task)[-1]
    node.published.clear()
    node.disk.execute("DELETE FROM envelopes WHERE type = 'reveal'")
    node.clock.time = task.expires_at + SIGNING_SECONDS + after
    node.start()
    assert len(node.own_votes(Reveal)) == reveals
    assert node.state(task) is State.EXPIRED
