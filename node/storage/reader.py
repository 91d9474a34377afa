"""What a node's database tells its owner: evidence, and how every peer has voted.

The node's own `Store` tells it too; `read_ledger` opens the database to read it alone, whether or
not the node runs.
"""

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from node.storage.database import explain_sqlite_error
from node.storage.errors import UnusableDatabase
from node.storage.schema import SCHEMA_VERSION, version_of
from protocol.consensus.conduct import PeerRecord, VoteOutcome
from protocol.wire.encoding import Document

DATABASE = "node.sqlite"  # in a node's data folder
WAIT = 5.0  # seconds for the node to end a step


class LedgerReader:
    """A database of today's schema, open at least for reading."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    def evidence(self) -> list[Document]:
        """Return all evidence."""
        rows = self._db.execute("SELECT document FROM evidence ORDER BY id")
        return [json.loads(text) for (text,) in rows]

    def peer_records(self) -> dict[str, PeerRecord]:
        """Return the standing of every peer that was in the committee of a task that ended."""
        counted: dict[str, dict[VoteOutcome, int]] = {}
        rows = self._db.execute("SELECT peer, conduct, count(*) FROM conduct GROUP BY 1, 2")
        for peer, conduct, count in rows:
            counted.setdefault(peer, {})[VoteOutcome(conduct)] = count
        return {peer: PeerRecord(counts) for peer, counts in counted.items()}


@contextmanager
def read_ledger(path: Path, network: str) -> Iterator[LedgerReader]:
    """Open the database at `path` for reading. Raises UnusableDatabase, saying what to do."""
    uri = f"{path.absolute().as_uri()}?mode=ro"
    try:
        with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=WAIT)) as connection:
            _check(connection, network)
            yield LedgerReader(connection)
    except (sqlite3.Error, UnusableDatabase) as error:
        raise UnusableDatabase(
            f"the database {path} cannot be read: {explain_sqlite_error(error)}"
        ) from None


def _check(db: sqlite3.Connection, network: str) -> None:
    if version_of(db) < SCHEMA_VERSION:
        raise UnusableDatabase(
            "an older version wrote it; start the node once to bring it up to date"
        )
    (kept,) = db.execute("SELECT value FROM about WHERE name = 'network'").fetchone()
    if kept != network:
        raise UnusableDatabase(
            f"it belongs to network {kept}, not {network}: name another data folder"
        )
