"""The entry point of the executor: one warm worker, started, watched, timed out and restarted.

States of the worker, as `WorkerSupervisor` moves it:

    none     --start, run-->            starting   spawn a process
    starting --WorkerReady(ok)-->       ready
    starting --WorkerReady(not ok),
               timeout, death-->        none       `WorkerStatus.ok` is false; a run abstains
    ready    --run-->                   running
    running  --JobDone-->               ready      the result
    running  --JobFailed-->             none       once more in a fresh worker: the error is the
                                                   result if both runs raise it, else `Abstained`
    running  --JobDifferent-->          ready      `TokensDiffer`
    running  --JobAbstained-->          ready      `Abstained`; none after out-of-memory, because
                                                   the process's memory is in doubt
    running  --time over, stop-->       stopping   the worker ends the job at its next step
    stopping --JobAbstained, JobDone--> ready      `Abstained`: timeout
    stopping --STOP_SECONDS-->          none       killed; `Abstained`: timeout
    running  --death, invalid message-> none       `Abstained`: worker-died
    any      --close-->                 none       for good

Several jobs of one model may run together. Each has an end, a time and a stop of its own. One comes
to `RunAlone` if it does not fit beside the others, if it fails, or if the worker ends before it: it
is not known then whose fault that is. A worker that does not heed a stop is killed only when no
other job runs in it; one that lets a job run past its time is killed in any case.

A stopped worker stays warm: another start takes up to 20 s. The worker looks for a stop before a
job, at each token, at each layer of a model without tokens, and before each output. It cannot stop
while it loads a model or extracts the features of a song: then it is killed.
"""

import contextlib
import math
import shutil
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from executor.determinism.compute_class import TRANSFORMERS, WorkerKind
from executor.errors import Abstained, RunAlone, TokensDiffer
from executor.job import Execution, Job
from executor.tasks.numba_cache import kernels
from executor.worker.ends import End, end_of, is_memory_in_doubt, past_deadline, stopped_end
from executor.worker.messages import JobFailed, JobOutput, JobProgress, WorkerReady
from executor.worker.process import WorkerDied, WorkerProcess
from executor.worker.scratch import (
    Outputs,
    copy_inputs,
    is_disk_full,
    kernel_folder,
    remove_files,
)
from protocol.wire.messages import Abstention

Progress = Callable[[float], None]

# With transformers, imports and the self-test take 10 s; a machine under load gets more time.
START_SECONDS = 300.0
# The kind of jobs that numba's kernels are for (`tasks.numba_cache`), where they have inputs and
# transformers computes them.
COMPILED_KIND = "pop2piano"
# Messages of one job. An honest worker reports steps of at least 1 %, so about 100, and at most 32
# outputs; more would flood the event loop behind `progress`.
MAX_MESSAGES = 200
# Sequences of all jobs that run together at most: each more gains less (docs/measurements.md).
MAX_TOGETHER = 4
# Time from a stop to the kill. A token or a layer of a model that is fit for this machine takes
# less, and others must not wait longer for the executor.
STOP_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """Whether a worker may serve; `seconds` is how long its start took.

    `runtime` is the content of its compute class, {} if it failed earlier. `sandbox` says by name
    what confines the worker, or why something does not.
    """

    runtime: dict[str, object]
    ok: bool
    reason: str
    seconds: float
    sandbox: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Order:
    """A job to run within `timeout` seconds, and the signal that stops it.

    `progress` is called on the thread that runs it, with shares in [0, 1].
    """

    job: Job
    timeout: float
    progress: Progress
    stop: threading.Event = field(default_factory=threading.Event)


@dataclass(slots=True, eq=False)
class _Run:
    """An order that runs: its outputs' stem, when it ends, and whether the worker has the job."""

    order: Order
    stem: Path
    deadline: float
    sent: bool = False
    ended: threading.Event = field(default_factory=threading.Event)


