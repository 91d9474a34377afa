import asyncio
import errno
import hashlib
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from node.storage.blob_writer import MIN_FILE_BYTES, BlobWriter, DiskQuota
from node.storage.blobs import BlobStore
from node.storage.errors import BlobRefused, DiskQuotaExceeded
from tests.support.blobs import arriving, store

BYTES = b"helium" * 100_000
SHA256 = hashlib.sha256(BYTES).hexdigest()
OTHER = "0" * 64


def _chunks(payload: bytes = BYTES, step: int = 65536) -> Iterator[bytes]:
    return (payload[start : start + step] for start in range(0, len(payload), step))


async def received(blobs: BlobStore, payload: bytes) -> BlobWriter:
    size = len(payload)
    return await blobs.receive(arriving(_chunks(payload)), size=size, limit=size)


def refused(
    blobs: BlobStore, writers: Sequence[BlobWriter], during: Callable[[], None] = lambda: None
) -> None:
    def keep() -> None:
        with blobs.commit(writers):
            during()
            raise RuntimeError("refused")

    with pytest.raises(RuntimeError, match="refused"):
        keep()


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "blobs")


def _files(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "blobs").iterdir())


async def test_received_blob_is_found_after_commit(blobs: BlobStore, tmp_path: Path) -> None:
    writer = await blobs.receive(arriving(_chunks()), size=len(BYTES), limit=10**6, sha256=SHA256)
    assert writer.sha256 == SHA256
    assert not blobs.has(SHA256)
    with blobs.commit([writer]):
        assert blobs.has(SHA256)
    assert blobs.size(SHA256) == len(BYTES)
    assert blobs.path(SHA256).read_bytes() == BYTES
    assert _files(tmp_path) == [SHA256]


async def test_failed_commit_deletes_new_blobs(blobs: BlobStore, tmp_path: Path) -> None:
    seen: list[int] = []
    writers = [await received(blobs, BYTES), await received(blobs, b"more")]
    refused(blobs, writers, lambda: seen.append(len(_files(tmp_path))))
    assert seen == [2]
    assert _files(tmp_path) == []
    assert blobs.used_bytes == 0


async def test_failed_commit_keeps_earlier_blobs(blobs: BlobStore, tmp_path: Path) -> None:
    kept = [await received(blobs, payload) for payload in (b"song", b"song", b"x")]
    with blobs.commit(kept[:1]):
        pass
    refused(blobs, kept[1:])
    assert _files(tmp_path) == [kept[0].sha256]
    assert blobs.used_bytes == MIN_FILE_BYTES


async def test_same_blob_received_twice_is_stored_once(blobs: BlobStore, tmp_path: Path) -> None:
    writers = [await received(blobs, b"song") for _ in range(2)]
    assert blobs.used_bytes == 2 * MIN_FILE_BYTES
    with blobs.commit(writers):
        pass
    assert _files(tmp_path) == [writers[0].sha256]
    assert blobs.used_bytes == MIN_FILE_BYTES


async def test_failed_commit_keeps_blob_stored_by_another_thread(
    blobs: BlobStore, tmp_path: Path
) -> None:
    """A task's song is fetched while a submission that names it too is refused."""
    writer, fetching = await received(blobs, b"song"), threading.Event()

    def fetch() -> None:
        def chunks() -> Iterator[bytes]:
            fetching.set()
            yield b"song"

        asyncio.run(blobs.save(arriving(chunks()), size=4, limit=4, sha256=writer.sha256))

    def meanwhile() -> None:
        thread.start()
        fetching.wait(5)
        thread.join(0.05)  # it is for the block to end first

    thread = threading.Thread(target=fetch)
    refused(blobs, [writer], meanwhile)
    thread.join(5)
    assert _files(tmp_path) == [writer.sha256]
    assert blobs.used_bytes == MIN_FILE_BYTES


def test_empty_blob_is_stored(blobs: BlobStore) -> None:
    empty = store(blobs, b"")
    assert empty == hashlib.sha256(b"").hexdigest()
    assert blobs.size(empty) == 0


def test_writing_a_stored_blob_changes_nothing(blobs: BlobStore, tmp_path: Path) -> None:
    for _ in range(2):
        store(blobs, BYTES)
    assert _files(tmp_path) == [SHA256]
    assert blobs.used_bytes == len(BYTES)


