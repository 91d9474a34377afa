"""Reading the ledger for the node's owner: evidence, and how every peer has voted.

`read_ledger` opens the database read-only, whether or not the node is running.
"""

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from node.storage.database import LOCK_SECONDS, explain_sqlite_error
from node.storage.errors import UnusableDatabase
from node.storage.schema import is_empty
from protocol.consensus.conduct import PeerRecord, VoteOutcome
from protocol.wire.encoding import Document

# The database's name in a node's data folder.
DATABASE = "node.sqlite"


class LedgerReader:
    """The queries on the ledger that need no more than read access."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    def evidence(self) -> list[Document]:
        """Return all evidence, ordered by its id."""
        rows = self._db.execute("SELECT document FROM evidence ORDER BY id")
        return [json.loads(document) for (document,) in rows]

    def peer_records(self) -> dict[str, PeerRecord]:
        """Return the voting record of each peer that was in a committee of a task that ended."""
        counts: dict[str, dict[VoteOutcome, int]] = {}
        rows = self._db.execute("SELECT peer, conduct, count(*) FROM conduct GROUP BY 1, 2")
        for peer, outcome, count in rows:
            counts.setdefault(peer, {})[VoteOutcome(outcome)] = count
        return {peer: PeerRecord(by_outcome) for peer, by_outcome in counts.items()}


@contextmanager
def read_ledger(path: Path, network: str) -> Iterator[LedgerReader]:
    """Open the database at `path` for reading. Raises UnusableDatabase, which says what to do."""
    uri = f"{path.absolute().as_uri()}?mode=ro"
    try:
        with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=LOCK_SECONDS)) as connection:
            _check(connection, network)
            yield LedgerReader(connection)
    except (sqlite3.Error, UnusableDatabase) as error:
        reason = explain_sqlite_error(error)
        raise UnusableDatabase(f"the database {path} cannot be read: {reason}") from None


def _check(db: sqlite3.Connection, network: str) -> None:
    if is_empty(db):
        raise UnusableDatabase("it is empty: start the node once to create its tables")
    (owner,) = db.execute("SELECT value FROM about WHERE name = 'network'").fetchone()
    if owner != network:
        raise UnusableDatabase(
            f"it belongs to network {owner}, not {network}: name another data folder"
        )
