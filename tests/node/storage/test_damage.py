"""A database opened after its files were damaged: every durable row is there, or it is refused.

The damaged copies live in memory (`/dev/shm`): what a file holds decides these tests, and syncing
hundreds of copies to a disk would take most of their time.
"""

import contextlib
import os
import random
import resource
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.storage.errors import UnusableDatabase
from protocol.consensus.effects import State
from tests.node.storage.opened import Storage, open_storage
from tests.support import fixtures

NET = fixtures.network()
SECTOR = 512  # bytes: what a disk writes whole or not at all
NAME = "node.sqlite"
SHARED_MEMORY = Path("/dev/shm")
NOBODY = 65534
TABLES = ("about", "envelopes", "tasks", "salts", "outcomes", "certificates", "cursors")

Rows = dict[str, list[tuple[object, ...]]]


def work(storage: Storage, nonces: range) -> None:
    """Run two transactions per task, each durable when it returns."""
    for nonce in nonces:
        task = fixtures.task(NET, nonce=nonce)
        with storage.journal.transaction():
            storage.journal.append(task, float(nonce))
            storage.journal.put_state(task.id, State.EXECUTING, 0)
        with storage.journal.transaction():
            storage.journal.put_salt(task.id, 0, f"{nonce:064x}")
            storage.journal.put_outcome(
                task.id, fixtures.outcome(), {"seconds": nonce}, nonce + 0.5
            )


def rows(path: Path) -> Rows:
    """All rows of a database, by table."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return {
            name: connection.execute(f"SELECT * FROM {name}").fetchall()  # noqa: S608  # ours
            for name in TABLES
        }


@cache
def rows_of_copy(folder: Path) -> Rows:
    """The rows of the database in a folder, which is left as it is."""
    with in_memory() as memory:
        copy(folder, memory / "copy")
        return rows(memory / "copy" / NAME)


@contextmanager
def in_memory() -> Iterator[Path]:
    """A temporary folder, in memory if the machine has one there."""
    with tempfile.TemporaryDirectory(dir=SHARED_MEMORY if SHARED_MEMORY.is_dir() else None) as name:
        yield Path(name)


def copy(source: Path, target: Path) -> None:
    """Copy the files that a killed process leaves; the index of the log is not one of them."""
    target.mkdir()
    for name in (NAME, f"{NAME}-wal", f"{NAME}.mark"):
        if (source / name).exists():
            shutil.copy(source / name, target / name)


def left_behind(folder: Path, *, checkpoint: str | None, closed: bool) -> Path:
    """A folder with twenty tasks, the second half of them after a checkpoint or none."""
    live = folder / "live"
    live.mkdir()
    storage = open_storage(live / NAME, NET.id)
    work(storage, range(10))
    if checkpoint:
        other = sqlite3.connect(live / NAME)
        other.execute(f"PRAGMA wal_checkpoint({checkpoint})")
        other.close()
    work(storage, range(10, 20))
    if closed:
        storage.close()
    left = folder / "left"
    copy(live, left)
    storage.close()
    return left


@pytest.fixture(scope="module")
def log_only(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return left_behind(tmp_path_factory.mktemp("log"), checkpoint=None, closed=False)


@pytest.fixture(scope="module")
def log_and_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return left_behind(tmp_path_factory.mktemp("both"), checkpoint="RESTART", closed=False)


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return left_behind(tmp_path_factory.mktemp("closed"), checkpoint=None, closed=True)


KINDS = ("cut", "zeros", "noise", "gone", "flip")
Damage = tuple[str, float, int]  # what happens, where as a share of the file, a seed for noise
damages = st.tuples(
    st.sampled_from(KINDS), st.floats(0, 1, exclude_max=True), st.integers(0, 2**16)
)
many = settings(max_examples=30, deadline=None, derandomize=True)


def garble(path: Path, damage: Damage) -> None:
    """Damage a file as a disk does: bits, sectors, its end, or all of it."""
    kind, share, seed = damage
    content = bytearray(path.read_bytes())
    at = int(share * len(content))
    sector = slice(at - at % SECTOR, min(at - at % SECTOR + SECTOR, len(content)))
    match kind:
        case "cut":
            del content[at:]
        case "zeros":
            content[sector] = bytes(len(content[sector]))
        case "noise":
            content[sector] = random.Random(seed).randbytes(len(content[sector]))
        case "flip":
            content[at] ^= 1 << seed % 8
    path.write_bytes(content)
    if kind == "gone":
        path.unlink()


def opens_with_every_row(left: Path, suffix: str, damage: Damage) -> bool:
    """Damage one file of a copy; return False if it is refused, True if no row is missing."""
    with in_memory() as folder:
        copy(left, folder / "damaged")
        path = folder / "damaged" / NAME
        garble(path.with_name(NAME + suffix), damage)
        try:
            open_storage(path, NET.id).close()
        except UnusableDatabase:
            return False
        assert rows(path) == rows_of_copy(left)
        return True


@many
@given(damages)
def test_damaged_write_ahead_log_is_detected(log_only: Path, damage: Damage) -> None:
    opens_with_every_row(log_only, "-wal", damage)


@many
@given(damages)
def test_damaged_write_ahead_log_over_checkpointed_file_is_detected(
    log_and_file: Path, damage: Damage
) -> None:
    opens_with_every_row(log_and_file, "-wal", damage)


@many
@given(damages)
def test_write_ahead_log_repairs_a_damaged_file(log_only: Path, damage: Damage) -> None:
    kind, share, _ = damage
    nothing_left = kind == "gone" or (
        kind == "cut" and share * (log_only / NAME).stat().st_size < 1
    )
    assert opens_with_every_row(log_only, "", damage) != nothing_left


@many
@given(damages)
def test_damaged_rollback_guard_loses_nothing(closed: Path, damage: Damage) -> None:
    opens_with_every_row(closed, ".mark", damage)


@many
@given(st.sampled_from(["cut", "gone"]), st.floats(0, 1, exclude_max=True))
def test_truncated_database_is_refused(closed: Path, kind: str, share: float) -> None:
    assert not opens_with_every_row(closed, "", (kind, share, 0))


def checkpointed(left: Path, target: Path) -> bytes:
    """The file as a checkpoint of the whole log leaves it."""
    copy(left, target)
    connection = sqlite3.connect(target / NAME)
    assert connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[0] == 0
    content = (target / NAME).read_bytes()
    connection.close()
    return content


@many
@given(dice=st.randoms(use_true_random=False))
def test_torn_checkpoint_is_recovered(log_only: Path, dice: random.Random) -> None:
    """Any mixture of the file's old, new and torn sectors, under a log that is still whole."""
    with in_memory() as folder:
        old = (log_only / NAME).read_bytes()
        new = checkpointed(log_only, folder / "new")
        old += bytes(len(new) - len(old))
        seed, mixed = random.Random(dice.getrandbits(32)), bytearray()
        for at in range(0, len(new), SECTOR):
            sector = slice(at, at + SECTOR)
            mixed += seed.choice([old[sector], new[sector], seed.randbytes(SECTOR)])
        copy(log_only, folder / "torn")
        path = folder / "torn" / NAME
        path.write_bytes(mixed)
        open_storage(path, NET.id).close()
        assert rows(path) == rows_of_copy(log_only)