class WorkerSupervisor:
    """Runs jobs in a worker process, one at a time or some together. All methods block.

    `stop` and `close` may be called from any thread. `folders` hold models (`models.folders`),
    and `scratch` receives the outputs. `memory_limit` bounds the worker's address space in bytes.
    `kind` is what its compute class computes with, `threads` how many the engine uses.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        scratch: Path,
        *,
        memory_limit: int | None = None,
        kind: WorkerKind = TRANSFORMERS,
        threads: int = 1,
    ) -> None:
        self._folders = tuple(folder.absolute() for folder in folders)
        self.scratch = scratch.absolute()
        self._memory_limit = memory_limit
        self._kind, self._threads = kind, threads
        # Held by the thread that exchanges messages with the worker, for a whole job.
        self._conversation = threading.Lock()
        # Guards the members below; never held while waiting.
        self._state = threading.Lock()
        self._worker: WorkerProcess | None = None
        self._status: WorkerStatus | None = None
        self._runs: list[_Run] = []  # without those that have ended
        self._closed = False

    def start(self, timeout: float) -> WorkerStatus:
        """Start the worker and wait for its self-test, at most `timeout` seconds.

        It takes a second with the engine, several with transformers. Never raises for the worker's
        failure: `WorkerStatus.ok` is then false, and `reason` says why.
        """
        started_at = time.monotonic()
        with self._conversation:
            try:
                return self._ensure_started(started_at + timeout)
            except TimeoutError:
                reason = f"the worker was not ready within {timeout:g} s"
            except (WorkerDied, OSError) as error:
                reason = str(error)
            self._dispose()
            return WorkerStatus({}, False, reason, time.monotonic() - started_at)

    def run(
        self,
        job: Job,
        *,
        timeout: float,
        progress: Progress,
        stop: threading.Event | None = None,
    ) -> Execution:
        """Execute a job within `timeout` seconds, a restart of the worker included.

        `progress` is called on this thread with shares in [0, 1]. `stop` is what `stop` takes to
        end this run; a run whose `stop` is set does not begin. Raises `Abstained`, with reason
        `busy` if another job runs, and `TokensDiffer` if the tokens to replay are not the task's.
        """
        ends: list[End] = []
        order = Order(job, timeout, progress, stop or threading.Event())
        self.run_together([order], lambda _, end: ends.append(end))
        (end,) = ends
        if isinstance(end, Execution):
            return end
        raise end

    @property
    def max_together(self) -> int:
        """How many sequences of one model `run_together` computes at once in less time."""
        return MAX_TOGETHER if self._kind.runs_together else 1

    def run_together(self, orders: Sequence[Order], on_end: Callable[[Order, End], None]) -> None:
        """Execute jobs of one model, without inputs if they are several; see `run`.

        `on_end` is called on this thread with what each came to, as soon as that is known. It may
        be `RunAlone` for some of several.
        """
        if not self._conversation.acquire(blocking=False):
            for order in orders:
                on_end(order, Abstained(Abstention.BUSY))
            return
        now = time.monotonic()
        # Stems are unique for each job, so that a worker cannot pass off the outputs of an earlier
        # one.
        runs = [
            _Run(order, self.scratch / uuid.uuid4().hex, now + order.timeout) for order in orders
        ]
        with self._state:
            self._runs = [*runs]
        try:
            if len(runs) > 1:
                self._execute_together(runs, on_end)
            else:
                self._end(runs[0], self._execute(runs[0]), on_end)
        finally:
            for run in [*self._runs]:  # left by what was raised here
                self._forget(run, "*")
            self._conversation.release()

    def stop(self, stop: threading.Event) -> None:
        """Stop the run that has this signal, or prevent it: its `run` raises `Abstained`.

        Returns when the run has ended or its worker was killed, after `STOP_SECONDS` at the latest.
        A start of the worker goes on, because the next job needs the worker too.
        """
        stop.set()
        with self._state:
            # Others may be the current ones: this one has ended, or it has not begun.
            sent = [run for run in self._runs if run.sent]
            current = next((run for run in sent if run.order.stop is stop), None)
            worker = self._worker
        if current is None:
            return
        if worker is not None:
            with contextlib.suppress(OSError):
                worker.send({"stop": current.stem.name})
        if not current.ended.wait(STOP_SECONDS):
            with self._state:
                others = [run for run in self._runs if run.sent and not run.order.stop.is_set()]
                # Another worker has not been given this job: it starts, to confirm an error.
                if current in self._runs and self._worker is worker and not others:
                    self._kill()

    def close(self) -> None:
        """End the worker and the job that runs in it. Later runs raise `Abstained`."""
        # First kill, then wait for the lock: a running job holds it until its worker has died.
        with self._state:
            self._closed = True
            self._kill()
        with self._conversation:
            self._dispose()

    @property
    def pid(self) -> int | None:
        """The process id of the worker; None if none runs."""
        worker = self._worker
        return worker.pid if worker is not None and worker.alive() else None

    def _end(self, run: _Run, end: End, on_end: Callable[[Order, End], None]) -> None:
        self._forget(run, "input-*" if isinstance(end, Execution) else "*")
        on_end(run.order, end)

    def _forget(self, run: _Run, files: str) -> None:
        with self._state:
            self._runs.remove(run)
        run.ended.set()
        # A worker that died may have sent a part of its outputs.
        remove_files(self.scratch, f"{run.stem.name}-{files}")

    def _execute_together(self, runs: Sequence[_Run], on_end: Callable[[Order, End], None]) -> None:
        """End jobs as they run together; those that are left then are to run alone."""
        why = "the jobs before it ended the worker"
        try:
            self._require_started(min(run.deadline for run in runs))
            for run, end in self._converse(runs):
                if is_memory_in_doubt(end):
                    why = str(end)  # alone, it may have enough
                    self._dispose()
                    break
                if run.order.stop.is_set():
                    self._end(run, stopped_end(), on_end)
                elif isinstance(end, JobFailed):
                    self._end(run, RunAlone(f"to be confirmed: {end.error}"), on_end)
                else:
                    self._end(run, end, on_end)
        except (TimeoutError, WorkerDied, OSError, Abstained) as error:
            why = str(error) or type(error).__name__
            self._dispose()
        except BaseException:  # from `progress`, or an interrupt: the jobs are still running
            self._dispose()
            raise
        now = time.monotonic()
        for run in [*self._runs]:
            left: End = RunAlone(why)
            if run.order.stop.is_set():
                left = stopped_end()
            elif now >= run.deadline:
                left = past_deadline()
            self._end(run, left, on_end)

    def _execute(self, run: _Run) -> End:
        job, deadline = run.order.job, run.deadline
        try:
            if run.order.stop.is_set():
                raise stopped_end()
            if self._kind.engine == "transformers" and job.kind == COMPILED_KIND and job.inputs:
                self._ensure_kernels(deadline)
            self._require_started(deadline)
            end = self._converse_and_confirm(run)
            if is_memory_in_doubt(end):
                self._dispose()
            # It ended while it was told to stop: nobody waits for the result.
            return stopped_end() if run.order.stop.is_set() else end
        except TimeoutError:
            self._dispose()
            return stopped_end() if run.order.stop.is_set() else past_deadline()
        except (WorkerDied, OSError) as error:
            self._dispose()
            reason = Abstention.TIMEOUT if run.order.stop.is_set() else Abstention.WORKER_DIED
            if is_disk_full(error):
                reason = Abstention.NO_SPACE
            return Abstained(reason, str(error))
        except Abstained as abstained:
            return abstained
        except BaseException:  # from `progress`, or an interrupt: the job is still running
            self._dispose()
            raise

    def _converse_and_confirm(self, run: _Run) -> End:
        """Return what a job came to; a library's error only if a fresh worker meets it too.

        Else this worker's memory or the jobs before it may be its cause, and no other member would
        meet it. The second run has what is left of the time, and reports no progress.
        """
        ((_, first),) = self._converse([run])
        if not isinstance(first, JobFailed):
            return first
        with self._state:
            run.sent = False
        self._dispose()
        self._require_started(run.deadline)
        ((_, second),) = self._converse([run], reports=False)
        # The traces differ in their times.
        if isinstance(second, JobFailed) and second.cause == first.cause:
            return Execution({"error": first.code}, (), dict(first.trace))
        if isinstance(second, Abstained | TokensDiffer | RunAlone):
            return second
        # A result of the second run is not used: which of the two is right is not known.
        return Abstained(
            Abstention.WORKER_DIED, f"{first.error}: a second run, in a fresh worker, did not"
        )

    def _converse(
        self, runs: Sequence[_Run], *, reports: bool = True
    ) -> Iterator[tuple[_Run, End | JobFailed]]:
        """Give the worker jobs; yield what each came to."""
        jobs = {run.stem: copy_inputs(run.order.job, run.stem) for run in runs}
        with self._state:
            worker = self._worker
            for run in runs:
                run.sent = True
        if worker is None:
            raise WorkerDied("stopped")
        # After `sent`: a stop from now on reaches the worker, even before the job does.
        stopped = [run for run in runs if run.order.stop.is_set()]
        yield from ((run, stopped_end()) for run in stopped)
        going = [run for run in runs if run not in stopped]
        now = time.monotonic()
        messages = [job_message(jobs[run.stem], run.stem.name, run.deadline - now) for run in going]
        if messages:
            worker.send(messages[0] if len(messages) == 1 else {"together": messages})
        left = {place: (run, Outputs(run.stem)) for place, run in enumerate(going)}
        counts, stop_ends = Counter[int](), math.inf
        while left:
            if all(run.order.stop.is_set() for run, _ in left.values()):
                # From the first look on: what the worker says does not prolong a stop.
                deadline = stop_ends = min(stop_ends, time.monotonic() + STOP_SECONDS)
            else:  # the worker knows when they are to end, and ends them by itself
                deadline = min(run.deadline for run, _ in left.values()) + STOP_SECONDS
            message = worker.receive(deadline)
            if isinstance(message, WorkerReady):
                raise WorkerDied("the worker sent a ready message during a job")
            if message.job not in left:
                raise WorkerDied(f"the worker sent a message of job {message.job}, which has ended")
            run, outputs = left[message.job]
            counts[message.job] += 1
            match message:
                case JobProgress() | JobOutput() if counts[message.job] >= MAX_MESSAGES:
                    raise WorkerDied(f"the worker sent {MAX_MESSAGES} messages and no result")
                case JobProgress(share):
                    if reports:
                        run.order.progress(share)
                case JobOutput(size):
                    outputs.receive(worker, size, deadline)
                case _:
                    del left[message.job]
                    yield run, end_of(message, run.order.job, outputs, alone=len(going) == 1)

    def _require_started(self, deadline: float) -> None:
        status = self._ensure_started(deadline)
        if not status.ok:
            raise Abstained(Abstention.WORKER_DIED, status.reason)

    def _ensure_started(self, deadline: float) -> WorkerStatus:
        """Return the worker's status, starting one if needed. Raises WorkerDied or TimeoutError."""
        # One that sends between jobs would answer the next job before it has it.
        if self._worker is not None and self._worker.quiet() and self._status is not None:
            return self._status
        self._dispose()
        started_at = time.monotonic()
        message = self._spawn().receive(deadline)
        if not isinstance(message, WorkerReady):
            raise WorkerDied(f"the worker's first message is {type(message).__name__}")
        seconds = time.monotonic() - started_at
        status = WorkerStatus(message.runtime, message.ok, message.reason, seconds, message.sandbox)
        if status.ok:
            self._status = status
        else:
            self._dispose()
        return status

    def _ensure_kernels(self, deadline: float) -> None:
        """Let a process that reads nothing of strangers compile kernels, unless all are there."""
        folder = kernel_folder(self.scratch)
        if kernels.compiled(folder):
            return
        self._dispose()
        # What is there may be a taken-over worker's, or of other versions.
        shutil.rmtree(folder, ignore_errors=True)
        message = self._spawn(compiles=True).receive(deadline)
        self._dispose()
        if not isinstance(message, WorkerReady) or not message.ok:
            raise WorkerDied("the kernels could not be compiled")
        kernels.mark_compiled(folder)

    def _spawn(self, *, compiles: bool = False) -> WorkerProcess:
        # Under the lock, so that a concurrent `close` either prevents the start or finds the
        # process to kill.
        with self._state:
            if self._closed:
                raise WorkerDied("stopped")
            self.scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._worker = WorkerProcess(
                self._folders,
                self.scratch,
                self._memory_limit,
                self._kind,
                self._threads,
                compiles=compiles,
            )
            return self._worker

    def _kill(self) -> None:
        if self._worker is not None:
            self._worker.kill()

    def _dispose(self) -> None:
        with self._state:
            worker, self._worker, self._status = self._worker, None, None
        if worker is not None:
            worker.dispose()


@contextlib.contextmanager
def temporary_worker(
    folders: Sequence[Path], kind: WorkerKind = TRANSFORMERS, *, threads: int = 1
) -> Iterator[tuple[WorkerSupervisor, WorkerStatus]]:
    """Give a worker with a scratch folder of its own, and what its start came to."""
    with tempfile.TemporaryDirectory(prefix="helium-") as scratch:
        supervisor = WorkerSupervisor(folders, Path(scratch), kind=kind, threads=threads)
        try:
            yield supervisor, supervisor.start(START_SECONDS)
        finally:
            supervisor.close()


def job_message(job: Job, name: str, seconds: float) -> dict[str, object]:
    """Return the message that gives the worker a job, to be stopped after so many seconds.

    `name` is what a message to stop it calls it.
    """
    return {
        "task_kind": job.kind,
        "args": dict(job.args),
        "model": {
            "id": job.model.id,
            "revision": job.model.revision,
            "digest": job.model.digest,
            "limits": dict(job.model.limits),
        },
        "inputs": [str(path) for path in job.inputs],
        "proves_work": job.proves_work,
        "tokens": [str(path) for path in job.tokens],
        "name": name,
        "seconds": seconds,
    }
