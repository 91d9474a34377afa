"""What a node must not forget: SQLite in WAL mode, written before anything is sent.

One table holds every accepted envelope in the order of acceptance: it is the feed (specification
7) and, with this node's own outcomes and salts, the journal from which a restart rebuilds each
task. A write that was committed survives a power cut (`synchronous=FULL`).
"""

import contextlib
import fcntl
import io
import json
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from node.outputs import Blob, blobs_of
from protocol.canonical import Document, canonical
from protocol.certificate import Certificate
from protocol.effects import State
from protocol.evidence import Evidence
from protocol.messages import Message, Task

SCHEMA_VERSION = 1

_SCHEMA = """
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
"""


class StoreError(Exception):
    """The store cannot be used; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Produced:
    """This node's own outcome of a task, and where in the journal it belongs."""

    outcome: Document
    trace: Document
    after: int  # the last envelope accepted before it
    at: float


@dataclass(frozen=True, slots=True)
class Output:
    """A blob that some certificate vouches for, and who signed that they have it."""

    blob: Blob
    signers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """One accepted envelope as it stands in the journal."""

    seq: int
    signer: str
    type: str
    envelope: str
    at: float


class Store:
    """One node's database. Used from one thread; all times are Unix seconds."""

    def __init__(
        self, connection: sqlite3.Connection, network: str, lock: BinaryIO | None = None
    ) -> None:
        """Take over an open connection in autocommit mode, and its lock, as from `open_store`."""
        self._db, self._lock = connection, lock
        _prepare(connection, network)
        self.feed_id = self._about("feed")

    def close(self) -> None:
        """Close the database; committed writes are safe without it."""
        self._db.close()
        if self._lock is not None:
            self._lock.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make what is written inside one durable step: all of it, or on an error nothing."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        try:
            self._db.execute("COMMIT")
        except sqlite3.Error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    # Envelopes: the feed and the journal

    def append(self, message: Message, at: float) -> None:
        """Accept an envelope at the end of the feed."""
        task = message.id if isinstance(message, Task) else message.task
        envelope = message.envelope
        self._db.execute(
            "INSERT INTO envelopes (task, signer, type, envelope, at) VALUES (?, ?, ?, ?, ?)",
            (task, envelope.signer, envelope.body["type"], envelope.encode().decode(), at),
        )

    def feed(self, cursor: int, limit: int) -> list[tuple[int, str]]:
        """Return up to `limit` accepted envelopes after `cursor`, each with its own cursor."""
        return self._db.execute(
            "SELECT seq, envelope FROM envelopes WHERE seq > ? ORDER BY seq LIMIT ?",
            (cursor, limit),
        ).fetchall()

    def tip(self) -> int:
        """Return the cursor of the last envelope accepted; 0 if there is none."""
        (seq,) = self._db.execute("SELECT coalesce(max(seq), 0) FROM envelopes").fetchone()
        return int(seq)

    def entries(self, task: str) -> list[Entry]:
        """Return all accepted envelopes of a task in order of acceptance."""
        rows = self._db.execute(
            "SELECT seq, signer, type, envelope, at FROM envelopes WHERE task = ? ORDER BY seq",
            (task,),
        )
        return [Entry(*row) for row in rows]

    # Tasks

    def put_state(self, task: str, state: State, attempt: int) -> None:
        """Record how a task stands."""
        self._db.execute(
            "INSERT INTO tasks VALUES (?, ?, ?, ?) ON CONFLICT (id) DO UPDATE"
            " SET state = excluded.state, attempt = excluded.attempt, ended = excluded.ended",
            (task, state, attempt, state.terminal),
        )

    def state(self, task: str) -> tuple[State, int] | None:
        """Return the state and the attempt of a task, None for one never accepted."""
        row = self._db.execute("SELECT state, attempt FROM tasks WHERE id = ?", (task,)).fetchone()
        return None if row is None else (State(row[0]), row[1])

    def open_tasks(self) -> list[str]:
        """Return the ids of the tasks that have not ended."""
        return [id_ for (id_,) in self._db.execute("SELECT id FROM tasks WHERE ended = 0")]

    # This node's own part

    def put_outcome(self, task: str, outcome: Document, trace: Document, at: float) -> None:
        """Record what this node's execution gave; the first outcome of a task stays."""
        self._db.execute(
            "INSERT OR IGNORE INTO outcomes"
            " SELECT ?, ?, ?, coalesce(max(seq), 0), ? FROM envelopes",
            (task, _text(outcome), _text(trace), at),
        )

    def outcome(self, task: str) -> Produced | None:
        """Return this node's own outcome of a task, if it has one."""
        row = self._db.execute(
            "SELECT outcome, trace, after, at FROM outcomes WHERE task = ?", (task,)
        ).fetchone()
        return row and Produced(json.loads(row[0]), json.loads(row[1]), row[2], row[3])

    def salt(self, task: str, attempt: int) -> str | None:
        """Return the salt drawn for an attempt, if any was."""
        row = self._db.execute(
            "SELECT salt FROM salts WHERE task = ? AND attempt = ?", (task, attempt)
        ).fetchone()
        return None if row is None else str(row[0])

    def put_salt(self, task: str, attempt: int, salt: str) -> None:
        """Record the salt of an attempt; there is never a second one."""
        self._db.execute("INSERT INTO salts VALUES (?, ?, ?)", (task, attempt, salt))

    # What was proven

    def put_certificate(self, certificate: Certificate) -> None:
        """Keep a certificate; a second outcome for one task is kept beside the first."""
        self._db.execute(
            "INSERT OR IGNORE INTO certificates (task, outcome, document) VALUES (?, ?, ?)",
            (certificate.task.id, certificate.votes[0].digest, certificate.encode().decode()),
        )
        signers = " ".join(certificate.signers)
        for blob in blobs_of(certificate.outcome):
            self._db.execute(
                "INSERT OR IGNORE INTO outputs VALUES (?, ?, ?, ?)",
                (blob.sha256, blob.size, " ".join(blob.chunks), signers),
            )

    def output(self, sha256: str) -> Output | None:
        """Return what certificates say of a blob; None if none names it."""
        row = self._db.execute(
            "SELECT size, chunks, signers FROM outputs WHERE sha256 = ?", (sha256,)
        ).fetchone()
        if row is None:
            return None
        return Output(Blob(sha256, row[0], tuple(row[1].split())), tuple(row[2].split()))

    def certificates(self, task: str) -> list[Document]:
        """Return the certificates of a task; two are a conflict."""
        rows = self._db.execute(
            "SELECT document FROM certificates WHERE task = ? ORDER BY seq", (task,)
        )
        return [json.loads(text) for (text,) in rows]

    def put_evidence(self, evidence: Evidence) -> None:
        """Keep evidence; the same again changes nothing."""
        self._db.execute(
            "INSERT OR IGNORE INTO evidence VALUES (?, ?, ?, ?)",
            (evidence.id, evidence.signer, evidence.task, evidence.encode().decode()),
        )

    def evidence(self) -> list[Document]:
        """Return all evidence."""
        rows = self._db.execute("SELECT document FROM evidence ORDER BY id")
        return [json.loads(text) for (text,) in rows]

    # How far other nodes' feeds were read

    def cursor(self, peer: str) -> tuple[str, int]:
        """Return the feed and the cursor up to which a peer was read; ("", 0) at first."""
        row = self._db.execute(
            "SELECT feed, cursor FROM cursors WHERE peer = ?", (peer,)
        ).fetchone()
        return ("", 0) if row is None else (row[0], row[1])

    def put_cursor(self, peer: str, feed: str, cursor: int) -> None:
        """Record up to where a peer's feed was read."""
        self._db.execute("INSERT OR REPLACE INTO cursors VALUES (?, ?, ?)", (peer, feed, cursor))

    def _about(self, name: str) -> str:
        (value,) = self._db.execute("SELECT value FROM about WHERE name = ?", (name,)).fetchone()
        return str(value)


