"""The executor's door: one warm worker, watched, timed out, killed and started again."""

import contextlib
import dataclasses
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from executor.audio.manifest import output_path
from executor.determinism.profile import Device
from executor.errors import Abstained
from executor.job import Execution, Job
from executor.worker.process import WorkerDied, WorkerProcess
from protocol.wire.messages import Abstention

Progress = Callable[[float], None]

START_SECONDS = 300.0  # imports and the self-test take 10 s; a machine under load gets time


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """Whether a worker may serve. `runtime` is the content of its class, if it got there.

    `sandbox` says by name what keeps it from the rest of the machine, or why something does not.
    """

    runtime: dict[str, object]
    ok: bool
    reason: str
    seconds: float
    sandbox: Mapping[str, str] = field(default_factory=dict)


class WorkerSupervisor:
    """Runs one job at a time in a child process. All methods block.

    `cancel` and `close` may be called from any thread. `folders` hold models (see `models`),
    `scratch` receives the outputs; `memory_limit` bounds the child's address space, in bytes;
    `device` is what its class computes with.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        scratch: Path,
        *,
        memory_limit: int | None = None,
        device: Device = "cpu",
    ) -> None:
        self._folders = tuple(folder.absolute() for folder in folders)
        self._scratch = scratch.absolute()
        self._memory_limit = memory_limit
        self._device = device
        self._turn = threading.Lock()  # held by whoever speaks with the child
        self._state = threading.Lock()  # guards what follows, never held for long
        self._child: WorkerProcess | None = None
        self._ready: WorkerStatus | None = None
        self._task: str | None = None
        self._cancelled = False
        self._closed = False

    def start(self, timeout: float) -> WorkerStatus:
        """Start the worker and wait for its self-test, at most `timeout` seconds.

        It takes about 5 seconds. Never raises for the worker's failure: `WorkerStatus.ok` is then
        false, and `reason` says why.
        """
        began = time.monotonic()
        with self._turn:
            try:
                return self._started(began + timeout)
            except TimeoutError:
                reason = f"the worker was not ready within {timeout:g} s"
            except (WorkerDied, OSError) as error:
                reason = str(error)
            self._dispose()
            return WorkerStatus({}, False, reason, time.monotonic() - began)

    def run(self, job: Job, *, timeout: float, progress: Progress) -> Execution:
        """Execute a job within `timeout` seconds, a restart of the worker included.

        `progress` is called on this thread with shares in [0, 1]. Raises `Abstained`: `busy` if
        another job runs.
        """
        if not self._turn.acquire(blocking=False):
            raise Abstained(Abstention.BUSY)
        stem = self._scratch / uuid.uuid4().hex
        try:
            with self._current(job.task):
                return self._executed(job, stem, time.monotonic() + timeout, progress)
        except BaseException:
            for path in self._scratch.glob(f"{stem.name}-*"):
                path.unlink(missing_ok=True)
            raise
        finally:
            for path in self._scratch.glob(f"{stem.name}-input-*"):
                path.unlink(missing_ok=True)
            self._turn.release()

    def cancel(self, task: str) -> None:
        """Kill the running job of that task, if it runs: its `run` raises `Abstained`."""
        with self._state:
            if self._task == task:
                self._cancelled = True
                self._kill()

    def close(self) -> None:
        """End the worker and whatever runs in it. Later runs raise `Abstained`."""
        with self._state:
            self._closed = True
            self._kill()
        with self._turn:
            self._dispose()

    @property
    def pid(self) -> int | None:
        """The process id of the worker, for whoever watches it; None if none runs."""
        child = self._child
        return child.pid if child is not None and child.alive() else None

    @contextlib.contextmanager
    def _current(self, task: str) -> Iterator[None]:
        with self._state:
            self._task, self._cancelled = task, False
        try:
            yield
        finally:
            with self._state:
                self._task, self._cancelled = None, False

    def _executed(self, job: Job, stem: Path, deadline: float, progress: Progress) -> Execution:
        try:
            ready = self._started(deadline)
            if not ready.ok:
                raise Abstained(Abstention.WORKER_DIED, ready.reason)
            return self._converse(copy_inputs(job, stem), stem, deadline, progress)
        except TimeoutError:
            self._dispose()
            raise Abstained(Abstention.TIMEOUT, "the job ran past its deadline") from None
        except (WorkerDied, OSError) as error:
            self._dispose()
            raise Abstained(self._why(), str(error)) from error
        except Abstained as abstained:
            if abstained.reason is Abstention.OUT_OF_MEMORY:
                self._dispose()
            raise
        except BaseException:  # from `progress`, or an interrupt: the job is still running
            self._dispose()
            raise

    def _converse(self, job: Job, stem: Path, deadline: float, progress: Progress) -> Execution:
        child = self._child
        if child is None:
            raise WorkerDied("stopped")
        child.send(job_message(job, stem))
        while True:
            match child.receive(deadline):
                case {"kind": "progress", "share": share}:
                    progress(float(share))
                case {"kind": "abstained", "reason": reason, "detail": detail}:
                    raise Abstained(reason, detail)
                case {"kind": "done", "outcome": outcome, "trace": trace}:
                    return Execution(outcome, files(outcome, stem), trace)
                case other:
                    raise WorkerDied(f"the worker said {other!r:.200}")

    def _started(self, deadline: float) -> WorkerStatus:
        """Return the worker's state, starting one if needed. Raises WorkerDied or TimeoutError."""
        if self._child is not None and self._child.alive() and self._ready is not None:
            return self._ready
        self._dispose()
        began = time.monotonic()
        said = self._spawned().receive(deadline)
        seconds = time.monotonic() - began
        sandbox = said.get("sandbox", {})
        ready = WorkerStatus(said["runtime"], said["ok"], said["reason"], seconds, sandbox)
        if ready.ok:
            self._ready = ready
        else:
            self._dispose()
        return ready

    def _spawned(self) -> WorkerProcess:
        with self._state:
            if self._closed or self._cancelled:
                raise WorkerDied("stopped")
            self._scratch.mkdir(parents=True, exist_ok=True)
            self._child = WorkerProcess(
                self._folders, self._scratch, self._memory_limit, self._device
            )
            return self._child

    def _why(self) -> Abstention:
        with self._state:
            return Abstention.TIMEOUT if self._cancelled else Abstention.WORKER_DIED

    def _kill(self) -> None:
        if self._child is not None:
            self._child.kill()

    def _dispose(self) -> None:
        with self._state:
            child, self._child, self._ready = self._child, None, None
        if child is not None:
            child.dispose()


