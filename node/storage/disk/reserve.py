"""Room on the disk for what a node still has to write when its disk is full.

A node whose disk is full owes votes: the reveals of its commits, and abstentions from what it
cannot execute. The file `<database>.reserve` holds room for them. It is given up in small parts,
each one directly before a write: other programs take at once what is free on a full disk.
"""

import contextlib
import os
from pathlib import Path

from node.storage.disk.permissions import PRIVATE_FILE

# Copying the write-ahead log (4 MiB, where SQLite begins to reuse it) into the database may take as
# much again. The rest is for the log itself: a vote writes about 20 KiB to it.
RESERVE_BYTES = 8 << 20
# Room for several votes, or for the largest one.
_PART_BYTES = 256 << 10
# A disk with less free space beside the reserve counts as full: the next outputs would fill it.
LOW_BYTES = 4 << 20
# What must be free before it counts as free again. It is more, so that a disk at the limit does not
# change its state with every file.
ENOUGH_BYTES = 8 << 20


class DiskReserve:
    """The file that holds the room. It is filled by `refill`."""

    def __init__(self, path: Path) -> None:
        """`path` is the file; there may be none yet."""
        self._path = path

    def refill(self, spare: int) -> bool:
        """Take the room again if `spare` bytes stay free; return whether so much is free.

        What is free under a quota is not known: `spare` counts for nothing there.
        """
        try:
            size = self._size()
            missing = RESERVE_BYTES - size
            if self._free_bytes() < missing + spare:
                return False
            if missing > 0:
                self._allocate(size)
        except OSError:  # a quota, or another program was faster
            return False
        return True

    def _allocate(self, size: int) -> None:
        """Enlarge the file, of `size` bytes. Raises OSError; then it is as it was."""
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE)
        try:
            # Writes no data, but the file system promises the blocks.
            os.posix_fallocate(file, 0, RESERVE_BYTES)
        except OSError:
            # Some file systems keep the part that they could allocate. Writes need it.
            self._shrink(size)
            raise
        finally:
            os.close(file)

    def make_room(self) -> None:
        """Free a part of the room if less than that is free, for the write that follows."""
        if self._free_bytes() < _PART_BYTES:
            self.give_up_part()

    def give_up_part(self) -> None:
        """Free a part of the room; of an empty reserve nothing."""
        with contextlib.suppress(OSError):  # a read-only file system
            self._shrink(max(0, self._size() - _PART_BYTES))

    def _shrink(self, size: int) -> None:
        """Cut the file to `size` bytes. Raises OSError."""
        try:
            os.truncate(self._path, size)
        except OSError:
            # At its quota, btrfs has no room for a shorter file, but deletes one.
            self._path.unlink()

    def _size(self) -> int:
        try:
            return self._path.stat().st_size
        except FileNotFoundError:
            return 0

    def _free_bytes(self) -> int:
        disk = os.statvfs(self._path.parent)
        # Some network file systems do not tell.
        return disk.f_bavail * disk.f_frsize if disk.f_blocks else 1 << 62
