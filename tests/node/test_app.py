"""The composition root: real parts from real settings, built but not started."""

import asyncio
import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from executor.models.folders import EMBEDDED
from executor.tasks.numba_cache import kernels
from executor.worker import scratch as scratch_files
from node.app import UnusableNetwork, build, read_network
from node.clock import SystemClock
from node.config.limits import Limits
from node.config.settings import Settings
from node.daemon import Node, Options, Parts
from node.errors import Busy
from node.execution.queue import Executor
from node.execution.worker import Worker
from node.storage.blobs import BlobStore
from node.storage.database import open_database
from node.storage.errors import DiskQuotaExceeded, UnusableDatabase
from node.transport.libp2p.transport import Libp2pTransport
from protocol.manifest import blobs_of
from protocol.wire.encoding import canonical
from tests.support import fixtures
from tests.support.blobs import arriving
from tests.support.memory_transport.pipes import MemoryConnection

PEERS = (f"/ip4/127.0.0.1/tcp/4001/p2p/{fixtures.peer(1)}",)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    network = tmp_path / "network.json"
    network.write_bytes(canonical(fixtures.network_document()))
    return Settings(
        data_dir=tmp_path / "home" / "node",
        network=network,
        key=tmp_path / "key.pem",
        models_dir=(tmp_path / "models",),
        listen="/ip4/127.0.0.1/tcp/0",
        announce=(),
        peers=PEERS,
        feed_seconds=7.5,
        blob_days=1.5,
        blob_gigabytes=0.5,
        limits=Limits(max_open_tasks=4, max_queued_tasks=3),
    )


@contextmanager
def built(settings: Settings, index: int = 0, **more: Any) -> Iterator[tuple[Node, Parts, Options]]:
    """Build a node; yield it with its parts and options, and close its database."""
    node = build(settings, fixtures.key(index), **more)
    parts: Parts = node._parts
    try:
        yield node, parts, node._options
    finally:
        parts.journal._database.close()


def test_build_makes_the_real_parts_of_a_member(settings: Settings) -> None:
    with built(settings) as (node, parts, options):
        assert [type(e) for e in parts.executors.values()] == [Worker]
        assert isinstance(parts.transport, Libp2pTransport)
        assert isinstance(parts.blobs, BlobStore)
        assert isinstance(parts.clock, SystemClock)
        assert parts.coordinator.me == parts.transport.peer == fixtures.peer(0)
        assert parts.coordinator.network.id == fixtures.network().id
        assert options.peers == PEERS
        assert (options.limits.max_queued_tasks, options.feed_seconds) == (3, 7.5)
        assert options.blob_seconds == 1.5 * 86_400
        assert options.retention_seconds == 90 * 86_400
        assert node._recorder._network is parts.coordinator.network


def test_no_days_of_retention_keep_votes_forever(settings: Settings) -> None:
    with built(replace(settings, retention_days=0.0)) as (*_, options):
        assert options.retention_seconds is None


def test_limits_and_roster_reach_the_request_limiter(settings: Settings) -> None:
    member, stranger = fixtures.peer(1), fixtures.peer(40)
    one_at_once = replace(settings.limits, submissions_per_minute=6)
    with built(replace(settings, limits=one_at_once)) as (node, *_):
        request_limiter = node._limiter
        assert request_limiter.slot_key(member, "address") == member
        assert request_limiter.slot_key(stranger, "address") == "address"
        assert node._coordinator._tasks.max_open == 4
        assert node._coordinator._counts is node._parts.counts
        request_limiter.count_submission("a")
        with pytest.raises(Busy):
            request_limiter.count_submission("a")


def test_the_data_folder_is_created(settings: Settings) -> None:
    with built(settings):
        names = {path.name for path in settings.data_dir.iterdir() if path.suffix[:7] != ".sqlite-"}
        assert {"node.sqlite", "blobs", "scratch"} <= names


def test_the_database_survives_a_restart(settings: Settings) -> None:
    with built(settings) as (_, parts, _options):
        feed = parts.journal.feed_id
        parts.ledger.put_cursor("peer", "feed", 3)
    with built(settings) as (_, parts, _options):
        assert parts.journal.feed_id == feed
        assert parts.ledger.cursor("peer") == ("feed", 3)


