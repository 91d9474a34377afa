"""Blob store: content-addressed files, each named by the SHA-256 of its bytes (section 2).

A blob is either whole or absent, also after a power cut: it is written under a temporary name,
synced and renamed, and then the folder is synced. One process owns a folder; any of its threads may
use it. Blobs received from peers count towards a quota and are evicted oldest first; blobs of
this node's own outcomes do not count and are never evicted.
"""

import asyncio
import errno
import hashlib
import os
import re
import threading
import time
from collections.abc import AsyncIterable, Callable, Container, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from node.storage.blob_writer import TEMPORARY_PREFIX, BlobWriter, DiskQuota
from node.storage.disk.permissions import PRIVATE_FOLDER, close_to_others
from node.storage.errors import BlobRefused

_NAME = re.compile(r"[0-9a-f]{64}\Z")
# Bytes that are copied at once: the chunk of a manifest (section 8).
_COPY_BYTES = 1 << 18
# An eviction frees a sixteenth of the quota, because finding the oldest blobs reads all files.
_HEADROOM = 16
# Seconds until the next eviction after one that found too little to delete.
_EVICTION_PAUSE = 10.0
# Seconds; a younger blob is not evicted. File times lag behind the clock, and the task that needs
# the blob may not be in the journal yet.
_MIN_AGE = 1.0


