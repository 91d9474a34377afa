"""The mark only ever says what was reached, and a database behind it is refused."""

from pathlib import Path

import pytest

from node.storage.migration import UnusableStore
from node.storage.rollback_guard import Watermark

FEED, OTHER = "a" * 32, "b" * 32


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "node.sqlite.mark"
    mark = Watermark(path)
    assert not mark.known
    mark.require(FEED, 3)
    mark.reached(FEED, 7)
    mark.close()
    return path


@pytest.mark.parametrize("steps", [7, 8])
def test_a_database_at_its_mark_or_ahead_is_accepted(path: Path, steps: int) -> None:
    mark = Watermark(path)
    assert mark.known
    mark.require(FEED, steps)
    mark.close()
    again = Watermark(path)
    with pytest.raises(UnusableStore):
        again.require(FEED, steps - 1)
    again.close()


def test_a_database_behind_its_mark_is_refused(path: Path) -> None:
    mark = Watermark(path)
    with pytest.raises(UnusableStore, match=r"mark knows of 7 committed steps, 6 are here"):
        mark.require(FEED, 6)
    mark.close()


def test_another_database_is_refused(path: Path) -> None:
    mark = Watermark(path)
    with pytest.raises(
        UnusableStore, match=r"knows of 7 committed steps\. Put the newest files back"
    ):
        mark.require(OTHER, 9)
    mark.close()


@pytest.mark.parametrize("text", ["", "a", FEED, f"{FEED} 7", f"{FEED} {'x' * 20}", "\0" * 53])
def test_a_mark_that_says_nothing_is_taken_as_none(path: Path, text: str) -> None:
    path.write_text(text)
    mark = Watermark(path)
    assert not mark.known
    mark.require(OTHER, 1)
    mark.close()


def test_a_mark_that_cannot_be_written_stops_nothing(path: Path) -> None:
    mark = Watermark(path)
    mark.close()
    mark.reached(FEED, 8)  # its descriptor is closed
    assert path.read_text() == f"{FEED} {7:020d}"
