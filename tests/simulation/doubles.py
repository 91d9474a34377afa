"""Test doubles for the edges of a node: executor, blob store and a slow transport.

The fake executor draws a short waveform from a hash of the task, after a virtual delay.
"""

import asyncio
import hashlib
import io
from collections.abc import AsyncIterable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from executor.errors import Abstained
from executor.job import Execution, Job
from node.execution.queue import Readiness
from node.rpc import codec as rpc_codec
from node.storage.blobs import BlobStore
from node.storage.errors import BlobRefused, DiskQuotaExceeded
from node.transport.interface import Listener
from protocol import work
from protocol.manifest import score_entry
from protocol.network import Model
from protocol.wire.encoding import Document
from protocol.wire.messages import Abstention
from tests.support.memory_transport.network import MemoryTransport
from tests.support.memory_transport.pipes import MemoryStream

# The label of who has the right waveform, but not the work.
COPIED = "copied"
RATE = 16_000
FRAMES = 64
# Virtual seconds before each write of a slow stream: just below the timeout of a reader.
SLOW_WRITE_SECONDS = 29.0


def waveform(args: Mapping[str, object], label: str = "honest") -> bytes:
    """Return the waveform of a task: FRAMES mono float32 samples, drawn from a hash.

    Each label gives another waveform; "honest" is the right one, which "copied" has too.
    """
    label = "honest" if label == COPIED else label
    seed = f"{label}|{args.get('prompt')}|{args['seed']}".encode()
    noise = hashlib.shake_128(seed).digest(FRAMES)
    return b"".join(bytes((0, 0, byte, 0x3F)) for byte in noise)


def manifest(payload: bytes) -> dict[str, Any]:
    """Return the result of a task whose one output is this waveform."""
    sha256 = hashlib.sha256(payload).hexdigest()
    entry = {
        "media": "audio/f32",
        "sampling_rate": RATE,
        "frames": len(payload) // 4,
        "channels": 1,
        "sha256": sha256,
        "size": len(payload),
        "chunks": [sha256],
    }
    return {"outputs": [entry]}


def score_of(song: bytes) -> bytes:
    """Return the score of an input: as long as a file of one note."""
    return b"MThd" + hashlib.shake_128(song).digest(60)


def tokens(args: Mapping[str, object], label: str = "honest") -> bytes:
    """Return the tokens blob of a task that proves work, of another content for each label."""
    return work.tokens_blob(4, waveform(args, f"tokens of {label}")[:16])


def outcome(
    args: Mapping[str, object], label: str = "honest", *, proves_work: bool = False
) -> Document:
    """Return the outcome of a task. Each label gives another one; "honest" is the right one.

    Prompts that begin with "fail" end in an error.
    """
    if str(args.get("prompt")).startswith("fail"):
        return {"error": "non-finite-output"} if label == "honest" else {"error": "no-notes"}
    result = manifest(waveform(args, label))
    if not proves_work:
        return {"result": result}
    blob = tokens(args, label)
    name = hashlib.sha256(blob).hexdigest()
    result["outputs"][0]["tokens"] = {"sha256": name, "size": len(blob)}
    sequence = work.Sequence(4, blob[4:], label.encode())
    return {"result": result, "work": work.work_digest([sequence])}


