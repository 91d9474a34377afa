"""Opening the store's database: whole, ours, of today's schema and this network, or refused."""

import contextlib
import fcntl
import secrets
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from node.storage.migration import SCHEMA_VERSION, UnusableStore, back_up, upgrade, version_of

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


def locked(path: Path) -> BinaryIO:
    """Take the database for this process: a second node on it would sign with the same key.

    The lock goes with the file that is returned, when it is closed or the process ends.
    """
    file = Path(f"{path}.lock").open("ab")  # noqa: SIM115  # held as long as the store
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise UnusableStore("another node is running on this data folder") from None
    return file


def check_there(path: Path) -> None:
    """Refuse a database that vanished, before SQLite removes the log beside it as stale."""
    if not path.exists() or path.stat().st_size == 0:
        raise UnusableStore(_EMPTY)


def prepare(db: sqlite3.Connection, network: str, *, new: bool) -> None:
    """Make it a database of today's schema for `network`; where `new`, from nothing too.

    One of an older schema is copied beside itself first. Nothing is changed before all checks
    have passed. Raises UnusableStore, OSError or sqlite3.Error.
    """
    version = version_of(db)
    if version > 0:
        _check_whole(db)
        _check_network(db, network)
    elif not new:
        raise UnusableStore(_EMPTY)
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


def told(error: Exception) -> str:
    """Return what happened and what to do about it."""
    name = getattr(error, "sqlite_errorname", "")
    advice = [text for code, text in _ADVICE.items() if name.startswith(code)]
    return ". ".join([str(error), *advice])


def _check_whole(db: sqlite3.Connection) -> None:
    (found,) = db.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise UnusableStore(f"it is damaged: {' '.join(found.split())}. {_DAMAGED}")


def _check_network(db: sqlite3.Connection, network: str) -> None:
    about = dict(db.execute("SELECT name, value FROM about").fetchall())
    kept = about.get("network")
    if kept is None or "feed" not in about:
        raise UnusableStore(f"it is damaged: it does not say what it is for. {_DAMAGED}")
    if kept != network:
        raise UnusableStore(
            f"the database belongs to network {kept}, not {network}: choose another data folder"
        )
