"""What the backends of the engine's classes share: threads, progress, the proof of work."""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from executor.determinism import compute_class
from executor.engine import library
from executor.engine.pool import Control, Pool
from executor.errors import Abstained
from executor.tasks.token_trace import TokenTrace, trace_of
from executor.worker.runner import JobMessage, Report
from protocol import work
from protocol.wire.messages import Abstention

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Seconds between two looks at a running call: to report progress, and to stop it.
LOOK_SECONDS = 0.05
# More threads would wait for the memory: they read the same weights (docs/measurements.md).
MAX_DEFAULT_THREADS = 4


class EngineBackend:
    """A backend of the project's own kernels, without torch or transformers."""

    task: ClassVar[str]  # the kind of task that its class runs
    libraries: ClassVar[Sequence[str]]  # distributions that still compute an input

    def __init__(self, threads: int) -> None:
        """0 threads take `default_threads`."""
        self.threads = threads or default_threads()
        self._pool: Pool | None = None

    def prepare(self) -> None:
        """Load the library and start the threads. Raises `EngineUnavailable`."""
        library.load()
        self._pool = Pool(self.threads)

    def runtime(self, probe: str) -> dict[str, object]:
        """Return the runtime of the class."""
        version = library.ARITHMETIC_VERSION
        return compute_class.describe_engine_runtime(version, self.task, self.libraries, probe)

    def compute_together(
        self, model: Any, jobs: Sequence[JobMessage], reports: Sequence[Report]
    ) -> Iterator[tuple[int, Any]]:
        """Compute nothing: jobs run one after another."""
        return iter(())

    def require_kind(self, kind: str) -> None:
        """Raise `Abstained` (model-missing) for a job of another kind."""
        if kind != self.task:
            raise Abstained(Abstention.MODEL_MISSING, f"this class does not run {kind}")


def default_threads() -> int:
    """Return one thread per processor of this process, at most `MAX_DEFAULT_THREADS`."""
    return min(len(os.sched_getaffinity(0)), MAX_DEFAULT_THREADS)


def sequence_of(tokens: "NDArray[Any]", logits: "NDArray[Any]") -> work.Sequence:
    """Return what proves a sequence's work: its tokens `(steps, columns)` and its kept logits."""
    return work.Sequence(len(tokens), little_endian(tokens), little_endian(logits))


def trace_of_tokens(tokens: "NDArray[Any]") -> TokenTrace:
    """Return the trace of a sequence's tokens, `(steps, columns)`."""
    return trace_of([little_endian(step) for step in tokens])


def little_endian(array: "NDArray[Any]") -> bytes:
    """Return the numbers of an array, in C order, each of 4 bytes in little-endian order."""
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def share_of(begun: float, width: float) -> Callable[[int], float]:
    """Return the progress by the steps done, each of `width`, of a part that began at `begun`."""
    return lambda done: begun + width * done


@contextmanager
def watched(report: Report, share: Callable[[int], float]) -> Iterator[Control]:
    """Give the control of a call of the engine, and watch the call from another thread.

    `share` is the job's progress after so many steps of the call. What `report` raises stops the
    call within `LOOK_SECONDS` and one step, and is raised instead of what the call then raises,
    except `MemoryError`: the worker is to end then.
    """
    control, ended, failure = Control(), threading.Event(), None
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
    except MemoryError as error:
        failure = error
        raise
    finally:
        ended.set()
        watcher.join()
        if stopped and failure is None:
            raise stopped[0]
