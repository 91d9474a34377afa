"""The mark only ever says what was reached, and a database behind it is refused."""

from pathlib import Path

import pytest

from node.storage.errors import UnusableDatabase
from node.storage.rollback_guard import RollbackGuard

FEED, OTHER = "a" * 32, "b" * 32


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "node.sqlite.mark"
    mark = RollbackGuard(path)
    assert not mark.has_record
    mark.check(FEED, 3)
    mark.advance(FEED, 7)
    mark.close()
    return path


@pytest.mark.parametrize("steps", [7, 8])
def test_database_at_its_guard_or_ahead_is_accepted(path: Path, steps: int) -> None:
    mark = RollbackGuard(path)
    assert mark.has_record
    mark.check(FEED, steps)
    mark.close()
    again = RollbackGuard(path)
    with pytest.raises(UnusableDatabase):
        again.check(FEED, steps - 1)
    again.close()


def test_database_behind_its_guard_is_refused(path: Path) -> None:
    mark = RollbackGuard(path)
    with pytest.raises(UnusableDatabase, match=r"counts 7 .*, and the database holds 6"):
        mark.check(FEED, 6)
    mark.close()


def test_guard_of_another_database_is_refused(path: Path) -> None:
    mark = RollbackGuard(path)
    with pytest.raises(
        UnusableDatabase, match=r"counts 7 committed transactions\. Put the newest files back"
    ):
        mark.check(OTHER, 9)
    mark.close()


@pytest.mark.parametrize("text", ["", "a", FEED, f"{FEED} 7", f"{FEED} {'x' * 20}", "\0" * 53])
def test_unreadable_guard_counts_as_absent(path: Path, text: str) -> None:
    path.write_text(text)
    mark = RollbackGuard(path)
    assert not mark.has_record
    mark.check(OTHER, 1)
    mark.close()


def test_unwritable_guard_stops_nothing(path: Path) -> None:
    mark = RollbackGuard(path)
    mark.close()
    mark.advance(FEED, 8)  # its descriptor is closed
    assert path.read_text() == f"{FEED} {7:020d}"