class FakeExecutor:
    """Returns the waveform of a task after some virtual seconds."""

    max_together = 1

    def __init__(self, blobs: "MemoryBlobs", seconds: Callable[[], float], label: str) -> None:
        """Take a label for what the executor returns.

        "honest" returns the right waveform, "silent" never returns, any other label returns a
        waveform of its own. "honest@4" takes four seconds instead of `seconds()`.
        """
        self._blobs = blobs
        self._label, _, fixed = label.partition("@")
        if fixed:
            seconds = partial(float, fixed)
        self._seconds = _forever if label == "silent" else seconds
        self.runs = 0
        self.abstain: str | None = None

    async def start(self) -> Readiness:
        await asyncio.sleep(0.1)
        return Readiness(True)

    async def warm(self, model: Model) -> None:
        """Every model is warm at once."""

    def is_alive(self) -> bool:
        return True

    async def run(self, job: Job, seconds: float, progress: Callable[[float], None]) -> Execution:
        self.runs += 1
        duration = self._seconds()
        for step in range(4):
            progress(step / 4)
            await asyncio.sleep(min(duration, seconds) / 4)
        if duration > seconds:
            raise Abstained(Abstention.TIMEOUT)
        if self.abstain is not None:
            raise Abstained(self.abstain)  # type: ignore[arg-type]
        result = outcome(job.args, self._label, proves_work=job.proves_work)
        if "error" in result:
            return Execution(dict(result), (), {"seconds": 1})
        if job.inputs:
            return self._arranged(job)
        files = [self._blobs.offer(waveform(job.args, self._label))]
        if job.proves_work:
            files.append(self._blobs.offer(tokens(job.args, self._label)))
        return Execution(dict(result), tuple(files), {"seconds": 1})

    def _arranged(self, job: Job) -> Execution:
        """Return a score and a waveform for each input."""
        outputs: list[object] = []
        files: list[Path] = []
        for path in job.inputs:
            score = score_of(self._blobs.read(path))
            payload = waveform({**job.args, "prompt": path.name}, self._label)
            outputs += [score_entry(score, notes=1), *manifest(payload)["outputs"]]
            files += [self._blobs.offer(score), self._blobs.offer(payload)]
        return Execution({"result": {"outputs": outputs}}, tuple(files), {"seconds": 1})

    async def close(self) -> None:
        return


def _forever() -> float:
    return 1e6


class MemoryBlobWriter:
    """A received blob that is not committed yet."""

    def __init__(self, payload: bytes) -> None:
        self.payload = payload

    def discard(self) -> None:
        self.payload = b""


class MemoryBlobs:
    """A blob store in memory. A full one refuses blobs of other peers."""

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

    def read(self, path: Path) -> bytes:
        return self._kept[path.name]

    async def receive(
        self, chunks: AsyncIterable[bytes], *, size: int, limit: int, sha256: str
    ) -> MemoryBlobWriter:
        self._check_room()
        payload = b"".join([chunk async for chunk in chunks])
        if hashlib.sha256(payload).hexdigest() != sha256:
            raise BlobRefused("the hash is another")
        return MemoryBlobWriter(payload)

    save = BlobStore.save  # calls methods of this class

    @contextmanager
    def commit(self, writers: Sequence[MemoryBlobWriter]) -> Iterator[None]:
        kept = dict(self._kept)
        try:
            for writer in writers:
                self._keep(writer.payload)
            yield
        except BaseException:
            self._kept = kept
            raise

    def _check_room(self) -> None:
        if self.full:
            raise DiskQuotaExceeded("full")

    def import_file(self, path: Path, sha256: str | None = None) -> str:
        payload = self._offered.pop(path)
        assert sha256 in (None, hashlib.sha256(payload).hexdigest())
        return self._keep(payload)

    def _keep(self, payload: bytes) -> str:
        name = hashlib.sha256(payload).hexdigest()
        self._kept[name] = payload
        return name

    def has(self, sha256: str) -> bool:
        return sha256 in self._kept

    def touch(self, sha256: str) -> bool:
        return sha256 in self._kept

    def size(self, sha256: str) -> int:
        return len(self._kept[sha256])

    def open(self, sha256: str, offset: int = 0) -> BinaryIO:
        return io.BytesIO(self._kept[sha256][offset:])


class SlowStream(MemoryStream):
    """Wraps a stream; each write takes SLOW_WRITE_SECONDS."""

    def __init__(self, stream: MemoryStream) -> None:
        super().__init__(stream.peer, stream.connection, stream._inbound, stream._outbound)

    async def write(self, payload: bytes) -> None:
        await asyncio.sleep(SLOW_WRITE_SECONDS)
        await super().write(payload)


class SlowServingTransport(MemoryTransport):
    """Serves blobs so slowly that no reader gets them in time, but is never silent for long.

    `is_slow` decides for each request.
    """

    def is_slow(self) -> bool:
        return True

    async def _serve(self, listener: Listener, protocol: str, stream: MemoryStream) -> None:
        if protocol == rpc_codec.protocol_id("blob") and self.is_slow():
            stream = SlowStream(stream)
        await super()._serve(listener, protocol, stream)
