"""Files by content: each is named by the SHA-256 of its bytes (section 2), so a name cannot lie.

A blob is whole or absent, whatever is cut off and when: it is written under a temporary name,
synced, renamed, and the folder synced. One process owns a folder; any of its threads may use it.
"""

import asyncio
import errno
import hashlib
import os
import re
import threading
import time
from collections.abc import AsyncIterable, Callable, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from node.storage.blob_writer import UNFINISHED, BlobWriter, DiskQuota
from node.storage.errors import BlobRefused

_NAME = re.compile(r"[0-9a-f]{64}\Z")
_READ = 1 << 18  # bytes: the chunk of a manifest (section 8)
_SHARE = 16  # of the room is freed at once, for the oldest are found by a look at all files
_PAUSE = 10.0  # seconds before another look, where the last found no room
_RECENT = 1.0  # seconds; a file's clock lags behind, and what needs the file may be on its way


class BlobStore:
    """The blobs in one folder. What is asked for and not there raises `FileNotFoundError`."""

    __slots__ = ("_clearing", "_lock", "_own", "_pause", "_pinned", "_quota", "_root")

    def __init__(
        self,
        root: Path,
        most: int | None = None,
        own: Container[str] = (),
        pinned: Callable[[], Container[str]] = frozenset,
    ) -> None:
        """Open the folder, made if needed; remove what an earlier process left unfinished.

        It holds at most `most` bytes (None: any number) of what comes from others: of all but
        `own` and what is adopted. What is received then takes the room of the oldest, but not of
        those that `pinned` gives, which is called in the event loop.
        """
        root.mkdir(parents=True, exist_ok=True)
        self._root, self._quota, self._pinned = root, DiskQuota(most), pinned
        self._own = set[str]()
        self._clearing, self._pause = asyncio.Lock(), 0.0
        self._lock = threading.RLock()  # held while a name comes, goes or is renewed
        for left in root.glob(f"{UNFINISHED}*"):
            left.unlink()
        with os.scandir(root) as entries:
            for entry in entries:
                if _NAME.match(entry.name) and entry.name in own:
                    self._own.add(entry.name)
                elif _NAME.match(entry.name):
                    self._quota.reserve(entry.stat().st_size, bounded=False)

    @property
    def used_bytes(self) -> int:
        """Bytes of others' blobs, and of those on their way in; each counts `drafts.FILE` at least.

        Counted since the start: what another program removes still counts.
        """
        return self._quota.used

    def write(
        self, chunks: Iterable[bytes], *, size: int, limit: int, sha256: str | None = None
    ) -> str:
        """Keep exactly `size` bytes from `chunks` and return their SHA-256.

        `BlobRefused` when `size` is over `limit` bytes, when there are more or fewer bytes, or
        when `sha256` is given and is not theirs; `DiskQuotaExceeded`, for no other's room is
        taken. Then nothing stays.
        """
        draft = BlobWriter(self._root, _within(size, limit), self._quota)
        return self._write(draft, chunks, sha256)

    def _write(self, draft: BlobWriter, chunks: Iterable[bytes], sha256: str | None) -> str:
        try:
            for chunk in chunks:
                draft.write(chunk)
            draft.finish(sha256)
            self._name(draft)
        finally:
            draft.discard()
        _sync_folder(self._root)
        return draft.sha256

    async def receive(
        self, chunks: AsyncIterable[bytes], *, size: int, limit: int, sha256: str | None = None
    ) -> BlobWriter:
        """Take chunks that arrive, as `write` does, into a draft: checked, synced, for `commit`.

        Its room is there before the first chunk is asked for, if need be that of the oldest blobs.
        Syncing does not hold up the event loop.
        """
        draft = await self._draft(_within(size, limit))
        try:
            async for chunk in chunks:
                draft.write(chunk)
            await asyncio.to_thread(draft.finish, sha256)
        except BaseException:
            draft.discard()
            raise
        return draft

    async def _draft(self, size: int) -> BlobWriter:
        async with self._clearing:
            if self._quota.needs_eviction(size) and time.monotonic() >= self._pause:
                pinned, before = self._pinned(), time.time() - _RECENT
                await asyncio.to_thread(self._make_room, size, pinned, before)
                if self._quota.needs_eviction(size):
                    self._pause = time.monotonic() + _PAUSE
            return BlobWriter(self._root, size, self._quota)

    def _make_room(self, size: int, pinned: Container[str], before: float) -> None:
        """Remove the oldest of others' blobs, of those neither `pinned` nor new."""
        for _, name in sorted(self._dated(before)):
            if not self._quota.needs_eviction(size, _SHARE):
                return
            with self._lock:
                if name not in self._own and name not in pinned:
                    self._delete_older(name, before)

    @contextmanager
    def commit(self, drafts: Sequence[BlobWriter]) -> Iterator[None]:
        """Keep what was received, if the block ends well; it is here while the block runs.

        If the block raises, what it brought is gone again, and what was here before stays. Nothing
        else comes or goes meanwhile: the block must not wait for another thread or task.
        """
        with self._lock:
            brought = [draft.sha256 for draft in drafts if not self.has(draft.sha256)]
            try:
                for draft in drafts:
                    self._name(draft)
                if drafts:
                    _sync_folder(self._root)
                yield
            except BaseException:
                for sha256 in brought:
                    self.delete(sha256)
                raise
            finally:
                for draft in drafts:
                    draft.discard()

    async def save(
        self, chunks: AsyncIterable[bytes], *, size: int, limit: int, sha256: str
    ) -> None:
        """Receive one blob, and keep it."""
        draft = await self.receive(chunks, size=size, limit=limit, sha256=sha256)
        with self.commit([draft]):
            pass

    def _name(self, draft: BlobWriter) -> None:
        with self._lock:
            draft.rename(self.path(draft.sha256), known=self.has(draft.sha256))

    def import_file(self, path: Path, sha256: str | None = None) -> str:
        """Take over the finished file `path`, which is gone from there, and return its SHA-256.

        It is this node's own: kept however much the folder holds, and not counted.
        `BlobRefused` when `sha256` is given and is not its hash; then the file stays there.
        """
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
            if sha256 not in (None, found):
                raise BlobRefused(f"the hash is {found}, not {sha256}")
            os.fsync(file.fileno())
        try:
            with self._lock:
                known = self.has(found)
                path.rename(self.path(found))
                if not known:
                    self._quota.reserve(self.size(found), bounded=False)
                self._mark_own(found)
        except OSError as error:
            if error.errno != errno.EXDEV:  # on another file system it has to be copied
                raise
            draft = BlobWriter(self._root, path.stat().st_size, self._quota, bounded=False)
            with path.open("rb") as file:
                self._write(draft, iter(lambda: file.read(_READ), b""), found)
            self._mark_own(found)
            path.unlink()
        _sync_folder(self._root)
        return found

    def _mark_own(self, sha256: str) -> None:
        """Count a blob as this node's own from now on."""
        with self._lock:
            if sha256 not in self._own and self.has(sha256):
                self._own.add(sha256)
                self._quota.release(self.size(sha256))

    def path(self, sha256: str) -> Path:
        """Where the blob is, or would be; `ValueError` if the name is no SHA-256."""
        if not _NAME.match(sha256):
            raise ValueError(f"{sha256!r} is no SHA-256")
        return self._root / sha256

    def has(self, sha256: str) -> bool:
        """Whether the blob is here."""
        return self.path(sha256).is_file()

    def size(self, sha256: str) -> int:
        """The blob's size in bytes."""
        return self.path(sha256).stat().st_size

    def open(self, sha256: str, offset: int = 0) -> BinaryIO:
        """The blob, open for reading from the byte `offset` on; the caller closes it."""
        if not 0 <= offset <= self.size(sha256):
            raise ValueError(f"offset {offset} is outside the blob")
        file = self.path(sha256).open("rb")
        file.seek(offset)
        return file

    def delete(self, sha256: str) -> None:
        """Remove the blob, if it is here; who has it open can read on."""
        with self._lock:
            if self.has(sha256):
                size = self.size(sha256)
                self.path(sha256).unlink()
                if sha256 in self._own:
                    self._own.remove(sha256)
                else:
                    self._quota.release(size)

    def touch(self, sha256: str) -> bool:
        """Return whether the blob is here; if so, let its time in `expire` begin anew."""
        with self._lock:
            try:
                os.utime(self.path(sha256))
            except FileNotFoundError:
                return False
            return True

    def expire(self, before: float) -> int:
        """Remove the blobs kept or renewed before that Unix time; return how many they were."""
        return sum(self._delete_older(name, before) for _, name in self._dated(before))

    def _dated(self, before: float) -> list[tuple[float, str]]:
        """Return the blobs kept or renewed before that Unix time, each behind its time."""
        dated = []
        with os.scandir(self._root) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # it is gone since
                    if _NAME.match(entry.name) and (at := entry.stat().st_mtime) < before:
                        dated.append((at, entry.name))
        return dated

    def _delete_older(self, name: str, before: float) -> bool:
        """Remove a blob if it is still as old as when it was looked for; return whether it was."""
        with self._lock:
            if not self.has(name) or self.path(name).stat().st_mtime >= before:
                return False
            self.delete(name)
            return True


def _within(size: int, limit: int) -> int:
    if not 0 <= size <= limit:
        raise BlobRefused(f"{size} bytes were declared, at most {limit} are taken")
    return size


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