def test_the_blob_quota_is_that_of_the_settings(settings: Settings) -> None:
    full = pytest.raises(DiskQuotaExceeded, match="quota of 500000000 bytes")
    with built(settings) as (_, parts, _options), full:
        asyncio.run(parts.blobs.receive(arriving([]), size=500_000_001, limit=500_000_001))


async def test_own_outputs_and_inputs_of_open_tasks_are_not_evicted(settings: Settings) -> None:
    outcome = fixtures.outcome()
    name = blobs_of(outcome)[0].sha256
    with built(settings) as (_, parts, _):
        parts.journal.put_outcome("a", outcome, {}, 1.0)
        parts.blobs.path(name).write_bytes(b"own")
    with built(settings) as (_, parts, _):
        assert parts.blobs.used_bytes == 0
        assert parts.blobs._pinned == parts.journal.open_task_inputs


def _greeting(node: Node) -> Any:
    request = fixtures.hello_request(fixtures.network().id)
    answer = node._greeter.answer(fixtures.peer(1), MemoryConnection(), request)
    return json.loads(json.dumps(answer))


def test_the_hello_before_the_start_is_not_ready(settings: Settings) -> None:
    with built(settings) as (node, _, _options):
        greeting = _greeting(node)
        assert greeting["ready"] is False
        assert greeting["classes"] == [fixtures.CLASS]
        assert greeting["models"] == {fixtures.CLASS: []}


def test_a_node_outside_the_roster_has_no_worker(settings: Settings) -> None:
    with built(settings, 40) as (node, parts, _options):
        assert parts.executors == {}
        assert _greeting(node)["classes"] == []
        assert not (settings.data_dir / "scratch").exists()


def test_the_executor_may_be_wrapped(settings: Settings) -> None:
    wrapped: list[Executor] = []
    wrapper = cast("Executor", object())

    def wrap(executor: Executor) -> Executor:
        wrapped.append(executor)
        return wrapper

    with built(settings, wrap=wrap) as (_, parts, _options):
        assert parts.executors == {fixtures.CLASS: wrapper}
        assert [type(executor) for executor in wrapped] == [Worker]


def test_leftover_scratch_files_are_removed(settings: Settings) -> None:
    """Only kernels that are complete stay: what else is there, a killed worker or node left."""
    scratch = settings.data_dir / "scratch" / fixtures.CLASS
    (scratch / "home" / "hub").mkdir(parents=True)
    (scratch / "folder" / "folder").mkdir(parents=True)
    for name in ("0123-0.f32", "0123-input-0", "folder/folder/x", "home/hub/x"):
        (scratch / name).write_bytes(bytes(100))
    (scratch / "link").symlink_to(settings.network)
    kernels_folder = scratch_files.kernel_folder(scratch)
    kernels_folder.mkdir()
    (kernels_folder / "kernel.nbc").write_bytes(b"compiled")
    kernels.mark_compiled(kernels_folder)
    blobs = settings.data_dir / "blobs"
    blobs.mkdir()
    (blobs / "incoming-0123").write_bytes(bytes(100))
    with built(settings):
        left = {str(p.relative_to(scratch)) for p in scratch.rglob("*") if not p.is_dir()}
        assert left == {"home/numba/kernel.nbc", "home/numba/compiled"}
        assert settings.network.exists()
        assert list(blobs.iterdir()) == []


def test_kernels_of_unknown_origin_are_removed(settings: Settings) -> None:
    scratch = settings.data_dir / "scratch" / fixtures.CLASS
    kernels_folder = scratch_files.kernel_folder(scratch)
    kernels_folder.mkdir(parents=True)
    (kernels_folder / "kernel.nbc").write_bytes(b"planted")
    (kernels_folder / "compiled").write_text("numba-0.0")
    with built(settings):
        assert list(scratch.iterdir()) == []


def test_a_data_folder_that_workers_can_read_is_said(settings: Settings) -> None:
    with capture_logs() as logs, built(replace(settings, models_dir=(settings.data_dir.parent,))):
        pass
    (said,) = [line for line in logs if "workers can read" in line["event"]]
    assert said["readable"] == str(settings.data_dir.parent)
    with capture_logs() as logs, built(settings):
        pass
    assert not [line for line in logs if "workers can read" in line["event"]]


