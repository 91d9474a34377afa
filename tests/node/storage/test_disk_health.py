"""A database on a disk that is really full, or read-only, and that has space again."""

import errno
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from node.storage.disk.health import DiskHealth
from node.storage.disk.reserve import ENOUGH_BYTES, RESERVE_BYTES, DiskReserve
from tests.node.storage.opened import Storage, open_storage
from tests.support import fixtures
from tests.support.small_disk import SmallDisk, small_disk

NET = fixtures.network()
NAME = "node.sqlite"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk") as disk:
        yield disk


@pytest.fixture
def storage(disk: SmallDisk) -> Iterator[Storage]:
    storage = open_storage(disk.folder / NAME, NET.id)
    yield storage
    storage.close()


def write(storage: Storage, nonce: int) -> None:
    """Write what a vote writes, and more than one page."""
    with storage.journal.transaction():
        storage.journal.append(fixtures.task(NET, nonce=nonce), float(nonce))
        storage.journal.put_salt(f"{nonce:064x}", 0, "ab" * 1000)


def write_until_full(storage: Storage) -> int:
    """Write until a write fails for want of space; return how many succeeded."""
    for nonce in range(10_000):
        try:
            write(storage, nonce)
        except sqlite3.OperationalError as error:
            assert error.sqlite_errorname == "SQLITE_FULL"  # noqa: PT017  # after others
            return nonce
    raise AssertionError("the disk is not full")


def fault(storage: Storage) -> str | None:
    return storage.journal.fault


def reserve(disk: SmallDisk) -> int:
    return (disk.folder / f"{NAME}.reserve").stat().st_size


def test_a_reserve_is_allocated_when_the_database_opens(disk: SmallDisk, storage: Storage) -> None:
    file = disk.folder / f"{NAME}.reserve"
    assert file.stat().st_size == RESERVE_BYTES
    assert file.stat().st_blocks * 512 == RESERVE_BYTES, "its blocks are taken"
    assert file.stat().st_mode & 0o777 == 0o600
    assert fault(storage) is None


def test_a_full_disk_fails_one_write_and_the_reserve_takes_the_next_ones(
    disk: SmallDisk, storage: Storage
) -> None:
    disk.fill()
    with capture_logs() as entries:
        first = write_until_full(storage)
        assert "the disk with the data folder is full: free space" in str(fault(storage))
        for nonce in range(first, first + 200):
            write(storage, nonce)
        assert fault(storage) is not None, "the reserve is being used up"
        assert 0 < reserve(disk) < RESERVE_BYTES
        disk.free()
        storage.journal.check_disk()
    assert (fault(storage), reserve(disk)) == (None, RESERVE_BYTES)
    assert [entry["event"] for entry in entries] == [
        "journal cannot be written",
        "journal can be written again",
    ]
    assert entries[0]["reason"].startswith("the disk with the data folder is full")
    assert entries[0]["error"] == "database or disk is full"
    assert storage.journal.last_cursor() == first + 200


def test_another_program_that_takes_all_free_space_leaves_room_for_votes(
    disk: SmallDisk, storage: Storage
) -> None:
    disk.fill()
    first = write_until_full(storage)
    for nonce in range(first, first + 30):
        disk.fill()
        write(storage, nonce)


def test_a_used_up_reserve_fails_every_write_until_there_is_space(
    disk: SmallDisk, storage: Storage
) -> None:
    disk.fill()
    write_until_full(storage)
    with capture_logs() as entries:
        while storage.journal.is_writable():
            disk.fill()
        assert reserve(disk) == 0
        with pytest.raises(sqlite3.OperationalError, match="full"):
            write(storage, 10_000)
    assert entries == [], "nothing is said twice"
    disk.free()
    assert storage.journal.is_writable()
    write(storage, 10_000)
    assert fault(storage) is None


def test_an_almost_full_disk_is_a_fault_before_a_write_fails(
    disk: SmallDisk, storage: Storage
) -> None:
    disk.fill()
    storage.database.health.check_space()
    assert os.statvfs(disk.folder).f_bavail > 0, "the log is often on the same disk"
    storage.journal.check_disk()
    assert "free space on it" in str(fault(storage))
    disk.free()
    storage.journal.check_disk()
    assert fault(storage) is None


