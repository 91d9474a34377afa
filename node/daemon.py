"""One node: its coordinator, executor, store and transport, moving together.

Everything runs on one asyncio loop; nothing here decides anything about agreement.
"""

import asyncio
import contextlib
import random
import sqlite3
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import structlog

from executor.job import Execution
from node.admission.request_limits import RequestLimiter
from node.admission.task_policy import TaskPolicy
from node.clock import Clock
from node.config.limits import Limits
from node.config.settings import Settings
from node.consensus.commands import Action, Notify, Publish, Run, Stop
from node.consensus.coordinator import Coordinator
from node.errors import Busy
from node.execution.inputs import InputFetcher
from node.execution.queue import ExecutionQueue, Executor
from node.rpc import codec as rpc_codec
from node.rpc.server import RequestHandler
from node.storage.blobs import BlobStore
from node.storage.errors import BlobRefused
from node.storage.journal import Journal
from node.storage.ledger import Ledger
from node.sync.blob_relay import BlobRelay
from node.sync.dialer import keep_connected
from node.sync.feed_sync import FeedSync
from node.transport.interface import Stream, Transport, ValidationResult
from node.version import AGENT
from protocol.consensus.conduct import score_floor
from protocol.errors import Rejected
from protocol.manifest import blobs_of
from protocol.wire.encoding import Document
from protocol.wire.messages import Abstention, Message, Task

log = structlog.get_logger("node")

WEIGH_SECONDS = 60.0  # between counts of all peers' votes: 50 ms after 100,000 tasks
EXPIRY_SECONDS = 3600.0  # between looks for blobs that are over their time
COUNTS_SECONDS = 60.0  # between log lines on limits, which come only when a limit was met


@dataclass(frozen=True, slots=True)
class Options:
    """How this node behaves, apart from what the network document says."""

    peers: tuple[str, ...] = ()  # multiaddrs to stay connected with
    feed_seconds: float = Settings.feed_seconds
    submitters: frozenset[str] = frozenset()  # requesters served; none named means anyone
    requester_tasks: int = (
        Settings.requester_tasks
    )  # of one requester in an hour; 0 means any number
    models: tuple[str, ...] = ()  # the listed models found on disk
    limits: Limits = field(default_factory=Limits)
    blob_seconds: float | None = None  # that blobs are kept; None is for ever


@dataclass(frozen=True, slots=True)
class Parts:
    """What a node is built from; `app` has the real ones, tests and simulation their twins."""

    coordinator: Coordinator
    journal: Journal
    ledger: Ledger
    blobs: BlobStore
    transport: Transport
    executor: Executor
    clock: Clock
    rng: random.Random
    counts: Counter[str] = field(default_factory=Counter)  # how often a limit was met
    score_floors: dict[str, float] = field(
        default_factory=dict
    )  # of peers, by what they have voted