def modes(folder: Path) -> dict[str, int]:
    paths = [folder, *folder.rglob("*")]
    return {str(p.relative_to(folder)): stat.S_IMODE(p.lstat().st_mode) for p in paths}


@pytest.mark.usefixtures("wide_umask")
async def test_data_folder_is_its_owners_alone(settings: Settings) -> None:
    with built(settings) as (_, parts, _options):
        digest = hashlib.sha256(b"sound").hexdigest()
        await parts.blobs.save(arriving([b"sound"]), size=5, limit=5, sha256=digest)
        found = modes(settings.data_dir)
        assert {"node.sqlite", "node.sqlite-wal", "node.sqlite-shm", f"blobs/{digest}"} <= {*found}
        wide = {path: oct(mode) for path, mode in found.items() if mode & 0o077}
        assert wide == {}


@pytest.mark.usefixtures("wide_umask")
def test_a_data_folder_that_was_open_is_closed_and_said(settings: Settings) -> None:
    """The journal has the salts of votes that are not revealed yet."""
    with built(settings):
        pass
    for path in (settings.data_dir, *settings.data_dir.rglob("*")):
        path.chmod(0o777 if path.is_dir() else 0o666)
    for suffix in ("-wal", "-shm"):
        (settings.data_dir / f"node.sqlite{suffix}").touch(mode=0o666)
    with capture_logs() as logs, built(settings):
        assert not any(mode & 0o077 for mode in modes(settings.data_dir).values())
    closed = {line["path"]: line["mode"] for line in logs if "open to other" in line["event"]}
    assert closed[str(settings.data_dir)] == "0777"
    assert closed[str(settings.data_dir / "node.sqlite")] == "0666"


@pytest.fixture
def wide_umask() -> Iterator[None]:
    """A user whose new files everybody may read and write."""
    before = os.umask(0)
    yield
    os.umask(before)


def test_only_models_that_are_on_disk_are_announced(settings: Settings) -> None:
    document = fixtures.network_document()
    (listed,) = document["models"]
    document["models"] = [listed, {**listed, "id": "org/there"}, {**listed, "id": "org/absent"}]
    settings.network.write_bytes(canonical(document))
    (settings.models_dir[0] / "org" / "there").mkdir(parents=True)
    with built(settings) as (_, _parts, options):
        assert options.models == (EMBEDDED, "org/there")


def _missing(path: Path) -> None:
    path.unlink()


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _garbage(path: Path) -> None:
    path.write_bytes(b"\xff not json")


def _wrong(path: Path) -> None:
    path.write_bytes(canonical({**fixtures.network_document(), "version": 1}))


def _unlisted(path: Path) -> None:
    document = fixtures.network_document()
    document["roster"][2]["classes"] = ["gpu"]
    path.write_bytes(canonical(document))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_missing, "No such file"),
        (_folder, "Is a directory"),
        (_garbage, "not UTF-8"),
        (_wrong, "version"),
        (_unlisted, r"roster\[2\].classes"),
    ],
)
def test_an_unusable_network_document_is_explained(
    settings: Settings, spoil: Callable[[Path], None], words: str
) -> None:
    spoil(settings.network)
    with pytest.raises(UnusableNetwork, match=words) as unusable:
        build(settings, fixtures.key(0))
    assert str(settings.network) in str(unusable.value)
    assert not settings.data_dir.exists(), "nothing is made for a network that cannot be used"


def test_a_valid_network_document_is_read(settings: Settings) -> None:
    assert read_network(settings.network).id == fixtures.network().id


def test_a_data_folder_of_another_network_is_refused(settings: Settings, tmp_path: Path) -> None:
    with built(settings):
        pass
    other_network = tmp_path / "other.json"
    other_network.write_bytes(canonical(fixtures.network_document(3)))
    with pytest.raises(UnusableDatabase, match="belongs to network"):
        build(replace(settings, network=other_network), fixtures.key(0))


def test_a_data_folder_that_cannot_be_created_raises_oserror(settings: Settings) -> None:
    with pytest.raises(OSError, match="Not a directory"):
        build(replace(settings, data_dir=settings.network / "node"), fixtures.key(0))


def test_the_database_belongs_to_the_network(settings: Settings) -> None:
    with built(settings):
        pass
    open_database(settings.data_dir / "node.sqlite", fixtures.network().id).close()
