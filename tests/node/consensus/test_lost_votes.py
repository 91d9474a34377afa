"""A journal that lost votes of this node: they come back from peers before it votes (6.12)."""

import itertools
import sqlite3
from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs

from node.consensus.coordinator import Voting
from protocol.consensus.committee import committees
from protocol.network import Network
from protocol.wire.messages import Abstention, Commit, Reveal, Task
from tests.node.consensus.test_coordinator import ME, CrashableNode, Disk, other_members
from tests.support import fixtures

SKEW = 60.0


@pytest.fixture
def node(net: Network) -> Iterator[CrashableNode]:
    """Return a node whose votes are held."""
    node = CrashableNode(net)
    node.hold = True
    node.restart()
    yield node
    node.disk.close()


def open_disk(copy: bytes) -> Disk:
    disk = sqlite3.connect(":memory:", isolation_level=None, factory=Disk)
    disk.deserialize(copy)
    return disk


def allow(node: CrashableNode) -> None:
    node.step(node.coordinator.allow_votes, retry=False)
    node.until(node.clock.time - fixtures.START)


def test_held_commit_is_signed_when_votes_are_allowed(net: Network, node: CrashableNode) -> None:
    task = fixtures.task(net)
    node.receive(task)
    node.until(2)
    assert node.own_votes(Commit) == []
    assert node.state(task) == "waiting"
    allow(node)
    assert len(node.own_votes(Commit)) == 1
    assert node.state(task) == "committed"


def test_held_commits_are_signed_in_the_order_of_execution(
    net: Network, node: CrashableNode
) -> None:
    tasks = [fixtures.task(net, nonce=nonce) for nonce in range(10)]
    for number, task in enumerate(tasks, 1):
        node.receive(task)
        node.until(2 * number)
    assert node.own_votes(Commit) == []
    allow(node)
    assert [vote.task for vote in node.own_votes(Commit)] == [task.id for task in tasks]


def test_held_abstention_executes_again(net: Network, node: CrashableNode) -> None:
    task = fixtures.task(net)
    node.receive(task)
    node.step(lambda: node.coordinator.failed(task.id, Abstention.BUSY), retry=False)
    assert node.published == []
    node.running.clear()
    allow(node)
    assert list(node.running) == [task.id]


def test_commit_of_an_attempt_that_is_over_is_not_made_up_for() -> None:
    net = fixtures.network(8)
    tasks = (fixtures.task(net, nonce=nonce) for nonce in itertools.count())
    task = next(task for task in tasks if ME in committees(net, task)[0])
    node = CrashableNode(net)
    node.hold = True
    node.restart()
    node.receive(task)
    node.until(125)
    allow(node)
    assert [vote.attempt for vote in node.own_votes(Commit)] == [1]
    node.disk.close()


def test_lost_commit_that_came_back_is_not_contradicted(net: Network, node: CrashableNode) -> None:
    task = fixtures.task(net)
    node.receive(task)
    node.until(2)  # executed; the commit is held
    lost = fixtures.commit(net, task, ME)
    with capture_logs() as entries:
        node.receive(lost)
    assert [entry["event"] for entry in entries if entry["log_level"] == "warning"] == [
        "own vote recovered from a peer: the journal had lost it"
    ]
    allow(node)
    for member in other_members(net, task):
        node.receive(fixtures.commit(net, task, member))
    node.until(60)
    assert node.own_votes(Commit) == []
    assert node.own_votes(Reveal) == []
    assert node.journal.contains(lost)


def test_held_commit_is_not_signed_after_a_lost_reveal_came_back(
    net: Network, node: CrashableNode
) -> None:
    """No peer that answered has the commit, and the held one has another salt."""
    task = fixtures.task(net)
    node.receive(task)
    node.until(2)  # executed; the commit is held
    node.receive(fixtures.reveal(net, task, ME, {}))
    allow(node)
    assert node.own_votes(Commit) == []
    assert node.disk.execute("SELECT count(*) FROM evidence").fetchone() == (0,)


def test_feed_of_a_journal_that_lost_votes_has_a_new_name(
    net: Network, node: CrashableNode
) -> None:
    task, name = fixtures.task(net), node.journal.feed_id
    node.receive(task)
    assert node.journal.feed_id == name
    node.receive(fixtures.commit(net, task, ME))
    renamed = node.journal.feed_id
    assert renamed.startswith(f"{name}-")
    assert len(renamed) <= 64
    node.receive(fixtures.abstain(net, task, ME, attempt=0))
    assert node.journal.feed_id == renamed, "once"
    node.restart()
    assert node.journal.feed_id == renamed


def later(net: Network) -> Task:
    """Return a task that no earlier process can have accepted."""
    return fixtures.task(net, now=fixtures.START + SKEW + 1)


def test_task_that_is_new_since_the_start_is_voted_on_at_once(
    net: Network, node: CrashableNode
) -> None:
    assert net.parameters.clock_skew_seconds == SKEW
    task = later(net)
    node.clock.time += SKEW
    node.receive(task)
    node.until(SKEW + 2)
    assert len(node.own_votes(Commit)) == 1


@pytest.mark.parametrize("hold", [True, False])
def test_foreign_vote_on_a_new_task_stops_this_node(
    net: Network, node: CrashableNode, hold: bool
) -> None:
    if not hold:
        allow(node)
    task = later(net)
    node.clock.time += SKEW
    node.receive(task)
    with capture_logs() as entries:
        node.receive(fixtures.commit(net, task, ME))
    assert [entry["log_level"] for entry in entries if "stops voting" in entry["event"]] == [
        "critical"
    ]
    assert node.coordinator.voting is Voting.STOPPED
    other = fixtures.task(net, now=fixtures.START + SKEW + 1, nonce=1)
    node.receive(other)
    node.until(SKEW + 20)
    allow(node)
    assert node.published == []


def test_votes_of_an_old_copy_of_the_database_are_not_repeated(net: Network) -> None:
    """The node goes on with a copy made before it voted; its peers still have the votes."""
    node = CrashableNode(net)
    task = fixtures.task(net)
    members = other_members(net, task)
    node.receive(task)
    copy = node.disk.serialize()
    node.until(2)
    for member in members:
        node.receive(fixtures.commit(net, task, member))
    node.until(10)
    votes = [*node.own_votes(Commit), *node.own_votes(Reveal)]
    assert [type(vote) for vote in votes] == [Commit, Reveal]
    node.published.clear()
    node.disk.close()
    node.disk = open_disk(copy)
    node.hold = True
    node.start()
    node.until(15)
    for vote in votes:
        node.receive(vote)
    allow(node)
    for member in members:
        node.receive(fixtures.commit(net, task, member))
    node.until(100)
    repeated = [*node.own_votes(Commit), *node.own_votes(Reveal)]
    assert [v for v in repeated if v.envelope.body not in [w.envelope.body for w in votes]] == []
    assert node.disk.execute("SELECT count(*) FROM evidence").fetchone() == (0,)
    node.disk.close()


def test_full_disk_at_the_release_does_not_lose_a_held_vote(
    net: Network, node: CrashableNode
) -> None:
    task = fixtures.task(net)
    node.receive(task)
    node.until(2)
    node.disk.error, node.disk.writes, node.disk.fail_at = sqlite3.OperationalError, 0, 0
    allow(node)
    assert node.disk.fired
    assert node.own_votes(Commit) == []
    node.until(5)
    assert len(node.own_votes(Commit)) == 1
