"""The worker process: a fresh interpreter under the numeric profile, warm with the last model.

Started by `process` as `python -m executor.worker.main FD`. Over that socket it receives its
configuration, sends `WorkerReady`, and then runs the jobs that it receives, one at a time. The
message `{"stop": name}` ends the job of that name between two steps. The process ends when the
socket closes, also in the middle of a job, so that no worker outlives its parent.
"""

import dataclasses
import gc
import hashlib
import json
import math
import os
import queue
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import schemas
from executor.audio import manifest
from executor.determinism import compute_class, profile, self_test
from executor.errors import (
    Abstained,
    ModelRefused,
    ProfileViolated,
    TaskFailed,
    is_memory_error,
    printable_detail,
    with_task_failures,
)
from executor.models.config import own_dtype
from executor.models.folders import EMBEDDED, SHIPPED, ModelFolders
from executor.models.json_files import configuration
from executor.sandbox import confine
from executor.tasks.failures import describe_failure
from executor.tasks.numba_cache import kernels
from executor.worker.messages import (
    JobAbstained,
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

if TYPE_CHECKING:
    from executor.tasks.token_trace import TokenTrace

TASK_KINDS = (TEXT_TO_MUSIC, POP2PIANO) = ("text-to-music", "pop2piano")
# The smallest change of progress that is reported; the supervisor refuses many more messages.
PROGRESS_STEP = 0.01
# Least seconds between reports: each wakes the parent, which takes up to 0.3 ms from computing.
PROGRESS_SECONDS = 0.05

JobMessage = Mapping[str, Any]  # as `supervisor.job_message` makes it


class JobRunner:
    """Runs jobs one after another; keeps the last model that it loaded."""

    def __init__(
        self,
        connection: "Connection[Any, Any]",
        folders: ModelFolders,
        device: profile.Device = "cpu",
    ) -> None:
        self._connection = connection
        self._device = device
        self._folders = folders
        self._model_key: tuple[object, ...] = ()
        self._model: Any = None
        self._runtime: dict[str, object] = {}
        self._name, self._stop_at = "", math.inf
        self._stopped_name = ""  # written by the thread that receives
        # Below every share, so that 0 is reported too.
        self._reported_share, self._reported_at = -1.0, 0.0

    def prepare(self) -> WorkerReady:
        """Fix the profile, import the libraries that compute, and run the self-test."""
        try:
            profile.fix(self._device)
            probe, problem = self_test.check(self.render)
        except (ProfileViolated, ModelRefused) as error:
            return WorkerReady({}, False, message_text(str(error)), {})
        self._runtime = compute_class.describe_runtime(probe, self._device)
        return WorkerReady(self._runtime, not problem, problem, {})

    def stop(self, name: str) -> None:
        """Stop the job of this name, or prevent it; from any thread."""
        self._stopped_name = name

    def run(self, job: JobMessage) -> JobDone | JobFailed | JobAbstained:
        """Execute one job and return its result."""
        try:
            return self._execute(job)
        except Abstained as abstained:
            return JobAbstained(abstained.reason, message_text(abstained.detail))
        except (MemoryError, RuntimeError, OSError) as error:
            # Any other error is a bug, or this machine's own; the worker dies with its traceback.
            if not is_memory_error(error):
                raise
            return JobAbstained(Abstention.OUT_OF_MEMORY, message_text(str(error)))

    def _execute(self, job: JobMessage) -> JobDone | JobFailed:
        if job["task_kind"] not in TASK_KINDS:
            raise Abstained(Abstention.MODEL_MISSING, f"no executor for {job['task_kind']}")
        check_inputs(job)
        started_at = time.monotonic()
        self._name, self._stop_at = job["name"], started_at + job["seconds"]
        self._reported_share, self._reported_at = -1.0, 0.0
        self._check_stop(started_at)
        tokens: list[TokenTrace] = []
        failure: TaskFailed | None = None
        try:
            entries, tokens = with_task_failures(
                lambda: self._deliver_outputs(job), describe=describe_failure
            )
            outcome: dict[str, Any] = {"result": {"outputs": entries}}
            check_manifest(outcome)
        except TaskFailed as task_failed:
            failure, outcome = task_failed, {"error": task_failed.code}
        detail = printable_detail(failure.detail) if failure else ""
        trace = bounded_trace(
            {
                "runtime": self._runtime,
                "weights": job["model"]["digest"],
                "tokens": [list(sequence.digests) for sequence in tokens],
                "steps": [list(sequence.steps) for sequence in tokens],
                "seconds": round(time.monotonic() - started_at, 3),
                **({"detail": detail} if detail else {}),
            }
        )
        if failure and not failure.confirmed:
            return JobFailed(failure.code, detail, trace)
        return JobDone(outcome, trace)

    def _deliver_outputs(
        self, job: JobMessage
    ) -> tuple[list[dict[str, object]], "list[TokenTrace]"]:
        """Generate and send a job's outputs; return their entries and the tokens' traces."""
        model = self._load(job)
        self._check_stop(time.monotonic())
        outputs, tokens = self._generate(model, job)
        return [self.deliver(output) for output in outputs], tokens

    def _generate(
        self, model: Any, job: JobMessage
    ) -> "tuple[Iterable[manifest.OutputFile], list[TokenTrace]]":
        """Return a job's outputs and the trace of each sequence's tokens.

        The outputs of pop2piano are rendered as they are read. That cannot fail any more.
        """
        if job["task_kind"] == POP2PIANO:
            from executor.tasks import pop2piano

            paths = [Path(path) for path in job["inputs"]]
            covers = pop2piano.covers(
                model, job["args"], paths, self._report, job["model"]["limits"]
            )
            outputs = manifest.cover_outputs([cover.notes for cover in covers])
            return outputs, [cover.tokens for cover in covers]
        from executor.tasks import text_to_music

        sounds = text_to_music.sounds(model, job["args"], self._report)
        # All are checked for NaN before the first is written.
        frames = [manifest.canonical_frames(sound.audio) for sound in sounds]
        waveforms = [
            manifest.waveform_output(waveform, sound.sampling_rate)
            for waveform, sound in zip(frames, sounds, strict=True)
        ]
        return waveforms, [sound.tokens for sound in sounds]

    def deliver(self, output: manifest.OutputFile) -> dict[str, object]:
        """Send the bytes of an output to the supervisor; return its entry in the manifest.

        Raises `Abstained` if the job is to stop: an output is rendered as it is read.
        """
        self._check_stop(time.monotonic())
        send(self._connection, JobOutput(len(output.content)))
        remaining = memoryview(output.content)
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
            if bits is not None:
                profile.fix_quantization()
            self._model = loader(kind, self._device)(folder, dtype, bits)
            self._model_key = key
        return self._model

    def _drop(self) -> None:
        # Models have reference cycles; without a collection, two would be in memory at once.
        self._model, self._model_key = None, ()
        gc.collect()

    def render(self, prompt: str, seed: int, fresh: bool) -> str:
        """Generate for the self-test and return the SHA-256 of the canonical waveform."""
        from executor.tasks import text_to_music

        if fresh:
            self._drop()
        folder = SHIPPED / EMBEDDED
        model = self._warm(TEXT_TO_MUSIC, folder, self._folders.digest(folder), "float32", None)
        config = {"max_new_tokens": self_test.TOKENS}
        args = {"prompt": prompt, "seed": seed, "generation_config": config}
        (sound,) = text_to_music.sounds(model, args, lambda _: None)
        return hashlib.sha256(manifest.canonical_frames(sound.audio).tobytes()).hexdigest()

    def _check_stop(self, now: float) -> None:
        """Raise `Abstained` if the job is to stop."""
        if self._stopped_name == self._name:
            raise Abstained(Abstention.TIMEOUT, "the job was stopped")
        if now >= self._stop_at:
            raise Abstained(Abstention.TIMEOUT, "the job ran past its deadline")

    def _report(self, share: float) -> None:
        """Report progress, unless it is too little or too soon after the last report.

        Raises `Abstained` if the job is to stop: so it ends between two steps of any generation.
        """
        now = time.monotonic()
        self._check_stop(now)
        is_due = (
            share - self._reported_share >= PROGRESS_STEP
            and now - self._reported_at >= PROGRESS_SECONDS
        )
        if is_due or self._reported_share < share == 1.0:
            self._reported_share, self._reported_at = share, now
            send(self._connection, JobProgress(share))


def loader(kind: str, device: profile.Device) -> Callable[[Path, str, int | None], Any]:
    """Return the function that loads a model for jobs of a kind.

    A kind's libraries are imported here, so that a worker pays only for the kinds that it runs.
    """
    if kind == POP2PIANO:
        from executor.tasks import pop2piano

        return pop2piano.load
    from executor.tasks import text_to_music

    return lambda folder, dtype, bits: text_to_music.load(folder, dtype, bits, device)


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


def receive_jobs(
    connection: "Connection[Any, Any]",
    jobs: "queue.SimpleQueue[JobMessage]",
    stop: Callable[[str], None],
) -> None:
    """Queue the jobs that the parent sends, and stop those that it says.

    Ends this process when the parent closes the socket.
    """
    while True:
        try:
            message = json.loads(connection.recv_bytes())
        except (EOFError, OSError):
            # Not sys.exit, which ends this thread only, while the main thread may be computing.
            os._exit(0)
        if "stop" in message:
            stop(message["stop"])
        else:
            jobs.put(message)


def main() -> None:
    """Serve until the parent closes the socket."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is for the parent
    connection: Connection[Any, Any] = Connection(int(sys.argv[1]))
    config = json.loads(connection.recv_bytes())
    folders = [Path(folder) for folder in config["folders"]]
    # Before the first thread starts, because the sandbox does not reach threads that run already,
    # and before anything is imported that computes or reads what strangers wrote.
    memory, device = config["memory"], config["device"]
    # Libraries ask where temporary files go. There is no such place here, so nothing is tried.
    tempfile.tempdir = str(Path.cwd())
    if config["compiles"]:
        writable = Path(os.environ["NUMBA_CACHE_DIR"])
        sandbox = confine.confine(folders, memory, device, writable)
        kernels.compile_all()
        send(connection, WorkerReady({}, True, "", sandbox))
        return
    kernels.use_compiled_only()
    sandbox = confine.confine(folders, memory, device)
    jobs: queue.SimpleQueue[JobMessage] = queue.SimpleQueue()
    runner = JobRunner(connection, ModelFolders(folders), device)
    threading.Thread(target=receive_jobs, args=(connection, jobs, runner.stop), daemon=True).start()
    send(connection, dataclasses.replace(runner.prepare(), sandbox=sandbox))
    while True:
        job = jobs.get()
        confine.extend_cpu_limit()
        send(connection, runner.run(job))


if __name__ == "__main__":
    main()
