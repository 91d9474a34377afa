"""Where a node can fail: a crash at any effect boundary, and a disk that is full or broken.

Boundaries are: before each statement that writes, before and after each COMMIT, before and after
each sending. A node counts them; the plan of its life says at which one it dies.
"""

import contextlib
import sqlite3
from collections.abc import Callable
from typing import Any

from node.storage.database import Database


class Crashed(BaseException):
    """The node is gone at once, as after SIGKILL: nothing further of it happens."""


class Boundaries:
    """Counts the effect boundaries of one node; at the chosen one it dies."""

    def __init__(self, die: Callable[[str], None] | None = None) -> None:
        """`die` is told of the death first, where `Crashed` alone does not end everything."""
        self.fuse: int | None = None  # boundaries left to live
        self.only = ""  # if given, the one kind of boundary that counts
        self._die = die

    def cross(self, name: str) -> None:
        """Pass a boundary. Raises Crashed at the one where the node is to die."""
        if self.fuse is None or self.only not in ("", name):
            return
        self.fuse -= 1
        if self.fuse <= 0:
            self.fuse = None
            if self._die is not None:
                self._die(name)
            raise Crashed(name)


BOUNDARIES = (
    "before a write",
    "before COMMIT",
    "after COMMIT",
    "before a sending",
    "after a sending",
)


class FaultyConnection(sqlite3.Connection):
    """An SQLite connection that passes boundaries, and fails when its disk does."""

    boundaries: Boundaries
    fails: Callable[[], str | None]  # "full": nothing can be written; "broken": nor read; "dead"
    settled: Callable[[], None]  # told of each COMMIT that may have settled a task
    _settles = False

    def prepare(
        self,
        boundaries: Boundaries,
        fails: Callable[[], str | None],
        settled: Callable[[], None] = lambda: None,
    ) -> None:
        self.boundaries, self.fails, self.settled = boundaries, fails, settled

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        kind = _KINDS.get(sql[:3])
        if kind is None:
            return super().execute(sql, *parameters)
        fault = self.fails()
        if fault is not None:
            _refuse(kind, fault)
        if kind == "write":
            self.boundaries.cross("before a write")
            self._settles = self._settles or "tasks" in sql or "certificates" in sql
        elif kind == "commit":
            self.boundaries.cross("before COMMIT")
            cursor = super().execute(sql)
            if self._settles:
                self._settles = False
                self.settled()
            self.boundaries.cross("after COMMIT")
            return cursor
        return super().execute(sql, *parameters)

    def executemany(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        fault = self.fails()
        if fault is not None:
            _refuse("write", fault)
        self.boundaries.cross("before a write")
        return super().executemany(sql, *parameters)


class Blank:
    """A new database of a network, copied for each node instead of created again."""

    def __init__(self, network: str) -> None:
        with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
            Database(connection, network)
            self._image = connection.serialize()

    def copy(self, feed: str) -> FaultyConnection:
        """Return a database whose feed has that id, 32 hex characters."""
        connection = sqlite3.connect(":memory:", isolation_level=None, factory=FaultyConnection)
        connection.deserialize(self._image)
        sqlite3.Connection.execute(
            connection, "UPDATE about SET value = ? WHERE name = 'feed'", (feed,)
        )
        return connection


def _refuse(kind: str, fault: str) -> None:
    if fault == "dead":
        raise Crashed("a write after its death")
    if fault == "full" and kind in ("write", "commit"):
        raise sqlite3.OperationalError("database or disk is full")
    if fault == "broken":
        raise sqlite3.OperationalError("disk I/O error")


_KINDS = {
    "SEL": "read",
    "BEG": "begin",
    "INS": "write",
    "UPD": "write",
    "DEL": "write",
    "COM": "commit",
}  # by the first letters of a statement; a ROLLBACK, a PRAGMA and the schema always succeed
