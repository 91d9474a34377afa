"""Blobs that are being written, and the room that a folder has for them and for those it holds."""

import errno
import hashlib
import os
import secrets
import threading
from pathlib import Path

from node.storage.errors import BlobRefused, DiskQuotaExceeded

UNFINISHED = "incoming-"  # how temporary names begin: never the start of a hash
FILE = 16_384  # bytes: ext4 has no more inodes than one for each, so a smaller file takes as much


class DiskQuota:
    """How many bytes may be used in all (None: any number), and how many are; for any thread."""

    __slots__ = ("_lock", "_most", "used")

    def __init__(self, most: int | None) -> None:
        self._most, self.used, self._lock = most, 0, threading.Lock()

    def needs_eviction(self, size: int, share: int | None = None) -> bool:
        """Whether a file has no room but would have, were others gone.

        With a `share`, also if less than that part of all room is free.
        """
        if self._most is None or max(size, FILE) > self._most:
            return False
        spare = self._most // share if share else 0
        return self._most - self.used < max(size, FILE, spare)

    def reserve(self, size: int, *, bounded: bool = True) -> None:
        """Take room for a file. Raises DiskQuotaExceeded, unless not `bounded`."""
        with self._lock:
            used = self.used + max(size, FILE)
            if bounded and self._most is not None and used > self._most:
                raise DiskQuotaExceeded(
                    errno.ENOSPC, f"at most {self._most} bytes of others are kept here"
                )
            self.used = used

    def release(self, size: int) -> None:
        """Give the room for a file back."""
        with self._lock:
            self.used -= max(size, FILE)


class BlobWriter:
    """A blob of `size` bytes being written in a folder, under a temporary name."""

    __slots__ = ("_file", "_hash", "_holds", "_left", "_path", "_quota", "sha256", "size")

    def __init__(self, folder: Path, size: int, quota: DiskQuota, *, bounded: bool = True) -> None:
        """Take the room for it first. Raises DiskQuotaExceeded, unless not `bounded`."""
        quota.reserve(size, bounded=bounded)
        self._quota, self._holds = quota, True
        self._path = folder / f"{UNFINISHED}{secrets.token_hex(16)}"
        try:
            self._file = self._path.open("xb")
        except OSError:
            quota.release(size)
            raise
        self._hash, self.sha256 = hashlib.sha256(), ""  # known when finished
        self.size = self._left = size

    def write(self, chunk: bytes) -> None:
        """Write more. Raises BlobRefused when it is too much."""
        self._left -= len(chunk)
        if self._left < 0:
            raise BlobRefused("there are more bytes than declared")
        self._hash.update(chunk)
        self._file.write(chunk)

    def finish(self, sha256: str | None) -> None:
        """Sync it. Raises BlobRefused if bytes are missing, or the hash is not `sha256`."""
        found = self._hash.hexdigest()
        if self._left:
            raise BlobRefused(f"{self._left} of the declared bytes are missing")
        if sha256 not in (None, found):
            raise BlobRefused(f"the hash is {found}, not {sha256}")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()  # it may wait for others of its task
        self.sha256 = found

    def rename(self, target: Path, *, known: bool) -> None:
        """Move what was finished to its name; its room is the target's, unless that is `known`."""
        self._path.rename(target)
        self._holds = known

    def discard(self) -> None:
        """Remove it, if it has no name yet, and give its room back; doing it again does nothing."""
        if self._holds:
            self._quota.release(self.size)
            self._holds = False
        try:
            self._file.close()  # may write, and so fail on a full disk
        finally:
            self._path.unlink(missing_ok=True)
