"""The faults that a history injects come where they are planned, and end with what they should."""

import sqlite3

import pytest

from node.storage.database import Database
from node.storage.journal import Journal
from protocol.consensus.effects import State
from tests.simulation.faults import BOUNDARIES, Blank, Boundaries, Crashed, FaultyConnection
from tests.simulation.timeline import Timeline

NETWORK = "0" * 16
TASK = "a" * 64


class Node:
    def __init__(self) -> None:
        self.boundaries, self.disk = Boundaries(), None
        self.connection: FaultyConnection = Blank(NETWORK).copy("f" * 32)
        self.connection.prepare(self.boundaries, lambda: self.disk)
        self.journal = Journal(Database(self.connection, NETWORK))

    disk: str | None

    def write(self) -> None:
        with self.journal.transaction():
            self.journal.put_state(TASK, State.WAITING, 0)


def test_a_copy_is_a_store_of_its_own_feed() -> None:
    assert Node().journal.feed_id == "f" * 32


@pytest.mark.parametrize("only", ["before a write", "before COMMIT", "after COMMIT"])
def test_a_node_dies_at_its_boundary_and_what_was_committed_stays(only: str) -> None:
    assert only in BOUNDARIES
    node = Node()
    node.boundaries.fuse, node.boundaries.only = 1, only
    with pytest.raises(Crashed, match=only):
        node.write()
    node.connection.rollback()
    kept = Journal(Database(node.connection, NETWORK)).state(TASK)
    assert (kept is not None) is (only == "after COMMIT")


def test_a_full_disk_takes_nothing_and_a_broken_one_gives_nothing() -> None:
    node = Node()
    node.disk = "full"
    assert node.journal.tip() == 0
    with pytest.raises(sqlite3.OperationalError, match="full"):
        node.write()
    node.disk = "broken"
    with pytest.raises(sqlite3.OperationalError, match="I/O"):
        node.journal.tip()
    node.disk = None
    node.write()
    assert node.journal.state(TASK) == (State.WAITING, 0)


def test_events_come_in_the_order_of_their_times_then_of_their_setting() -> None:
    timeline, seen = Timeline(), list[str]()
    timeline.at(2.0, seen.append, "later")
    timeline.after(1.0, seen.append, "first")
    timeline.at(1.0, seen.append, "second")
    timeline.at(9.0, seen.append, "never")
    timeline.run(5.0)
    assert seen == ["first", "second", "later"]
    assert timeline.now == 5.0
