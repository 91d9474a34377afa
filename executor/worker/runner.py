"""Runs the jobs of a worker with whatever computes its compute class.

Jobs of one model that come in one message run together, if the backend can: it computes their
tokens in common, and each job goes on by itself as soon as it has them all. A job that fails in the
common part, or does not fit into memory beside the others, is deferred: whoever gave it gives it
again, alone. So each error is that of a single run.
"""

import gc
import hashlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeAlias

import schemas
from executor.audio import manifest
from executor.determinism import self_test
from executor.errors import (
    Abstained,
    EngineUnavailable,
    ModelRefused,
    ProfileViolated,
    TaskFailed,
    TokensDiffer,
    is_memory_error,
    printable_detail,
    with_task_failures,
)
from executor.models.config import own_dtype
from executor.models.folders import SHIPPED, ModelFolders
from executor.models.json_files import configuration
from executor.tasks.failures import describe_failure
from executor.tasks.token_trace import TokenTrace
from executor.worker.messages import (
    JobAbstained,
    JobDeferred,
    JobDifferent,
    JobDone,
    JobFailed,
    JobOutput,
    JobProgress,
    WorkerMessage,
    WorkerReady,
    encode_message,
    message_text,
)
from protocol.constants import TRACE_LIMIT
from protocol.wire.encoding import canonical
from protocol.wire.messages import Abstention
from schemas.errors import HeliumError

TASK_KINDS = (TEXT_TO_MUSIC, POP2PIANO) = ("text-to-music", "pop2piano")
# The smallest change of progress that is reported; the supervisor refuses many more messages.
PROGRESS_STEP = 0.01
# Least seconds between reports: each wakes the parent, which takes up to 0.3 ms from computing.
PROGRESS_SECONDS = 0.05

# Names of stopped jobs that are remembered; a stop may come before its job, or after it.
STOPPED_NAMES = 64

JobResult: TypeAlias = JobDone | JobFailed | JobAbstained | JobDifferent
JobMessage = Mapping[str, Any]  # as `supervisor.job_message` makes it
Report = Callable[[float], None]  # takes shares in [0, 1]; raises `Abstained` if the job is to stop


@dataclass(frozen=True, slots=True)
class Generated:
    """What a job generated: its outputs, the trace of each sequence, and its `work`.

    `outputs` may be rendered as they are read; that cannot fail any more. `work` is None where an
    outcome of the class proves none (specification 8).
    """

    outputs: Iterable[manifest.OutputFile]
    traces: Sequence[TokenTrace]
    work: str | None = None


class Backend(Protocol):
    """Computes the jobs of a compute class: see `main.backend_of`.

    `task` is the kind of its self-test, `embedded` the shipped model for it.
    """

    task: ClassVar[str]
    embedded: ClassVar[str]
    threads: int  # that compute at once

    def prepare(self) -> None:
        """Get ready to compute. Raises `ProfileViolated` or `EngineUnavailable`."""

    def runtime(self, probe: str) -> dict[str, object]:
        """Return the runtime of the class; `probe` is what the self-test generated."""

    def load(self, kind: str, folder: Path, dtype: str, bits: int | None) -> Any:
        """Load a checked model folder for jobs of a kind. Raises `ModelRefused`, `TaskFailed`."""

    def probe(self, model: Any, prompt: str, seed: int) -> bytes:
        """Return the bytes of a small generation, for the self-test."""

    def compute_together(
        self, model: Any, jobs: Sequence[JobMessage], reports: Sequence[Report]
    ) -> Iterator[tuple[int, Any]]:
        """Compute jobs of one model in common; yield a job's place and what `generate` then takes.

        Yields each as soon as it is computed, None for one that is stopped. Those that it does not
        yield are deferred. Raises only for too little memory.
        """

    def generate(
        self, model: Any, job: JobMessage, report: Report, computed: Any = None
    ) -> Generated:
        """Run a job with a loaded model. Raises `TaskFailed`, `Abstained`, `TokensDiffer`."""


@dataclass(slots=True)
class RunningJob:
    """A job that runs, its place among those that run together, and what it has reported."""

    message: JobMessage
    place: int = 0
    started_at: float = field(default_factory=time.monotonic)
    # Below every share, so that 0 is reported too.
    reported_share: float = -1.0
    reported_at: float = 0.0

    @property
    def model_key(self) -> tuple[object, ...]:
        """What jobs that run together have in common."""
        args = self.message["args"]
        model = self.message["model"]["digest"], args.get("dtype"), args.get("quantize_bits")
        return self.message["task_kind"], *model


