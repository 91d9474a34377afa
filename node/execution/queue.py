"""Fair queue in front of the executor: one task at a time, round-robin over sources and requesters.

Requester keys cost nothing, so scheduling by requester alone would let one attacker take every
slot. A task therefore waits for its *source* first, the peer or address that sent it here
(`node.transport.interface`), and only then for its requester.

The first job of a model costs more than the others: weights are verified, and libraries compile.
So each model is warmed up before its first task, and this is no part of any task's execution: the
first model at once, others when one of their tasks waits or the node is idle. Tasks of warm models
do not wait for those of others.

The coordinator adds tasks and the executor runs them. Every task ends in exactly one outcome or
abstention, whatever happens to its job.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, TypeAlias

from executor.errors import Abstained
from executor.job import Execution, Job, ModelRef
from node.admission.lru_dict import LruDict
from node.clock import Clock
from node.log import get_logger
from protocol.network import Model, Network
from protocol.wire.messages import Abstention, Task

log = get_logger("execution")


# Seconds without a task before a further model is warmed up unasked. A warm-up cannot be
# interrupted, and would hold up the next task of a model that is warm.
IDLE_SECONDS = 20.0

# Abstentions after which the executor's worker process has ended.
_WORKER_ENDED = (Abstention.OUT_OF_MEMORY, Abstention.TIMEOUT, Abstention.WORKER_DIED)


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

    async def warm(self, model: Model) -> None:
        """Get ready for tasks of a listed model; raise `Abstained` if it cannot."""

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


@dataclass(frozen=True, slots=True)
class QueuedTask:
    """A task to execute until `until` (Unix seconds) at the latest, charged to `source`."""

    task: Task
    until: float
    source: str = ""


RecordResult: TypeAlias = Callable[[Task, Execution | Abstention], Awaitable[None]]


class ExecutionQueue:
    """The queue in front of one executor."""

    def __init__(
        self,
        network: Network,
        executor: Executor,
        clock: Clock,
        max_queue: int,
        fetch_inputs: Callable[[Task], Awaitable[tuple[Path, ...]]],
        report_progress: Callable[[str, float], None],
        counts: Counter[str],
        models: Sequence[str] = (),
    ) -> None:
        """`fetch_inputs` returns the files that a task's args name; it raises `Abstained`.

        `report_progress` takes the id of the running task and its progress, 0 to 1. `models` are
        the ids of the models to warm up: the listed ones that are on disk.
        """
        self._network, self._executor, self._clock = network, executor, clock
        self._fetch_inputs, self._report_progress = fetch_inputs, report_progress
        self._max_queue, self._counts = max_queue, counts
        self._waiting: dict[str, QueuedTask] = {}
        self._turn = 0
        self._last_turns: LruDict[FairnessKey, int] = LruDict()  # kept while any task waits
        self._arrived = asyncio.Event()
        self._running: tuple[str, asyncio.Task[None]] | None = None
        self._models = tuple(models)
        self._cold = list(models)
        self._unusable: set[str] = set()  # models that could not be warmed up
        self.readiness = Readiness(False, ("starting: the executor has not tested itself yet",))

    def add(self, queued: QueuedTask) -> Task | None:
        """Queue a task, and return the one that is evicted if the queue is over its limit.

        A task that is queued or running already stays as it is.
        """
        task = queued.task.id
        if task in self._waiting or (self._running and self._running[0] == task):
            return None
        self._waiting[task] = queued
        for key in _fairness_keys(queued):
            # A new key starts at the end of the round. At turn 0 it would overtake all others, and
            # an attacker could make a new key for each task.
            if key not in self._last_turns:
                self._take_turn(key)
        self._arrived.set()
        if len(self._waiting) <= self._max_queue:
            return None
        evicted = self._eviction_candidate()
        del self._waiting[evicted.id]
        self._counts["tasks-evicted"] += 1
        return evicted

    def _eviction_candidate(self) -> Task:
        """Return the task to drop when the queue is full, so that a flood evicts its own tasks.

        It is the newest task of the source with the most queued tasks. Within that source, the
        requester with the most queued tasks loses its newest one.
        """
        waiting = self._waiting.values()
        lengths = Counter(key for queued in waiting for key in _fairness_keys(queued))
        # Of equal ones, `max` returns the first.
        newest_first = reversed(waiting)
        return max(newest_first, key=lambda q: [lengths[key] for key in _fairness_keys(q)]).task

    @property
    def warm_models(self) -> tuple[str, ...]:
        """The ids of the models for which a task would begin at once."""
        if not self.readiness.ok:
            return ()
        return tuple(m for m in self._models if m not in self._cold and m not in self._unusable)

    def why_not_ready(self) -> tuple[str, ...]:
        """Return why no task would begin now; () if a task of some model would."""
        if self.warm_models or not self.readiness.ok:
            return self.readiness.reasons
        if self._cold:
            return (f"warming up: {', '.join(self._cold)}",)
        if self._unusable:
            return (f"unusable: {', '.join(sorted(self._unusable))}; the log says why",)
        return ("no listed model is on disk",)

    def _next(self) -> QueuedTask | None:
        """Remove and return the first task whose source and requester have both waited longest.

        None if all waiting tasks are of models that are cold.
        """
        startable = [q for q in self._waiting.values() if q.task.model not in self._cold]
        if not startable:
            return None
        queued = min(startable, key=self._last_turn)
        del self._waiting[queued.task.id]
        for key in _fairness_keys(queued):
            self._take_turn(key)
        return queued

    def _last_turn(self, queued: QueuedTask) -> tuple[int, int]:
        """Return the later one of the last turns of a task's source and requester, as a sort key.

        With the later one, neither a new requester key for each task nor many nodes that forward
        the tasks of one requester gain turns.
        """
        source, requester = (self._last_turns.get(key, 0) for key in _fairness_keys(queued))
        return max(source, requester), requester

    def _take_turn(self, key: FairnessKey) -> None:
        self._turn += 1
        self._last_turns[key] = self._turn

    def remove_waiting(self, task: str) -> bool:
        """Forget a task that has not begun; return whether it was waiting."""
        return self._waiting.pop(task, None) is not None

    def remove(self, task: str) -> None:
        """Forget a task, stopping it if it runs."""
        self.remove_waiting(task)
        if self._running and self._running[0] == task:
            self._running[1].cancel()

    async def run(self, record: RecordResult) -> None:
        """Start the executor, then execute what is queued, forever; `record` takes each result."""
        self.readiness = await self._executor.start()
        log.info("executor", ready=self.readiness.ok, reasons=list(self.readiness.reasons))
        if not self.readiness.ok:
            self._cold.clear()  # tasks abstain at once
        while True:
            queued = self._next()
            if queued is not None:
                await self._run_one(queued, record)
            elif self._cold and (self._waiting or not self.warm_models):
                await self._warm_one()
            else:
                await self._idle()

    async def _idle(self) -> None:
        """Wait for a task; warm up another model if none comes for a while."""
        self._last_turns.clear()
        self._arrived.clear()
        pause = IDLE_SECONDS if self._cold else None
        try:
            async with asyncio.timeout(pause):
                await self._arrived.wait()
        except TimeoutError:
            await self._warm_one()

    async def _warm_one(self) -> None:
        """Warm up the model of a waiting task, or else the first one that is cold."""
        waiting = {queued.task.model for queued in self._waiting.values()}
        name = next((name for name in self._cold if name in waiting), self._cold[0])
        log.info("warming up", model=name)
        try:
            await self._executor.warm(self._network.models[name])
            self._unusable.discard(name)
            log.info("model is warm", model=name)
        except Abstained as abstained:
            # Its tasks are tried nevertheless: each abstains for a reason of its own.
            self._unusable.add(name)
            log.error("warm-up failed", model=name, reason=abstained.reason, detail=str(abstained))
        if name in self._cold:
            self._cold.remove(name)

    def _cool_down(self) -> None:
        """Note that the worker process has ended, and with it all that was warm."""
        self._cold = [name for name in self._models if name not in self._unusable]

    async def _run_one(self, queued: QueuedTask, record: RecordResult) -> None:
        # An asyncio task of its own, so that `remove` can cancel a job and the queue goes on.
        running = asyncio.create_task(self._execute(queued, record))
        self._running = (queued.task.id, running)
        try:
            # Not `await running`, which would raise the cancellation of a removed job here.
            await asyncio.wait([running])
        finally:
            self._running = None
            if not running.done():
                running.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await running
        if running.cancelled():  # its worker was killed
            self._cool_down()
        else:
            running.result()  # a fault of our own ends the daemon, with its traceback

    async def _execute(self, queued: QueuedTask, record: RecordResult) -> None:
        task = queued.task
        result: Execution | Abstention
        try:
            result = await self._run_job(queued)
        except Abstained as abstained:
            log.warning("abstained", task=task.id, reason=abstained.reason, detail=str(abstained))
            result = abstained.reason
            if result in _WORKER_ENDED:
                self._cool_down()
        await record(task, result)

    async def _run_job(self, queued: QueuedTask) -> Execution:
        # Specification 3: this machine is not in its class, or its bits cannot be trusted.
        if not self.readiness.ok:
            raise Abstained(Abstention.BUSY, "; ".join(self.readiness.reasons))
        task, model = queued.task, self._network.models[queued.task.model]
        inputs = await self._fetch_inputs(task)
        # After the inputs: waiting for them is part of the same time.
        seconds = queued.until - self._clock.now()
        if seconds <= 0:
            raise Abstained(
                Abstention.TIMEOUT, "the task waited in the queue until its time was over"
            )
        job = Job(task.id, task.kind, task.args, model_ref(model), inputs)
        return await self._executor.run(job, seconds, partial(self._report_progress, task.id))


def model_ref(model: Model) -> ModelRef:
    """Return how a job names a listed model."""
    return ModelRef(model.id, model.revision, model.digest, model.limits)


def _fairness_keys(queued: QueuedTask) -> tuple[Source, Requester]:
    return Source(queued.source), Requester(queued.task.envelope.signer)
