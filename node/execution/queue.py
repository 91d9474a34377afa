"""Runs the tasks that wait for one executor, in the order of `fair_queue`.

One task runs at a time, or several of one model where the executor computes them together in less
time. When a task begins, further ones of its model join it if they wait already: in their order,
and as many sequences as the executor takes. None waits for company, and none joins later. All are
of one source, or each is of another: no source delays the task of another by more than one of its
own. A task ends as soon as it is computed; the next ones begin when all have ended. One that the
executor could not run beside the others waits again, at the head of its requester's, and then runs
alone.

The first job of a model costs more than the others: weights are verified, and libraries compile.
So each model is warmed up before its first task, and this is no part of any task's execution: the
first model at once, others when one of their tasks waits or the node is idle. An executor on demand
starts with its first task, which then waits for the start and the warm-up: both may take so long
that its attempt ends and only the next one finds the model warm. Tasks of warm models
do not wait for those of others. A start or a warm-up that fails is tried again, with back-off.

The coordinator adds tasks and the executor runs them. Every task ends in exactly one outcome or
abstention, whatever happens to its job.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeAlias

from executor.errors import Abstained, RunAlone
from executor.job import Execution, Job, ModelRef
from node.clock import Clock
from node.errors import Busy
from node.execution.cost import CostEstimates, sequences_of
from node.execution.fair_queue import FairQueue, QueuedTask
from node.log import get_logger
from protocol.network import Model, Network
from protocol.wire.messages import Abstention, Task

log = get_logger("execution")


# Seconds without a task before a further model is warmed up unasked. A warm-up cannot be
# interrupted, and would hold up the next task of a model that is warm.
IDLE_SECONDS = 20.0
# Pause after a failed start or warm-up, doubled after each further one. Memory that was short may
# be free in seconds; an attempt costs up to 20 s of processor, so a lasting fault costs 3 %.
FIRST_RETRY_SECONDS, MAX_RETRY_SECONDS = 10.0, 600.0
# Why an executor is not ready.
STARTING = "starting: the executor has not tested itself yet"
ON_DEMAND = "idle: the executor starts with the first task"
# Tasks run together if each has this many times the seconds that all take one after another: the
# machine may be slower than estimates say, or a task may have to run alone after the others.
TOGETHER_RESERVE = 2.0
# Characters of the longest prompt of tasks that run together.
MAX_PROMPT_TOGETHER = 512
# Pause while the disk is full, or has another fault.
DISK_RETRY_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether an executor may vote for this node's class, and if not, why.

    `retry`: another start may help, as it does not where the machine is not of the class.
    """

    ok: bool
    reasons: tuple[str, ...] = ()
    retry: bool = False


class Executor(Protocol):
    """Runs jobs: `node.execution.worker.Worker`, or a twin in tests."""

    @property
    def max_together(self) -> int:
        """How many sequences of one model it computes together in less time; 1 for none.

        Jobs run together whose `run` is called at once.
        """

    async def start(self) -> Readiness:
        """Get ready and test itself."""

    async def run(self, job: Job, seconds: float, progress: Callable[[float], None]) -> Execution:
        """Run a job for at most `seconds`. Cancelling it stops the job.

        Raises `Abstained`, and `RunAlone` if it did not end beside the others.
        """

    def is_alive(self) -> bool:
        """Return whether the worker lives, with all that is warm; a job may have ended it."""

    async def warm(self, model: Model) -> None:
        """Get ready for tasks of a listed model; raise `Abstained` if it cannot."""

    async def close(self) -> None:
        """Stop for good."""


@dataclass(frozen=True, slots=True)
class Retry:
    """When a model that could not be warmed up is tried again, and why it failed."""

    failures: int
    due: float  # Unix seconds
    reason: str


RecordResult: TypeAlias = Callable[[Task, Execution | Abstention], Awaitable[None]]


