"""Opening the store's database: whole, ours, of today's schema and this network, or refused."""

import contextlib
import fcntl
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from node.storage.errors import UnusableDatabase
from node.storage.rollback_guard import RollbackGuard
from node.storage.schema import SCHEMA_VERSION, back_up, upgrade, version_of

_DAMAGED = (
    "Put the newest undamaged copy back. To go on without one, wait for the longest deadline of "
    "the network's tasks, lest this node vote twice, and move the database and all files beside "
    "it whose names begin with its name away"
)
_EMPTY = f"it is empty, and was not when it was last used. {_DAMAGED}"
_ADVICE = {
    "SQLITE_BUSY": "another program holds it: close that one",
    "SQLITE_CANTOPEN": "make the folder and the files in it readable and writable for this user",
    "SQLITE_CORRUPT": _DAMAGED,
    "SQLITE_FULL": "free space on the disk and start again: nothing was lost",
    "SQLITE_IOERR": "the disk is full, at its quota or failing: see the system's log",
    "SQLITE_NOTADB": _DAMAGED,
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
    ) -> None:
        """Take over a connection in autocommit mode and the resources that close with it.

        Raises UnusableDatabase, OSError or sqlite3.Error.
        """
        self.connection, self._guard, self._resources = connection, guard, resources
        prepare(connection, network, new=guard is None or not guard.has_record)
        about = dict(connection.execute("SELECT name, value FROM about").fetchall())
        self.feed_id = str(about["feed"])
        (self._steps,) = connection.execute("SELECT steps FROM progress").fetchone()
        if guard is not None:
            guard.check(self.feed_id, self._steps)

    def close(self) -> None:
        """Close the database; committed writes are safe without it."""
        self.connection.close()
        if self._resources is not None:
            self._resources.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make all writes of the block durable in one step; on an error make none."""
        with transaction(self.connection):
            yield
            self.connection.execute("UPDATE progress SET steps = ?", (self._steps + 1,))
        self._steps += 1
        if self._guard is not None:
            self._guard.advance(self.feed_id, self._steps)


def open_database(path: Path | str, network: str, lock_timeout: float = 5.0) -> Database:
    """Open or create the database at `path` for one network, after checking all of it.

    It waits `lock_timeout` seconds for another program's lock. Raises UnusableDatabase, which
    says what to do.
    """
    if str(path) == ":memory:":
        return Database(sqlite3.connect(path, isolation_level=None), network)
    resources = contextlib.ExitStack()
    try:
        resources.callback(locked(Path(path)).close)
        guard = RollbackGuard(Path(f"{path}.mark"))
        resources.callback(guard.close)
        if guard.has_record:
            check_there(Path(path))
        connection = sqlite3.connect(path, isolation_level=None, timeout=lock_timeout)
        resources.callback(connection.close)
        return Database(connection, network, guard, resources)
    except (sqlite3.Error, UnusableDatabase, OSError) as error:
        resources.close()
        raise UnusableDatabase(
            f"the database {path} cannot be used: {explain_sqlite_error(error)}"
        ) from error


def locked(path: Path) -> BinaryIO:
    """Take the database for this process: a second node on it would sign with the same key.

    The lock goes with the file that is returned, when it is closed or the process ends.
    """
    file = Path(f"{path}.lock").open("ab")  # noqa: SIM115  # held as long as the store
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise UnusableDatabase("another node is running on this data folder") from None
    return file


def check_there(path: Path) -> None:
    """Refuse a database that vanished, before SQLite removes the log beside it as stale."""
    if not path.exists() or path.stat().st_size == 0:
        raise UnusableDatabase(_EMPTY)


def prepare(db: sqlite3.Connection, network: str, *, new: bool) -> None:
    """Make it a database of today's schema for `network`; where `new`, from nothing too.

    One of an older schema is copied beside itself first. Nothing is changed before all checks
    have passed. Raises UnusableDatabase, OSError or sqlite3.Error.
    """
    version = version_of(db)
    if version > 0:
        _check_whole(db)
        _check_network(db, network)
    elif not new:
        raise UnusableDatabase(_EMPTY)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    if 0 < version < SCHEMA_VERSION:
        back_up(db, version)
    with transaction(db):
        if version < SCHEMA_VERSION:
            upgrade(db, version)
        db.execute("UPDATE progress SET steps = steps")  # what cannot be written fails now
        if version == 0:
            rows = {"network": network, "feed": secrets.token_hex(16)}
            db.executemany("INSERT INTO about VALUES (?, ?)", rows.items())


@contextlib.contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Make what is written inside one durable step: all of it, or on an error nothing."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def explain_sqlite_error(error: Exception) -> str:
    """Return what happened and what to do about it."""
    name = getattr(error, "sqlite_errorname", "")
    advice = [text for code, text in _ADVICE.items() if name.startswith(code)]
    return ". ".join([str(error), *advice])


def _check_whole(db: sqlite3.Connection) -> None:
    (found,) = db.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise UnusableDatabase(f"it is damaged: {' '.join(found.split())}. {_DAMAGED}")


def _check_network(db: sqlite3.Connection, network: str) -> None:
    about = dict(db.execute("SELECT name, value FROM about").fetchall())
    kept = about.get("network")
    if kept is None or "feed" not in about:
        raise UnusableDatabase(f"it is damaged: it does not say what it is for. {_DAMAGED}")
    if kept != network:
        raise UnusableDatabase(
            f"the database belongs to network {kept}, not {network}: choose another data folder"
        )
