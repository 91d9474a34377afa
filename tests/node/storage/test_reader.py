"""A node's database is read beside the node, after it, and never written."""

import sqlite3
from pathlib import Path

import pytest

from node.storage.errors import UnusableDatabase
from node.storage.reader import DATABASE, read_ledger
from protocol.consensus.committee import committees
from protocol.consensus.conduct import Conduct, PeerRecord, VoteOutcome
from protocol.consensus.evidence import Evidence
from tests.node.storage.opened import Storage, open_storage
from tests.support import fixtures

NET = fixtures.network()
TASK = fixtures.task(NET)
LIAR = committees(NET, TASK)[0][0]
PROOF = Evidence.from_votes(
    *(fixtures.commit(NET, TASK, LIAR, fixtures.outcome(label)) for label in "ab")
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / DATABASE


def fill(path: Path) -> Storage:
    storage = open_storage(path, NET.id)
    with storage.journal.transaction():
        storage.ledger.put_evidence(PROOF)
        storage.ledger.put_conduct(
            TASK.id,
            [Conduct(0, LIAR, VoteOutcome.EQUIVOCATED), Conduct(1, LIAR, VoteOutcome.SILENT)],
        )
    return storage


def check(path: Path) -> None:
    with read_ledger(path, NET.id) as ledger:
        assert ledger.evidence() == [PROOF.document]
        expected = PeerRecord({VoteOutcome.EQUIVOCATED: 1, VoteOutcome.SILENT: 1})
        assert ledger.peer_records() == {LIAR: expected}


def test_ledger_is_read_while_the_node_writes(path: Path) -> None:
    storage = fill(path)
    with storage.journal.transaction():
        storage.ledger.put_conduct("0" * 64, [Conduct(2, LIAR, VoteOutcome.SILENT)])
        check(path)
    with read_ledger(path, NET.id) as ledger:
        assert ledger.peer_records()[LIAR].times(VoteOutcome.SILENT) == 2
    storage.close()


def test_ledger_is_read_after_the_node_stopped(path: Path) -> None:
    fill(path).close()
    check(path)
    open_storage(path, NET.id).close()


def test_reading_writes_nothing(path: Path) -> None:
    fill(path).close()
    content = path.read_bytes()
    with read_ledger(path, NET.id) as ledger, pytest.raises(sqlite3.Error, match="readonly"):
        ledger._db.execute("DELETE FROM evidence")
    assert path.read_bytes() == content


def test_database_of_another_network_is_refused(path: Path) -> None:
    fill(path).close()
    with (
        pytest.raises(UnusableDatabase, match=f"belongs to network {NET.id}"),
        read_ledger(path, "f" * 16),
    ):
        pass


def test_empty_database_is_refused(path: Path) -> None:
    path.touch()
    with pytest.raises(UnusableDatabase, match="start the node once"), read_ledger(path, NET.id):
        pass


def test_absent_database_is_not_created(path: Path) -> None:
    with pytest.raises(UnusableDatabase, match="cannot be read"), read_ledger(path, NET.id):
        pass
    assert not path.exists()


def test_other_file_is_refused(path: Path) -> None:
    path.write_bytes(b"no database at all" * 100)
    with pytest.raises(UnusableDatabase, match="cannot be read"), read_ledger(path, NET.id):
        pass