@pytest.mark.parametrize(
    ("size", "limit", "sha256", "reason"),
    [
        (len(BYTES) - 1, 10**6, None, "more bytes than declared"),
        (len(BYTES) + 1, 10**6, None, "1 of the declared bytes are missing"),
        (len(BYTES), len(BYTES) - 1, None, "the limit is 599999"),
        (-1, 10**6, None, "-1 bytes were declared"),
        (len(BYTES), 10**6, OTHER, f"the hash is {SHA256}, not {OTHER}"),
    ],
)
async def test_undeclared_bytes_are_refused_and_leave_nothing(
    blobs: BlobStore, tmp_path: Path, size: int, limit: int, sha256: str | None, reason: str
) -> None:
    with pytest.raises(BlobRefused, match=reason):
        await blobs.receive(arriving(_chunks()), size=size, limit=limit, sha256=sha256)
    assert _files(tmp_path) == []


async def test_oversized_declaration_is_refused_before_the_first_chunk(blobs: BlobStore) -> None:
    chunks = _chunks()
    with pytest.raises(BlobRefused):
        await blobs.receive(arriving(chunks), size=len(BYTES), limit=10)
    assert next(chunks) == BYTES[:65536]


async def test_broken_off_transfer_leaves_nothing(blobs: BlobStore, tmp_path: Path) -> None:
    def breaking() -> Iterator[bytes]:
        yield BYTES[:10]
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await blobs.receive(arriving(breaking()), size=20, limit=20)
    assert _files(tmp_path) == []


async def test_cancelled_transfer_leaves_nothing(blobs: BlobStore, tmp_path: Path) -> None:
    started = asyncio.Event()

    async def stalling() -> AsyncIterator[bytes]:
        yield BYTES[:10]
        started.set()
        await asyncio.get_running_loop().create_future()

    task = asyncio.create_task(blobs.receive(stalling(), size=20, limit=20))
    await asyncio.wait_for(started.wait(), 5)
    assert len(_files(tmp_path)) == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert _files(tmp_path) == []


def test_file_is_synced_before_the_rename_and_folder_after_it(
    blobs: BlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[bool, bool]] = []

    def fsync(descriptor: int) -> None:
        folder = os.path.isdir(f"/proc/self/fd/{descriptor}")  # noqa: PTH112 no path of ours
        synced.append((folder, blobs.has(SHA256)))

    monkeypatch.setattr(os, "fsync", fsync)
    store(blobs, BYTES)
    assert synced == [(False, False), (True, True)]
    blobs.delete(SHA256)
    synced.clear()
    finished = tmp_path / "finished"
    finished.write_bytes(BYTES)
    blobs.import_file(finished)
    assert synced == [(False, False), (True, True)]


