"""One node's SQLite database: opening it after all checks, and its durable transactions.

A node signs at most one vote per attempt, and this file remembers which. A database that is
damaged, truncated or shared with a second node is refused with advice. An old copy cannot always be
told from the newest one: `node.sync.vote_recovery` asks peers for what it lacks. Committed writes
survive a power cut (`synchronous = FULL`).
"""

import contextlib
import fcntl
import os
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from node.storage.disk.health import DiskHealth
from node.storage.disk.permissions import PRIVATE_FILE, close_to_others, create_private_file
from node.storage.disk.reserve import DiskReserve
from node.storage.errors import UnusableDatabase
from node.storage.rollback_guard import RollbackGuard
from node.storage.schema import create_tables, is_empty

# Seconds to wait for another program's lock, such as a backup's or a reader's.
LOCK_SECONDS = 5.0

_RESTORE = (
    "Put the newest undamaged copy back. To go on without one, move the database and all files "
    "beside it whose names begin with its name away: the node asks its peers for what it signed "
    "before it votes"
)
_EMPTIED = f"it is empty, and was not when it was last used. {_RESTORE}"
_ADVICE = {
    "SQLITE_BUSY": "another program holds it: close that one",
    "SQLITE_CANTOPEN": "make the folder and the files in it readable and writable for this user",
    "SQLITE_CORRUPT": _RESTORE,
    "SQLITE_FULL": "free space on the disk and start again: nothing was lost",
    "SQLITE_IOERR": "the disk is full, at its quota or failing: see the system's log",
    "SQLITE_NOTADB": _RESTORE,
    "SQLITE_READONLY": "make the folder and the files in it writable for this user",
}


