"""A database of an older schema: copied first, then brought to today's, with every row."""

import contextlib
import os
import re
import sqlite3
from pathlib import Path

import pytest

from node.storage import schema
from node.storage.errors import UnusableDatabase
from node.storage.schema import SCHEMA_VERSION
from protocol.consensus import evidence
from protocol.consensus.effects import State
from protocol.wire.signing import peer_of
from tests.node.storage.opened import open_storage
from tests.node.storage.test_journal import check_filled
from tests.support import fixtures

NET = fixtures.network()
FIRST = Path(__file__).with_name("store_v1.sql")  # what the first release wrote, row by row
FIRST_TABLES = [*re.findall(r"^CREATE TABLE (\w+)", FIRST.read_text(), re.M), "sqlite_sequence"]
TASK = fixtures.task(NET)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database of the first schema, as the first release left it."""
    path = tmp_path / "node.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.executescript(FIRST.read_text())
    connection.close()
    return path


def dump(path: Path) -> list[str]:
    """Everything, as statements."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return list(connection.iterdump())


def rows(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """All rows of the tables that the first schema had, and how far their numbers were given."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return {
            name: connection.execute(f"SELECT * FROM {name}").fetchall()  # noqa: S608  # ours
            for name in FIRST_TABLES
        }


def version(path: Path) -> int:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


def test_every_row_of_the_first_schema_is_there_after_migrating(path: Path) -> None:
    before = rows(path)
    assert all(before.values())
    store = open_storage(path, NET.id)
    check_filled(store, NET, TASK)
    assert store.journal.feed_id == "4a089393db914ac1287269857a90bab6"
    (proof,) = store.ledger.evidence()
    assert evidence.verify(proof, NET.id).task == TASK.id
    assert store.journal.open_tasks() == [TASK.id]
    store.close()
    assert version(path) == SCHEMA_VERSION
    assert rows(path) == before


def test_the_copy_is_the_old_database(path: Path) -> None:
    before = dump(path)
    open_storage(path, NET.id).close()
    backup = path.with_name("node.sqlite.v1")
    assert dump(backup) == before
    assert version(backup) == 1
    assert not backup.with_name("node.sqlite.v1-wal").exists()


def test_a_migrated_database_and_a_new_one_have_the_same_tables(path: Path, tmp_path: Path) -> None:
    open_storage(path, NET.id).close()
    open_storage(tmp_path / "new.sqlite", NET.id).close()
    shapes = []
    for file in (path, tmp_path / "new.sqlite"):
        with contextlib.closing(sqlite3.connect(file)) as connection:
            query = "SELECT type, name, sql FROM sqlite_schema ORDER BY name"
            shapes.append(connection.execute(query).fetchall())
    assert shapes[0] == shapes[1]


def test_a_store_of_today_is_not_copied(path: Path) -> None:
    open_storage(path, NET.id).close()
    present = sorted(path.parent.iterdir())
    store = open_storage(path, NET.id)
    store.journal.put_state("f" * 64, State.AGREED, 0)
    store.close()
    assert sorted(path.parent.iterdir()) == present


def test_an_earlier_copy_is_never_overwritten(path: Path) -> None:
    for name in ("node.sqlite.v1", "node.sqlite.v1-2"):
        path.with_name(name).write_text(name)
    open_storage(path, NET.id).close()
    assert path.with_name("node.sqlite.v1").read_text() == "node.sqlite.v1"
    assert path.with_name("node.sqlite.v1-2").read_text() == "node.sqlite.v1-2"
    assert version(path.with_name("node.sqlite.v1-3")) == 1


def test_the_copy_is_durable_before_anything_changes(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is synced, then its folder, and only then the database has the new schema."""
    synced = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        target = Path(f"/proc/self/fd/{descriptor}").readlink()
        synced.append((target.name, version(path)))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    open_storage(path, NET.id).close()
    assert synced[:2] == [("node.sqlite.v1.part", 1), (path.parent.name, 1)]


@pytest.mark.parametrize("broken", range(1, 8))
def test_a_migration_that_fails_leaves_the_old_database(
    path: Path, monkeypatch: pytest.MonkeyPatch, broken: int
) -> None:
    """At whatever statement it stops: all steps are one transaction. The next attempt succeeds."""
    good = schema._STEPS
    statements = "; ".join(good[1:]).split(";")
    steps = (good[0], ";".join([*statements[:broken], " NOT SQL"]))
    before = dump(path)
    monkeypatch.setattr(schema, "_STEPS", steps)
    with pytest.raises(UnusableDatabase, match="syntax error"):
        open_storage(path, NET.id)
    assert dump(path) == before
    assert version(path) == 1
    monkeypatch.setattr(schema, "_STEPS", good)
    store = open_storage(path, NET.id)
    check_filled(store, NET, TASK)
    store.close()
    assert version(path) == SCHEMA_VERSION


def test_no_copy_no_migration(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = dump(path)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UnusableDatabase, match="No space left"):
            open_storage(path, NET.id)
    assert version(path) == 1
    assert dump(path) == before
    assert not list(path.parent.glob("*.v1*"))
    open_storage(path, NET.id).close()
    assert version(path) == SCHEMA_VERSION


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("PRAGMA user_version = 99", "schema 99, this software knows .*run that one"),
        ("UPDATE about SET value = 'ffff' WHERE name = 'network'", "belongs to network ffff"),
        ("DELETE FROM about WHERE name = 'feed'", "does not say what it is for"),
    ],
)
def test_what_is_refused_is_neither_copied_nor_changed(
    path: Path, change: str, message: str
) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(change)
    before = path.read_bytes()
    with pytest.raises(UnusableDatabase, match=message):
        open_storage(path, NET.id)
    assert path.read_bytes() == before
    assert not list(path.parent.glob("*.v1*"))


def test_the_fixture_is_what_the_tests_think() -> None:
    assert peer_of(fixtures.key(1000)) in FIRST.read_text()
    assert TASK.id in FIRST.read_text()
