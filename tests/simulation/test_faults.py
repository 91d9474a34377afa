"""Injected faults: crashes at chosen points and disk faults."""

import sqlite3

import pytest

from node.storage.database import Database
from node.storage.journal import Journal
from protocol.consensus.effects import State
from tests.simulation.faults import (
    CRASH_POINTS,
    CrashPoints,
    DatabaseTemplate,
    FaultyConnection,
    SimulatedCrash,
)

NETWORK = "0" * 16
TASK = "a" * 64


class Node:
    def __init__(self) -> None:
        self.crash_points, self.disk = CrashPoints(), None
        self.connection: FaultyConnection = DatabaseTemplate(NETWORK).copy("f" * 32)
        self.connection.prepare(self.crash_points, lambda: self.disk)
        self.journal = Journal(Database(self.connection, NETWORK))

    disk: str | None

    def write(self) -> None:
        with self.journal.transaction():
            self.journal.put_state(TASK, State.WAITING, 0)


def test_database_copy_has_its_own_feed_id() -> None:
    assert Node().journal.feed_id == "f" * 32


@pytest.mark.parametrize("only", ["before a write", "before COMMIT", "after COMMIT"])
def test_crash_at_a_point_keeps_what_was_committed(only: str) -> None:
    assert only in CRASH_POINTS
    node = Node()
    node.crash_points.remaining, node.crash_points.only = 1, only
    with pytest.raises(SimulatedCrash, match=only):
        node.write()
    node.connection.rollback()
    state = Journal(Database(node.connection, NETWORK)).state(TASK)
    assert (state is not None) is (only == "after COMMIT")


def test_full_disk_refuses_writes_and_broken_disk_refuses_reads() -> None:
    node = Node()
    node.disk = "full"
    assert node.journal.last_cursor() == 0
    with pytest.raises(sqlite3.OperationalError, match="full"):
        node.write()
    node.disk = "broken"
    with pytest.raises(sqlite3.OperationalError, match="I/O"):
        node.journal.last_cursor()
    node.disk = None
    node.write()
    assert node.journal.state(TASK) == (State.WAITING, 0)
