"""Writing one blob under a temporary name, and the disk quota of the blob folder."""

import errno
import hashlib
import os
import secrets
import threading
from pathlib import Path

from node.storage.disk.permissions import PRIVATE_FILE
from node.storage.errors import BlobRefused, DiskQuotaExceeded

# Temporary names begin with this. It is not hexadecimal, so they are never taken for blobs.
TEMPORARY_PREFIX = "incoming-"
# The least that a file counts. ext4 has one inode per 16 KiB, so that many smaller files fill a
# disk as fast as files of this size.
MIN_FILE_BYTES = 16_384


class DiskQuota:
    """A quota of `limit` bytes (None: no limit) that any thread may reserve from."""

    __slots__ = ("_limit", "_lock", "used")

    def __init__(self, limit: int | None) -> None:
        self._limit, self.used, self._lock = limit, 0, threading.Lock()

    def needs_eviction(self, size: int, headroom: int | None = None) -> bool:
        """Return True if the quota is exhausted and evicting blobs could make room for a file.

        With `headroom`, also if less than one part in `headroom` of the quota would be free.
        """
        if self._limit is None or max(size, MIN_FILE_BYTES) > self._limit:
            return False
        spare = self._limit // headroom if headroom else 0
        return self._limit - self.used < max(size, MIN_FILE_BYTES, spare)

    def reserve(self, size: int, *, enforced: bool = True) -> None:
        """Reserve room for a file. Raises DiskQuotaExceeded if `enforced`."""
        with self._lock:
            used = self.used + max(size, MIN_FILE_BYTES)
            if enforced and self._limit is not None and used > self._limit:
                raise DiskQuotaExceeded(
                    errno.ENOSPC, f"the blob folder has a quota of {self._limit} bytes"
                )
            self.used = used

    def release(self, size: int) -> None:
        """Release the room of a file."""
        with self._lock:
            self.used -= max(size, MIN_FILE_BYTES)


class BlobWriter:
    """A blob of `size` bytes that is being written in `folder` under a temporary name."""

    __slots__ = ("_file", "_hash", "_path", "_quota", "_remaining", "_reserved", "sha256", "size")

    def __init__(self, folder: Path, size: int, quota: DiskQuota, *, enforced: bool = True) -> None:
        """Reserve the room, then create the file. Raises DiskQuotaExceeded if `enforced`."""
        quota.reserve(size, enforced=enforced)
        self._quota, self._reserved = quota, True
        self._path = folder / f"{TEMPORARY_PREFIX}{secrets.token_hex(16)}"
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._file = os.fdopen(os.open(self._path, flags, PRIVATE_FILE), "wb")
        except OSError:
            quota.release(size)
            raise
        # `sha256` is empty until the blob is finished.
        self._hash, self.sha256 = hashlib.sha256(), ""
        self.size = self._remaining = size

    def write(self, chunk: bytes) -> None:
        """Append a chunk. Raises BlobRefused if there are more bytes than declared."""
        self._remaining -= len(chunk)
        if self._remaining < 0:
            raise BlobRefused("there are more bytes than declared")
        self._hash.update(chunk)
        self._file.write(chunk)

    def finish(self, sha256: str | None) -> None:
        """Sync and close the file. Raises BlobRefused if bytes are missing or the hash differs."""
        digest = self._hash.hexdigest()
        if self._remaining:
            raise BlobRefused(f"{self._remaining} of the declared bytes are missing")
        if sha256 not in (None, digest):
            raise BlobRefused(f"the hash is {digest}, not {sha256}")
        self._file.flush()
        os.fsync(self._file.fileno())
        # A finished blob can wait long for the other inputs of its task: hold no descriptor.
        self._file.close()
        self.sha256 = digest

    def move_to(self, target: Path, *, replaces: bool) -> None:
        """Give the finished blob its name, and its reservation to the blob store.

        If it `replaces` a blob, that blob's reservation stays and this one is for `discard`.
        """
        self._path.rename(target)
        self._reserved = replaces

    def discard(self) -> None:
        """Delete the file unless it was moved, and release the room. Idempotent."""
        if self._reserved:
            self._quota.release(self.size)
            self._reserved = False
        try:
            # Closing flushes, which fails on a full disk.
            self._file.close()
        finally:
            self._path.unlink(missing_ok=True)
