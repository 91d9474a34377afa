"""Computes jobs with the engine: the project's own kernels, without torch or transformers."""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from executor.audio import manifest
from executor.determinism import compute_class
from executor.engine import library
from executor.engine.music import MusicModel, Request, kind_of
from executor.engine.musicgen import Steps
from executor.engine.pool import Control, Pool
from executor.errors import Abstained
from executor.models.families import SEQUENCES
from executor.tasks.arguments import config_members, sequence_seeds
from executor.tasks.given_tokens import GivenTokens
from executor.tasks.token_trace import TokenTrace, trace_of
from executor.worker.runner import TEXT_TO_MUSIC, Generated, JobMessage, Report
from protocol import work
from protocol.wire.messages import Abstention

if TYPE_CHECKING:
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
        """Run a job: all tokens, generated or replayed, then the sound of each sequence."""
        members = config_members(TEXT_TO_MUSIC, job["args"])
        count = members.pop(SEQUENCES, None) or 1
        seeds = sequence_seeds(int(str(job["args"]["seed"])), count)
        request = model.request(str(job["args"]["prompt"]), seeds, members)
        steps = self._compute(model, request, job["tokens"], report)
        frames = []
        for number, tokens in enumerate(steps.tokens):
            begun = TOKENS_SHARE + (1 - TOKENS_SHARE) * number / count
            with watched(report, partial(_share, begun, 0)) as control:
                waveform = model.decode(tokens, self._pool, control)
            frames.append(manifest.canonical_frames(waveform))
        report(1.0)
        sequences = [
            work.Sequence(request.steps, little_endian(tokens), little_endian(logits))
            for tokens, logits in zip(steps.tokens, steps.logits, strict=True)
        ]
        proof = sequences if job["proves_work"] else ()
        blobs = [work.tokens_blob(sequence.steps, sequence.tokens) for sequence in proof]
        outputs = [
            manifest.waveform_output(frame, model.sampling_rate, blob)
            for frame, blob in zip_longest(frames, blobs)
        ]
        traces = [trace_of_tokens(tokens) for tokens in steps.tokens]
        return Generated(outputs, traces, work.work_digest(proof) if proof else None)

    def _compute(
        self, model: MusicModel, request: Request, blobs: Sequence[str], report: Report
    ) -> Steps:
        """Generate the tokens of all sequences, or replay those of `blobs`.

        As many run together as `MusicModel.batch` allows. Raises `TokensDiffer`.
        """
        count, (codebooks, vocabulary) = len(request.seeds), model.shape
        shape = count, request.steps, codebooks
        given = GivenTokens([Path(blob) for blob in blobs], shape, vocabulary) if blobs else None
        batches: list[Steps] = []
        size = model.batch(request)
        for start in range(0, count, size):
            batch = replace(request, seeds=request.seeds[start : start + size])
            end = start + len(batch.seeds)
            # A replay counts the steps of one sequence after another, a generation those of all.
            counted = request.steps * (len(batch.seeds) if given else 1)
            begun, width = start * TOKENS_SHARE / count, (end - start) * TOKENS_SHARE / count
            with watched(report, partial(_share, begun, width / counted)) as control:
                if given is None:
                    batches.append(model.generate(batch, self._pool, control))
                    continue
                tokens = given.tokens[start:end]
                steps, difference = model.replay(batch, tokens, self._pool, control)
            if difference is not None:
                difference = replace(difference, sequence=start + difference.sequence)
            given.check(end, difference)
            batches.append(steps)
        return Steps(
            np.concatenate([batch.tokens for batch in batches]),
            np.concatenate([batch.logits for batch in batches]),
        )


def little_endian(array: "NDArray[Any]") -> bytes:
    """Return the numbers of an array, in C order, each of 4 bytes in little-endian order."""
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def _share(begun: float, width: float, done: int) -> float:
    """Return the progress after `done` steps, each of so much, of a part that began there."""
    return begun + width * done


def default_threads() -> int:
    """Return one thread per processor of this process, at most `MAX_DEFAULT_THREADS`."""
    return min(len(os.sched_getaffinity(0)), MAX_DEFAULT_THREADS)


def trace_of_tokens(tokens: "NDArray[np.int32]") -> TokenTrace:
    """Return the trace of a sequence's tokens, `(steps, columns)`."""
    return trace_of([little_endian(step) for step in tokens])


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
