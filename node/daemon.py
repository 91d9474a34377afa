"""One node: the services of a member or a listener, in one asyncio task group.

Nothing here decides anything about agreement: `node.consensus` does.
"""

import asyncio
import contextlib
import random
import sqlite3
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from executor.determinism.compute_class import WorkerKind
from node.admission.request_limits import RequestLimiter
from node.admission.task_policy import TaskPolicy
from node.clock import Clock
from node.config.limits import Limits
from node.config.settings import Settings
from node.consensus.coordinator import Coordinator
from node.consensus.task_events import TaskEvents
from node.execution.driver import Driver, Outbox
from node.execution.inputs import InputFetcher
from node.execution.queue import ExecutionQueue, Executor
from node.execution.queues import ExecutionQueues
from node.execution.results import ResultRecorder
from node.execution.staging import InputStaging
from node.log import get_logger
from node.rpc import codec as rpc_codec
from node.rpc.hello import INSTANCE_BYTES, Greeter, ServingStatus
from node.rpc.server import RequestHandler
from node.storage.blobs import BlobStore
from node.storage.journal import Journal
from node.storage.ledger import Ledger
from node.storage.usage import USAGE_SECONDS, Usage, write_usage
from node.sync.blob_relay import BlobRelay
from node.sync.dialer import keep_connected
from node.sync.feeds.feed_sync import FeedSync
from node.sync.feeds.selection import Selection
from node.sync.handshakes import Handshakes
from node.sync.vote_recovery import VoteRecovery
from node.transport.interface import (
    BYTES_IN,
    BYTES_OUT,
    MESSAGES_REPEATED,
    Stream,
    Transport,
    ValidationResult,
    topics,
)
from protocol.consensus.conduct import score_floor
from protocol.constants import KEEPING_SECONDS
from protocol.network import Network
from protocol.wire.messages import Message

log = get_logger("node")

# Between updates of the score floors. Counting 100,000 tasks' votes takes 50 ms.
SCORE_SECONDS = 60.0
# Between checks for expired blobs, and for envelopes to drop. Their ages are set in days.
EXPIRY_SECONDS = 3600.0
# Tasks whose envelopes are dropped in one step, which takes about 10 ms, and seconds between steps:
# a backlog of a year at 1,000 tasks a day is dropped within hours, and nothing waits for it.
DROPPED_TASKS = 20
DROP_SECONDS = 1.0
# Between checks of the disk. One that is almost full must stop new executions soon.
DISK_SECONDS = 5.0
# Between log lines on limits. A line is written only if a limit was met since the last one.
COUNTS_SECONDS = 60.0
# Between log lines on what the node has cost since its start.
USAGE_LOG_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Options:
    """How this node behaves, apart from what the network document says."""

    peers: tuple[str, ...] = ()  # multiaddrs to stay connected with
    feed_seconds: float = Settings.feed_seconds  # before a feed is read again that failed
    submitters: frozenset[str] = frozenset()  # requesters served; empty means anyone
    requester_tasks: int = Settings.requester_tasks  # of one requester in an hour; 0: any number
    models: tuple[str, ...] = ()  # the listed models found on disk
    limits: Limits = field(default_factory=Limits)
    blob_seconds: float | None = None  # how long blobs are kept; None means forever
    # How long after its deadline a task's envelopes are kept at least; None means forever.
    retention_seconds: float | None = None
    usage_folder: Path | None = None  # where to write what the node costs; None: nowhere


@dataclass(frozen=True, slots=True)
class Parts:
    """What a node is built from: real parts by `node.app`, doubles by tests and simulation."""

    coordinator: Coordinator
    journal: Journal
    ledger: Ledger
    blobs: BlobStore
    transport: Transport
    # By compute class, in the roster's order; none outside the roster. The first one for which a
    # model is on disk starts with the node, the others with their first task.
    executors: Mapping[str, Executor]
    clock: Clock
    rng: random.Random
    counts: Counter[str] = field(default_factory=Counter)  # how often each limit was met
    # Points by peer that never decay, for what it voted. The transport reads them.
    score_floors: dict[str, float] = field(default_factory=dict)
    # What the transport counts (`node.transport.interface`), where it does.
    traffic: Counter[str] = field(default_factory=Counter)


