"""Replays the tokens of an outcome on this machine: an exact check, in one pass.

Anyone can do it who has the model, whatever the processor: a class of engine `helium` names none.
"""

import asyncio
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from executor.determinism.compute_class import WorkerKind, mismatch
from executor.errors import Abstained, TokensDiffer
from executor.job import Difference, Job, ModelRef
from executor.models.folders import SHIPPED
from node.client.client import Client
from node.rpc.codec import ProtocolViolation
from node.sync.blob_download import BlobUnavailable
from protocol.manifest import SCORE, WAVEFORM, Blob, outputs_of, tokens_of
from protocol.network import Network
from protocol.wire.encoding import Document
from protocol.wire.messages import Abstention, Task

if TYPE_CHECKING:
    from executor.worker.supervisor import WorkerSupervisor

# For all outcomes together: enough for the longest song on a slow machine.
SECONDS = 3600.0
# What a difference of an output is called.
_NAMES = {WAVEFORM: "waveform", SCORE: "score"}


@dataclass(frozen=True, slots=True)
class Replay:
    """What a replay of an outcome's tokens came to.

    `equal`: whether the outcome is the one that its tokens come to, and these are the task's; None
    if that could not be computed, and `problem` says why. `difference` is the first token that the
    task does not draw. Without one, `members` name what differs of the outcome.
    """

    equal: bool | None
    problem: str = ""
    difference: Difference | None = None
    members: tuple[str, ...] = ()
    seconds: float = 0.0

    def __str__(self) -> str:
        if self.equal is None:
            return self.problem
        if self.equal:
            return f"equal to what this machine computed from its tokens in {self.seconds:.1f} s"
        if self.difference is not None:
            place = self.difference
            sequence = f" of sequence {place.sequence}" if place.sequence else ""
            return (
                f"its tokens are not those that the task draws: first at step {place.step}"
                f"{sequence}, column {place.column}"
            )
        return f"its tokens are the task's, its {' and '.join(self.members)} not"


class Replayer:
    """Replays outcomes of one task in a worker, which starts with the first. A context manager."""

    def __init__(self, network: Network, task: Task, folders: Sequence[Path]) -> None:
        """`folders` hold models, in addition to the shipped ones."""
        self._network, self._task = network, task
        self._folders = [*folders, SHIPPED]
        self._open = ExitStack()
        self._worker: WorkerSupervisor | None = None
        self._mismatch: list[str] = []
        self._ends = time.monotonic() + SECONDS

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._open.close()

    async def replay(
        self, client: Client, outcome: Document, holders: Sequence[str]
    ) -> Replay | None:
        """Replay an outcome; None if the task proves no work, or the outcome is an error.

        `holders` are asked first for the tokens and the task's inputs.
        """
        blobs = [blob for output in outputs_of(outcome) if (blob := tokens_of(output)) is not None]
        if not self._network.proves_work(self._task) or not blobs:
            return None
        inputs = [Blob(given.sha256, given.size, ()) for given in self._task.inputs]
        try:
            contents = [await client.fetch_blob(blob, holders) for blob in (*inputs, *blobs)]
            return await asyncio.to_thread(self._run, outcome, contents)
        except (BlobUnavailable, ProtocolViolation, Abstained) as error:
            return Replay(None, str(error))

    def _run(self, outcome: Document, contents: Sequence[bytes]) -> Replay:
        """Replay in the worker; `contents` are those of inputs and tokens. Raises `Abstained`."""
        worker = self._started()
        if self._mismatch:
            return Replay(None, f"this machine is not of the class: {'; '.join(self._mismatch)}")
        task, model = self._task, self._network.models[self._task.model]
        started_at = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="helium-") as folder:
            files = [Path(folder, str(number)) for number in range(len(contents))]
            for file, content in zip(files, contents, strict=True):
                file.write_bytes(content)
            inputs = len(task.inputs)
            job = Job(
                f"replay {task.id}",
                task.kind,
                task.args,
                ModelRef(model.id, model.revision, model.digest, model.limits),
                tuple(files[:inputs]),
                proves_work=True,
                tokens=tuple(files[inputs:]),
            )
            seconds = self._ends - started_at
            try:
                execution = worker.run(job, timeout=seconds, progress=lambda _: None)
            except TokensDiffer as different:
                return Replay(False, difference=different.difference)
        for path in execution.files:
            path.unlink()
        members = tuple(differing_members(execution.outcome, outcome))
        seconds = round(time.monotonic() - started_at, 1)
        return Replay(not members, members=members, seconds=seconds)

    def _started(self) -> "WorkerSupervisor":
        """Return the worker, started. Raises `Abstained`."""
        # Imported here: most commands need no worker.
        from executor.worker.supervisor import temporary_worker

        if self._worker is None:
            runtime = self._network.classes[self._task.compute_class]
            self._worker, status = self._open.enter_context(
                temporary_worker(self._folders, WorkerKind.of(runtime), threads=0)
            )
            if not status.ok:
                raise Abstained(Abstention.WORKER_DIED, status.reason)
            self._mismatch = mismatch(status.runtime, runtime)
        return self._worker


def differing_members(expected: Mapping[str, object], outcome: Document) -> Iterator[str]:
    """Yield what differs between two outcomes: work, sound, score, or all of it."""
    ours, theirs = outputs_of(expected), outputs_of(outcome)
    if [output["media"] for output in ours] != [output["media"] for output in theirs]:
        yield "outcome"
        return
    if expected.get("work") != outcome.get("work"):
        yield "work"
    media = {a["media"] for a, b in zip(ours, theirs, strict=True) if a != b}
    yield from sorted(_NAMES[name] for name in media)