def test_a_database_opens_on_a_full_disk_with_its_reserve(disk: SmallDisk) -> None:
    storage = open_storage(disk.folder / NAME, NET.id)
    disk.fill()
    write_until_full(storage)
    storage.close()
    disk.fill()
    storage = open_storage(disk.folder / NAME, NET.id)
    assert fault(storage) is not None
    write(storage, 10_000)
    storage.close()


def test_a_read_only_file_system_is_a_fault_that_ends_by_itself(
    disk: SmallDisk, storage: Storage
) -> None:
    # SQLite has its files open for writing: a read-only remount waits for them to be closed.
    storage.connection.execute("PRAGMA query_only = 1")
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        write(storage, 1)
    assert "make its files and its file system writable" in str(fault(storage))
    assert not storage.journal.is_writable()
    storage.connection.execute("PRAGMA query_only = 0")
    storage.journal.check_disk()
    assert fault(storage) is None


def test_a_mistake_of_the_program_is_no_fault_of_the_disk(storage: Storage) -> None:
    write(storage, 1)
    with pytest.raises(sqlite3.IntegrityError):
        write(storage, 1)
    assert fault(storage) is None


@pytest.mark.parametrize("name", ["FULL", "IOERR", "READONLY", "CORRUPT", "BUSY"])
def test_a_fault_fits_into_an_answer_to_hello(storage: Storage, name: str) -> None:
    error = sqlite3.OperationalError("of the disk")
    error.sqlite_errorname = f"SQLITE_{name}"
    storage.journal.report(error)
    assert len(str(fault(storage))) <= 256


# Quotas. The file system has space, so that only the errors tell: they are injected, because a
# quota needs a file system that this machine may not have.

OVER_QUOTA = OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
PART = RESERVE_BYTES // 32


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "reserve"


def over_quota(*_: object) -> None:
    raise OVER_QUOTA


def test_a_write_over_the_quota_frees_a_part_of_the_reserve(file: Path) -> None:
    health = DiskHealth(reserve := DiskReserve(file))
    assert reserve.refill(ENOUGH_BYTES)
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorname = "SQLITE_IOERR_WRITE"  # what SQLite makes of EDQUOT
    assert health.note_failure(error)
    assert file.stat().st_size == RESERVE_BYTES - PART
    assert "over its quota" in str(health.fault)


def test_a_refill_over_the_quota_leaves_the_room_that_was_freed(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some file systems allocate what the quota has left, and then fail."""
    reserve = DiskReserve(file)
    assert reserve.refill(ENOUGH_BYTES)
    reserve.give_up_part()
    allocate = os.posix_fallocate

    def allocate_some(descriptor: int, offset: int, size: int) -> None:
        allocate(descriptor, offset, size - 4096)
        raise OVER_QUOTA

    monkeypatch.setattr(os, "posix_fallocate", allocate_some)
    assert not reserve.refill(ENOUGH_BYTES)
    assert file.stat().st_size == RESERVE_BYTES - PART


def test_a_reserve_that_cannot_be_cut_over_the_quota_is_deleted(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """btrfs has no room for a shorter file, but deletes one."""
    reserve = DiskReserve(file)
    assert reserve.refill(ENOUGH_BYTES)
    with monkeypatch.context() as patched:
        patched.setattr(os, "truncate", over_quota)
        patched.setattr(os, "ftruncate", over_quota)
        reserve.give_up_part()
        assert not file.exists()
        patched.setattr(os, "posix_fallocate", over_quota)
        assert not reserve.refill(ENOUGH_BYTES)
        assert not file.exists(), "an empty file holds no room"
        reserve.give_up_part()  # there is nothing
    assert reserve.refill(ENOUGH_BYTES)
    assert (file.stat().st_size, file.stat().st_mode & 0o777) == (RESERVE_BYTES, 0o600)
