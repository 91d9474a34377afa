"""Calls the coordinator and carries out its effects: gossip, execution, timers, task events."""

import asyncio
import contextlib
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial

from node.admission.task_policy import TaskPolicy
from node.consensus.coordinator import Coordinator, Step
from node.consensus.task_events import TaskEvents
from node.errors import Busy
from node.execution.fair_queue import QueuedTask
from node.execution.queues import ExecutionQueues
from node.log import get_logger
from node.storage.journal import Journal
from node.transport.interface import Transport
from protocol.consensus.effects import (
    Effect,
    Execute,
    Publish,
    StateChanged,
    StopExecution,
    Withdrawn,
)
from protocol.errors import Rejected
from protocol.wire.encoding import Document
from protocol.wire.messages import Abstention, Message, Task

log = get_logger("node")


class Outbox:
    """Messages to gossip, in order. The journal holds them already."""

    def __init__(self, transport: Transport, tasks_topic: str, votes_topic: str) -> None:
        self._transport = transport
        self._tasks_topic, self._votes_topic = tasks_topic, votes_topic
        self._messages: asyncio.Queue[Message] = asyncio.Queue()

    def __len__(self) -> int:
        """Return how many messages wait."""
        return self._messages.qsize()

    def put(self, message: Message) -> None:
        """Queue a message."""
        self._messages.put_nowait(message)

    async def run(self) -> None:
        """Publish what is queued, forever."""
        while True:
            message = await self._messages.get()
            topic = self._tasks_topic if isinstance(message, Task) else self._votes_topic
            await self._transport.publish(topic, message.envelope.encode())


class Driver:
    """Drives one coordinator on the asyncio loop."""

    def __init__(
        self,
        coordinator: Coordinator,
        outbox: Outbox,
        queues: ExecutionQueues,
        task_policy: TaskPolicy,
        events: TaskEvents,
        counts: Counter[str],
        journal: Journal,
    ) -> None:
        self._coordinator, self._outbox, self._queues = coordinator, outbox, queues
        self._journal = journal
        self._task_policy, self._events, self._counts = task_policy, events, counts
        self._due_changed = asyncio.Event()
        # Effects of the steps in the running batch, and gossip for the next one.
        self._deferred: list[Effect] | None = None
        self._received: list[tuple[str, Message, str]] = []

    def act(self, step: Step) -> None:
        """Run a step of the coordinator and carry out its effects. Raises what the step raises.

        Inside a batch they are carried out when it has ended.
        """
        try:
            effects = step()
            if self._deferred is None:
                self._carry_out(effects)
            else:
                self._deferred += effects
        finally:
            # A vote without an effect may bring the next timer forward. A step whose write fails
            # leaves a task to be rebuilt soon.
            self._due_changed.set()

    @contextlib.contextmanager
    def batch(self) -> Iterator[None]:
        """Journal the steps of the block together, then carry out their effects.

        Nothing may be awaited in it. If the journal fails, none of the steps is made.
        """
        deferred: list[Effect] = []
        self._deferred = deferred
        try:
            with self._coordinator.batch():
                yield
        finally:
            self._deferred = None
        self._carry_out(deferred)

    def receive(self, peer: str, message: Message, source: str) -> None:
        """Take a gossiped message that the validator accepted, with others that come by then."""
        if not self._received:
            asyncio.get_running_loop().call_soon(self._take_received)
        self._received.append((peer, message, source))

    def _take_received(self) -> None:
        received, self._received = self._received, []
        # While a batch is written to the disk, the next one comes in: the more there is to do, the
        # less each message costs. What a failing disk takes from it comes again by a feed.
        with self._store_failures_logged(), self.batch():
            for peer, message, source in received:
                self._take(peer, message, source)

    def _take(self, peer: str, message: Message, source: str) -> None:
        try:
            self.act(partial(self._coordinator.receive, message, source))
        except (Rejected, Busy) as error:  # what holds has changed since the validation
            log.debug("gossip not accepted", peer=peer, reason=str(error))

    def executed(self, task: str, outcome: Document, trace: Document) -> None:
        """Take the outcome of this node's execution of a task."""
        self._events.clear_progress(task)
        with self._store_failures_logged():
            self.act(partial(self._coordinator.executed, task, outcome, trace))

    def failed(self, task: str, reason: Abstention) -> None:
        """Abstain from a task."""
        self._events.clear_progress(task)
        with self._store_failures_logged():
            self.act(partial(self._coordinator.failed, task, reason))

    async def run_timers(self) -> None:
        """Call the coordinator whenever something is due, forever."""
        while True:
            # Before the tick, whose effects may make something due earlier.
            self._due_changed.clear()
            self._carry_out(self._coordinator.tick())
            due = self._coordinator.wake_at()
            pause = None if due is None else max(0.0, due - self._coordinator.clock.now())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):  # 3.11's wait_for may swallow a cancellation
                    await self._due_changed.wait()

    def _carry_out(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            match effect:
                case Publish(message):
                    self._outbox.put(message)
                case Execute(task, until):
                    self._execute(task, until)
                case StopExecution(task_id):
                    self._queues.remove(task_id)
                    self._events.clear_progress(task_id)
                case Withdrawn(task_id):
                    if self._queues.remove_waiting(task_id):
                        self.failed(task_id, Abstention.WITHDRAWN)
                case StateChanged(task_id):
                    self._events.set_changed(task_id)
                case _:  # certificates and evidence are in the ledger
                    pass

    def _execute(self, task: Task, until: float) -> None:
        """Queue a task, or abstain: the disk is full, or others serve its requester."""
        if self._journal.fault is not None:
            log.info("task not executed", task=task.id, reason=self._journal.fault)
            self.failed(task.id, Abstention.NO_SPACE)
            return
        not_served = self._task_policy.check(task)
        if not_served is not None:
            self._counts["tasks-unserved"] += 1
            log.info(
                "task not served", task=task.id, reason=not_served.reason, detail=str(not_served)
            )
            self.failed(task.id, Abstention.BUSY)
            return
        source = self._coordinator.source(task.id)
        evicted = self._queues.add(QueuedTask(task, until, source))
        if evicted is not None:
            self.failed(evicted.id, Abstention.BUSY)

    @contextlib.contextmanager
    def _store_failures_logged(self) -> Iterator[None]:
        """Let a failing database cost a step, not the node."""
        try:
            yield
        except sqlite3.Error as error:
            self._journal.report(error)
