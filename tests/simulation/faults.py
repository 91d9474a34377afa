"""Fault injection for one node: crashes at chosen points, and a full or broken disk.

Crash points lie before each statement that writes, before and after each COMMIT, before and after
each send. A node counts the points it passes and crashes at the one that the scenario names.
"""

import contextlib
import sqlite3
from collections.abc import Callable
from typing import Any

from node.storage.database import Database


class SimulatedCrash(BaseException):
    """The node stops at once, as after SIGKILL."""


class CrashPoints:
    """Counts the crash points of one node, and crashes it at the chosen one."""

    def __init__(self, on_crash: Callable[[str], None] | None = None) -> None:
        """`on_crash` is called before SimulatedCrash is raised, to stop the node's other tasks."""
        self.remaining: int | None = None  # points left before the crash
        self.only = ""  # if set, only this kind of point counts
        self._on_crash = on_crash

    def pass_point(self, name: str) -> None:
        """Count a point. Raises SimulatedCrash at the chosen one."""
        if self.remaining is None or self.only not in ("", name):
            return
        self.remaining -= 1
        if self.remaining <= 0:
            self.remaining = None
            if self._on_crash is not None:
                self._on_crash(name)
            raise SimulatedCrash(name)


CRASH_POINTS = (
    "before a write",
    "before COMMIT",
    "after COMMIT",
    "before a send",
    "after a send",
)


class FaultyConnection(sqlite3.Connection):
    """An SQLite connection with crash points, which fails when the simulated disk fails."""

    crash_points: CrashPoints
    fails: Callable[[], str | None]  # "full": nothing can be written; "broken": nor read; "dead"
    on_settled: Callable[[], None]  # called after each COMMIT that may have settled a task
    _settles = False

    def prepare(
        self,
        crash_points: CrashPoints,
        fails: Callable[[], str | None],
        on_settled: Callable[[], None] = lambda: None,
    ) -> None:
        self.crash_points, self.fails, self.on_settled = crash_points, fails, on_settled

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        kind = _KINDS.get(sql[:3])
        if kind is None:
            return super().execute(sql, *parameters)
        fault = self.fails()
        if fault is not None:
            _refuse(kind, fault)
        if kind == "write":
            self.crash_points.pass_point("before a write")
            self._settles = self._settles or "tasks" in sql or "certificates" in sql
        elif kind == "commit":
            self.crash_points.pass_point("before COMMIT")
            cursor = super().execute(sql)
            if self._settles:
                self._settles = False
                self.on_settled()
            self.crash_points.pass_point("after COMMIT")
            return cursor
        return super().execute(sql, *parameters)

    def executemany(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        fault = self.fails()
        if fault is not None:
            _refuse("write", fault)
        self.crash_points.pass_point("before a write")
        return super().executemany(sql, *parameters)


class DatabaseTemplate:
    """An empty database, copied for each node. Copying is faster than creating the schema."""

    def __init__(self, network: str) -> None:
        with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
            Database(connection, network)
            self._image = connection.serialize()

    def copy(self, feed: str) -> FaultyConnection:
        """Return a copy whose feed has this id (32 hex characters)."""
        connection = sqlite3.connect(":memory:", isolation_level=None, factory=FaultyConnection)
        connection.deserialize(self._image)
        sqlite3.Connection.execute(
            connection, "UPDATE about SET value = ? WHERE name = 'feed'", (feed,)
        )
        return connection


def _refuse(kind: str, fault: str) -> None:
    if fault == "dead":
        raise SimulatedCrash("a write after the crash")
    if fault == "full" and kind in ("write", "commit"):
        raise _disk_error("database or disk is full", "SQLITE_FULL")
    if fault == "broken":
        raise _disk_error("disk I/O error", "SQLITE_IOERR")


def _disk_error(text: str, name: str) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError(text)
    error.sqlite_errorname = name  # by it, a node knows what is wrong with its disk
    return error


# Kinds of statements by their first letters. ROLLBACK, PRAGMA and the schema always succeed.
_KINDS = {
    "SEL": "read",
    "BEG": "begin",
    "INS": "write",
    "UPD": "write",
    "DEL": "write",
    "COM": "commit",
}
