"""The tables of a node's database. There is one schema; every other version is refused.

No release has been made yet, so there are no migrations: each version of the protocol has a schema
of its own.
"""

import sqlite3

from node.storage.errors import UnusableDatabase

# PRAGMA user_version of every database that this software reads and writes.
SCHEMA_VERSION = 6

# SQLite stores these statements literally, so their text must not change within one version.
_TABLES = """
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE envelopes (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id BLOB NOT NULL,
    task TEXT NOT NULL, signer TEXT NOT NULL, type TEXT NOT NULL,
    envelope TEXT NOT NULL, at REAL NOT NULL
) STRICT;
CREATE UNIQUE INDEX envelopes_by_id ON envelopes (id);
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
    sha256 TEXT NOT NULL, size INTEGER NOT NULL, chunks TEXT NOT NULL, signers TEXT NOT NULL,
    PRIMARY KEY (sha256, size, chunks)
) STRICT, WITHOUT ROWID;
CREATE TABLE evidence (
    id TEXT PRIMARY KEY, signer TEXT NOT NULL, task TEXT NOT NULL, document TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE cursors (
    peer TEXT PRIMARY KEY, feed TEXT NOT NULL, cursor INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE progress (steps INTEGER NOT NULL) STRICT;
INSERT INTO progress VALUES (0);
CREATE TABLE conduct (
    task TEXT NOT NULL, attempt INTEGER NOT NULL, peer TEXT NOT NULL, conduct TEXT NOT NULL,
    suspect_from REAL, accepted INTEGER NOT NULL,
    PRIMARY KEY (task, attempt, peer)
) STRICT, WITHOUT ROWID;
CREATE INDEX conduct_by_peer ON conduct (peer, conduct);
CREATE INDEX conduct_by_age ON conduct (peer, accepted);
CREATE INDEX conduct_faults ON conduct (peer, accepted) WHERE suspect_from IS NOT NULL;
CREATE TABLE suspects (
    task TEXT NOT NULL, peer TEXT NOT NULL, PRIMARY KEY (task, peer)
) STRICT, WITHOUT ROWID;
CREATE INDEX evidence_by_task ON evidence (task);
"""


def is_empty(db: sqlite3.Connection) -> bool:
    """Return True for a new, empty database and False for one of this schema.

    Raises UnusableDatabase for another schema version and for another program's tables.
    """
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version == SCHEMA_VERSION:
        return False
    if version:
        raise UnusableDatabase(
            f"the database has schema {version}, and this version of helium reads only schema "
            f"{SCHEMA_VERSION}. Run the version that wrote it. To go on without it, choose another "
            "data folder: the node asks its peers for what it signed before it votes"
        )
    if db.execute("SELECT 1 FROM sqlite_schema").fetchone():
        raise UnusableDatabase("another program wrote this database: choose another data folder")
    return True


def create_tables(db: sqlite3.Connection) -> None:
    """Create all tables inside the caller's transaction."""
    # Not `executescript`, which would commit the open transaction first.
    for statement in _TABLES.split(";"):
        db.execute(statement)
    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
