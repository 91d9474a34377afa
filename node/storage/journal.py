"""What a node must not forget: SQLite in WAL mode, written before anything is sent.

One table holds every accepted envelope in the order of acceptance: it is the feed (specification
7) and, with this node's own outcomes and salts, the journal from which a restart rebuilds each
task. A write that was committed survives a power cut (`synchronous=FULL`).
"""

import contextlib
import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from node.storage.database import check_there, locked, prepare, told, transaction
from node.storage.migration import UnusableStore as UnusableStore
from node.storage.reader import Archive
from node.storage.rollback_guard import Watermark
from protocol.consensus.certificate import Certificate
from protocol.consensus.conduct import VoteOutcome
from protocol.consensus.effects import State
from protocol.consensus.evidence import Evidence
from protocol.manifest import Blob, blobs_of
from protocol.wire.encoding import Document, canonical
from protocol.wire.messages import Message, Task


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


class Store(Archive):
    """One node's database. Used from one thread; all times are Unix seconds."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        network: str,
        mark: Watermark | None = None,
        held: contextlib.ExitStack | None = None,
    ) -> None:
        """Take over an open connection in autocommit mode, and what is held as long as it is.

        Raises UnusableStore, OSError or sqlite3.Error.
        """
        super().__init__(connection)
        self._mark, self._held = mark, held
        prepare(connection, network, new=mark is None or not mark.known)
        self.feed_id = self._about("feed")
        (self._steps,) = connection.execute("SELECT steps FROM progress").fetchone()
        if mark is not None:
            mark.require(self.feed_id, self._steps)

    def close(self) -> None:
        """Close the database; committed writes are safe without it."""
        self._db.close()
        if self._held is not None:
            self._held.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make what is written inside one durable step: all of it, or on an error nothing."""
        with transaction(self._db):
            yield
            self._db.execute("UPDATE progress SET steps = ?", (self._steps + 1,))
        self._steps += 1
        if self._mark is not None:
            self._mark.reached(self.feed_id, self._steps)

    # Envelopes: the feed and the journal

    def append(self, message: Message, at: float) -> None:
        """Accept an envelope at the end of the feed."""
        task = message.id if isinstance(message, Task) else message.task
        envelope = message.envelope
        self._db.execute(
            "INSERT INTO envelopes (task, signer, type, envelope, at) VALUES (?, ?, ?, ?, ?)",
            (task, envelope.signer, envelope.body["type"], envelope.encode().decode(), at),
        )

    def holds(self, message: Message) -> bool:
        """Return whether this very envelope was accepted."""
        task = message.id if isinstance(message, Task) else message.task
        envelope = message.envelope
        row = self._db.execute(
            "SELECT 1 FROM envelopes"
            " WHERE task = ? AND signer = ? AND type = ? AND envelope = ? LIMIT 1",
            (task, envelope.signer, envelope.body["type"], envelope.encode().decode()),
        ).fetchone()
        return row is not None

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

    def wanted_blobs(self) -> frozenset[str]:
        """Return the names of the inputs of the tasks that have not ended."""
        rows = self._db.execute(
            "SELECT json_extract(named.value, '$.sha256') FROM tasks"
            " JOIN envelopes ON envelopes.task = tasks.id AND envelopes.type = 'task',"
            " json_each(envelopes.envelope, '$.body.args.audio') AS named WHERE tasks.ended = 0"
        )
        return frozenset(sha256 for (sha256,) in rows)

    # This node's own part

    def produced_blobs(self) -> frozenset[str]:
        """Return the names of all outputs of this node's own, outvoted ones too."""
        rows = self._db.execute(
            "SELECT json_extract(output.value, '$.sha256') FROM outcomes,"
            " json_each(outcomes.outcome, '$.result.outputs') AS output"
        )
        return frozenset(sha256 for (sha256,) in rows)

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

    def doubtful(self, task: str) -> bool:
        """Return whether votes of a task may be missing: there is evidence, and no conflict."""
        (found,) = self._db.execute(
            "SELECT EXISTS (SELECT 1 FROM evidence WHERE task = ?)"
            " AND (SELECT count(*) FROM certificates WHERE task = ?) < 2",
            (task, task),
        ).fetchone()
        return bool(found)

    def certified_outcomes(self, task: str) -> frozenset[str]:
        """Return the digests of the outcomes of a task that are certified; two are a conflict."""
        rows = self._db.execute("SELECT outcome FROM certificates WHERE task = ?", (task,))
        return frozenset(digest for (digest,) in rows)

    def put_conduct(self, task: str, vote_outcomes: Iterable[tuple[int, str, VoteOutcome]]) -> None:
        """Record what each (attempt, peer) of a task did, in place of what was recorded before."""
        self._db.execute("DELETE FROM conduct WHERE task = ?", (task,))
        for attempt, peer, conduct in vote_outcomes:
            self._db.execute(
                "INSERT INTO conduct VALUES (?, ?, ?, ?)", (task, attempt, peer, conduct)
            )

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


def open_store(path: Path | str, network: str, patience: float = 5.0) -> Store:
    """Open, create or bring up to date the database at `path` for one network.

    It is checked whole, and against its watermark. Another program's lock is waited for
    `patience` seconds. Raises UnusableStore, saying what to do.
    """
    if str(path) == ":memory:":
        return Store(sqlite3.connect(path, isolation_level=None), network)
    held = contextlib.ExitStack()
    try:
        held.callback(locked(Path(path)).close)
        mark = Watermark(Path(f"{path}.mark"))
        held.callback(mark.close)
        if mark.known:
            check_there(Path(path))
        connection = sqlite3.connect(path, isolation_level=None, timeout=patience)
        held.callback(connection.close)
        return Store(connection, network, mark, held)
    except (sqlite3.Error, UnusableStore, OSError) as error:
        held.close()
        raise UnusableStore(f"the database {path} cannot be used: {told(error)}") from error


def _text(document: Document) -> str:
    return canonical(document).decode()
