"""A database with its journal and its ledger, for the tests of storage."""

import sqlite3
from pathlib import Path

from node.storage.database import Database, open_database
from node.storage.journal import Journal
from node.storage.ledger import Ledger


class Storage:
    """One open database, and what stands on it."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.journal, self.ledger = Journal(database), Ledger(database)

    @property
    def connection(self) -> sqlite3.Connection:
        return self.database.connection

    def close(self) -> None:
        self.database.close()


def open_storage(path: Path | str, network: str, lock_timeout: float = 5.0) -> Storage:
    """Open or create the database at `path`."""
    return Storage(open_database(path, network, lock_timeout))
