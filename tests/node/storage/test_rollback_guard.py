"""The guard counts committed transactions; a database behind it is refused."""

from pathlib import Path

import pytest

from node.storage.errors import UnusableDatabase
from node.storage.rollback_guard import RollbackGuard

FEED, OTHER = "a" * 32, "b" * 32


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "node.sqlite.mark"
    guard = RollbackGuard(path)
    assert not guard.has_record
    guard.check(FEED, 3)
    guard.advance(FEED, 7)
    guard.close()
    return path


@pytest.mark.parametrize("steps", [7, 8])
def test_database_at_its_guard_or_ahead_is_accepted(path: Path, steps: int) -> None:
    guard = RollbackGuard(path)
    assert guard.has_record
    guard.check(FEED, steps)
    guard.close()
    again = RollbackGuard(path)
    with pytest.raises(UnusableDatabase):
        again.check(FEED, steps - 1)
    again.close()


def test_database_behind_its_guard_is_refused(path: Path) -> None:
    guard = RollbackGuard(path)
    with pytest.raises(UnusableDatabase, match=r"counts 7 .*, and the database holds 6"):
        guard.check(FEED, 6)
    guard.close()


def test_guard_of_another_database_is_refused(path: Path) -> None:
    guard = RollbackGuard(path)
    with pytest.raises(
        UnusableDatabase, match=r"counts 7 committed transactions\. Put the newest files back"
    ):
        guard.check(OTHER, 9)
    guard.close()


@pytest.mark.parametrize("text", ["", "a", FEED, f"{FEED} 7", f"{FEED} {'x' * 20}", "\0" * 53])
def test_unreadable_guard_counts_as_absent(path: Path, text: str) -> None:
    path.write_text(text)
    guard = RollbackGuard(path)
    assert not guard.has_record
    guard.check(OTHER, 1)
    guard.close()


def test_unwritable_guard_stops_nothing(path: Path) -> None:
    guard = RollbackGuard(path)
    guard.close()
    guard.advance(FEED, 8)  # its descriptor is closed
    assert path.read_text() == f"{FEED} {7:020d}"
