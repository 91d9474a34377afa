"""How long tasks take on this machine, from which `attempt_seconds` of slow models follows.

An attempt should last five times an execution under load (specification 3.3). A shorter task is
executed, and its time is scaled to the longest task that the model's limits allow: the longest one
itself takes minutes for a small model, and hours for a large one.
"""

import math
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from executor.determinism.compute_class import TRANSFORMERS, WorkerKind
from executor.errors import Abstained
from executor.models.folders import SHIPPED
from node.cli import interrupts, options
from node.cli.commands.network.loading import require_loading
from node.cli.exit_codes import Exit, Failure, usage
from protocol.network import Model
from protocol.wire.encoding import Document, Json

if TYPE_CHECKING:
    from executor.job import Job
    from executor.worker.supervisor import WorkerSupervisor

# Of an execution under load: three times loses half of a burst of tasks, five times loses none.
ATTEMPT_FACTOR = 5
# The longest `attempt_seconds` of a network document.
MAX_ATTEMPT_SECONDS = 86_400
# What is executed: new tokens, or seconds of a song. Some seconds on a laptop, for a small model.
TOKENS, SONG_SECONDS = 256, 30
# New tokens and seconds of input that a task may ask for where no limit says less.
LONGEST_TOKENS, LONGEST_SONG = 1500, 600
# A model that has not finished by then is not measured.
TIMEOUT_SECONDS = 1800.0


@dataclass(frozen=True, slots=True)
class Measurement:
    """One executed task of a model: its seconds, and the share that it is of the longest task."""

    kind: str
    seconds: float
    share: float

    @property
    def longest(self) -> float:
        """The seconds that the longest task takes."""
        return self.seconds / self.share

    @property
    def attempt_seconds(self) -> int:
        """The shortest attempt in which the longest task fits under load."""
        return min(math.ceil(ATTEMPT_FACTOR * self.longest), MAX_ATTEMPT_SECONDS)


@contextmanager
def local_worker(
    folders: Sequence[Path], kind: WorkerKind = TRANSFORMERS
) -> Iterator[tuple["WorkerSupervisor", Document]]:
    """Give a worker of this machine, and the definition of its class. Its start takes seconds."""
    # Imported here: `helium network show` needs no worker.
    from executor.worker.supervisor import temporary_worker

    with interrupts.cleanly(), temporary_worker(folders, kind) as (supervisor, status):
        if not status.ok:
            raise Failure(Exit.FAULT, f"this machine's self-test failed: {status.reason}")
        yield supervisor, cast("Document", status.runtime)


def local_compute_class(kind: WorkerKind = TRANSFORMERS) -> Document:
    """Return the definition of this machine's class. Starts a worker, which takes some seconds."""
    with local_worker([SHIPPED], kind) as (_, runtime):
        return runtime


def measure(worker: "WorkerSupervisor", model: Model) -> Measurement:
    """Execute a task of each kind that a model serves; return the one with the slowest longest.

    Raises Abstained if the worker cannot execute it.
    """
    from node.execution.warm_up import warm_up_jobs

    for job in warm_up_jobs(model, worker.scratch):  # the first one loads and compiles
        _run(worker, job)
    measurements = [
        Measurement(job.kind, _run(worker, job), _share(model, job))
        for job in warm_up_jobs(model, worker.scratch, TOKENS, SONG_SECONDS)
    ]
    return max(measurements, key=lambda measurement: measurement.longest)


def _run(worker: "WorkerSupervisor", job: "Job") -> float:
    """Return the seconds that a job takes."""
    start = time.monotonic()
    try:
        execution = worker.run(job, timeout=TIMEOUT_SECONDS, progress=lambda share: None)
        seconds = time.monotonic() - start
    finally:
        for path in job.inputs:
            path.unlink(missing_ok=True)
    for path in execution.files:
        path.unlink(missing_ok=True)
    return seconds