class Node:
    """A running node: the transport's listener and the executions' sink."""

    def __init__(self, parts: Parts, options: Options) -> None:
        self._parts, self._options = parts, options
        self._coordinator, self._transport = parts.coordinator, parts.transport
        self._topics = topics(parts.coordinator.network.id)
        inputs = InputFetcher(parts.transport, parts.blobs, parts.coordinator.network)
        self._executions = ExecutionQueue(
            parts.coordinator.network,
            parts.executor,
            self,
            parts.clock,
            options.limits.max_queued_tasks,
            inputs.fetch,
            parts.counts,
        )
        now = parts.clock.now
        self._task_policy = TaskPolicy(options.submitters, options.requester_tasks, now)
        roster = parts.coordinator.network.roster
        request_limiter = RequestLimiter(
            self._task_policy, options.limits, roster, now, parts.counts
        )
        self._request_limiter = request_limiter
        self._request_handler = RequestHandler(
            self, parts.coordinator, parts.journal, parts.blobs, request_limiter
        )
        self._feeds = FeedSync(
            parts.transport,
            parts.coordinator,
            parts.journal,
            parts.ledger,
            options.feed_seconds,
            self.act,
            self._source_of,
        )
        most = parts.coordinator.network.parameters.max_output_bytes
        self._relay = BlobRelay(
            parts.coordinator.me, parts.transport, parts.ledger, parts.blobs, most
        )
        self._outbox: asyncio.Queue[Message] = asyncio.Queue()
        self._timetable = asyncio.Event()
        self._progress: dict[str, float] = {}
        self._changes: dict[str, asyncio.Event] = {}
        self.started = asyncio.Event()

    # Life

    async def run(self) -> None:
        """Run until cancelled; whatever ends it otherwise is a fault and is raised."""
        protocols = [rpc_codec.protocol_id(name) for name in rpc_codec.REQUESTS]
        self.act(self._coordinator.open())
        await self._transport.start(self, self._topics, protocols)
        log.info("listening", peer=self._transport.peer, addresses=list(self._transport.addresses))
        self.started.set()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._executions.work())
                group.create_task(self._publish())
                group.create_task(self._tick())
                group.create_task(self._tell_counts())
                group.create_task(self._expire())
                group.create_task(self._weigh())
                group.create_task(
                    keep_connected(self._transport, self._options.peers, self._parts.rng)
                )
        finally:
            log.info("limits", **self.counts)
            self._feeds.close()
            await self._transport.stop()
            await self._parts.executor.close()

    def act(self, actions: Sequence[Action]) -> None:
        """Carry out what the coordinator asked for; its journal is written already."""
        self._carry_out(actions)
        self._timetable.set()  # a vote may move the next due time and ask for nothing yet

    def _carry_out(self, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case Publish(message):
                    self._outbox.put_nowait(message)
                case Run(task):
                    self._execute(action, task)
                case Stop(task):
                    self._executions.remove(task)
                    self._progress.pop(task, None)
                case Notify(task):
                    self._changed(task)

    def _execute(self, run: Run, task: Task) -> None:
        """Queue a task, or abstain for a requester whom others may serve."""
        unserved = self._task_policy.check(task)
        if unserved is None:
            self._executions.add(run)
            return
        self._parts.counts["tasks-unserved"] += 1
        log.info("task not served", task=task.id, reason=unserved.reason, detail=str(unserved))
        self.failed(task, Abstention.BUSY)

    async def _publish(self) -> None:
        tasks, votes = self._topics
        while True:
            message = await self._outbox.get()
            topic = tasks if isinstance(message, Task) else votes
            await self._transport.publish(topic, message.envelope.encode())

    async def _tick(self) -> None:
        while True:
            self._timetable.clear()
            self._carry_out(self._coordinator.tick())
            due = self._coordinator.wake_at()
            pause = None if due is None else max(0.0, due - self._parts.clock.now())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):  # 3.11's wait_for may swallow a cancellation
                    await self._timetable.wait()

    async def _weigh(self) -> None:
        """Tell the transport, now and every minute, whom what it has voted makes suspect."""
        while True:
            try:
                found = self._parts.ledger.peer_records()
                self._parts.score_floors.update(
                    {peer: score_floor(each) for peer, each in found.items()}
                )
            except sqlite3.Error as error:
                log.error("the store failed", error=str(error))
            await asyncio.sleep(WEIGH_SECONDS)

    async def _expire(self) -> None:
        """Remove the blobs that are over their time, now and every hour."""
        while self._options.blob_seconds is not None:
            before = self._parts.clock.now() - self._options.blob_seconds
            try:
                if count := await asyncio.to_thread(self._parts.blobs.expire, before):
                    log.info("blobs expired", count=count)
            except OSError as error:
                log.error("blobs not expired", error=str(error))
            await asyncio.sleep(EXPIRY_SECONDS)

    async def _tell_counts(self) -> None:
        told: Mapping[str, int] = {}
        while True:
            await asyncio.sleep(COUNTS_SECONDS)
            if self.counts != told:
                told = self.counts
                log.info("limits", **told)

    @property
    def counts(self) -> Mapping[str, int]:
        """How often each limit was met since the start, by its name."""
        return dict(self._parts.counts)

    def _guarded(self, step: Callable[[], list[Action]]) -> None:
        """Take a step of the coordinator; a store that fails costs the step, not the node."""
        try:
            self.act(step())
        except sqlite3.Error as error:
            log.error("the store failed", error=str(error))
            self._timetable.set()  # the coordinator tries the step's task again soon

    # Listener

    def validate(self, topic: str, payload: bytes) -> ValidationResult:
        """Judge a gossip message, on the transport's thread."""
        return self._coordinator.validate(payload, tasks=topic == self._topics[0])

    def on_gossip(self, peer: str, topic: str, payload: bytes) -> None:
        """Take a gossip message that was judged acceptable."""
        try:
            self._guarded(lambda: self._coordinator.receive(payload, self._source_of(peer)))
        except (Rejected, Busy) as refused:  # acceptable when judged, overtaken since
            log.debug("gossip not taken", peer=peer, reason=str(refused))

    def _source_of(self, peer: str) -> str:
        """Return who is charged for the tasks that a connected peer passes on."""
        return self._request_limiter.slot_key(peer, self._transport.rate_limit_key(peer))

    async def serve(self, protocol: str, stream: Stream) -> None:
        """Answer a request."""
        await self._request_handler.serve(protocol, stream)

    def connected(self, peer: str) -> None:
        """Follow the peer's feed."""
        log.info("connected", peer=peer)
        self._feeds.follow(peer)

    def disconnected(self, peer: str) -> None:
        """Stop following."""
        log.info("disconnected", peer=peer)
        self._feeds.leave(peer)

    # What serving needs

    def greeting(self) -> Document:
        """Return the answer to a hello."""
        network = self._coordinator.network
        member = network.roster.get(self._coordinator.me)
        readiness = self._executions.readiness
        return {
            "network": network.id,
            "agent": AGENT,
            "class": None if member is None else member.compute_class,
            "ready": readiness.ok,
            "reasons": [reason[:256] for reason in readiness.reasons],
            "models": list(self._options.models),
        }

    def submitted(self, payload: bytes, source: str = "") -> Task:
        """Take a task from a requester. Raises Rejected or Busy."""
        task, actions = self._coordinator.submit(payload, source)
        self.act(actions)
        return task

    async def obtain(self, sha256: str) -> bool:
        """Return whether a blob is here, after fetching it if a certificate names it."""
        return await self._relay.ensure_local(sha256)

    def progress(self, task: str) -> float:
        """Return how far this node's execution of a task is."""
        known = self._progress.get(task)
        if known is not None:
            return known
        return 0.0 if self._parts.journal.outcome(task) is None else 1.0

    def changes(self, task: str) -> asyncio.Event:
        """Return an event for the task's next change."""
        return self._changes.setdefault(task, asyncio.Event())

    def _changed(self, task: str) -> None:
        event = self._changes.pop(task, None)
        if event is not None:
            event.set()

    # Sink of the executions

    async def executed(self, task: Task, execution: Execution) -> None:
        """Keep the files, then tell the coordinator: whoever votes for a blob can serve it."""
        outcome, trace = cast("Document", execution.outcome), cast("Document", execution.trace)
        blobs = blobs_of(outcome)
        most = self._coordinator.network.parameters.max_output_bytes
        if sum(blob.size for blob in blobs) > most:  # so it is for every member of the class
            log.warning("output over the network's limit", task=task.id, limit=most)
            outcome, blobs = {"error": "generation-rejected"}, ()
            detail = f"the outputs have more bytes than the network allows, {most}"
            # Within its limit: the place of the tokens is needed.
            trace = {**trace, "tokens": [], "steps": [], "detail": detail}
            for file in execution.files:
                file.unlink(missing_ok=True)
        try:
            for file, blob in zip(execution.files, blobs, strict=False):
                await asyncio.to_thread(self._parts.blobs.import_file, file, blob.sha256)
        # A full disk, or a worker that lied about a file: no vote for what this node cannot serve.
        except (OSError, BlobRefused) as error:
            log.error("output not kept", task=task.id, error=str(error))
            self.failed(task, Abstention.WORKER_DIED)
            return
        self._progress.pop(task.id, None)
        self._guarded(lambda: self._coordinator.executed(task.id, outcome, trace))

    def failed(self, task: Task, reason: Abstention) -> None:
        """Abstain."""
        self._progress.pop(task.id, None)
        self._guarded(lambda: self._coordinator.failed(task.id, reason))

    def progressed(self, task: Task, fraction: float) -> None:
        """Note progress; watchers hear of whole percents."""
        percent = round(fraction, 2)
        if self._progress.get(task.id) != percent:
            self._progress[task.id] = percent
            self._changed(task.id)


def topics(network: str) -> tuple[str, str]:
    """Return the gossip topics of a network: for tasks, for votes (specification 7)."""
    return f"/helium/1/{network}/tasks", f"/helium/1/{network}/votes"
