"""The composition root: the only place that builds a node from its real parts."""

import os
import random
import secrets
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from executor.determinism.compute_class import WorkerKind
from executor.errors import Abstained
from executor.models.folders import SHIPPED, ModelFolders
from executor.sandbox.confine import folder_granting, readable_paths
from executor.worker.scratch import clean
from executor.worker.supervisor import WorkerSupervisor
from node.clock import SystemClock
from node.config.settings import Settings
from node.consensus.coordinator import Coordinator
from node.daemon import Node, Options, Parts
from node.execution.queue import Executor
from node.execution.worker import Worker
from node.log import get_logger
from node.storage.blobs import BlobStore
from node.storage.database import open_database
from node.storage.disk.permissions import make_private_folder
from node.storage.journal import Journal
from node.storage.ledger import Ledger
from node.storage.reader import DATABASE
from node.transport.libp2p.transport import Libp2pTransport
from protocol.errors import Rejected
from protocol.network import Network
from protocol.wire.signing import peer_of
from schemas.errors import HeliumError

log = get_logger("node")

WrapExecutor = Callable[[Executor], Executor]


class UnusableNetwork(HeliumError):
    """The network document cannot be read or is not valid; the message says why."""


def read_network(path: Path) -> Network:
    """Return the network document in a file. Raises UnusableNetwork."""
    try:
        return Network.parse(path.read_bytes())
    except OSError as error:
        raise UnusableNetwork(f"{path}: {error.strerror}") from None
    except Rejected as rejected:
        raise UnusableNetwork(f"{path}: {rejected.detail}") from None


def build(settings: Settings, key: Ed25519PrivateKey, wrap: WrapExecutor = lambda e: e) -> Node:
    """Return a node ready to run. `wrap` may wrap its executor, as the testnet's liars do.

    Raises UnusableNetwork, UnusableDatabase or OSError.
    """
    network = read_network(settings.network)
    # What this process writes is its user's alone: journal, blobs, SQLite's files.
    os.umask(0o077)
    make_private_folder(settings.data_dir)
    database = open_database(settings.data_dir / DATABASE, network.id)
    journal, ledger = Journal(database), Ledger(database)
    clock = SystemClock()
    counts: Counter[str] = Counter()
    traffic: Counter[str] = Counter()
    score_floors: dict[str, float] = {}
    limits = settings.limits
    folders = [*settings.models_dir, SHIPPED]
    if granting := folder_granting(settings.data_dir, readable_paths(folders)):
        log.error(
            "workers can read the data folder and this node's secrets: move it, or the models",
            path=str(settings.data_dir),
            readable=str(granting),
        )
    parts = Parts(
        Coordinator(
            network,
            key,
            journal,
            ledger,
            clock,
            secrets.token_bytes,
            limits.max_open_tasks,
            counts,
        ),
        journal,
        ledger,
        BlobStore(
            settings.data_dir / "blobs",
            int(settings.blob_gigabytes * 1e9),
            journal.own_outputs(),
            journal.open_task_inputs,
        ),
        Libp2pTransport(
            key.private_bytes_raw(),
            settings.listen,
            settings.announce,
            limits,
            counts,
            score_floors,
            traffic,
        ),
        {
            name: wrap(executor)
            for name, executor in _executors(settings, network, peer_of(key), folders).items()
        },
        clock,
        random.SystemRandom(),  # others must not foresee whom this node follows
        counts,
        score_floors,
        traffic,
    )
    options = Options(
        feed_seconds=settings.feed_seconds,
        peers=settings.peers,
        submitters=frozenset(settings.submitters),
        requester_tasks=settings.requester_tasks,
        models=_models_on_disk(network, folders),
        limits=limits,
        blob_seconds=settings.blob_days * 86_400,
        retention_seconds=settings.retention_days * 86_400 or None,
        usage_folder=settings.data_dir,
    )
    return Node(parts, options)


def _executors(
    settings: Settings, network: Network, me: str, folders: list[Path]
) -> dict[str, Executor]:
    """Return a worker for each class of this member; none for a node outside the roster."""
    member = network.roster.get(me)
    if member is None:
        return {}
    executors: dict[str, Executor] = {}
    for name in member.classes:
        scratch = settings.data_dir / "scratch" / name
        # The files of jobs that were running when the last process was killed.
        if removed := clean(scratch):
            log.info("removed files that an earlier process left", folder=str(scratch), n=removed)
        make_private_folder(scratch)
        runtime = network.classes[name]
        supervisor = WorkerSupervisor(
            folders, scratch, kind=WorkerKind.of(runtime), threads=settings.engine_threads
        )
        executors[name] = Worker(supervisor, runtime)
    return executors


def _models_on_disk(network: Network, folders: list[Path]) -> tuple[str, ...]:
    """Return the listed models that are on disk; their digests are checked before first use."""
    models = []
    for model in network.models.values():
        try:
            ModelFolders(folders).locate(model.id, model.revision)
        except Abstained:
            continue
        models.append(model.id)
    return tuple(models)
