"""Rollback guard: a file beside the database that counts the committed transactions.

It detects a database that lost its end or was restored from an old copy. SQLite takes a truncated
write-ahead log for a valid, shorter one, and the node could then sign a second, conflicting vote
(compare the slashing protection of EIP-3076). The guard is written after each commit and is not
synced: it can lag behind the database but never lead it. A database behind its guard has therefore
lost durable writes.
"""

import contextlib
import os
from pathlib import Path

from node.storage.errors import UnusableDatabase

# Hex characters of a feed id, which tells this database from another one.
_FEED_DIGITS = 32
# Decimal digits of the counter: a fixed width, so that the file is overwritten in place.
_STEP_DIGITS = 20


class RollbackGuard:
    """The file `<database>.mark`: the feed id and the number of committed transactions."""

    def __init__(self, path: Path) -> None:
        """Open the guard, or create an empty one. Raises OSError."""
        self._path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        content = os.pread(self._descriptor, _FEED_DIGITS + _STEP_DIGITS + 1, 0)
        self._feed, self._steps = _parse(content)

    @property
    def has_record(self) -> bool:
        """True if the guard has seen a committed transaction."""
        return self._feed != ""

    def check(self, feed: str, steps: int) -> None:
        """Raise UnusableDatabase if the database is behind the guard, or is another one."""
        if self.has_record and (self._feed != feed or steps < self._steps):
            present = f", and the database holds {steps}" if feed == self._feed else ""
            raise UnusableDatabase(
                f"it has lost what it held: {self._path.name} counts {self._steps} committed "
                f"transactions{present}. Put the newest files back. To go on without them, "
                "remove that file: the node asks its peers for what it signed before it votes"
            )
        self.advance(feed, steps)

    def advance(self, feed: str, steps: int) -> None:
        """Record a committed transaction. A guard that cannot be written only lags behind."""
        with contextlib.suppress(OSError):
            os.pwrite(self._descriptor, f"{feed} {steps:0{_STEP_DIGITS}d}".encode(), 0)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


def _parse(content: bytes) -> tuple[str, int]:
    """Return the feed id and the counter; ("", 0) if the file was cut off at its creation."""
    feed, _, steps = content.decode("ascii", "replace").partition(" ")
    if len(feed) != _FEED_DIGITS or len(steps) != _STEP_DIGITS or not steps.isdecimal():
        return "", 0
    return feed, int(steps)
