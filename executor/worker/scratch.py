"""The scratch folder of a worker: copies of inputs, which it reads, and outputs that it has sent.

The supervisor alone writes here. A worker has no file to write: it could fill the disk, leave links
and devices for the node to follow, or change an output after the node has checked it.
"""

import dataclasses
import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

from executor.audio.manifest import SUFFIXES, TOKENS_SUFFIX
from executor.determinism.profile import PLACES
from executor.errors import Abstained
from executor.job import Job
from executor.tasks.numba_cache import kernels
from executor.worker.process import HOME, WorkerDied, WorkerProcess
from protocol.manifest import blobs_of, outputs_of
from protocol.wire.encoding import Document
from protocol.wire.messages import Abstention

# Of one job: the most outputs of a manifest, each with its tokens, and three times the greatest
# `max_output_bytes` that a network can have (section 3).
MAX_OUTPUTS, MAX_OUTPUT_BYTES = 32, 536_870_912
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class Outputs:
    """The outputs that a worker sends for one job, in files whose names begin with `stem`."""

    def __init__(self, stem: Path) -> None:
        self._stem = stem
        # Of each output: its file, and the SHA-256 and size of what was received.
        self._received: list[tuple[Path, str, int]] = []

    def receive(self, worker: WorkerProcess, size: int, deadline: float) -> None:
        """Write the next output to a file. Raises `WorkerDied` for too many, `OSError`."""
        total = size + sum(previous for _, _, previous in self._received)
        if len(self._received) == MAX_OUTPUTS or total > MAX_OUTPUT_BYTES:
            raise WorkerDied(f"the worker sent {len(self._received) + 1} outputs of {total} bytes")
        path = self._stem.with_name(f"{self._stem.name}-{len(self._received)}")
        self._received.append((path, worker.receive_output(path, size, deadline), size))

    def discard(self) -> None:
        """Remove the files: the job failed after it had sent them."""
        for path, _, _ in self._received:
            path.unlink()

    def files(self, outcome: Document) -> tuple[Path, ...]:
        """Return the files of an outcome's blobs, in order; none for an error.

        Raises `WorkerDied` unless the outputs received are those of its manifest.
        """
        if "error" in outcome:
            self.discard()
            return ()
        listed = [(blob.sha256, blob.size) for blob in blobs_of(outcome)]
        if listed != [(sha256, size) for _, sha256, size in self._received]:
            raise WorkerDied("the outputs that the worker sent are not those of its manifest")
        suffixes: list[str] = []
        for output in outputs_of(outcome):
            suffixes.append(SUFFIXES[output["media"]])
            suffixes += [TOKENS_SUFFIX] if "tokens" in output else []
        return tuple(
            path.rename(path.with_suffix(suffix))
            for (path, _, _), suffix in zip(self._received, suffixes, strict=True)
        )


def copy_inputs(job: Job, stem: Path) -> Job:
    """Return the job with copies of its files in the scratch folder, where the worker reads them.

    Copies and not links, because the worker may read no other folder of the node. Raises
    `Abstained`: input-missing, or no-space.
    """
    files = (*job.inputs, *job.tokens)
    copies = [stem.with_name(f"{stem.name}-input-{i}") for i in range(len(files))]
    try:
        for path, copy in zip(files, copies, strict=True):
            shutil.copyfile(path, copy)
    except OSError as error:
        reason = Abstention.NO_SPACE if is_disk_full(error) else Abstention.INPUT_MISSING
        raise Abstained(reason, str(error)) from error
    count = len(job.inputs)
    return dataclasses.replace(job, inputs=tuple(copies[:count]), tokens=tuple(copies[count:]))


def is_disk_full(error: BaseException) -> bool:
    """Return whether an error means that a disk, or a quota, is full."""
    return isinstance(error, OSError) and error.errno in _DISK_FULL


def remove_files(scratch: Path, pattern: str) -> None:
    """Remove the files of a job, by a pattern of their names."""
    for path in scratch.glob(pattern):
        path.unlink(missing_ok=True)


def kernel_folder(scratch: Path) -> Path:
    """Return where the compiled kernels of a scratch folder are."""
    return scratch / HOME / PLACES["NUMBA_CACHE_DIR"]


def clean(scratch: Path) -> int:
    """Remove what a killed node left in a scratch folder; return how many files and folders.

    Only kernels that are complete stay. Of others it is unknown who wrote them.
    """
    folder = kernel_folder(scratch)
    kept = {folder, *folder.parents} if kernels.compiled(folder) else {scratch, *scratch.parents}
    removed = 0
    for path in list(_beneath(scratch, kept)):
        removed += 1
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    return removed


def _beneath(folder: Path, kept: set[Path]) -> Iterator[Path]:
    """Yield the paths in a folder that are not kept; look into those that lead to kept ones."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if path not in kept:
            yield path
        elif path.name == HOME:
            yield from _beneath(path, kept)
