"""The tasks that this node executes: one at a time, bringers in turn, and requesters.

A requester's key is free to make, so turns by requesters alone would all be a flooder's: who
brought a task here (`node.consensus.commands.Run`) counts before who signed it.

Between the coordinator, which says what to run, and an executor, which runs one job. What comes of
it goes back as an outcome or an abstention, whatever happened to the job.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import structlog

from executor.errors import Abstained
from executor.job import Execution, Job, ModelRef
from node.admission.rate_limits import remember
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


class Sink(Protocol):
    """What becomes of an execution; implemented by the daemon."""

    async def executed(self, task: Task, execution: Execution) -> None:
        """Take an outcome and its files."""

    def failed(self, task: Task, reason: Abstention) -> None:
        """Take an abstention."""

    def progressed(self, task: Task, fraction: float) -> None:
        """Take the progress of the running job, 0 to 1."""


class Executions:
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
        self._turns: dict[tuple[str, ...], int] = {}  # last ones, while any task waits
        self._arrived = asyncio.Event()
        self._running: tuple[str, asyncio.Task[None]] | None = None
        self.readiness = Readiness(False, ("starting: the executor has not tested itself yet",))

    def add(self, run: Run) -> None:
        """Queue a task; one that is queued or running already stays as it is."""
        if run.task.id in self._waiting or (self._running and self._running[0] == run.task.id):
            return
        self._waiting[run.task.id] = run
        for party in _parties(run):
            if party not in self._turns:  # or newcomers would always come before who is known
                self._take_turn(party)
        self._arrived.set()
        if len(self._waiting) > self._max_queue:
            excess = self._last_of_most()
            del self._waiting[excess.task.id]
            self._counts["tasks-evicted"] += 1
            self._sink.failed(excess.task, Abstention.BUSY)

    def _last_of_most(self) -> Run:
        """Return what came last of whoever has most waiting: a flood hurts itself.

        Of the bringer with most, and of its requesters the one with most.
        """
        waiting = Counter(party for run in self._waiting.values() for party in _parties(run))
        runs = reversed(self._waiting.values())
        return max(runs, key=lambda run: [waiting[party] for party in _parties(run)])

    def _next(self) -> Run:
        """Take the first task whose bringer and requester both had their last turn longest ago."""
        run = min(self._waiting.values(), key=self._last_turn)
        del self._waiting[run.task.id]
        for party in _parties(run):
            self._take_turn(party)
        return run

    def _last_turn(self, run: Run) -> tuple[int, int]:
        """Return the later of a task's bringer's and requester's turns, then the requester's.

        A new key for each task does not help, nor do many nodes that pass on one requester's.
        """
        bringer, requester = (self._turns.get(party, 0) for party in _parties(run))
        return max(bringer, requester), requester

    def _take_turn(self, party: tuple[str, ...]) -> None:
        self._turn += 1
        remember(self._turns, party, self._turn)

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
                self._turns.clear()
                self._arrived.clear()
                await self._arrived.wait()
            await self._attend(self._next())

    async def _attend(self, run: Run) -> None:
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
            self._sink.failed(task, Abstention(abstained.reason))
        else:
            await self._sink.executed(task, execution)

    async def _run(self, run: Run) -> Execution:
        if not self.readiness.ok:  # specification 3: not in this class, or not to be trusted
            raise Abstained("busy", "; ".join(self.readiness.reasons))
        task, model = run.task, self._network.models[run.task.model]
        inputs = await self._inputs(task)
        seconds = run.until - self._clock.now()
        if seconds <= 0:
            raise Abstained("timeout", "its time was over before it was its turn")
        listed = ModelRef(model.id, model.revision, model.digest, model.limits)
        job = Job(task.id, task.kind, task.args, listed, inputs)
        return await self._executor.run(
            job, seconds, lambda fraction: self._sink.progressed(task, fraction)
        )


def _parties(run: Run) -> tuple[tuple[str, ...], ...]:
    """Return whose turns a task takes: its bringer's and its requester's, told apart by length."""
    return (run.bringer,), ("requester", run.task.envelope.signer)