class JobRunner:
    """Runs jobs; keeps the last model that it loaded."""

    def __init__(
        self, connection: "Connection[Any, Any]", folders: ModelFolders, backend: Backend
    ) -> None:
        self._connection = connection
        self._backend = backend
        self._folders = folders
        self._model_key: tuple[object, ...] = ()
        self._model: Any = None
        self._runtime: dict[str, object] = {}
        # Written by the thread that receives. More are not stopped at a time.
        self._stopped_names = deque[str](maxlen=STOPPED_NAMES)
        # Jobs that run together report from threads of their own.
        self._sending = threading.Lock()

    def prepare(self) -> WorkerReady:
        """Prepare what computes, and run the self-test."""
        try:
            self._backend.prepare()
            probe, problem = self_test.check(self.render)
        except (ProfileViolated, ModelRefused, EngineUnavailable) as error:
            return WorkerReady({}, False, message_text(str(error)), {})
        self._runtime = self._backend.runtime(probe)
        return WorkerReady(self._runtime, not problem, problem, {})

    @property
    def threads(self) -> int:
        """How many threads compute a job."""
        return self._backend.threads

    def stop(self, name: str) -> None:
        """Stop the job of this name, or prevent it; from any thread."""
        self._stopped_names.append(name)

    def run_all(self, jobs: Sequence[JobMessage]) -> None:
        """Execute a job, or several together, and send the result of each."""
        if len(jobs) == 1:
            self._send(self.run(jobs[0]))
            return
        left = {place: RunningJob(job, place) for place, job in enumerate(jobs)}
        end: JobDeferred | JobAbstained = JobDeferred()
        try:
            for place, computed in self._compute_together([*left.values()]):
                self._send(self._run(left.pop(place), computed))
        except (MemoryError, RuntimeError, OSError) as error:
            end = out_of_memory(error)
        for place in left:
            self._send(replace(end, job=place))

    def _compute_together(self, jobs: Sequence[RunningJob]) -> Iterator[tuple[int, Any]]:
        """Yield a job's place and what was computed for it."""
        if len({job.model_key for job in jobs}) > 1 or any(job.message["tokens"] for job in jobs):
            return
        messages = [job.message for job in jobs]
        reports = [partial(self._report, job) for job in jobs]
        try:
            model = with_task_failures(lambda: self._load(messages[0]), describe=describe_failure)
        except HeliumError:  # alone, each job raises it again
            return
        yield from self._backend.compute_together(model, messages, reports)

    def run(self, job: JobMessage) -> JobResult:
        """Execute one job and return its result."""
        return self._run(RunningJob(job))

    def _run(self, job: RunningJob, computed: Any = None) -> JobResult:
        return replace(self._result(job, computed), job=job.place)

    def _result(self, job: RunningJob, computed: Any) -> JobResult:
        try:
            return self._execute(job, computed)
        except TokensDiffer as different:
            found = different.difference
            return JobDifferent(found.sequence, found.step, found.column)
        except Abstained as abstained:
            return JobAbstained(abstained.reason, message_text(abstained.detail))
        except (MemoryError, RuntimeError, OSError) as error:
            return out_of_memory(error)

    def _execute(self, running: RunningJob, computed: Any) -> JobDone | JobFailed:
        job = running.message
        if job["task_kind"] not in TASK_KINDS:
            raise Abstained(Abstention.MODEL_MISSING, f"no executor for {job['task_kind']}")
        check_inputs(job)
        self._check_stop(running)
        traces: Sequence[TokenTrace] = ()
        failure: TaskFailed | None = None
        try:
            outcome, traces = with_task_failures(
                lambda: self._deliver_outputs(running, computed), describe=describe_failure
            )
            check_manifest(outcome)
        except TaskFailed as task_failed:
            failure, outcome = task_failed, {"error": task_failed.code}
        detail = printable_detail(failure.detail) if failure else ""
        trace = bounded_trace(
            {
                "runtime": self._runtime,
                "weights": job["model"]["digest"],
                "tokens": [list(sequence.digests) for sequence in traces],
                "steps": [list(sequence.steps) for sequence in traces],
                "seconds": round(time.monotonic() - running.started_at, 3),
                **({"detail": detail} if detail else {}),
            }
        )
        if failure and not failure.confirmed:
            return JobFailed(failure.code, detail, trace)
        return JobDone(outcome, trace)

    def _deliver_outputs(
        self, job: RunningJob, computed: Any
    ) -> tuple[dict[str, Any], Sequence[TokenTrace]]:
        """Generate and send a job's outputs; return the outcome and the tokens' traces."""
        model = self._load(job.message)
        self._check_stop(job)
        report = partial(self._report, job)
        generated = self._backend.generate(model, job.message, report, computed)
        work = {} if generated.work is None else {"work": generated.work}
        entries = [self._deliver(job, output) for output in generated.outputs]
        return {"result": {"outputs": entries}, **work}, generated.traces

    def _deliver(self, job: RunningJob, output: manifest.OutputFile) -> dict[str, object]:
        """Send the bytes of an output, then of its tokens; return its entry in the manifest.

        Raises `Abstained` if the job is to stop: an output is rendered as it is read.
        """
        self._check_stop(job)
        for content in (output.content, output.tokens):
            if content is None:
                continue
            with self._sending:
                send(self._connection, JobOutput(len(content), job.place))
                remaining = memoryview(content)
                while remaining:
                    remaining = remaining[os.write(self._connection.fileno(), remaining) :]
        return output.entry

    def _load(self, job: JobMessage) -> Any:
        model, args = job["model"], job["args"]
        folder = self._folders.find(model["id"], model["revision"], model["digest"])
        # All members of the class see the same weights, so this is an outcome, not an abstention.
        if tensor := self._folders.first_nan_tensor(folder):
            raise TaskFailed("non-finite-output", f"NaN in {tensor}")
        try:
            dtype = dtype_name(folder, args.get("dtype"))
            bits = args.get("quantize_bits")
            return self._warm(job["task_kind"], folder, model["digest"], dtype, bits)
        except ModelRefused as refusal:
            raise Abstained(Abstention.MODEL_MISSING, str(refusal)) from refusal

    def _warm(self, kind: str, folder: Path, digest: str, dtype: str, bits: int | None) -> Any:
        key = (kind, folder, digest, dtype, bits)
        if self._model is None or self._model_key != key:
            self._drop()
            self._model = self._backend.load(kind, folder, dtype, bits)
            self._model_key = key
        return self._model

    def _drop(self) -> None:
        # Models have reference cycles; without a collection, two would be in memory at once.
        self._model, self._model_key = None, ()
        gc.collect()

    def render(self, prompt: str, seed: int, fresh: bool) -> str:
        """Generate for the self-test and return the SHA-256 of the bytes."""
        if fresh:
            self._drop()
        folder = SHIPPED / self._backend.embedded
        digest = self._folders.digest(folder)
        model = self._warm(self._backend.task, folder, digest, "float32", None)
        return hashlib.sha256(self._backend.probe(model, prompt, seed)).hexdigest()

    def _check_stop(self, job: RunningJob) -> None:
        """Raise `Abstained` if the job is to stop."""
        if job.message["name"] in self._stopped_names:
            raise Abstained(Abstention.TIMEOUT, "the job was stopped")
        if time.monotonic() >= job.started_at + job.message["seconds"]:
            raise Abstained(Abstention.TIMEOUT, "the job ran past its deadline")

    def _send(self, message: WorkerMessage) -> None:
        with self._sending:
            send(self._connection, message)

    def _report(self, job: RunningJob, share: float) -> None:
        """Report progress, unless it is too little or too soon after the last report.

        Raises `Abstained` if the job is to stop: so it ends between two steps of any generation.
        """
        self._check_stop(job)
        now = time.monotonic()
        is_due = (
            share - job.reported_share >= PROGRESS_STEP
            and now - job.reported_at >= PROGRESS_SECONDS
        )
        if is_due or job.reported_share < share == 1.0:
            job.reported_share, job.reported_at = share, now
            self._send(JobProgress(share, job.place))


