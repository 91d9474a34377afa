"""Twins of what a node has at its edges: an executor and a blob folder, in memory."""

import asyncio
import hashlib
import io
from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from executor.errors import Abstained
from executor.job import Execution, Job
from node.execution.queue import Readiness
from node.storage.blobs import BlobStore
from node.storage.errors import BlobRefused, DiskQuotaExceeded
from protocol.wire.messages import Abstention
from tests.simulation.executing import outcome
from tests.simulation.sound import manifest, waveform


class TwinExecutor:
    """Takes virtual seconds, then gives the waveform, as a file that the blobs adopt."""

    def __init__(self, blobs: "TwinBlobs", seconds: Callable[[], float], label: str) -> None:
        """`label` "honest" gives the right waveform, "silent" none ever, others another one.

        "honest@4" takes four seconds instead of what `seconds` says.
        """
        self._blobs = blobs
        self._label, _, fixed = label.partition("@")
        if fixed:
            seconds = partial(float, fixed)
        self._seconds = _for_ever if label == "silent" else seconds
        self.runs = 0
        self.abstain: str | None = None

    async def start(self) -> Readiness:
        await asyncio.sleep(0.1)
        return Readiness(True)

    async def run(self, job: Job, seconds: float, progress: Callable[[float], None]) -> Execution:
        self.runs += 1
        takes = self._seconds()
        for step in range(4):
            progress(step / 4)
            await asyncio.sleep(min(takes, seconds) / 4)
        if takes > seconds:
            raise Abstained(Abstention.TIMEOUT)
        if self.abstain is not None:
            raise Abstained(self.abstain)  # type: ignore[arg-type]
        given = outcome(job.args, self._label)
        if "error" in given:
            return Execution(dict(given), (), {"seconds": 1})
        payload = waveform(job.args, self._label)
        heard = self._blobs.joined(job.inputs)
        if heard:  # a score for all inputs together, and what it sounds like
            return self._arranged(b"MThd" + hashlib.sha256(heard).digest(), payload)
        path = self._blobs.offer(payload)
        return Execution({"result": manifest(payload)}, (path,), {"seconds": 1})

    def _arranged(self, score: bytes, payload: bytes) -> Execution:
        sha256 = hashlib.sha256(score).hexdigest()
        entry = {"media": "audio/midi", "sha256": sha256, "size": len(score), "notes": 1}
        outputs = [entry, *manifest(payload)["outputs"]]
        files = (self._blobs.offer(score), self._blobs.offer(payload))
        return Execution({"result": {"outputs": outputs}}, files, {"seconds": 1})

    async def close(self) -> None:
        return


def _for_ever() -> float:
    return 1e6


class TwinBlobWriter:
    """A blob that arrived and is not kept yet."""

    def __init__(self, payload: bytes) -> None:
        self.payload = payload

    def discard(self) -> None:
        self.payload = b""


class TwinBlobs:
    """A blob folder in memory; a full one takes nothing that comes from others."""

    full = False

    def __init__(self) -> None:
        self._kept: dict[str, bytes] = {}
        self._offered: dict[Path, bytes] = {}

    def offer(self, payload: bytes) -> Path:
        path = Path(hashlib.sha256(payload).hexdigest())
        self._offered[path] = payload
        return path

    def path(self, sha256: str) -> Path:
        return Path(sha256)

    def joined(self, paths: Iterable[Path]) -> bytes:
        return b"".join(self._kept[path.name] for path in paths)

    async def receive(
        self, chunks: AsyncIterable[bytes], *, size: int, limit: int, sha256: str
    ) -> TwinBlobWriter:
        self._check_room()
        payload = b"".join([chunk async for chunk in chunks])
        if hashlib.sha256(payload).hexdigest() != sha256:
            raise BlobRefused("the hash is another")
        return TwinBlobWriter(payload)

    save = BlobStore.save  # what it calls is here

    @contextmanager
    def commit(self, drafts: Sequence[TwinBlobWriter]) -> Iterator[None]:
        before = dict(self._kept)
        try:
            for draft in drafts:
                self._keep(draft.payload)
            yield
        except BaseException:
            self._kept = before
            raise

    def _check_room(self) -> None:
        if self.full:
            raise DiskQuotaExceeded("full")

    def import_file(self, path: Path, sha256: str | None = None) -> str:
        payload = self._offered.pop(path)
        assert sha256 in (None, hashlib.sha256(payload).hexdigest())
        return self._keep(payload)

    def write(self, chunks: Any, *, size: int, limit: int, sha256: str | None = None) -> str:
        self._check_room()
        payload = b"".join(chunks)
        assert len(payload) == size <= limit
        assert sha256 in (None, hashlib.sha256(payload).hexdigest())
        return self._keep(payload)

    def _keep(self, payload: bytes) -> str:
        name = hashlib.sha256(payload).hexdigest()
        self._kept[name] = payload
        return name

    def has(self, sha256: str) -> bool:
        return sha256 in self._kept

    def renew(self, sha256: str) -> bool:
        return sha256 in self._kept

    def size(self, sha256: str) -> int:
        return len(self._kept[sha256])

    def open(self, sha256: str, offset: int = 0) -> BinaryIO:
        return io.BytesIO(self._kept[sha256][offset:])
