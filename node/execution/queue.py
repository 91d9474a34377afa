"""Fair queue in front of the executor: one task at a time, round-robin over sources and requesters.

Requester keys cost nothing, so scheduling by requester alone would let one attacker take every
slot. A task therefore waits for its *source* first, the peer or address that sent it here
(`node.transport.interface`), and only then for its requester.

The coordinator adds tasks and the executor runs them. Every task ends in exactly one outcome or
abstention, whatever happens to its job.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

import structlog

from executor.errors import Abstained
from executor.job import Execution, Job, ModelRef
from node.admission.lru_dict import LruDict
from node.clock import Clock
from node.consensus.commands import Run
from protocol.network import Network
from protocol.wire.messages import Abstention, Task

log = structlog.get_logger("execution")


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether an executor may vote for this node's class, and if not, why."""

    ok: bool
    reasons: tuple[str, ...] = ()


class Executor(Protocol):
    """Runs one job at a time: `node.execution.worker.Worker`, or a twin in tests."""

    async def start(self) -> Readiness:
        """Get ready and test itself."""

    async def run(self, job: Job, seconds: float, progress: Callable[[float], None]) -> Execution:
        """Run a job for at most `seconds`; raise `Abstained`. Cancelling it stops the job."""

    async def close(self) -> None:
        """Stop for good."""


@dataclass(frozen=True, slots=True)
class Source:
    """Fairness key: the peer or address that is charged for a task."""

    key: str


@dataclass(frozen=True, slots=True)
class Requester:
    """Fairness key: the peer id that signed a task."""

    peer: str


FairnessKey: TypeAlias = Source | Requester


class Sink(Protocol):
    """What becomes of an execution; implemented by the daemon."""

    async def executed(self, task: Task, execution: Execution) -> None:
        """Take an outcome and its files."""

    def failed(self, task: Task, reason: Abstention) -> None:
        """Take an abstention."""

    def progressed(self, task: Task, fraction: float) -> None:
        """Take the progress of the running job, 0 to 1."""


class ExecutionQueue:
    """The queue in front of one executor."""

    def __init__(
        self,
        network: Network,
        executor: Executor,
        sink: Sink,
        clock: Clock,
        max_queue: int,
        inputs: Callable[[Task], Awaitable[tuple[Path, ...]]],
        counts: Counter[str],
    ) -> None:
        """`inputs` fetches the files that a task's args name; it raises `Abstained`."""
        self._network, self._executor, self._sink, self._clock = network, executor, sink, clock
        self._inputs, self._max_queue, self._counts = inputs, max_queue, counts
        self._waiting: dict[str, Run] = {}
        self._turn = 0
        self._last_turns: LruDict[FairnessKey, int] = LruDict()  # kept while any task waits
        self._arrived = asyncio.Event()
        self._running: tuple[str, asyncio.Task[None]] | None = None
        self.readiness = Readiness(False, ("starting: the executor has not tested itself yet",))

    def add(self, run: Run) -> None:
        """Queue a task; one that is queued or running already stays as it is."""
        if run.task.id in self._waiting or (self._running and self._running[0] == run.task.id):
            return
        self._waiting[run.task.id] = run
        for key in _fairness_keys(run):
            # A new key starts at the end of the round. At turn 0 it would overtake all others, and
            # an attacker could make a new key for each task.
            if key not in self._last_turns:
                self._take_turn(key)
        self._arrived.set()
        if len(self._waiting) > self._max_queue:
            evicted = self._eviction_candidate()
            del self._waiting[evicted.task.id]
            self._counts["tasks-evicted"] += 1
            self._sink.failed(evicted.task, Abstention.BUSY)

    def _eviction_candidate(self) -> Run:
        """Return the task to drop when the queue is full, so that a flood evicts its own tasks.

        It is the newest task of the source with the most queued tasks. Within that source, the
        requester with the most queued tasks loses its newest one.
        """
        lengths = Counter(key for run in self._waiting.values() for key in _fairness_keys(run))
        newest_first = reversed(self._waiting.values())
        return max(newest_first, key=lambda run: [lengths[key] for key in _fairness_keys(run)])

    def _next(self) -> Run:
        """Remove and return the first task whose source and requester have both waited longest."""
        run = min(self._waiting.values(), key=self._last_turn)
        del self._waiting[run.task.id]
        for key in _fairness_keys(run):
            self._take_turn(key)
        return run

    def _last_turn(self, run: Run) -> tuple[int, int]:
        """Return the later one of the last turns of a task's source and requester, as a sort key.

        With the later one, neither a new requester key for each task nor many nodes that forward
        the tasks of one requester gain turns.
        """
        source, requester = (self._last_turns.get(key, 0) for key in _fairness_keys(run))
        return max(source, requester), requester

    def _take_turn(self, key: FairnessKey) -> None:
        self._turn += 1
        self._last_turns[key] = self._turn

    def remove(self, task: str) -> None:
        """Forget a task, stopping it if it runs."""
        self._waiting.pop(task, None)
        if self._running and self._running[0] == task:
            self._running[1].cancel()

    async def work(self) -> None:
        """Start the executor, then run what is queued, for ever."""
        self.readiness = await self._executor.start()
        log.info("executor", ready=self.readiness.ok, reasons=list(self.readiness.reasons))
        while True:
            while not self._waiting:
                self._last_turns.clear()
                self._arrived.clear()
                await self._arrived.wait()
            await self._run_one(self._next())

    async def _run_one(self, run: Run) -> None:
        running = asyncio.create_task(self._execute(run))
        self._running = (run.task.id, running)
        try:
            await asyncio.wait([running])
        finally:
            self._running = None
            if not running.done():
                running.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await running
        if not running.cancelled():
            running.result()  # a fault of our own ends the daemon, with its traceback

    async def _execute(self, run: Run) -> None:
        task = run.task
        try:
            execution = await self._run(run)
        except Abstained as abstained:
            log.warning("abstained", task=task.id, reason=abstained.reason, detail=str(abstained))
            self._sink.failed(task, abstained.reason)
        else:
            await self._sink.executed(task, execution)

    async def _run(self, run: Run) -> Execution:
        if not self.readiness.ok:  # specification 3: not in this class, or not to be trusted
            raise Abstained(Abstention.BUSY, "; ".join(self.readiness.reasons))
        task, model = run.task, self._network.models[run.task.model]
        inputs = await self._inputs(task)
        seconds = run.until - self._clock.now()
        if seconds <= 0:
            raise Abstained(Abstention.TIMEOUT, "its time was over before it was its turn")
        listed = ModelRef(model.id, model.revision, model.digest, model.limits)
        job = Job(task.id, task.kind, task.args, listed, inputs)
        return await self._executor.run(
            job, seconds, lambda fraction: self._sink.progressed(task, fraction)
        )


def _fairness_keys(run: Run) -> tuple[Source, Requester]:
    return Source(run.source), Requester(run.task.envelope.signer)