@pytest.fixture(scope="module")
def one_more(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """What a kill leaves before a transaction, and after it."""
    folder = tmp_path_factory.mktemp("step")
    (folder / "live").mkdir()
    storage = open_storage(folder / "live" / NAME, NET.id)
    work(storage, range(3))
    copy(folder / "live", folder / "before")
    task = fixtures.task(NET, nonce=99)
    with storage.journal.transaction():
        storage.journal.append(task, 99.0)
        storage.journal.put_salt(task.id, 0, "9" * 64)
    copy(folder / "live", folder / "after")
    storage.close()
    return folder / "before", folder / "after"


@many
@given(st.floats(0, 1), st.sampled_from(["cut", "zeros", "noise"]))
def test_torn_transaction_is_complete_or_absent(
    one_more: tuple[Path, Path], share: float, kind: str
) -> None:
    with in_memory() as folder:
        copy(one_more[0], folder / "torn")  # with the guard as it was then
        path = folder / "torn" / NAME
        log = path.with_name(f"{NAME}-wal")
        tail = (one_more[1] / log.name).read_bytes()[log.stat().st_size :]
        kept = int(share * len(tail))
        lost = {"cut": b"", "zeros": bytes(len(tail) - kept), "noise": b"\xa5" * SECTOR}[kind]
        log.write_bytes(log.read_bytes() + tail[:kept] + lost)
        open_storage(path, NET.id).close()
        before, after = rows_of_copy(one_more[0]), rows(path)
        added = [name for name in TABLES if after[name] != before[name]]
        assert added == (["envelopes", "salts"] if kept == len(tail) else [])


def test_restored_old_copy_is_refused(tmp_path: Path) -> None:
    """Nothing in it is wrong, but it does not know what this node has signed since."""
    path = tmp_path / NAME
    storage = open_storage(path, NET.id)
    work(storage, range(2))
    storage.close()
    old = path.read_bytes()
    storage = open_storage(path, NET.id)
    work(storage, range(2, 4))
    storage.close()
    path.write_bytes(old)
    with pytest.raises(
        UnusableDatabase,
        match=r"8 committed transactions, .* holds 4\. .*before it votes",
    ):
        open_storage(path, NET.id)
    (tmp_path / f"{NAME}.mark").unlink()  # as it says
    open_storage(path, NET.id).close()


@pytest.mark.parametrize("content", [None, b""])
def test_vanished_database_is_not_recreated(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / NAME
    open_storage(path, NET.id).close()
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UnusableDatabase, match=r"it is empty, and was not.*move the database"):
        open_storage(path, NET.id)
    for file in tmp_path.iterdir():  # as it says
        file.unlink()
    open_storage(path, NET.id).close()


def test_database_without_its_log_is_not_recreated(tmp_path: Path, log_only: Path) -> None:
    """Before the first checkpoint all is in the log; without it the file holds nothing."""
    copy(log_only, tmp_path / "copy")
    path = tmp_path / "copy" / NAME
    path.with_name(f"{NAME}-wal").unlink()
    content = path.read_bytes()
    with pytest.raises(UnusableDatabase, match="it is empty"):
        open_storage(path, NET.id)
    assert path.read_bytes() == content
    assert not path.with_name(f"{NAME}-wal").exists()


def test_log_of_vanished_database_is_left_for_recovery(tmp_path: Path, log_only: Path) -> None:
    """SQLite removes the log beside an empty file; here that is all there is."""
    copy(log_only, tmp_path / "copy")
    path = tmp_path / "copy" / NAME
    header, log = path.read_bytes(), path.with_name(f"{NAME}-wal").read_bytes()
    path.write_bytes(b"")
    with pytest.raises(UnusableDatabase, match="it is empty"):
        open_storage(path, NET.id)
    assert path.with_name(f"{NAME}-wal").read_bytes() == log
    path.write_bytes(header)
    open_storage(path, NET.id).close()
    assert len(rows(path)["envelopes"]) == 20


@contextmanager
def disk_of(size: int) -> Iterator[None]:
    """No file grows past `size` bytes: what a full disk does, for this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@many
@given(st.integers(0, 400_000))
def test_full_disk_loses_no_committed_transaction(size: int) -> None:
    """Whatever step it fails at: what returned is there, and it goes on when there is space."""
    with in_memory() as folder:
        path, done = folder / NAME, 0
        storage = open_storage(path, NET.id)
        with disk_of(size), contextlib.suppress(sqlite3.Error):
            for nonce in range(10):
                work(storage, range(nonce, nonce + 1))
                done += 1
        work(storage, range(100, 101))
        copy(folder, folder / "killed")
        storage.close()
        for database in (path, folder / "killed" / NAME):
            open_storage(database, NET.id).close()
            nonces = [int(str(row[6])[:-2]) for row in rows(database)["envelopes"]]
            assert nonces[:done] == list(range(done))
            assert nonces[-1] == 100
            assert len(nonces) - done in (1, 2)  # of the step that failed, its first half


@pytest.mark.parametrize("size", [0, 53, 4096, 20_000])
def test_database_that_cannot_be_created_is_refused_and_can_be_later(
    tmp_path: Path, size: int
) -> None:
    with disk_of(size), pytest.raises(UnusableDatabase, match="disk"):
        open_storage(tmp_path / NAME, NET.id)
    open_storage(tmp_path / NAME, NET.id).close()


@contextmanager
def unprivileged(folder: Path) -> Iterator[None]:
    """Nobody's rights, where the tests run as root, whom no file mode stops."""
    user = os.geteuid()
    if user == 0:
        for file in (folder, *folder.iterdir()):
            os.chown(file, NOBODY, NOBODY)
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.mark.parametrize("what", [NAME, f"{NAME}.mark", f"{NAME}.lock", ""])
def test_unwritable_file_is_refused(what: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        storage = open_storage(folder / NAME, NET.id)
        work(storage, range(1))
        storage.close()
        (folder / what).chmod(0o500 if what == "" else 0o400)
        with unprivileged(folder), pytest.raises(UnusableDatabase, match=r"[Pp]ermission|writable"):
            open_storage(folder / NAME, NET.id)
        (folder / what).chmod(0o700)
        open_storage(folder / NAME, NET.id).close()


def test_database_locked_by_another_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / NAME
    open_storage(path, NET.id).close()
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("PRAGMA locking_mode = EXCLUSIVE")
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(UnusableDatabase, match=r"locked.*another program holds it: close that one"):
        open_storage(path, NET.id, lock_timeout=0.0)
    holder.close()
    open_storage(path, NET.id).close()


def test_refused_file_is_not_changed(tmp_path: Path) -> None:
    """A database of another program keeps its journal mode, its tables and its bytes."""
    path = tmp_path / NAME
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE theirs (a)")
    connection.close()
    content = path.read_bytes()
    with pytest.raises(UnusableDatabase, match="another program wrote this database"):
        open_storage(path, NET.id)
    assert path.read_bytes() == content
