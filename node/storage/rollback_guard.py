"""How far the store was, kept beside it: a journal that lost its end is told from a whole one.

SQLite takes a log that was cut off, or a database put back from an old copy, for a good one that
says less. A node that believed it could sign a second, different vote. The mark is written after
each commit and not synced: it can only lag behind the database, never lead it, so a database that
is behind its mark has lost what was durable.
"""

import contextlib
import os
from pathlib import Path

from node.storage.errors import UnusableDatabase

_FEED = 32  # hex characters
_STEPS = 20  # decimal digits: fixed, so that the file is overwritten in place


class RollbackGuard:
    """The file `<database>.mark`: the feed's id and the number of committed transactions."""

    def __init__(self, path: Path) -> None:
        """Open the mark, or create an empty one. Raises OSError."""
        self._path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._feed, self._steps = _read(os.pread(self._descriptor, _FEED + _STEPS + 1, 0))

    @property
    def has_record(self) -> bool:
        """Whether there was a database here."""
        return self._feed != ""

    def check(self, feed: str, steps: int) -> None:
        """Raise UnusableDatabase if this database is behind the mark, or another one."""
        if self.has_record and (self._feed != feed or steps < self._steps):
            raise UnusableDatabase(
                f"it has lost what it held: {self._path.name} knows of {self._steps} committed "
                f"steps{f', {steps} are here' if feed == self._feed else ''}. Put the newest files "
                "back. To go on without them, wait for the longest deadline of the network's "
                "tasks, lest this node vote twice, and remove that file"
            )
        self.advance(feed, steps)

    def advance(self, feed: str, steps: int) -> None:
        """Note a committed step. A mark that cannot be written lags, which does no harm."""
        with contextlib.suppress(OSError):
            os.pwrite(self._descriptor, f"{feed} {steps:0{_STEPS}d}".encode(), 0)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


def _read(text: bytes) -> tuple[str, int]:
    """Return what a mark says; one that was cut off while it was created says nothing."""
    feed, _, steps = text.decode("ascii", "replace").partition(" ")
    if len(feed) != _FEED or len(steps) != _STEPS or not steps.isdecimal():
        return "", 0
    return feed, int(steps)
