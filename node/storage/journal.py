"""Journal: the node's write-ahead log, in SQLite. A row is durable before its message is sent.

The table `envelopes` holds every accepted envelope in the order of acceptance. It is the feed that
other nodes read (specification 7.9). Together with this node's own outcomes and salts it is also
the log from which a restart rebuilds each task.
"""

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from node.storage.database import Database
from protocol.consensus.effects import State
from protocol.wire.encoding import Document, canonical
from protocol.wire.messages import Message, Task


@dataclass(frozen=True, slots=True)
class OwnOutcome:
    """The outcome of this node's own execution of a task, and its place in the journal."""

    outcome: Document
    trace: Document
    after: int  # sequence number of the last envelope accepted before it
    at: float


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One accepted envelope as the journal holds it."""

    seq: int
    signer: str
    type: str
    envelope: str
    at: float


class Journal:
    """The journal of one database. Used from one thread; all times are Unix seconds."""

    def __init__(self, database: Database) -> None:
        self._database, self._db = database, database.connection
        self._appended: list[str] = []
        self.on_accepted: list[Callable[[Sequence[str]], None]] = []
        """Called with the ids of the appended envelopes, once their transaction is durable."""
        row = self._db.execute("SELECT value FROM about WHERE name = 'feed-suffix'").fetchone()
        self.feed_id = _feed_name(database.feed_id, "" if row is None else row[0])

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make all writes of the block, the ledger's too, durable in one step, or none.

        Inside a batch they become durable with it.
        """
        before = len(self._appended)
        try:
            with self._database.transaction():
                yield
        except BaseException:
            del self._appended[before:]
            raise
        if not self._database.in_batch:
            self._announce()

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Make the transactions of the block durable in one step at its end, or none of them.

        What they ask for may be done only after that, sending above all.
        """
        try:
            with self._database.batch():
                yield
        except BaseException:
            self._appended.clear()
            raise
        self._announce()

    def _announce(self) -> None:
        appended, self._appended = self._appended, []
        if appended:
            for listener in self.on_accepted:
                listener(appended)

    # The disk

    @property
    def fault(self) -> str | None:
        """Why the journal cannot be written, or only from the reserve, and what to do; or None."""
        return self._database.health.fault

    def report(self, error: sqlite3.Error, **fields: object) -> None:
        """Log a step that failed, unless `fault` has been logged already."""
        self._database.health.report(error, **fields)

    def is_writable(self) -> bool:
        """Return whether a small write succeeds now; it is only tried while there is a fault."""
        return self._database.is_writable()

    def check_disk(self) -> None:
        """Find out whether the disk is almost full, or whether `fault` has ended."""
        self._database.check_disk()

    # Envelopes: the feed and the journal

    def append(self, message: Message, at: float) -> None:
        """Append an accepted envelope; `at` is the time of acceptance."""
        id_ = message.envelope.id
        self._db.execute(
            "INSERT INTO envelopes (id, task, signer, type, envelope, at)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (bytes.fromhex(id_), *_columns(message), at),
        )
        self._appended.append(id_)

    def contains(self, message: Message) -> bool:
        """Return True if an envelope with this signer and body was accepted.

        The signature does not matter: a signer can make any number of them for one body.
        """
        task, signer, kind, _ = _columns(message)
        rows = self._db.execute(
            "SELECT json_extract(envelope, '$.body') FROM envelopes"
            " WHERE task = ? AND signer = ? AND type = ?",
            (task, signer, kind),
        )
        return any(json.loads(body) == message.envelope.body for (body,) in rows)

    def find(self, id_: str) -> tuple[str, str] | None:
        """Return the task and the type of the envelope with an id (64 hex); None if it is new."""
        row = self._db.execute(
            "SELECT task, type FROM envelopes WHERE id = ?", (bytes.fromhex(id_),)
        ).fetchone()
        return None if row is None else (row[0], row[1])

    def envelope(self, id_: str) -> str | None:
        """Return the canonical text of the envelope with an id (64 hex); None if it is not here."""
        row = self._db.execute(
            "SELECT envelope FROM envelopes WHERE id = ?", (bytes.fromhex(id_),)
        ).fetchone()
        return None if row is None else str(row[0])

    def feed(self, cursor: int, limit: int) -> list[tuple[int, str]]:
        """Return the ids of up to `limit` envelopes that follow `cursor`, each behind its cursor.

        Cursors are sequence numbers. They increase and are never reused.
        """
        rows = self._db.execute(
            "SELECT seq, id FROM envelopes WHERE seq > ? ORDER BY seq LIMIT ?", (cursor, limit)
        )
        return [(seq, id_.hex()) for seq, id_ in rows]

    def last_cursor(self) -> int:
        """Return the cursor of the newest envelope; 0 if there is none."""
        (seq,) = self._db.execute("SELECT coalesce(max(seq), 0) FROM envelopes").fetchone()
        return int(seq)

    def rename_feed(self, suffix: str) -> None:
        """Name the feed anew; `suffix` are letters and digits that it never had.

        A journal that lost its end gives sequence numbers again that others have read already. They
        would not ask for what is behind them (specification 7.9).
        """
        self._db.execute("INSERT OR REPLACE INTO about VALUES ('feed-suffix', ?)", (suffix,))
        self.feed_id = _feed_name(self._database.feed_id, suffix)

    def entries(self, task: str) -> list[JournalEntry]:
        """Return a task's envelopes in the order of acceptance."""
        rows = self._db.execute(
            "SELECT seq, signer, type, envelope, at FROM envelopes WHERE task = ? ORDER BY seq",
            (task,),
        )
        return [JournalEntry(*row) for row in rows]

    def voters(self, task: str) -> frozenset[str]:
        """Return the signers of a task's votes."""
        rows = self._db.execute(
            "SELECT DISTINCT signer FROM envelopes WHERE task = ?"
            " AND type IN ('commit', 'reveal', 'abstain')",
            (task,),
        )
        return frozenset(signer for (signer,) in rows)

    def unrevealed_tasks(self, signer: str, since: float) -> list[str]:
        """Return the ids of the tasks that have ended before a reveal that `signer` still owes.

        It committed in an attempt at `since` (Unix seconds) or later, and has not revealed in it.
        """
        # By sequence number, from the newest: there is no index by time, and this needs none.
        rows = self._db.execute(
            "SELECT at, signer, task, type, envelope FROM envelopes ORDER BY seq DESC"
        )
        attempts: dict[str, set[tuple[str, int]]] = {"commit": set(), "reveal": set()}
        for at, voter, task, kind, envelope in rows:
            if at < since:
                break
            if voter == signer and kind in attempts:
                attempts[kind].add((task, json.loads(envelope)["body"]["attempt"]))
        tasks = {task for task, _ in attempts["commit"] - attempts["reveal"]}
        return sorted(tasks - set(self.open_tasks()))

    # Tasks

    def put_suspects(self, task: str, peers: Iterable[str]) -> None:
        """Record the members whose commits do not start the waits of a task that is accepted."""
        self._db.executemany("INSERT INTO suspects VALUES (?, ?)", [(task, p) for p in peers])

    def suspects(self, task: str) -> frozenset[str]:
        """Return the suspects that were recorded when a task was accepted."""
        rows = self._db.execute("SELECT peer FROM suspects WHERE task = ?", (task,))
        return frozenset(peer for (peer,) in rows)

    def put_state(self, task: str, state: State, attempt: int) -> None:
        """Record the state and the current attempt of a task."""
        self._db.execute(
            # `ended` follows from the state; it is a column so that an index finds open tasks.
            "INSERT INTO tasks VALUES (?, ?, ?, ?) ON CONFLICT (id) DO UPDATE"
            " SET state = excluded.state, attempt = excluded.attempt, ended = excluded.ended",
            (task, state, attempt, state.terminal),
        )

    def state(self, task: str) -> tuple[State, int] | None:
        """Return the state and the current attempt of a task; None if it was never accepted."""
        row = self._db.execute("SELECT state, attempt FROM tasks WHERE id = ?", (task,)).fetchone()
        return None if row is None else (State(row[0]), row[1])

    def open_tasks(self) -> list[str]:
        """Return the ids of the tasks that have not ended."""
        return [task for (task,) in self._db.execute("SELECT id FROM tasks WHERE ended = 0")]

    def open_task_inputs(self) -> frozenset[str]:
        """Return the hashes of the input blobs of all tasks that have not ended."""
        # Only tasks that take audio have `args.audio`; json_each yields no row for the others.
        rows = self._db.execute(
            "SELECT json_extract(input.value, '$.sha256') FROM tasks"
            " JOIN envelopes ON envelopes.task = tasks.id AND envelopes.type = 'task',"
            " json_each(envelopes.envelope, '$.body.args.audio') AS input WHERE tasks.ended = 0"
        )
        return frozenset(sha256 for (sha256,) in rows)

    # Retention

    def has_envelopes(self, task: str) -> bool:
        """Return whether the envelopes of an accepted task have not been dropped."""
        row = self._db.execute("SELECT 1 FROM envelopes WHERE task = ? LIMIT 1", (task,)).fetchone()
        return row is not None

    def ended_tasks(self, before: float, limit: int) -> list[str]:
        """Return the first tasks, at most `limit`, that were accepted before a time and have ended.

        Tasks whose envelopes were dropped are left out.
        """
        open_tasks, tasks = set(self.open_tasks()), list[str]()
        # By sequence number: there is no index by time, and this reads what it returns.
        rows = self._db.execute("SELECT at, type, task FROM envelopes ORDER BY seq")
        for at, kind, task in rows:
            if at >= before or len(tasks) == limit:
                break
            if kind == "task" and task not in open_tasks:
                tasks.append(task)
        return tasks

    def drop_envelopes(self, tasks: Iterable[str]) -> None:
        """Drop all envelopes of tasks, and what only a rebuild of them needs.

        The feed leaves them out from now on; its other cursors stay. The states of the tasks stay,
        so that they are not taken for new. SQLite uses the space again.
        """
        rows = [(task,) for task in tasks]
        self._db.executemany("DELETE FROM envelopes WHERE task = ?", rows)
        self._db.executemany("DELETE FROM suspects WHERE task = ?", rows)
        self._db.executemany("DELETE FROM salts WHERE task = ?", rows)
        self._db.executemany("DELETE FROM outcomes WHERE task = ?", rows)

    # Outcomes and salts of this node

    def own_outputs(self) -> frozenset[str]:
        """Return the hashes of all blobs of this node's outcomes, outvoted ones included."""
        rows = self._db.execute(
            "SELECT json_extract(output.value, '$.sha256'),"
            " json_extract(output.value, '$.tokens.sha256') FROM outcomes,"
            " json_each(outcomes.outcome, '$.result.outputs') AS output"
        )
        return frozenset(sha256 for row in rows for sha256 in row if sha256 is not None)

    def put_outcome(self, task: str, outcome: Document, trace: Document, at: float) -> None:
        """Record the outcome of this node's execution. A task's first outcome is never replaced.

        A second execution after a restart must not change what this node has committed to.
        """
        # A replay must see the outcome between the same two envelopes as the first run did.
        self._db.execute(
            "INSERT OR IGNORE INTO outcomes"
            " SELECT ?, ?, ?, coalesce(max(seq), 0), ? FROM envelopes",
            (task, _text(outcome), _text(trace), at),
        )

    def outcome(self, task: str) -> OwnOutcome | None:
        """Return this node's outcome of a task; None before its execution has ended."""
        row = self._db.execute(
            "SELECT outcome, trace, after, at FROM outcomes WHERE task = ?", (task,)
        ).fetchone()
        return row and OwnOutcome(json.loads(row[0]), json.loads(row[1]), row[2], row[3])

    def salt(self, task: str, attempt: int) -> str | None:
        """Return the salt of this node's commit in an attempt; None if none was drawn."""
        row = self._db.execute(
            "SELECT salt FROM salts WHERE task = ? AND attempt = ?", (task, attempt)
        ).fetchone()
        return None if row is None else str(row[0])

    def put_salt(self, task: str, attempt: int, salt: str) -> None:
        """Record the salt of an attempt. Raises sqlite3.IntegrityError if it has one."""
        self._db.execute("INSERT INTO salts VALUES (?, ?, ?)", (task, attempt, salt))


def _feed_name(database: str, suffix: str) -> str:
    return f"{database}-{suffix}" if suffix else database


def _columns(message: Message) -> tuple[str, str, object, str]:
    """Return the columns task, signer, type and envelope of a message."""
    task = message.id if isinstance(message, Task) else message.task
    envelope = message.envelope
    return task, envelope.signer, envelope.body["type"], envelope.encode().decode()


def _text(document: Document) -> str:
    return canonical(document).decode()