def _share(model: Model, job: "Job") -> float:
    """Return which part of the longest task a job is; 1 if its length cannot be chosen."""
    limits: Mapping[str, Json] = model.limits
    if job.kind == "pop2piano":
        return min(1.0, SONG_SECONDS / _limit(limits, "input_seconds", LONGEST_SONG))
    sequences = _limit(limits, "num_return_sequences", 1)
    if "generation_config" not in job.args:
        return 1.0 / sequences
    return min(1.0, TOKENS / _limit(limits, "max_new_tokens", LONGEST_TOKENS)) / sequences


def _limit(limits: Mapping[str, Json], name: str, default: int) -> int:
    value = limits.get(name)
    return value if isinstance(value, int) else default


@dataclass(slots=True)
class Loading:
    """Loads the models of a document in workers of this machine, and measures their tasks."""

    folders: Sequence[Path]
    models: Mapping[str, Model]
    network_seconds: float
    # By model: its entry in the document, with measured `attempt_seconds` if the network's are few.
    entries: dict[str, Mapping[str, Json]]
    loaded: set[str] = field(default_factory=set)
    measured: set[str] = field(default_factory=set)

    def run(self, kind: WorkerKind, *, measures: Callable[[Document], bool]) -> Document:
        """Load the models of a kind of worker; return the definition of this machine's class.

        They are measured too if `measures` returns true for this class. A model that cannot be
        measured stays as it is; one that does not load is a usage failure.
        """
        served = [model for model in self.models.values() if is_served(model, kind)]
        with local_worker([*self.folders, SHIPPED], kind) as (worker, runtime):
            if not measures(runtime):
                require_loading(worker, [m for m in served if m.id not in self.loaded])
            else:
                for model in served:
                    self._measure(worker, model)
            self.loaded |= {model.id for model in served}
        return runtime

    def _measure(self, worker: "WorkerSupervisor", model: Model) -> None:
        seconds = _measured(worker, model, self.network_seconds)
        entry, known = self.entries[model.id], self.entries[model.id].get("attempt_seconds")
        if seconds is not None and (not isinstance(known, int) or known < seconds):
            self.entries[model.id] = {**entry, "attempt_seconds": seconds}
        self.measured.add(model.id)


def is_served(model: Model, kind: WorkerKind) -> bool:
    """Return whether workers of a kind are for a model."""
    return kind.serves(model.tasks, replay=model.replay)


def kind_here(runtime: Mapping[str, object]) -> WorkerKind:
    """Return the kind of worker for a class, on this machine's processor."""
    return replace(WorkerKind.of(runtime), device="cpu")


def require_served(models: Iterable[Model], kinds: Collection[WorkerKind]) -> None:
    """Raise a usage failure for a model that no class of these kinds is for."""
    for model in models:
        if not any(is_served(model, kind) for kind in kinds):
            raise usage(
                f"--model {model.id}: no class of the network runs it; one of kind transformers"
                " runs every model"
            )


def _measured(worker: "WorkerSupervisor", model: Model, network_seconds: float) -> int | None:
    """Return a model's `attempt_seconds`; None if the network's are enough, or not measured."""
    options.note(f"measuring {model.id}; a first run can take minutes")
    require_loading(worker, [model])
    try:
        measurement = measure(worker, model)
    except Abstained as abstained:
        note_not_measured(model.id, f"{abstained.reason}: {abstained.detail}")
        return None
    needed = measurement.attempt_seconds
    chosen = max(needed, math.ceil(network_seconds))
    options.note(
        f"measured {model.id}: {measurement.seconds:.1f} s, so {measurement.longest:.1f} s for its "
        f"longest {measurement.kind} task; attempts last {chosen} s"
    )
    return chosen if needed > network_seconds else None


def note_not_measured(models: str, reason: str) -> None:
    """Say on standard error that no execution was measured, and what to do about it."""
    options.note(
        f"NOT MEASURED: {models}: {reason}. An attempt should last at least {ATTEMPT_FACTOR} times "
        "an execution: see --attempt-seconds and --model-attempt-seconds"
    )