def out_of_memory(error: Exception) -> JobAbstained:
    """Return the end of a job that met an error of too little memory.

    Raises any other one. It is a bug, or this machine's own; the worker dies with its traceback.
    """
    if not is_memory_error(error):
        raise error
    return JobAbstained(Abstention.OUT_OF_MEMORY, message_text(str(error)))


def dtype_name(folder: Path, dtype: str | None) -> str:
    """Return torch's name of the precision to load; "auto" and None mean the model's own."""
    if dtype in (None, "auto"):
        return own_dtype(configuration(folder, "config.json"))
    return str(dtype)


def check_inputs(job: JobMessage) -> None:
    """Raise `Abstained` (input-missing) unless the inputs are those that the args name."""
    expected = [audio["sha256"] for audio in job["args"].get("audio", ())]
    hashes = [file_sha256(Path(path)) for path in job["inputs"]]
    if hashes != expected:
        raise Abstained(
            Abstention.INPUT_MISSING, f"the inputs are {hashes}, the task names {expected}"
        )


def check_manifest(outcome: Mapping[str, Any]) -> None:
    """Raise `TaskFailed` for outputs that no manifest may hold (specification 8.2).

    Every member of the class gets the same ones, so this is an outcome.
    """
    try:
        schemas.check("outcome", outcome)
    except schemas.SchemaViolation as violation:
        raise TaskFailed("generation-rejected", str(violation)) from violation


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hex characters."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def bounded_trace(trace: dict[str, Any]) -> dict[str, Any]:
    """Cut a trace to `TRACE_LIMIT`: of a long generation, first the steps go, then the digests."""
    while len(canonical(trace)) > TRACE_LIMIT:
        if any(trace["steps"]):
            trace = {**trace, "steps": first_halves(trace["steps"])}
        else:
            trace = {**trace, "tokens": first_halves(trace["tokens"]), "tokens_complete": False}
    return trace


def first_halves(sequences: Sequence[Sequence[str]]) -> list[Sequence[str]]:
    """Return the first half of each sequence's blocks."""
    return [blocks[: len(blocks) // 2] for blocks in sequences]


def send(connection: "Connection[Any, Any]", message: WorkerMessage) -> None:
    """Send a message to the parent. Raises `OSError` if it has ended."""
    connection.send_bytes(encode_message(message))
