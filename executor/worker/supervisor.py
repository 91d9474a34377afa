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

A stopped worker stays warm: another start takes up to 20 s. The worker looks for a stop before a
job, at each token, at each layer of a model without tokens, and before each output. It cannot stop
while it loads a model or extracts the features of a song: then it is killed.
"""

import contextlib
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from executor.determinism.compute_class import TRANSFORMERS, WorkerKind
from executor.errors import Abstained, TokensDiffer
from executor.job import Difference, Execution, Job
from executor.tasks.numba_cache import kernels
from executor.worker.messages import (
    JobAbstained,
    JobDifferent,
    JobDone,
    JobFailed,
    JobOutput,
    JobProgress,
    WorkerReady,
)
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


@dataclass(slots=True)
class _Run:
    """A call of `run`: its stop signal, its outputs' stem, and whether the worker has the job."""

    stop: threading.Event
    stem: Path
    sent: bool = False
    ended: threading.Event = field(default_factory=threading.Event)


class WorkerSupervisor:
    """Runs one job at a time in a worker process. All methods block.

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
        self._run: _Run | None = None
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
        if not self._conversation.acquire(blocking=False):
            raise Abstained(Abstention.BUSY)
        # Unique for each job, so that a worker cannot pass off the outputs of an earlier one.
        stem = self.scratch / uuid.uuid4().hex
        try:
            with self._running(stop or threading.Event(), stem) as current:
                return self._execute(job, current, time.monotonic() + timeout, progress)
        except BaseException:
            # A worker that died may have sent a part of its outputs.
            remove_files(self.scratch, f"{stem.name}-*")
            raise
        finally:
            remove_files(self.scratch, f"{stem.name}-input-*")
            self._conversation.release()

    def stop(self, stop: threading.Event) -> None:
        """Stop the run that has this signal, or prevent it: its `run` raises `Abstained`.

        Returns when the run has ended or its worker was killed, after `STOP_SECONDS` at the latest.
        A start of the worker goes on, because the next job needs the worker too.
        """
        stop.set()
        with self._state:
            current, worker = self._run, self._worker
            # Another run may be the current one: this one has ended, or it has not begun.
            if current is None or current.stop is not stop or not current.sent:
                return
        if worker is not None:
            with contextlib.suppress(OSError):
                worker.send({"stop": current.stem.name})
        if not current.ended.wait(STOP_SECONDS):
            with self._state:
                # Another worker has not been given this job: it starts, to confirm an error.
                if self._run is current and self._worker is worker:
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

    @contextlib.contextmanager
    def _running(self, stop: threading.Event, stem: Path) -> Iterator[_Run]:
        current = _Run(stop, stem)
        with self._state:
            self._run = current
        try:
            yield current
        finally:
            with self._state:
                self._run = None
            current.ended.set()

    def _execute(self, job: Job, current: _Run, deadline: float, progress: Progress) -> Execution:
        try:
            if current.stop.is_set():
                raise _stopped()
            if self._kind.engine == "transformers" and job.kind == COMPILED_KIND and job.inputs:
                self._ensure_kernels(deadline)
            status = self._ensure_started(deadline)
            if not status.ok:
                raise Abstained(Abstention.WORKER_DIED, status.reason)
            execution = self._converse_and_confirm(job, current, deadline, progress)
            # It ended while it was told to stop: nobody waits for the result.
            if current.stop.is_set():
                raise _stopped()
            return execution
        except TimeoutError:
            self._dispose()
            raise Abstained(Abstention.TIMEOUT, "the job ran past its deadline") from None
        except (WorkerDied, OSError) as error:
            self._dispose()
            reason = Abstention.TIMEOUT if current.stop.is_set() else Abstention.WORKER_DIED
            if is_disk_full(error):
                reason = Abstention.NO_SPACE
            raise Abstained(reason, str(error)) from error
        except TokensDiffer:
            raise
        except Abstained as abstained:
            # After a failed allocation, libraries may be in an undefined state.
            if abstained.reason is Abstention.OUT_OF_MEMORY:
                self._dispose()
            raise
        except BaseException:  # from `progress`, or an interrupt: the job is still running
            self._dispose()
            raise

    def _converse_and_confirm(
        self, job: Job, current: _Run, deadline: float, progress: Progress
    ) -> Execution:
        """Return what a job came to; a library's error only if a fresh worker meets it too.

        Else this worker's memory or the jobs before it may be its cause, and no other member would
        meet it. The second run has what is left of the time, and reports no progress.
        """
        first = self._converse(job, current, deadline, progress)
        if isinstance(first, Execution):
            return first
        with self._state:
            current.sent = False
        self._dispose()
        status = self._ensure_started(deadline)
        if not status.ok:
            raise Abstained(Abstention.WORKER_DIED, status.reason)
        second = self._converse(job, current, deadline, lambda _: None)
        # The traces differ in their times.
        if isinstance(second, JobFailed) and second.cause == first.cause:
            return Execution({"error": first.code}, (), dict(first.trace))
        # A result of the second run is not used: which of the two is right is not known.
        raise Abstained(
            Abstention.WORKER_DIED, f"{first.error}: a second run, in a fresh worker, did not"
        )

    def _converse(
        self, job: Job, current: _Run, deadline: float, progress: Progress
    ) -> Execution | JobFailed:
        job = copy_inputs(job, current.stem)
        with self._state:
            worker, current.sent = self._worker, True
        if worker is None:
            raise WorkerDied("stopped")
        # After `sent`: a stop from now on reaches the worker, even before the job does.
        if current.stop.is_set():
            raise _stopped()
        worker.send(job_message(job, current.stem.name, deadline - time.monotonic()))
        outputs = Outputs(current.stem)
        # The worker knows the deadline, and stops by itself.
        deadline += STOP_SECONDS
        for _ in range(MAX_MESSAGES):
            match worker.receive(deadline):
                case JobProgress(share):
                    progress(share)
                case JobOutput(size):
                    outputs.receive(worker, size, deadline)
                case JobAbstained(reason, detail):
                    raise Abstained(reason, detail)
                case JobDone(outcome, trace):
                    return Execution(dict(outcome), outputs.files(outcome), dict(trace))
                case JobFailed() as failure:
                    outputs.discard()
                    return failure
                case JobDifferent(sequence, step, column):
                    if not job.tokens:
                        raise WorkerDied("the worker replayed a job without tokens")
                    raise TokensDiffer(Difference(sequence, step, column))
                case WorkerReady():
                    raise WorkerDied("the worker sent a ready message during a job")
        raise WorkerDied(f"the worker sent {MAX_MESSAGES} messages and no result")

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


def _stopped() -> Abstained:
    return Abstained(Abstention.TIMEOUT, "the job was stopped")


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