def copy_inputs(job: Job, stem: Path) -> Job:
    """The job with copies of its inputs in the scratch folder, the only place a worker reaches.

    Copies and not links, for it may write there. Raises `Abstained` (input-missing).
    """
    copies = tuple(stem.with_name(f"{stem.name}-input-{i}") for i in range(len(job.inputs)))
    try:
        for path, copy in zip(job.inputs, copies, strict=True):
            shutil.copyfile(path, copy)
    except OSError as error:
        raise Abstained(Abstention.INPUT_MISSING, str(error)) from error
    return dataclasses.replace(job, inputs=copies)


def job_message(job: Job, stem: Path) -> dict[str, object]:
    """What the worker is told of a job; where its outputs go, `outputs` says."""
    return {
        "task_kind": job.kind,
        "args": dict(job.args),
        "model": {
            "id": job.model.id,
            "revision": job.model.revision,
            "digest": job.model.digest,
        },
        "inputs": [str(path) for path in job.inputs],
        "stem": str(stem),
    }


def files(outcome: dict[str, Any], stem: Path) -> tuple[Path, ...]:
    """The files of an outcome's outputs, in order; none for an error."""
    entries = outcome.get("result", {}).get("outputs", [])
    return tuple(output_path(stem, number, entry["media"]) for number, entry in enumerate(entries))
