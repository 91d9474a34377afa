"""The store's tables, one step for each schema version, and the way from an older one to today's.

A new database takes the same steps as an old one, so the two cannot differ. A released step is
never edited: what must change is a step more at the end.
"""

import contextlib
import os
import sqlite3
from pathlib import Path

from node.storage.errors import UnusableDatabase

_STEPS = (
    # 1: the first release
    """
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE envelopes (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    task TEXT NOT NULL, signer TEXT NOT NULL, type TEXT NOT NULL,
    envelope TEXT NOT NULL, at REAL NOT NULL
) STRICT;
CREATE INDEX envelopes_by_task ON envelopes (task, seq);
CREATE TABLE tasks (
    id TEXT PRIMARY KEY, state TEXT NOT NULL, attempt INTEGER NOT NULL, ended INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX tasks_open ON tasks (ended, id);
CREATE TABLE salts (
    task TEXT NOT NULL, attempt INTEGER NOT NULL, salt TEXT NOT NULL, PRIMARY KEY (task, attempt)
) STRICT, WITHOUT ROWID;
CREATE TABLE outcomes (
    task TEXT PRIMARY KEY, outcome TEXT NOT NULL, trace TEXT NOT NULL,
    after INTEGER NOT NULL, at REAL NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE certificates (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, task TEXT NOT NULL, outcome TEXT NOT NULL,
    document TEXT NOT NULL, UNIQUE (task, outcome)
) STRICT;
CREATE TABLE outputs (
    sha256 TEXT PRIMARY KEY, size INTEGER NOT NULL, chunks TEXT NOT NULL, signers TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE evidence (
    id TEXT PRIMARY KEY, signer TEXT NOT NULL, task TEXT NOT NULL, document TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE cursors (
    peer TEXT PRIMARY KEY, feed TEXT NOT NULL, cursor INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
""",
    # 2: how many transactions were committed, to be compared with the watermark
    "CREATE TABLE progress (steps INTEGER NOT NULL) STRICT; INSERT INTO progress VALUES (0);",
    # 3: what each peer did in each attempt at a task that ended (`protocol.consensus.conduct`)
    """
CREATE TABLE conduct (
    task TEXT NOT NULL, attempt INTEGER NOT NULL, peer TEXT NOT NULL, conduct TEXT NOT NULL,
    PRIMARY KEY (task, attempt, peer)
) STRICT, WITHOUT ROWID;
CREATE INDEX conduct_by_peer ON conduct (peer, conduct);
""",
    # 4: asked for each reveal that a feed brings
    "CREATE INDEX evidence_by_task ON evidence (task);",
)

SCHEMA_VERSION = len(_STEPS)


def version_of(db: sqlite3.Connection) -> int:
    """Return the schema version of a database: 0 for an empty one.

    Raises UnusableDatabase for one of newer software, and for tables that are not this software's.
    """
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA_VERSION:
        raise UnusableDatabase(
            f"the database has schema {version}, this software knows {SCHEMA_VERSION}: "
            "it was written by a newer version; run that one"
        )
    if version == 0 and db.execute("SELECT 1 FROM sqlite_schema").fetchone():
        raise UnusableDatabase("it is not a database of this software: choose another data folder")
    return int(version)


def upgrade(db: sqlite3.Connection, version: int) -> None:
    """Take the steps after `version` inside the caller's transaction."""
    for step in _STEPS[version:]:
        for statement in step.split(";"):
            db.execute(statement)
    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def back_up(db: sqlite3.Connection, version: int) -> Path | None:
    """Copy the database beside itself as `NAME.v<version>`, durably; return where it stands.

    An earlier copy is never overwritten: the name gets a number. None for one in memory.
    Raises OSError or sqlite3.Error, and leaves nothing half done behind then.
    """
    (_, _, name) = db.execute("PRAGMA database_list").fetchone()
    if not name:
        return None
    draft = Path(f"{name}.v{version}.part")
    try:
        draft.unlink(missing_ok=True)  # of an attempt that was killed
        with contextlib.closing(sqlite3.connect(draft)) as copy:
            db.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")  # one file, complete without a log
        _sync(draft)
        backup = _link(draft, Path(f"{name}.v{version}"))
    finally:
        draft.unlink(missing_ok=True)
    _sync(backup.parent)
    return backup


def _link(draft: Path, wanted: Path) -> Path:
    """Give the draft its name, or that name with the first number that is free."""
    target, number = wanted, 1
    while True:
        try:
            target.hardlink_to(draft)
        except FileExistsError:
            number += 1
            target = wanted.with_name(f"{wanted.name}-{number}")
        else:
            return target


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
