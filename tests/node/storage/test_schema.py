"""One schema: a data folder of an earlier build with it opens unchanged; others are refused."""

import contextlib
import sqlite3
from pathlib import Path

import pytest

from node.storage.errors import UnusableDatabase
from node.storage.reader import read_ledger
from protocol.consensus import evidence
from protocol.consensus.committee import committees
from protocol.consensus.conduct import PeerRecord, VoteOutcome
from tests.node.storage.opened import open_storage
from tests.node.storage.test_journal import check_filled
from tests.support import fixtures

NET = fixtures.network()
TASK = fixtures.task(NET)
SIGNER = committees(NET, TASK)[0][0]
# Every row that the first build with this schema wrote for one task.
EARLIER_BUILD = Path(__file__).with_name("database_v6.sql").read_text()
FEED = "1b56473f21f38558b4ca62eb539ece80"
SUSPECT = fixtures.peer(3)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The data folder as the earlier build left it."""
    path = tmp_path / "node.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(EARLIER_BUILD)
    path.with_name("node.sqlite.mark").write_text(f"{FEED} {3:020d}")
    return path


def dump(path: Path) -> list[str]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return list(connection.iterdump())


def test_database_of_earlier_build_opens_with_every_row(path: Path) -> None:
    rows = dump(path)
    storage = open_storage(path, NET.id)
    check_filled(storage, NET, TASK)
    assert storage.journal.feed_id == FEED
    assert storage.journal.open_tasks() == [TASK.id]
    (document,) = storage.ledger.evidence()
    assert evidence.verify(document, NET.id).task == TASK.id
    record = PeerRecord({VoteOutcome.EQUIVOCATED: 1, VoteOutcome.SILENT: 1})
    assert storage.ledger.peer_records() == {SIGNER: record}
    assert storage.journal.suspects(TASK.id) == {SUSPECT}
    assert storage.ledger.suspects([SIGNER, SUSPECT], fixtures.START) == {SIGNER}
    storage.close()
    assert dump(path) == rows


def test_new_database_has_the_tables_of_the_earlier_build(path: Path, tmp_path: Path) -> None:
    open_storage(tmp_path / "new.sqlite", NET.id).close()
    schemas = []
    for file in (path, tmp_path / "new.sqlite"):
        with contextlib.closing(sqlite3.connect(file)) as connection:
            query = "SELECT type, name, sql FROM sqlite_schema ORDER BY name"
            version = connection.execute("PRAGMA user_version").fetchall()
            schemas.append((version, connection.execute(query).fetchall()))
    assert schemas[0] == schemas[1]


@pytest.mark.parametrize("version", [1, 5, 7, 99])
def test_another_schema_version_is_refused(path: Path, version: int) -> None:
    change(path, f"PRAGMA user_version = {version}")
    reason = rf"schema {version}, and .* reads only schema 6. Run the version that wrote it"
    check_refused(path, reason)
    with pytest.raises(UnusableDatabase, match=reason), read_ledger(path, NET.id):
        pass


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("UPDATE about SET value = 'ffff' WHERE name = 'network'", "belongs to network ffff"),
        ("DELETE FROM about WHERE name = 'feed'", "does not name its network"),
        ("PRAGMA user_version = 0", "another program wrote this database"),
    ],
)
def test_foreign_database_is_refused(path: Path, statement: str, reason: str) -> None:
    change(path, statement)
    check_refused(path, reason)


def change(path: Path, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(statement)


def check_refused(path: Path, reason: str) -> None:
    """It is refused with this reason, and not changed."""
    content = path.read_bytes()
    with pytest.raises(UnusableDatabase, match=reason):
        open_storage(path, NET.id)
    assert path.read_bytes() == content


def test_earlier_build_used_the_keys_of_the_fixtures() -> None:
    assert fixtures.peer(1000) in EARLIER_BUILD
    assert TASK.id in EARLIER_BUILD
