"""A small world: real nodes over the in-memory transport in virtual time, all from one seed.

Real are the coordinator, the agreement, the store (SQLite in memory, which outlives a crash of its
node), the daemon, feeds, serving and the client. Twins stand in for the wire, the clock, the blob
folder and the executor.
"""

import asyncio
import contextlib
import hashlib
import io
import random
import sqlite3
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from executor.errors import Abstained
from executor.jobs import Execution, Job
from node.blobs import BlobRefusedError
from node.client import Client
from node.coordinator import Coordinator
from node.daemon import Node, Options, Parts
from node.execution import Readiness
from node.store import Store
from node.transport.base import Transport
from node.transport.memory import Link, MemoryNetwork, MemoryTransport
from protocol.effects import State
from protocol.network import Network
from tests import cast
from tests.simulation.virtual import VirtualClock

RATE = 16_000
FRAMES = 64


def waveform(args: Mapping[str, object], label: str = "honest") -> bytes:
    """What every honest executor gives for a task: FRAMES mono samples, from a hash."""
    seed = f"{label}|{args.get('prompt')}|{args['seed']}".encode()
    noise = hashlib.shake_128(seed).digest(FRAMES)
    return b"".join(bytes((0, 0, byte, 0x3F)) for byte in noise)


def manifest(payload: bytes) -> dict[str, Any]:
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
            raise Abstained("timeout")
        if self.abstain is not None:
            raise Abstained(self.abstain)  # type: ignore[arg-type]
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


class TwinBlobs:
    """A blob folder in memory."""

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
    ) -> str:
        payload = b"".join([chunk async for chunk in chunks])
        if hashlib.sha256(payload).hexdigest() != sha256:
            raise BlobRefusedError("the hash is another")
        return self.write([payload], size=size, limit=limit)

    def adopt(self, path: Path, sha256: str | None = None) -> str:
        payload = self._offered.pop(path)
        assert sha256 in (None, hashlib.sha256(payload).hexdigest())
        return self.write([payload], size=len(payload), limit=len(payload))

    def write(self, chunks: Any, *, size: int, limit: int, sha256: str | None = None) -> str:
        payload = b"".join(chunks)
        name = hashlib.sha256(payload).hexdigest()
        assert len(payload) == size <= limit
        assert sha256 in (None, name)
        self._kept[name] = payload
        return name

    def has(self, sha256: str) -> bool:
        return sha256 in self._kept

    def size(self, sha256: str) -> int:
        return len(self._kept[sha256])

    def open(self, sha256: str, offset: int = 0) -> BinaryIO:
        return io.BytesIO(self._kept[sha256][offset:])


@dataclass(frozen=True, slots=True)
class Weather:
    """What the links do, and how long an execution takes (virtual seconds)."""

    link: Link = field(default_factory=Link)
    execution: tuple[float, float] = (3.0, 8.0)
    skew: float = 0.0


class Inhabitant:
    """One node of the world, through crashes and restarts; what it stored stays."""

    def __init__(self, world: "World", index: int, label: str) -> None:
        self.index, self.peer = index, cast.peer(index)
        self._world, self._label = world, label
        self._connection = sqlite3.connect(":memory:", isolation_level=None)
        self.store = Store(self._connection, world.network.id)
        self.blobs = TwinBlobs()
        self.executor: TwinExecutor | None = None
        self.node: Node | None = None
        self.coordinator: Coordinator | None = None
        self._running: asyncio.Task[None] | None = None
        skew = world.random.uniform(-world.weather.skew, world.weather.skew)
        self.clock = VirtualClock(asyncio.get_running_loop(), cast.START, skew)

    @property
    def up(self) -> bool:
        return self._running is not None

    async def start(self) -> None:
        world = self._world
        self.store = Store(self._connection, world.network.id)
        self.coordinator = Coordinator(
            world.network, cast.key(self.index), self.store, self.clock, world.random.randbytes
        )
        self.executor = TwinExecutor(self.blobs, world.takes, self._label)
        parts = Parts(
            self.coordinator,
            self.store,
            self.blobs,  # type: ignore[arg-type]  # the twin of a folder
            self.transport(),
            self.executor,
            self.clock,
            world.random,
        )
        addresses = tuple(world.address(i) for i in range(len(world.network.roster)))
        self.node = Node(parts, Options(addresses, feed_seconds=5.0))
        self._running = asyncio.create_task(self.node.run())
        await self.node.started.wait()

    def transport(self) -> Transport:
        return MemoryTransport(self._world.medium, self.peer)

    async def crash(self) -> None:
        """Be gone at once, as after SIGKILL: nothing is said to anyone, no write is finished."""
        running, self._running = self._running, None
        if running is None:
            return
        self._world.medium.crash(self.peer)
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        if self._connection.in_transaction:
            self._connection.rollback()

    def state(self, task: str) -> State | None:
        standing = self.store.state(task)
        return None if standing is None else standing[0]

    def certificates(self, task: str) -> list[Any]:
        return list(self.store.certificates(task))

    def fault(self) -> BaseException | None:
        """What ended the node, if something did."""
        running = self._running
        if running is None or not running.done() or running.cancelled():
            return None
        return running.exception()


class World:
    """All nodes and the medium between them."""

    def __init__(self, seed: int, network: Network, weather: Weather | None = None) -> None:
        self.random = random.Random(seed)
        self.network = network
        self.weather = weather or Weather()
        self.medium = MemoryNetwork(self.random, self.weather.link)
        self.inhabitants: list[Inhabitant] = []

    def takes(self) -> float:
        return self.random.uniform(*self.weather.execution)

    def address(self, index: int) -> str:
        return f"/memory/0/p2p/{cast.peer(index)}"

    async def populate(self, labels: list[str] | None = None) -> None:
        """Start a node for each roster member.

        `labels`: see `TwinExecutor`; "absent" leaves the place to an adversary.
        """
        for index in range(len(self.network.roster)):
            label = labels[index] if labels else "honest"
            if label != "absent":
                self.inhabitants.append(Inhabitant(self, index, label))
        for inhabitant in self.inhabitants:
            await inhabitant.start()
        await asyncio.sleep(1)  # virtual: all have dialled and tested their executors

    async def clear(self) -> None:
        for inhabitant in self.inhabitants:
            fault = inhabitant.fault()
            assert fault is None, fault
            await inhabitant.crash()

    @contextlib.asynccontextmanager
    async def client(self, indices: list[int] | None = None) -> AsyncIterator[Client]:
        chosen = range(len(self.inhabitants)) if indices is None else indices
        async with Client.connect(
            self.network,
            [self.address(i) for i in chosen],
            key=cast.key(1000),
            transport=MemoryTransport(self.medium, cast.peer(1000)),
            clock=VirtualClock(asyncio.get_running_loop(), cast.START),
            entropy=self.random.randbytes,
        ) as client:
            yield client


@contextlib.asynccontextmanager
async def inhabited(
    seed: int,
    network: Network,
    weather: Weather | None = None,
    labels: list[str] | None = None,
) -> AsyncIterator[World]:
    """A world with all its nodes running."""
    world = World(seed, network, weather)
    await world.populate(labels)
    try:
        yield world
    finally:
        await world.clear()