def open_store(path: Path | str, network: str) -> Store:
    """Open or create the database at `path` for one network. Raises StoreError."""
    with contextlib.ExitStack() as undo:
        try:
            lock = undo.enter_context(_locked(path))
            connection = sqlite3.connect(path, isolation_level=None, timeout=5)
            undo.callback(connection.close)
            store = Store(connection, network, lock)
        except (sqlite3.Error, StoreError, OSError) as error:
            raise StoreError(f"the database {path} cannot be used: {error}") from error
        undo.pop_all()
        return store


def _locked(path: Path | str) -> BinaryIO:
    """Take the folder for this process: a second node on it would sign with the same key.

    The lock goes with the file that is returned, when it is closed or the process ends.
    """
    if str(path) == ":memory:":
        return io.BytesIO()
    file = Path(f"{path}.lock").open("ab")  # noqa: SIM115  # held as long as the store
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise StoreError("another node is running on this data folder") from None
    return file


def _prepare(db: sqlite3.Connection, network: str) -> None:
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"the database has schema {version}, this software knows {SCHEMA_VERSION}: "
            "it was written by a newer version; run that one"
        )
    if version == 0:
        _create(db, network)
    about = dict(db.execute("SELECT name, value FROM about").fetchall())
    kept = about.get("network")
    if kept is None or "feed" not in about:
        raise StoreError("the database is damaged: it does not say what it is for")
    if kept != network:
        raise StoreError(
            f"the database belongs to network {kept}, not {network}: choose another data folder"
        )


def _create(db: sqlite3.Connection, network: str) -> None:
    rows: dict[str, Any] = {"network": network, "feed": secrets.token_hex(16)}
    db.execute("BEGIN IMMEDIATE")
    for statement in _SCHEMA.split(";"):
        db.execute(statement)
    db.executemany("INSERT INTO about VALUES (?, ?)", rows.items())
    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    db.execute("COMMIT")


def _text(document: Document) -> str:
    return canonical(document).decode()