class Node:
    """A running node, and its transport's listener."""

    def __init__(self, parts: Parts, options: Options) -> None:
        self._parts, self._options = parts, options
        coordinator, transport = parts.coordinator, parts.transport
        self._coordinator, self._transport = coordinator, transport
        network, now = coordinator.network, parts.clock.now
        max_output_bytes = network.parameters.max_output_bytes
        self._topics = topics(network.id)
        policy = TaskPolicy(options.submitters, options.requester_tasks, now)
        self._limiter = RequestLimiter(policy, options.limits, network.roster, now, parts.counts)
        self._events = TaskEvents(parts.journal)
        self._outbox = Outbox(transport, *self._topics)
        fetcher = InputFetcher(transport, parts.blobs, network, parts.journal.voters)
        max_queue = options.limits.max_queued_tasks
        models = {name: _served(network, name, options.models) for name in parts.executors}
        # The roster's order, but classes first for which a model is on disk.
        names = sorted(parts.executors, key=lambda name: not models[name])
        self._queues = ExecutionQueues(
            {
                name: ExecutionQueue(
                    network,
                    parts.executors[name],
                    parts.clock,
                    max_queue,
                    self._events.set_progress,
                    parts.counts,
                    models[name],
                    lambda: parts.journal.fault,
                    on_demand=number > 0,
                )
                for number, name in enumerate(names)
            },
            InputStaging(fetcher.fetch, max_queue, parts.counts),
        )
        self._driver = Driver(
            coordinator,
            self._outbox,
            self._queues,
            policy,
            self._events,
            parts.counts,
            parts.journal,
        )
        self._recorder = ResultRecorder(self._driver, parts.blobs, parts.journal, network)
        instance = parts.rng.randbytes(INSTANCE_BYTES).hex()
        self._greeter = Greeter(network, coordinator.me, instance, now, self._status)
        self._recovery = VoteRecovery(coordinator, self._driver.act)
        self._handshakes = Handshakes(
            transport,
            network,
            parts.clock,
            self._greeter.request,
            self._recovery.set_duplicates,
        )
        relay = BlobRelay(coordinator.me, transport, parts.ledger, parts.blobs, max_output_bytes)
        self._requests = RequestHandler(
            coordinator,
            parts.journal,
            parts.blobs,
            self._limiter,
            self._events,
            self._driver.act,
            relay.ensure_local,
            self._greeter,
            self._queues.check_deadline,
        )
        self._feeds = FeedSync(
            transport,
            coordinator,
            parts.journal,
            parts.ledger,
            options.feed_seconds,
            self._driver.act,
            self._source_of,
            self._handshakes,
            Selection(network, coordinator.me, parts.rng),
            self._recovery.feed_ended,
            self._driver.batch,
        )
        parts.journal.on_accepted.append(self._feeds.note_accepted)
        parts.journal.on_accepted.append(self._requests.feeds.wake)
        self.started = asyncio.Event()
        self._started_at = now()

    async def run(self) -> None:
        """Run until cancelled. Anything else that ends it is a fault, and is raised."""
        protocols = [rpc_codec.protocol_id(name) for name in rpc_codec.REQUESTS]
        self._driver.act(self._coordinator.open)
        await self._transport.start(self, self._topics, protocols)
        log.info("listening", peer=self._transport.peer, addresses=list(self._transport.addresses))
        self.started.set()
        services = (
            self._queues.run(self._recorder.record),
            self._outbox.run(),
            self._driver.run_timers(),
            self._recover_votes(),
            self._feeds.run(),
            self._log_counts(),
            self._report_usage(),
            self._check_disk(),
            self._expire_blobs(),
            self._drop_ended_tasks(),
            self._update_scores(),
            keep_connected(
                self._transport, self._options.peers, self._parts.rng, wants=self._feeds.wants
            ),
        )
        try:
            async with asyncio.TaskGroup() as group:
                for service in services:
                    group.create_task(service)
        finally:
            log.info("limits", **self.counts)
            log.info("usage", **self.usage().document())
            self._feeds.close()
            await self._transport.stop()
            for executor in self._parts.executors.values():
                await executor.close()

    @property
    def counts(self) -> Mapping[str, int]:
        """How often each limit was met since the start, by its name."""
        return dict(self._parts.counts)

    def usage(self) -> Usage:
        """What this run has cost so far."""
        validator, traffic = self._coordinator.validator, self._parts.traffic
        return Usage(
            self._started_at,
            self._parts.clock.now(),
            round(time.process_time(), 3),
            traffic.get(BYTES_IN),
            traffic.get(BYTES_OUT),
            validator.new,
            validator.repeated + traffic[MESSAGES_REPEATED],
        )

    # The transport's listener

    def validate(self, topic: str, payload: bytes) -> tuple[ValidationResult, Message | None]:
        """Validate a gossip message, on the transport's thread."""
        return self._coordinator.validator.validate(payload, tasks=topic == self._topics[0])

    def on_gossip(self, peer: str, message: Message) -> None:
        """Take a gossip message that was validated."""
        self._driver.receive(peer, message, self._source_of(peer))

    async def serve(self, protocol: str, stream: Stream) -> None:
        """Answer a request."""
        await self._requests.serve(protocol, stream)

    def connected(self, peer: str) -> None:
        """Follow the peer's feed, if it is chosen."""
        log.info("connected", peer=peer)
        self._feeds.connected(peer)

    def disconnected(self, peer: str) -> None:
        """Stop following the peer's feed, and waiting for what to tell it."""
        log.info("disconnected", peer=peer)
        self._feeds.disconnected(peer)
        self._requests.feeds.end(peer)

    def _status(self) -> ServingStatus:
        status = self._queues.status()
        possible = (
            self._parts.journal.fault,
            self._handshakes.clock_fault(),
            self._recovery.reason(),
        )
        faults = [fault for fault in possible if fault is not None]
        if not faults:
            return status
        return ServingStatus(dict.fromkeys(status.models, ()), (*faults, *status.reasons))

    def _source_of(self, peer: str) -> str:
        return self._limiter.slot_key(peer, self._transport.rate_limit_key(peer))

    # Services

    async def _recover_votes(self) -> None:
        """Find out what this node has signed earlier; until then it reads every member's feed."""
        await self._recovery.run()
        self._feeds.update()

    async def _update_scores(self) -> None:
        """Update the score floors of all peers from what they have voted, now and every minute."""
        while True:
            try:
                records = self._parts.ledger.peer_records()
                floors = {peer: score_floor(record) for peer, record in records.items()}
                self._parts.score_floors.update(floors)
            except sqlite3.Error as error:
                log.error("reading peer records failed", error=str(error))
            await asyncio.sleep(SCORE_SECONDS)

    async def _check_disk(self) -> None:
        """Notice a disk that is almost full, and one that has space again."""
        while True:
            self._parts.journal.check_disk()
            await asyncio.sleep(DISK_SECONDS)

    async def _expire_blobs(self) -> None:
        """Remove expired blobs, now and every hour."""
        while self._options.blob_seconds is not None:
            oldest = self._parts.clock.now() - self._options.blob_seconds
            try:
                if count := await asyncio.to_thread(self._parts.blobs.expire, oldest):
                    log.info("blobs expired", count=count)
            except OSError as error:
                log.error("blobs not expired", error=str(error))
            await asyncio.sleep(EXPIRY_SECONDS)

    async def _drop_ended_tasks(self) -> None:
        """Drop the envelopes of tasks that ended long ago, now and every hour."""
        parameters = self._coordinator.network.parameters
        # No deadline is further away when a task is accepted.
        longest = parameters.max_deadline_seconds + parameters.clock_skew_seconds
        dropped = 0
        while self._options.retention_seconds is not None:
            kept = max(self._options.retention_seconds, KEEPING_SECONDS) + longest
            count = 0
            try:
                before = self._parts.clock.now() - kept
                count = self._coordinator.drop_ended(before, DROPPED_TASKS)
            except sqlite3.Error as error:
                self._parts.journal.report(error)
            dropped += count
            if count == DROPPED_TASKS:
                await asyncio.sleep(DROP_SECONDS)
                continue
            if dropped:
                log.info("envelopes of ended tasks dropped", tasks=dropped)
                dropped = 0
            await asyncio.sleep(EXPIRY_SECONDS)

    async def _log_counts(self) -> None:
        logged: Mapping[str, int] = {}
        while True:
            await asyncio.sleep(COUNTS_SECONDS)
            if self.counts != logged:
                logged = self.counts
                log.info("limits", **logged)

    async def _report_usage(self) -> None:
        """Write what this node costs into its data folder, and now and then into the log."""
        folder, logged_at = self._options.usage_folder, self._started_at
        while True:
            usage = self.usage()
            if folder is not None:
                with contextlib.suppress(OSError):  # the next one is as good
                    write_usage(folder, usage)
            if usage.at - logged_at >= USAGE_LOG_SECONDS:
                logged_at = usage.at
                log.info("usage", **usage.document())
            await asyncio.sleep(USAGE_SECONDS)


def _served(network: Network, compute_class: str, models: Iterable[str]) -> list[str]:
    """Return the listed models, of those given, that workers of a class are for."""
    kind = WorkerKind.of(network.classes[compute_class])
    listed = [network.models[name] for name in models]
    return [model.id for model in listed if kind.serves(model.tasks, replay=model.replay)]
