"""Files by content: each is named by the SHA-256 of its bytes (section 2), so a name cannot lie.

A blob is whole or absent, whatever is cut off and when: it is written under a temporary name,
synced, renamed, and the folder synced. One process owns a folder.
"""

import asyncio
import errno
import hashlib
import os
import re
import secrets
from collections.abc import AsyncIterable, Iterable
from pathlib import Path
from typing import BinaryIO

_NAME = re.compile(r"[0-9a-f]{64}\Z")
_UNFINISHED = "incoming-"  # never the start of a hash
_READ = 1 << 18  # bytes: the chunk of a manifest (section 8)


class BlobRefusedError(ValueError):
    """The bytes are not what was declared: too many, too few, or with another hash."""


class Blobs:
    """The blobs in one folder. What is asked for and not there raises `FileNotFoundError`."""

    __slots__ = ("_root",)

    def __init__(self, root: Path) -> None:
        """Open the folder, made if needed; remove what an earlier process left unfinished."""
        root.mkdir(parents=True, exist_ok=True)
        self._root = root
        for left in root.glob(f"{_UNFINISHED}*"):
            left.unlink()

    def write(
        self, chunks: Iterable[bytes], *, size: int, limit: int, sha256: str | None = None
    ) -> str:
        """Keep exactly `size` bytes from `chunks` and return their SHA-256.

        `BlobRefusedError` when `size` is over `limit` bytes, when there are more or fewer bytes, or
        when `sha256` is given and is not theirs; then nothing stays.
        """
        draft = _Draft(self._root, _within(size, limit))
        try:
            for chunk in chunks:
                draft.add(chunk)
        except BaseException:
            draft.drop()
            raise
        return draft.keep(sha256)

    async def receive(
        self, chunks: AsyncIterable[bytes], *, size: int, limit: int, sha256: str | None = None
    ) -> str:
        """`write` for chunks that arrive; syncing does not hold up the event loop."""
        draft = _Draft(self._root, _within(size, limit))
        try:
            async for chunk in chunks:
                draft.add(chunk)
        except BaseException:
            draft.drop()
            raise
        return await asyncio.to_thread(draft.keep, sha256)  # once begun, it ends whole by itself

    def adopt(self, path: Path, sha256: str | None = None) -> str:
        """Take over the finished file `path`, which is gone from there, and return its SHA-256.

        `BlobRefusedError` when `sha256` is given and is not its own; then the file stays there.
        """
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
            if sha256 not in (None, found):
                raise BlobRefusedError(f"the hash is {found}, not {sha256}")
            os.fsync(file.fileno())
        try:
            path.rename(self.path(found))
        except OSError as error:
            if error.errno != errno.EXDEV:  # on another file system it has to be copied
                raise
            size = path.stat().st_size
            with path.open("rb") as file:
                self.write(iter(lambda: file.read(_READ), b""), size=size, limit=size, sha256=found)
            path.unlink()
        _sync_folder(self._root)
        return found

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
        self.path(sha256).unlink(missing_ok=True)

    def renew(self, sha256: str) -> bool:
        """Return whether the blob is here; if so, let its time in `expire` begin anew."""
        try:
            os.utime(self.path(sha256))
        except FileNotFoundError:
            return False
        return True

    def expire(self, before: float) -> int:
        """Remove the blobs kept or renewed before that Unix time; return how many they were."""
        with os.scandir(self._root) as entries:
            blobs = [entry for entry in entries if _NAME.match(entry.name)]
            old = [entry.name for entry in blobs if entry.stat().st_mtime < before]
        for name in old:
            self.delete(name)
        return len(old)

    def total_size(self) -> int:
        """Bytes of all blobs together."""
        with os.scandir(self._root) as entries:
            return sum(entry.stat().st_size for entry in entries if _NAME.match(entry.name))


class _Draft:
    """A blob being written, under a temporary name."""

    __slots__ = ("_file", "_hash", "_left", "_path", "_root")

    def __init__(self, root: Path, size: int) -> None:
        self._root = root
        self._path = root / f"{_UNFINISHED}{secrets.token_hex(16)}"
        self._file = self._path.open("xb")
        self._hash = hashlib.sha256()
        self._left = size

    def add(self, chunk: bytes) -> None:
        self._left -= len(chunk)
        if self._left < 0:
            raise BlobRefusedError("there are more bytes than declared")
        self._hash.update(chunk)
        self._file.write(chunk)

    def keep(self, sha256: str | None) -> str:
        try:
            found = self._hash.hexdigest()
            if self._left:
                raise BlobRefusedError(f"{self._left} of the declared bytes are missing")
            if sha256 not in (None, found):
                raise BlobRefusedError(f"the hash is {found}, not {sha256}")
            self._file.flush()
            os.fsync(self._file.fileno())
            self._path.rename(self._root / found)
            _sync_folder(self._root)
            return found
        finally:
            self.drop()

    def drop(self) -> None:
        try:
            self._file.close()  # may write, and so fail on a full disk
        finally:
            self._path.unlink(missing_ok=True)


def _within(size: int, limit: int) -> int:
    if not 0 <= size <= limit:
        raise BlobRefusedError(f"{size} bytes were declared, at most {limit} are taken")
    return size


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