class Database:
    """One node's open database, shared by its journal and its ledger. Used from one thread."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        network: str,
        guard: RollbackGuard | None = None,
        resources: contextlib.ExitStack | None = None,
        health: DiskHealth | None = None,
    ) -> None:
        """Take over a connection in autocommit mode and the resources that close with it.

        `network` is the id of the network. Raises UnusableDatabase, OSError or sqlite3.Error.
        """
        self.connection, self._guard, self._resources = connection, guard, resources
        self.health = health or DiskHealth()
        # Holds the SQLite transaction of the running batch, once a write has begun it.
        self._batch: contextlib.ExitStack | None = None
        self._batch_has_begun = False
        _prepare(connection, network, may_create=guard is None or not guard.has_record)
        (self.feed_id,) = connection.execute(
            "SELECT value FROM about WHERE name = 'feed'"
        ).fetchone()
        (self._steps,) = connection.execute("SELECT steps FROM progress").fetchone()
        if guard is not None:
            guard.check(self.feed_id, self._steps)

    def close(self) -> None:
        """Close the database. Committed writes are durable without it."""
        self.connection.close()
        if self._resources is not None:
            self._resources.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make all writes of the block durable in one step; on an error make none.

        Inside a batch they become durable with it. While the disk is full they use up the reserve.
        Raises sqlite3.Error, which is noted.
        """
        if self._batch is None:
            with self._durable_transaction():
                yield
            return
        if not self._batch_has_begun:
            self._batch.enter_context(self._durable_transaction())
            self._batch_has_begun = True
        with _savepoint(self.connection):
            yield

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Make the block's transactions durable in one step at its end; on an error make none.

        Writing the log to the disk costs more than all else. Each transaction is still made as a
        whole or not at all: one that fails takes no other one with it, if the block goes on.
        """
        with contextlib.ExitStack() as batch:
            self._batch, self._batch_has_begun = batch, False
            try:
                yield
            finally:
                self._batch = None

    @property
    def in_batch(self) -> bool:
        """Whether a batch is running."""
        return self._batch is not None

    @contextmanager
    def _durable_transaction(self) -> Iterator[None]:
        self.health.prepare_write()
        try:
            with _transaction(self.connection):
                yield
                self.connection.execute("UPDATE progress SET steps = ?", (self._steps + 1,))
        except sqlite3.Error as error:
            self.health.note_failure(error)
            raise
        self._steps += 1
        # After the commit: a guard ahead of its database would report lost writes.
        if self._guard is not None:
            self._guard.advance(self.feed_id, self._steps)
        self.health.note_write()

    def is_writable(self) -> bool:
        """Return whether a small write succeeds now; it is tried only after one that failed."""
        if self.health.fault is None:
            return True
        try:
            with self.transaction():
                pass
        except sqlite3.Error:
            return False
        return True

    def check_disk(self) -> None:
        """Find out whether the disk is almost full, or whether a fault of it has ended."""
        self.health.check_space()
        self.is_writable()


def open_database(path: Path | str, network: str, lock_timeout: float = LOCK_SECONDS) -> Database:
    """Open or create the database at `path` for one network, after checking all of it.

    It waits `lock_timeout` seconds for another program's lock. Raises UnusableDatabase, which
    says what to do.
    """
    if str(path) == ":memory:":
        return Database(sqlite3.connect(path, isolation_level=None), network)
    resources = contextlib.ExitStack()
    try:
        resources.callback(_lock_out_other_nodes(Path(path)).close)
        guard = RollbackGuard(Path(f"{path}.mark"))
        resources.callback(guard.close)
        if guard.has_record:
            _check_not_emptied(Path(path))
        # SQLite gives the files beside it the same mode, when it creates them.
        create_private_file(Path(path))
        for suffix in ("-wal", "-shm", ".mark", ".lock"):
            close_to_others(Path(f"{path}{suffix}"))
        reserve = DiskReserve(Path(f"{path}.reserve"))
        reserve.give_up_part()  # the start writes too, and the disk may be full
        connection = sqlite3.connect(path, isolation_level=None, timeout=lock_timeout)
        resources.callback(connection.close)
        database = Database(connection, network, guard, resources, DiskHealth(reserve))
        database.health.check_space()
        return database
    except (sqlite3.Error, UnusableDatabase, OSError) as error:
        resources.close()
        reason = explain_sqlite_error(error)
        raise UnusableDatabase(f"the database {path} cannot be used: {reason}") from error


def explain_sqlite_error(error: Exception) -> str:
    """Return an error's text, followed by advice where SQLite's error code has one."""
    name = getattr(error, "sqlite_errorname", "")
    advice = [text for code, text in _ADVICE.items() if name.startswith(code)]
    return ". ".join([str(error), *advice])


def _lock_out_other_nodes(path: Path) -> BinaryIO:
    """Lock the database for this process, until the returned file is closed or the process ends.

    A second node on the same data folder would sign with the same key. Readers need no lock.
    """
    # A file of its own: if this process closed the database's file, SQLite would lose its locks.
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
    file = os.fdopen(os.open(f"{path}.lock", flags, PRIVATE_FILE), "ab")  # held while it is open
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise UnusableDatabase("another node is running on this data folder") from None
    return file


def _check_not_emptied(path: Path) -> None:
    # Before SQLite sees it: SQLite would delete the write-ahead log beside an empty database as
    # stale, and with it the last copy of what the log holds.
    if not path.exists() or path.stat().st_size == 0:
        raise UnusableDatabase(_EMPTIED)


def _prepare(db: sqlite3.Connection, network: str, *, may_create: bool) -> None:
    """Check the database, or create its tables if it is empty and `may_create`.

    Nothing is changed before all checks have passed.
    """
    empty = is_empty(db)
    if not empty:
        _check_integrity(db)
        _check_network(db, network)
    elif not may_create:
        raise UnusableDatabase(_EMPTIED)
    db.execute("PRAGMA journal_mode = WAL")
    # NORMAL would lose the last commits at a power cut, and with them votes that peers have.
    db.execute("PRAGMA synchronous = FULL")
    with _transaction(db):
        if empty:
            create_tables(db)
            rows = {"network": network, "feed": secrets.token_hex(16)}
            db.executemany("INSERT INTO about VALUES (?, ?)", rows.items())
        # A database that cannot be written fails here, not at the first vote.
        db.execute("UPDATE progress SET steps = steps")


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        # SQLite has rolled back by itself after some errors, a full disk for example.
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


@contextmanager
def _savepoint(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("SAVEPOINT step")
    try:
        yield
    except BaseException:
        if db.in_transaction:  # as above
            db.execute("ROLLBACK TO step")
            db.execute("RELEASE step")
        raise
    db.execute("RELEASE step")


def _check_integrity(db: sqlite3.Connection) -> None:
    # `integrity_check` also compares each index with its table, which takes longer.
    (report,) = db.execute("PRAGMA quick_check(1)").fetchone()
    if report != "ok":
        raise UnusableDatabase(f"it is damaged: {' '.join(report.split())}. {_RESTORE}")


def _check_network(db: sqlite3.Connection, network: str) -> None:
    about = dict(db.execute("SELECT name, value FROM about").fetchall())
    owner = about.get("network")
    if owner is None or "feed" not in about:
        raise UnusableDatabase(f"it is damaged: it does not name its network. {_RESTORE}")
    if owner != network:
        raise UnusableDatabase(
            f"the database belongs to network {owner}, not {network}: choose another data folder"
        )