async def test_received_blob_is_durable_inside_the_commit_block(
    blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[bool] = []

    def fsync(descriptor: int) -> None:
        synced.append(os.path.isdir(f"/proc/self/fd/{descriptor}"))  # noqa: PTH112 no path of ours

    monkeypatch.setattr(os, "fsync", fsync)
    writer = await received(blobs, b"song")
    assert synced == [False]
    with blobs.commit([writer]):
        assert synced == [False, True]


def test_failing_disk_leaves_nothing(
    blobs: BlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fsync(_: int) -> None:
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="input/output error"):
        store(blobs, BYTES)
    assert _files(tmp_path) == []


def test_file_is_imported(blobs: BlobStore, tmp_path: Path) -> None:
    finished = tmp_path / "finished"
    finished.write_bytes(BYTES)
    assert blobs.import_file(finished, SHA256) == SHA256
    assert not finished.exists()
    assert blobs.path(SHA256).read_bytes() == BYTES


def test_file_of_another_file_system_is_copied(
    blobs: BlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished = tmp_path / "finished"
    finished.write_bytes(BYTES)
    rename = Path.rename

    def across(self: Path, target: Path) -> Path:
        if self == finished:
            raise OSError(errno.EXDEV, "cross-device link")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", across)
    assert blobs.import_file(finished) == SHA256
    assert not finished.exists()
    assert blobs.path(SHA256).read_bytes() == BYTES
    assert _files(tmp_path) == [SHA256]


def test_file_with_another_hash_is_not_imported(blobs: BlobStore, tmp_path: Path) -> None:
    finished = tmp_path / "finished"
    finished.write_bytes(BYTES)
    with pytest.raises(BlobRefused, match=f"the hash is {SHA256}, not {OTHER}"):
        blobs.import_file(finished, OTHER)
    assert finished.read_bytes() == BYTES
    assert _files(tmp_path) == []


@pytest.mark.parametrize("offset", [0, 1, 262_144, len(BYTES)])
def test_reading_starts_at_the_offset(blobs: BlobStore, offset: int) -> None:
    store(blobs, BYTES)
    with blobs.open(SHA256, offset) as file:
        assert file.read() == BYTES[offset:]


@pytest.mark.parametrize("offset", [-1, len(BYTES) + 1])
def test_offset_outside_the_blob_is_refused(blobs: BlobStore, offset: int) -> None:
    store(blobs, BYTES)
    with pytest.raises(ValueError, match="outside the blob"):
        blobs.open(SHA256, offset)


@pytest.mark.parametrize("name", ["", "../key.pem", "0" * 63, "0" * 64 + "\n", "A" * 64])
def test_name_that_is_no_hash_is_refused(blobs: BlobStore, name: str) -> None:
    for use in (blobs.path, blobs.has, blobs.size, blobs.open, blobs.delete):
        with pytest.raises(ValueError, match="is no SHA-256"):
            use(name)


def test_absent_blob(blobs: BlobStore) -> None:
    with pytest.raises(FileNotFoundError):
        blobs.size(OTHER)
    with pytest.raises(FileNotFoundError):
        blobs.open(OTHER)
    blobs.delete(OTHER)


def test_deletion_releases_quota(blobs: BlobStore) -> None:
    store(blobs, BYTES)
    small = store(blobs, b"abc")
    assert blobs.used_bytes == len(BYTES) + MIN_FILE_BYTES
    for _ in range(2):
        blobs.delete(SHA256)
    assert not blobs.has(SHA256)
    assert blobs.has(small)
    assert blobs.used_bytes == MIN_FILE_BYTES
    assert blobs.expire(2**40) == 1
    assert blobs.used_bytes == 0


def test_restart_deletes_only_temporary_files(blobs: BlobStore, tmp_path: Path) -> None:
    store(blobs, b"abc")
    unfinished = iter([b"abc", b"def"])

    class KilledError(BaseException):
        pass

    def killed() -> Iterator[bytes]:
        yield next(unfinished)
        (temporary,) = (tmp_path / "blobs").glob("incoming-*")
        temporary.with_name("incoming-left").write_bytes(b"abc")
        raise KilledError

    with pytest.raises(KilledError):
        asyncio.run(blobs.receive(arriving(killed()), size=6, limit=6))
    assert "incoming-left" in _files(tmp_path)
    assert blobs.used_bytes == MIN_FILE_BYTES
    again = BlobStore(tmp_path / "blobs")
    assert _files(tmp_path) == [hashlib.sha256(b"abc").hexdigest()]
    assert again.used_bytes == MIN_FILE_BYTES


# Room


@pytest.fixture
def small(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "blobs", len(BYTES) + MIN_FILE_BYTES, pinned=lambda: {SHA256})


async def test_exhausted_quota_refuses_blobs_of_peers(small: BlobStore, tmp_path: Path) -> None:
    store(small, BYTES)
    writer = await received(small, b"song")
    for size in (0, 1, MIN_FILE_BYTES):
        chunks = _chunks()
        with pytest.raises(
            DiskQuotaExceeded, match=f"quota of {len(BYTES) + MIN_FILE_BYTES} bytes"
        ):
            await small.receive(arriving(chunks), size=size, limit=size)
        assert next(chunks) == BYTES[:65536], "it is refused before any byte is taken"
    writer.discard()
    writer.discard()
    assert small.used_bytes == len(BYTES)
    store(small, b"song")
    assert len(_files(tmp_path)) == 2


def adopted(blobs: BlobStore, tmp_path: Path, payload: bytes) -> str:
    finished = tmp_path / "finished"
    finished.write_bytes(payload)
    return blobs.import_file(finished)


def test_imported_file_is_stored_beyond_the_quota_and_evicts_nothing(
    small: BlobStore, tmp_path: Path
) -> None:
    store(small, BYTES)
    for _ in range(2):
        own_output = adopted(small, tmp_path, b"own" * MIN_FILE_BYTES)
        assert small.used_bytes == len(BYTES)
    store(small, b"song")
    small.delete(own_output)
    assert small.used_bytes == len(BYTES) + MIN_FILE_BYTES


def test_received_blob_becomes_own_when_it_is_imported(small: BlobStore, tmp_path: Path) -> None:
    store(small, BYTES)
    assert adopted(small, tmp_path, BYTES) == SHA256
    assert small.used_bytes == 0
    store(small, BYTES)
    assert small.used_bytes == 0
    small.delete(SHA256)
    assert small.used_bytes == 0
    store(small, BYTES)
    assert small.used_bytes == len(BYTES)
    small.delete(SHA256)
    assert small.used_bytes == 0


def test_file_copied_from_another_file_system_is_stored_beyond_the_quota(
    small: BlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished, rename = tmp_path / "finished", Path.rename

    def across(self: Path, target: Path) -> Path:
        if self == finished:
            raise OSError(errno.EXDEV, "cross-device link")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", across)
    store(small, BYTES)
    finished.write_bytes(b"own" * MIN_FILE_BYTES)
    own_output = small.import_file(finished)
    assert small.used_bytes == len(BYTES)
    small.delete(own_output)
    assert small.used_bytes == len(BYTES)


def test_blobs_present_at_the_start_count_towards_the_quota(
    small: BlobStore, tmp_path: Path
) -> None:
    store(small, BYTES)
    store(small, b"abc")
    again = BlobStore(tmp_path / "blobs", len(BYTES) + MIN_FILE_BYTES)
    assert again.used_bytes == len(BYTES) + MIN_FILE_BYTES
    with pytest.raises(DiskQuotaExceeded):
        store(again, b"abcd")
    assert BlobStore(tmp_path / "blobs", MIN_FILE_BYTES, {SHA256}).used_bytes == MIN_FILE_BYTES


def test_failed_write_releases_quota(small: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(_: int) -> None:
        raise OSError(errno.EIO, "input/output error")

    open_file = Path.open

    def open_fails(path: Path, *args: Any, **kwargs: Any) -> Any:
        # Threads of other tests' workers may read files meanwhile.
        if str(path).startswith("/proc/"):
            return open_file(path, *args, **kwargs)
        return fsync(0)

    for size, sha256 in ((3, OTHER), (2, None), (4, None)):
        with pytest.raises(BlobRefused):
            asyncio.run(small.receive(arriving([b"abc"]), size=size, limit=4, sha256=sha256))
    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="input/output error"):
        store(small, b"abc")
    monkeypatch.setattr(Path, "open", open_fails)
    with pytest.raises(OSError, match="input/output error"):
        store(small, b"abc")
    assert small.used_bytes == 0


def store_oldest_first(blobs: BlobStore, count: int) -> list[str]:
    """Store `count` blobs of one byte; return their names, the oldest first."""
    names = [store(blobs, bytes((n,))) for n in range(count)]
    for age, name in enumerate(reversed(names)):
        os.utime(blobs.path(name), (2000.0 - age, 2000.0 - age))
    return names


async def test_oldest_received_blobs_are_evicted_except_pinned_ones(
    tmp_path: Path,
) -> None:
    pinned: list[str] = []
    blobs = BlobStore(tmp_path / "blobs", 4 * MIN_FILE_BYTES, pinned=lambda: pinned)
    names = store_oldest_first(blobs, 4)
    own_output = adopted(blobs, tmp_path, b"own")
    os.utime(blobs.path(own_output), (1.0, 1.0))
    pinned.append(names[0])
    song = await received(blobs, b"song")
    pinned.append(song.sha256)
    with blobs.commit([song]):
        pass
    assert [blobs.has(name) for name in (own_output, *names)] == [True, True, False, True, True]
    assert blobs.used_bytes == 4 * MIN_FILE_BYTES
    for _ in range(2):
        await received(blobs, b"more")
    assert [blobs.has(name) for name in (own_output, *names)] == [True, True, False, False, False]
    for _ in range(2):  # the rest is pinned or being received
        with pytest.raises(DiskQuotaExceeded):
            await received(blobs, b"more")
    assert blobs.used_bytes == 4 * MIN_FILE_BYTES
    assert blobs.has(names[0])


async def test_new_blobs_are_not_evicted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The task that wants it may be on its way."""
    clock = SimpleNamespace(monotonic=time.monotonic, time=lambda: 2000.5)
    monkeypatch.setattr("node.storage.blobs.time", clock)
    blobs = BlobStore(tmp_path / "blobs", 2 * MIN_FILE_BYTES)
    names = store_oldest_first(blobs, 2)  # at 1999 and 2000
    await received(blobs, b"song")
    with pytest.raises(DiskQuotaExceeded):
        await received(blobs, b"more")
    assert [blobs.has(name) for name in names] == [False, True]


async def test_eviction_pauses_after_it_found_too_little(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or each refusal would cost a look at all files and open tasks."""
    now, looks, names = [100.0], list[float](), list[str]()
    clock = SimpleNamespace(monotonic=lambda: now[0], time=time.time)
    monkeypatch.setattr("node.storage.blobs.time", clock)

    def pinned() -> list[str]:
        looks.append(now[0])
        return names

    blobs = BlobStore(tmp_path / "blobs", 4 * MIN_FILE_BYTES, pinned=pinned)
    names += store_oldest_first(blobs, 4)
    for now[0] in (100.0, 109.9, 110.0):
        with pytest.raises(DiskQuotaExceeded):
            await received(blobs, b"song")
    assert looks == [100.0, 110.0]
    names.clear()
    now[0] = 120.0
    for _ in range(4):
        await received(blobs, b"song")
    assert blobs.used_bytes == 4 * MIN_FILE_BYTES
    assert len(looks) == 6


async def test_nothing_is_evicted_for_a_blob_that_fits_or_never_can(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path / "blobs", 4 * MIN_FILE_BYTES)
    names = store_oldest_first(blobs, 3)
    with pytest.raises(DiskQuotaExceeded):
        await received(blobs, bytes(4 * MIN_FILE_BYTES + 1))
    await received(blobs, b"song")
    assert all(map(blobs.has, names))


async def test_eviction_frees_a_sixteenth_of_the_quota(tmp_path: Path) -> None:
    """For each time costs a look at all files."""
    blobs = BlobStore(tmp_path / "blobs", 48 * MIN_FILE_BYTES)
    names = store_oldest_first(blobs, 48)
    await received(blobs, b"song")
    assert [blobs.has(name) for name in names] == [False] * 3 + [True] * 45


async def test_concurrent_transfers_share_one_eviction(tmp_path: Path) -> None:
    looks: list[str] = []

    def pinned() -> list[str]:
        looks.append("at all tasks")
        return []

    blobs = BlobStore(tmp_path / "blobs", 48 * MIN_FILE_BYTES, pinned=pinned)
    store_oldest_first(blobs, 48)
    await asyncio.gather(*(received(blobs, b"song") for _ in range(3)))
    assert len(looks) == 1


async def test_blob_imported_during_eviction_is_not_evicted(tmp_path: Path) -> None:
    threads: list[threading.Thread] = []
    finished = tmp_path / "finished"
    finished.write_bytes(b"\0")
    os.utime(finished, (1.0, 1.0))

    class Pinned(list[str]):
        def __contains__(self, name: object) -> bool:
            if not threads:
                threads.append(meanwhile(lambda: kept.import_file(finished)))
            return False

    kept = BlobStore(tmp_path / "blobs", 4 * MIN_FILE_BYTES, pinned=Pinned)
    names = store_oldest_first(kept, 4)
    await received(kept, b"song")
    await asyncio.to_thread(threads[0].join, 5)
    assert [kept.has(name) for name in names] == [True] * 4
    assert kept.used_bytes == 4 * MIN_FILE_BYTES


async def test_blob_touched_during_eviction_is_not_evicted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = BlobStore(tmp_path / "blobs", 4 * MIN_FILE_BYTES)
    names = store_oldest_first(blobs, 4)
    after_looking(monkeypatch, lambda: blobs.touch(names[0]))
    await received(blobs, b"song")
    assert [blobs.has(name) for name in names] == [True, False, True, True]


def held_open(folder: Path) -> list[Path]:
    """The files and folders in a folder that this process has open."""
    held = [path.readlink() for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    return [path for path in held if path.is_relative_to(folder)]


async def test_received_blob_holds_no_file_open(blobs: BlobStore, tmp_path: Path) -> None:
    await received(blobs, b"song")
    assert held_open(tmp_path) == []


def meanwhile(work: Callable[[], object]) -> threading.Thread:
    """Let another thread work; what a lock holds up waits for its end."""
    worker = threading.Thread(target=work)
    worker.start()
    worker.join(0.05)
    return worker


def test_reservations_of_two_threads_are_serialised() -> None:
    threads: list[threading.Thread] = []

    class Limit(int):
        def __lt__(self, used: int) -> bool:  # called by `used > limit`
            if not threads:
                threads.append(threading.Thread())
                threads[0] = meanwhile(lambda: quota.reserve(MIN_FILE_BYTES))
            return super().__lt__(used)

    quota = DiskQuota(Limit(8 * MIN_FILE_BYTES))
    quota.reserve(MIN_FILE_BYTES)
    threads[0].join(5)
    assert quota.used == 2 * MIN_FILE_BYTES


def test_deletion_by_two_threads_releases_quota_once(
    blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[threading.Thread] = []
    unlink = Path.unlink

    def slow(self: Path, *, missing_ok: bool = False) -> None:
        if not threads:
            threads.append(threading.Thread())
            threads[0] = meanwhile(lambda: blobs.delete(SHA256))
        unlink(self, missing_ok=True)

    store(blobs, BYTES)
    monkeypatch.setattr(Path, "unlink", slow)
    blobs.delete(SHA256)
    threads[0].join(5)
    assert blobs.used_bytes == 0


# Expiry


def after_looking(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Let something happen as soon as a folder has been looked through."""
    scandir = os.scandir

    class Looked:
        def __init__(self, path: Path) -> None:
            self._entries = scandir(path)

        def __enter__(self) -> Iterator[os.DirEntry[str]]:
            return self._entries

        def __exit__(self, *_: object) -> None:
            self._entries.close()
            act()

    monkeypatch.setattr(os, "scandir", Looked)


@pytest.mark.parametrize("again", ["renewed", "handed in"])
def test_blob_touched_or_stored_during_expiry_stays(
    blobs: BlobStore, monkeypatch: pytest.MonkeyPatch, again: str
) -> None:
    names = store_oldest_first(blobs, 20)

    def come() -> None:
        for n, name in enumerate(names[:10]):
            if again == "renewed":
                assert blobs.touch(name)
            else:
                store(blobs, bytes((n,)))

    after_looking(monkeypatch, come)
    assert blobs.expire(3000.0) == 10
    assert [blobs.has(name) for name in names] == [True] * 10 + [False] * 10


def test_blob_deleted_during_expiry_is_ignored(
    blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    names, scandir = store_oldest_first(blobs, 2), os.scandir

    @contextmanager
    def looked(path: Path) -> Iterator[list[os.DirEntry[str]]]:
        with scandir(path) as entries:
            listed = list(entries)
        blobs.delete(names[0])
        yield listed

    monkeypatch.setattr(os, "scandir", looked)
    assert blobs.expire(3000.0) == 1


def test_blob_is_not_touched_while_it_expires(
    blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[threading.Thread] = []
    renewed: list[bool] = []
    delete = BlobStore.delete

    def slow(self: BlobStore, sha256: str) -> None:
        threads.append(meanwhile(lambda: renewed.append(blobs.touch(sha256))))
        delete(self, sha256)

    (name,) = store_oldest_first(blobs, 1)
    monkeypatch.setattr(BlobStore, "delete", slow)
    assert blobs.expire(3000.0) == 1
    threads[0].join(5)
    assert renewed == [blobs.has(name)] == [False]


def test_old_blobs_expire(blobs: BlobStore) -> None:
    old, new = (store(blobs, text) for text in (b"old", b"new"))
    os.utime(blobs.path(old), (1000.0, 1000.0))
    os.utime(blobs.path(new), (2000.0, 2000.0))
    assert blobs.expire(1000.0) == 0
    assert blobs.expire(2000.0) == 1
    assert (blobs.has(old), blobs.has(new)) == (False, True)


def test_touched_blob_does_not_expire(blobs: BlobStore) -> None:
    kept = store(blobs, b"old")
    os.utime(blobs.path(kept), (1000.0, 1000.0))
    assert blobs.touch(kept)
    assert blobs.expire(2000.0) == 0
    assert not blobs.touch(OTHER)
    with pytest.raises(ValueError, match="is no SHA-256"):
        blobs.touch("../key.pem")


def test_blob_written_again_does_not_expire(blobs: BlobStore) -> None:
    for _ in range(2):
        kept = store(blobs, b"old")
        assert blobs.expire(2000.0) == 0
        os.utime(blobs.path(kept), (1000.0, 1000.0))


def test_other_files_never_expire(blobs: BlobStore, tmp_path: Path) -> None:
    stranger = tmp_path / "blobs" / "README"
    stranger.touch()
    os.utime(stranger, (1000.0, 1000.0))
    assert blobs.expire(2000.0) == 0
    assert stranger.exists()