class ExecutionQueue:
    """The queue in front of one executor."""

    def __init__(
        self,
        network: Network,
        executor: Executor,
        clock: Clock,
        max_queue: int,
        report_progress: Callable[[str, float], None],
        counts: Counter[str],
        models: Sequence[str] = (),
        disk_fault: Callable[[], str | None] = lambda: None,
        *,
        on_demand: bool = False,
    ) -> None:
        """`report_progress` takes the id of the running task and its progress, 0 to 1.

        `models` are the ids of the models to warm up: the listed ones that are on disk. While
        `disk_fault` returns a reason, no outcome can be stored. `on_demand`: the executor starts
        with the first task, so that a class that nobody asks for takes no memory. A model is then
        warmed up only for a task of its own.
        """
        self._network, self._executor, self._clock = network, executor, clock
        self._report_progress, self._disk_fault = report_progress, disk_fault
        self._max_queue, self._counts = max_queue, counts
        self._costs = CostEstimates(network)
        self._waiting = FairQueue(self._costs.seconds)
        self._began = 0.0  # Unix seconds at which the running tasks began
        self._estimated = 0.0  # seconds that all of them take one after another
        self._arrived = asyncio.Event()
        self._running: dict[str, tuple[Task, asyncio.Task[None]]] = {}  # by task id
        self._models = tuple(models)
        self._cold = list(models)
        self._retries: dict[str, Retry] = {}  # models that could not be warmed up
        self._start_failed = False
        self._on_demand = on_demand
        self.unfit = asyncio.Event()  # the executor cannot serve: another start does not help
        self.readiness = Readiness(False, (ON_DEMAND if on_demand else STARTING,))

    def add(self, queued: QueuedTask) -> Task | None:
        """Queue a task, and return the one that is evicted if the queue is over its limit.

        A task that is queued or running already stays as it is.
        """
        task = queued.task.id
        if task in self._waiting or task in self._running:
            return None
        self._waiting.add(queued)
        self._arrived.set()
        if len(self._waiting) <= self._max_queue:
            return None
        self._counts["tasks-evicted"] += 1
        return self._waiting.evict()

    def check_deadline(self, task: Task, source: str) -> None:
        """Raise `Busy` if a task would expire before this node had run it, by its own estimate."""
        if not self._costs.is_measured(task):
            return
        left = task.expires_at - self._clock.now()
        run, wait = self._costs.seconds(task), self._waiting.wait_seconds(task, source)
        if self._running:
            elapsed = self._clock.now() - self._began
            wait += max(0.0, self._estimated - elapsed)
        if run + wait > left:
            raise Busy(
                f"the task expires in {left:.1f} s; this node needs about {run:.1f} s for it, after"
                f" {wait:.1f} s for tasks before it"
            )

    @property
    def abstains(self) -> bool:
        """Whether every task abstains, because the executor did not start."""
        return self._start_failed

    @property
    def warm_models(self) -> tuple[str, ...]:
        """The ids of the models for which a task would begin at once."""
        if not self.readiness.ok:
            return ()
        return tuple(m for m in self._models if m not in self._cold and m not in self._retries)

    def why_not_ready(self) -> tuple[str, ...]:
        """Return why no task would begin now; () if a task of some model would."""
        if self.warm_models or not self.readiness.ok:
            return self.readiness.reasons
        if self._cold:
            return (f"warming up: {', '.join(self._cold)}",)
        if self._retries:
            return tuple(f"{name}: {retry.reason}" for name, retry in self._retries.items())
        return ("no listed model is on disk",)

    def remove_waiting(self, task: str) -> bool:
        """Forget a task that has not begun; return whether it was waiting."""
        return self._waiting.remove(task)

    def remove(self, task: str) -> None:
        """Forget a task, stopping it if it runs."""
        self.remove_waiting(task)
        if running := self._running.pop(task, None):
            running[1].cancel()

    async def run(self, record: RecordResult) -> None:
        """Start the executor, then execute what is queued, forever; `record` takes each result."""
        await self._wait_for_demand()
        await self._start(record)
        if not self.readiness.ok:
            self.unfit.set()
        while True:
            self._heat_up()
            queued = self._waiting.begin(self._may_begin)
            if queued is not None:
                await self._run_together(self._with_companions(queued), record)
            elif self._disk_fault() is not None:  # a warm-up writes files too
                await self._abstain_for(DISK_RETRY_SECONDS, record)
            elif self._cold and (self._waiting or not (self.warm_models or self._on_demand)):
                await self._warm_one()
            else:
                await self._idle()

    def demand(self) -> None:
        """Start the executor now, if it waits for its first task, and warm models up unasked."""
        self._on_demand = False
        self._arrived.set()

    async def _wait_for_demand(self) -> None:
        """Wait for the first task if the executor starts with it; a withdrawn one is none."""
        while self._on_demand and not self._waiting:
            self._arrived.clear()
            await self._arrived.wait()
        self.readiness = Readiness(False, (STARTING,))

    def _may_begin(self, queued: QueuedTask) -> bool:
        """Return whether a task does not wait for its model: it is warm, or nothing is executed."""
        return queued.task.model not in self._cold or self._disk_fault() is not None

    async def _start(self, record: RecordResult) -> None:
        """Start the executor, again and again where that may help; tasks abstain meanwhile."""
        failures = 0
        while True:
            while self._disk_fault() is not None:  # a start writes files too
                await self._abstain_for(DISK_RETRY_SECONDS, record)
            readiness = await self._executor.start()
            log.info("executor", ready=readiness.ok, reasons=list(readiness.reasons))
            self._start_failed = not readiness.ok
            if readiness.ok or not readiness.retry:
                break
            failures += 1
            pause = _retry_pause(failures)
            again = f"; start {failures} failed, the next one is in {pause:.0f} s"
            self.readiness = Readiness(False, tuple(why + again for why in readiness.reasons))
            await self._abstain_for(pause, record)
        self.readiness = readiness
        if not readiness.ok:
            self._cold.clear()  # tasks abstain at once

    async def _abstain_for(self, seconds: float, record: RecordResult) -> None:
        """Abstain from all tasks for some time, because the executor is not ready."""
        ends = self._clock.now() + seconds
        while True:
            while queued := self._waiting.begin(lambda _: True):
                await self._run_together([queued], record)
            pause = ends - self._clock.now()
            if pause <= 0:
                return
            self._arrived.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._arrived.wait()

    async def _idle(self) -> None:
        """Wait for a task; warm up another model if none comes for a while."""
        self._arrived.clear()
        pauses = [retry.due - self._clock.now() for retry in self._retries.values()]
        if self._cold and not self._on_demand:
            pauses.append(IDLE_SECONDS)
        try:
            async with asyncio.timeout(min(pauses, default=None)):
                await self._arrived.wait()
        except TimeoutError:
            self._heat_up()
            if self._cold and not self._on_demand and self._disk_fault() is None:
                await self._warm_one()

    def _heat_up(self) -> None:
        """Let the models be warmed up again whose pause after a failure is over."""
        now = self._clock.now()
        self._cold += [
            name
            for name, retry in self._retries.items()
            if retry.due <= now and name not in self._cold
        ]

    async def _warm_one(self) -> None:
        """Warm up the model of a waiting task, or else the first one that is cold."""
        waiting = self._waiting.models
        name = next((name for name in self._cold if name in waiting), self._cold[0])
        log.info("warming up", model=name)
        try:
            await self._executor.warm(self._network.models[name])
            self._retries.pop(name, None)
            log.info("model is warm", model=name)
        except Abstained as abstained:
            # Its tasks are tried nevertheless: each abstains for a reason of its own.
            self._note_failure(name, str(abstained))
        if name in self._cold:
            self._cold.remove(name)

    def _note_failure(self, name: str, reason: str) -> None:
        failures = self._retries[name].failures + 1 if name in self._retries else 1
        pause = _retry_pause(failures)
        self._retries[name] = Retry(
            failures,
            self._clock.now() + pause,
            f"warm-up {failures} failed, the next one is in {pause:.0f} s: {reason}",
        )
        log.error("warm-up failed", model=name, retry_seconds=pause, detail=reason)

    def _cool_down(self) -> None:
        """Note that the worker process has ended, and with it all that was warm."""
        self._cold = [name for name in self._models if name not in self._retries]

    def _with_companions(self, first: QueuedTask) -> Sequence[QueuedTask]:
        """Begin the waiting tasks that join a task; return them all."""
        group = [first]
        while queued := self._waiting.begin(lambda one: self._joins(one, group)):
            group.append(queued)
        return group

    def _joins(self, queued: QueuedTask, group: Sequence[QueuedTask]) -> bool:
        """Return whether a waiting task may run beside others, which it delays."""
        joined = [*group, queued]
        tasks = [one.task for one in joined]
        if len({_model_key(task) for task in tasks}) > 1 or any(task.inputs for task in tasks):
            return False
        if any(one.alone for one in joined):
            return False
        if len({one.source for one in joined}) not in (1, len(joined)):
            return False
        if sum(map(sequences_of, tasks)) > self._executor.max_together:
            return False
        # All prompts are read before the first step, so a long one would hold up all.
        if any(len(str(task.args.get("prompt", ""))) > MAX_PROMPT_TOGETHER for task in tasks):
            return False
        seconds = TOGETHER_RESERVE * sum(map(self._costs.seconds, tasks))
        return all(self._seconds_left(one) >= seconds for one in joined)

    def _seconds_left(self, queued: QueuedTask) -> float:
        left = queued.until - self._clock.now()
        return min(left, self._network.attempt_seconds(queued.task))

    async def _run_together(self, group: Sequence[QueuedTask], record: RecordResult) -> None:
        if len(group) > 1:
            log.info("tasks run together", tasks=[queued.task.id for queued in group])
        self._began = self._clock.now()
        self._estimated = sum(self._costs.seconds(queued.task) for queued in group)
        # Asyncio tasks of their own, so that `remove` can cancel a job and the queue goes on.
        jobs = [asyncio.create_task(self._execute(one, len(group), record)) for one in group]
        for queued, job in zip(group, jobs, strict=True):
            self._running[queued.task.id] = queued.task, job
            job.add_done_callback(partial(self._note_end, queued.task.id))
        try:
            # Not `await job`, which would raise the cancellation of a removed job here.
            await asyncio.wait(jobs)
        finally:
            self._running.clear()
            for job in jobs:
                job.cancel()  # of one that has ended, it changes nothing
            await asyncio.gather(*jobs, return_exceptions=True)
            self._waiting.end(self._clock.now() - self._began)
        # A job that was stopped, or a fault of the worker, may have ended its process.
        if self.readiness.ok and not self._executor.is_alive():
            self._cool_down()
        for job in jobs:
            if not job.cancelled():
                job.result()  # a fault of our own ends the daemon, with its traceback

    def _note_end(self, task: str, job: asyncio.Task[None]) -> None:
        if task in self._running and self._running[task][1] is job:
            del self._running[task]

    async def _execute(self, queued: QueuedTask, together: int, record: RecordResult) -> None:
        task = queued.task
        result: Execution | Abstention
        try:
            result = await self._run_job(queued, together)
        except RunAlone as reason:
            log.info("task is to run alone", task=task.id, reason=str(reason))
            self._waiting.put_back(queued)
            return
        except Abstained as abstained:
            log.warning("abstained", task=task.id, reason=abstained.reason, detail=str(abstained))
            result = abstained.reason
        await record(task, result)

    async def _run_job(self, queued: QueuedTask, together: int) -> Execution:
        if (fault := self._disk_fault()) is not None:
            raise Abstained(Abstention.NO_SPACE, fault)
        # Specification 3: this machine is not in its class, or its bits cannot be trusted.
        if not self.readiness.ok:
            raise Abstained(Abstention.BUSY, "; ".join(self.readiness.reasons))
        task, model = queued.task, self._network.models[queued.task.model]
        began, seconds = self._clock.now(), self._seconds_left(queued)
        if seconds <= 0:
            raise Abstained(
                Abstention.TIMEOUT, "the task waited in the queue until its time was over"
            )
        proves_work = self._network.proves_work(task)
        job = Job(task.id, task.kind, task.args, model_ref(model), queued.inputs, proves_work)
        report = partial(self._report_progress, task.id)
        execution = await self._executor.run(job, seconds, report)
        self._costs.observe(task, self._clock.now() - began, together)
        return execution


def _retry_pause(failures: int) -> float:
    return min(FIRST_RETRY_SECONDS * 2.0 ** (failures - 1), MAX_RETRY_SECONDS)


def _model_key(task: Task) -> tuple[object, ...]:
    """Return what tasks that run together have in common: the model in memory."""
    return task.model, task.kind, task.args.get("dtype"), task.args.get("quantize_bits")


def model_ref(model: Model) -> ModelRef:
    """Return how a job names a listed model."""
    return ModelRef(model.id, model.revision, model.digest, model.limits)
