"""A real node with a light executor: `helium run`, but a task's sound comes from a hash.

    python -m tests.integration.light --seconds 0.2 --network network.json --key key.pem ...

No torch and no worker process, so that many nodes fit a small machine; all else is the real daemon.
`--lie LABEL` gives another sound than the honest nodes', the same at all liars of one label;
`--frames N` makes it longer. Who asks for the task `BUG` meets a handler that raises. The other
flags are those of `helium run`.
"""

import asyncio
import hashlib
import uuid
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from executor.errors import Abstained
from executor.job import Execution, Job
from node.cli import options
from node.cli.commands.run import run, serve
from node.config.settings import Settings
from node.consensus.coordinator import Coordinator, TaskView
from node.execution.queue import Readiness
from protocol.manifest import CHUNK_BYTES
from protocol.wire.encoding import Document
from protocol.wire.messages import Abstention
from scripts.testnet_tool.nodes import Daemons, LocalNode

RUNTIME: Document = {"device": "light"}  # the class in a network document of light nodes
RATE = 16_000
FRAMES = 1_600
STEPS = 4
BUG = "b" * 64  # a task's id


@dataclass(frozen=True, slots=True)
class LightExecutor:
    """Takes `seconds` for a job; without a label its waveform is the honest one."""

    scratch: Path
    seconds: float = 0.2
    label: str = ""
    frames: int = FRAMES

    async def start(self) -> Readiness:
        """Be ready at once."""
        self.scratch.mkdir(parents=True, exist_ok=True)
        return Readiness(True)

    async def run(self, job: Job, seconds: float, progress: Callable[[float], None]) -> Execution:
        """Wait, then write the waveform; raise `Abstained` when there is no time for it."""
        if self.seconds > seconds:
            raise Abstained(Abstention.TIMEOUT)
        for step in range(STEPS):
            progress(step / STEPS)
            await asyncio.sleep(self.seconds / STEPS)
        payload = waveform(job, self.label, self.frames)
        file = self.scratch / uuid.uuid4().hex
        file.write_bytes(payload)
        return Execution({"result": {"outputs": [_described(payload)]}}, (file,), {"light": True})

    async def close(self) -> None:
        """There is nothing to close."""


def waveform(job: Job, label: str = "", frames: int = FRAMES) -> bytes:
    """Return mono samples, binary32, that follow from the task's args and the label.

    `FRAMES` are drawn, and repeated until there are `frames`.
    """
    seed = f"{label}|{sorted(job.args.items())}".encode()
    noise = hashlib.shake_128(seed).digest(FRAMES)
    drawn = array("f", (byte / 256 for byte in noise))
    return (drawn * -(-frames // FRAMES))[:frames].tobytes()


def _described(payload: bytes) -> dict[str, Any]:
    pieces = [payload[start : start + CHUNK_BYTES] for start in range(0, len(payload), CHUNK_BYTES)]
    return {
        "media": "audio/f32",
        "sampling_rate": RATE,
        "frames": len(payload) // 4,
        "channels": 1,
        "sha256": hashlib.sha256(payload).hexdigest(),
        "size": len(payload),
        "chunks": [hashlib.sha256(piece).hexdigest() for piece in pieces],
    }


class LightDaemons(Daemons):
    """Light daemons of a laid-out network; `arguments` go to every one, before `helium run`'s."""

    def __init__(
        self, network_file: Path, nodes: Sequence[LocalNode], arguments: Sequence[str] = ()
    ) -> None:
        super().__init__(network_file, nodes)
        self._arguments = arguments

    def entry(self, node: LocalNode) -> list[str]:
        """Return what Python is to run; a liar's label is its number."""
        lie = [] if node.lie is None else ["--lie", f"lie-{node.lie}"]
        return ["-m", "tests.integration.light", *lie, *self._arguments]


def plant_bug() -> None:
    """Let the handler of a request raise what no handler should."""
    view = Coordinator.view

    def failing(coordinator: Coordinator, task: str) -> TaskView | None:
        if task == BUG:
            raise LookupError("a bug in a handler")
        return view(coordinator, task)

    setattr(Coordinator, "view", failing)  # noqa: B010 - mypy knows no other way


def main() -> None:
    """Run a light node until SIGTERM or SIGINT."""
    extra: list[click.Parameter] = [
        click.Option(["--seconds"], type=float, default=0.2, help="What a task takes."),
        click.Option(["--lie"], default="", help="What makes the sound another; empty is honest."),
        click.Option(["--frames"], type=int, default=FRAMES, help="Samples of a sound."),
    ]

    def light(config: Path | None, seconds: float, lie: str, frames: int, **flags: object) -> None:
        settings: Settings = options.settings(flags, config)
        executor = LightExecutor(settings.data_dir / "scratch", seconds, lie, frames)
        plant_bug()
        serve(settings, lambda _: executor)

    click.Command("light", params=[*extra, *run.params], callback=light).main()


if __name__ == "__main__":
    main()
