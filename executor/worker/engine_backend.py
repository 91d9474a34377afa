"""Computes jobs with the engine: the project's own kernels, without torch or transformers."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from executor.audio import manifest
from executor.determinism import compute_class
from executor.engine import library
from executor.engine.music import MusicModel, kind_of
from executor.engine.pool import Control, Pool
from executor.errors import Abstained
from executor.models.families import SEQUENCES
from executor.tasks.arguments import config_members, sequence_seeds
from executor.tasks.token_trace import TokenTrace, trace_of
from executor.worker.runner import TEXT_TO_MUSIC, Generated, JobMessage, Report
from protocol.wire.messages import Abstention

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Seconds between two looks at a running call: to report progress, and to stop it.
LOOK_SECONDS = 0.05
# More threads would wait for the memory: they read the same weights (docs/measurements.md).
MAX_DEFAULT_THREADS = 4
# The share of a job's time that its tokens take; the rest is the codec's.
TOKENS_SHARE = 0.9


class EngineBackend:
    """The backend of the classes of engine `helium`."""

    def __init__(self, task: str, threads: int) -> None:
        """`task` is the kind of task that the class runs; 0 threads take `default_threads`."""
        self._task, self._threads = task, threads or default_threads()
        self._pool: Pool | None = None

    def prepare(self) -> None:
        """Load the library and start the threads. Raises `EngineUnavailable`."""
        library.load()
        self._pool = Pool(self._threads)

    def runtime(self, probe: str) -> dict[str, object]:
        """Return the runtime of the class."""
        return compute_class.describe_engine_runtime(library.ARITHMETIC_VERSION, self._task, probe)

    def load(self, kind: str, folder: Path, dtype: str, bits: int | None) -> MusicModel:
        """Map a model. Raises `ModelRefused`, `TaskFailed`, `Abstained`."""
        if kind != self._task:
            raise Abstained(Abstention.MODEL_MISSING, f"this class does not run {kind}")
        return MusicModel(folder, kind_of(dtype, bits))

    def generate(self, model: MusicModel, job: JobMessage, report: Report) -> Generated:
        """Run a job: all tokens, then the sound of each sequence."""
        members = config_members(TEXT_TO_MUSIC, job["args"])
        count = members.pop(SEQUENCES, None) or 1
        seeds = sequence_seeds(int(str(job["args"]["seed"])), count)
        request = model.request(str(job["args"]["prompt"]), seeds, members)
        with watched(report, lambda done: TOKENS_SHARE * done / request.steps) as control:
            steps = model.generate(request, self._pool, control)
        frames = []
        for number, tokens in enumerate(steps.tokens):
            begun = TOKENS_SHARE + (1 - TOKENS_SHARE) * number / count
            with watched(report, partial(_constant, begun)) as control:
                waveform = model.decode(tokens, self._pool, control)
            frames.append(manifest.canonical_frames(waveform))
        report(1.0)
        outputs = [manifest.waveform_output(frame, model.sampling_rate) for frame in frames]
        return Generated(outputs, [trace_of_tokens(tokens) for tokens in steps.tokens])


def _constant(share: float, _: int) -> float:
    return share


def default_threads() -> int:
    """Return one thread per processor of this process, at most `MAX_DEFAULT_THREADS`."""
    return min(len(os.sched_getaffinity(0)), MAX_DEFAULT_THREADS)


def trace_of_tokens(tokens: "NDArray[np.int32]") -> TokenTrace:
    """Return the trace of a sequence's tokens, `(steps, columns)`."""
    return trace_of([step.astype("<i4").tobytes() for step in tokens])


@contextmanager
def watched(report: Report, share: Callable[[int], float]) -> Iterator[Control]:
    """Give the control of a call of the engine, and watch the call from another thread.

    `share` is the job's progress after so many steps of the call. What `report` raises stops the
    call within `LOOK_SECONDS` and one step, and is raised instead of what the call then raises.
    """
    control, ended = Control(), threading.Event()
    stopped: list[BaseException] = []

    def watch() -> None:
        while not ended.wait(LOOK_SECONDS):
            try:
                report(share(control.done.value))
            except BaseException as error:  # raised on the caller's thread
                stopped.append(error)
                control.stop.value = 1
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield control
    finally:
        ended.set()
        watcher.join()
        if stopped:
            raise stopped[0]