class BlobStore:
    """The blobs in one folder. Reading an absent blob raises FileNotFoundError."""

    __slots__ = (
        "_eviction_lock",
        "_lock",
        "_next_eviction",
        "_own",
        "_pinned",
        "_quota",
        "_root",
    )

    def __init__(
        self,
        root: Path,
        quota: int | None = None,
        own_outputs: Container[str] = (),
        pinned: Callable[[], Container[str]] = frozenset,
    ) -> None:
        """Open or create the folder; delete the temporary files of an earlier process.

        `quota` bounds the bytes received from peers (None: no limit). Names in `own_outputs`
        are this node's. Names that `pinned()` returns are not evicted; it is called in the event
        loop.
        """
        root.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
        close_to_others(root)
        self._root, self._quota, self._pinned = root, DiskQuota(quota), pinned
        self._own = set[str]()
        self._eviction_lock, self._next_eviction = asyncio.Lock(), 0.0
        # Held while a blob appears, disappears or is touched.
        self._lock = threading.RLock()
        for temporary in root.glob(f"{TEMPORARY_PREFIX}*"):
            temporary.unlink()
        with os.scandir(root) as entries:
            for entry in entries:
                if _NAME.match(entry.name) and entry.name in own_outputs:
                    self._own.add(entry.name)
                elif _NAME.match(entry.name):
                    self._quota.reserve(entry.stat().st_size, enforced=False)

    @property
    def used_bytes(self) -> int:
        """Bytes that count towards the quota; each file counts `MIN_FILE_BYTES` at least.

        It is counted from the start on: a blob that another program deletes still counts.
        """
        return self._quota.used

    async def receive(
        self, chunks: AsyncIterable[bytes], *, size: int, limit: int, sha256: str | None = None
    ) -> BlobWriter:
        """Write chunks as they arrive, and return the checked and synced blob for `commit`.

        Room is made before the first chunk is read, by eviction if necessary. Syncing does not
        block the event loop. Raises BlobRefused if `size` is over `limit`, if there are more or
        fewer bytes, or if their hash is not `sha256`; raises DiskQuotaExceeded if there is no room.
        Then nothing is stored.
        """
        writer = await self._reserve(_check_size(size, limit))
        try:
            async for chunk in chunks:
                writer.write(chunk)
            await asyncio.to_thread(writer.finish, sha256)
        except BaseException:
            writer.discard()
            raise
        return writer

    async def _reserve(self, size: int) -> BlobWriter:
        """Return a writer for `size` bytes, after an eviction if there is no room."""
        # One eviction at a time: concurrent transfers would all delete for the same shortage.
        async with self._eviction_lock:
            if self._quota.needs_eviction(size) and time.monotonic() >= self._next_eviction:
                pinned, cutoff = self._pinned(), time.time() - _MIN_AGE
                await asyncio.to_thread(self._evict, size, pinned, cutoff)
                if self._quota.needs_eviction(size):
                    self._next_eviction = time.monotonic() + _EVICTION_PAUSE
            return BlobWriter(self._root, size, self._quota)

    def _evict(self, size: int, pinned: Container[str], cutoff: float) -> None:
        """Delete the oldest blobs that are neither own nor `pinned` nor newer than `cutoff`."""
        for _, name in sorted(self._older_than(cutoff)):
            if not self._quota.needs_eviction(size, _HEADROOM):
                return
            with self._lock:
                if name not in self._own and name not in pinned:
                    self._delete_if_older(name, cutoff)

    @contextmanager
    def commit(self, writers: Sequence[BlobWriter]) -> Iterator[None]:
        """Store received blobs for good if the block succeeds.

        They are visible inside the block. If the block raises, those that were new are deleted
        again. All other changes wait for its end, so the block must not wait for another thread
        or task.
        """
        # The lock is held for the whole block: if it raises, `new` must still be exactly the blobs
        # that nobody else has stored or touched.
        with self._lock:
            new = [writer.sha256 for writer in writers if not self.has(writer.sha256)]
            try:
                for writer in writers:
                    self._publish(writer)
                if writers:
                    _sync_folder(self._root)
                yield
            except BaseException:
                for sha256 in new:
                    self.delete(sha256)
                raise
            finally:
                for writer in writers:
                    writer.discard()

    async def save(
        self, chunks: AsyncIterable[bytes], *, size: int, limit: int, sha256: str
    ) -> None:
        """Receive one blob and store it. Raises as `receive` does."""
        writer = await self.receive(chunks, size=size, limit=limit, sha256=sha256)
        with self.commit([writer]):
            pass

    def _publish(self, writer: BlobWriter) -> None:
        with self._lock:
            writer.move_to(self.path(writer.sha256), replaces=self.has(writer.sha256))

    def import_file(self, path: Path, sha256: str | None = None) -> str:
        """Move a finished file into the store as this node's own, and return its SHA-256.

        Raises BlobRefused if its hash is not `sha256`; the file then stays where it is.
        """
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            if sha256 not in (None, digest):
                raise BlobRefused(f"the hash is {digest}, not {sha256}")
            # The worker that wrote the file does not sync it.
            os.fsync(file.fileno())
        try:
            with self._lock:
                is_new = not self.has(digest)
                path.rename(self.path(digest))
                # `_mark_own` releases it. A blob that was here counts in the quota already.
                if is_new:
                    self._quota.reserve(self.size(digest), enforced=False)
                self._mark_own(digest)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            self._import_copy(path, digest)
        _sync_folder(self._root)
        return digest

    def _import_copy(self, path: Path, sha256: str) -> None:
        """Import a file from another file system, from which it cannot be renamed."""
        writer = BlobWriter(self._root, path.stat().st_size, self._quota, enforced=False)
        try:
            with path.open("rb") as file:
                for chunk in iter(lambda: file.read(_COPY_BYTES), b""):
                    writer.write(chunk)
            writer.finish(sha256)
        except BaseException:
            writer.discard()
            raise
        with self.commit([writer]):
            self._mark_own(sha256)
        # Last: after a failure the caller still has its file.
        path.unlink()

    def _mark_own(self, sha256: str) -> None:
        """Treat a blob as this node's own from now on: it leaves the quota."""
        with self._lock:
            if sha256 not in self._own and self.has(sha256):
                self._own.add(sha256)
                self._quota.release(self.size(sha256))

    def path(self, sha256: str) -> Path:
        """Return where the blob is, or would be. Raises ValueError if the name is no SHA-256."""
        if not _NAME.match(sha256):
            raise ValueError(f"{sha256!r} is no SHA-256")
        return self._root / sha256

    def has(self, sha256: str) -> bool:
        """Return True if the blob is here."""
        return self.path(sha256).is_file()

    def size(self, sha256: str) -> int:
        """Return the blob's size in bytes."""
        return self.path(sha256).stat().st_size

    def open(self, sha256: str, offset: int = 0) -> BinaryIO:
        """Open the blob for reading from byte `offset`; the caller closes it."""
        if not 0 <= offset <= self.size(sha256):
            raise ValueError(f"offset {offset} is outside the blob")
        file = self.path(sha256).open("rb")
        file.seek(offset)
        return file

    def delete(self, sha256: str) -> None:
        """Delete the blob if it is here. A reader that has it open can read on."""
        with self._lock:
            if self.has(sha256):
                size = self.size(sha256)
                self.path(sha256).unlink()
                if sha256 in self._own:
                    self._own.remove(sha256)
                else:
                    self._quota.release(size)

    def touch(self, sha256: str) -> bool:
        """Renew the blob's age for `expire`; return False if it is not here."""
        with self._lock:
            try:
                os.utime(self.path(sha256))
            except FileNotFoundError:
                return False
            return True

    def expire(self, cutoff: float) -> int:
        """Delete the blobs last touched before `cutoff`, a Unix time; return how many."""
        return sum(self._delete_if_older(name, cutoff) for _, name in self._older_than(cutoff))

    def _older_than(self, cutoff: float) -> list[tuple[float, str]]:
        """Return the time and the name of each blob last touched before a Unix time."""
        dated = []
        with os.scandir(self._root) as entries:
            for entry in entries:
                # Another thread may delete it meanwhile.
                with suppress(FileNotFoundError):
                    if _NAME.match(entry.name) and (mtime := entry.stat().st_mtime) < cutoff:
                        dated.append((mtime, entry.name))
        return dated

    def _delete_if_older(self, name: str, cutoff: float) -> bool:
        """Delete a blob unless it was touched since the scan; return whether it was deleted."""
        with self._lock:
            if not self.has(name) or self.path(name).stat().st_mtime >= cutoff:
                return False
            self.delete(name)
            return True


def _check_size(size: int, limit: int) -> int:
    if not 0 <= size <= limit:
        raise BlobRefused(f"{size} bytes were declared; the limit is {limit}")
    return size


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
