"""A real node with a light executor: `helium run`, but a waveform is made from a hash.

    python -m tests.integration.light --seconds 0.2 --network network.json --key key.pem ...

It has no torch and no worker process, so that many nodes fit a small machine; all else is the real
daemon. `--lie LABEL` makes another waveform than the honest one, the same for all nodes with this
label. `--frames N` sets its length. A request for the task `BUG` makes its handler raise. The
other flags are those of `helium run`.
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
from protocol.manifest import waveform_entry
from protocol.network import Model
from protocol.wire.encoding import Document
from protocol.wire.messages import Abstention
from scripts.testnet_tool.nodes import Daemons, LocalNode

# The classes in a network document of light nodes.
CLASS = "light"
CLASSES: dict[str, Document] = {CLASS: {"device": "light"}}
RATE = 16_000  # Hz
FRAMES = 1_600
PROGRESS_STEPS = 4
UNIT_TOKENS = 53  # of a job that takes the stated seconds, where they follow the length
# The id of the task at which `plant_bug` makes the handler raise.
BUG = "b" * 64


@dataclass(frozen=True, slots=True)
class LightExecutor:
    """Takes `seconds` for a job. Without a label its waveform is the honest one.

    With `by_length` a job of 53 tokens takes `seconds`, and others in proportion.
    """

    scratch: Path
    seconds: float = 0.2
    label: str = ""
    frames: int = FRAMES
    by_length: bool = False

    max_together = 1

    async def start(self) -> Readiness:
        """Be ready at once."""
        self.scratch.mkdir(parents=True, exist_ok=True)
        return Readiness(True)

    async def warm(self, model: Model) -> None:
        """Every model is warm at once."""

    def is_alive(self) -> bool:
        """Return True: there is no process that could end."""
        return True

    async def run(self, job: Job, seconds: float, progress: Callable[[float], None]) -> Execution:
        """Wait, then write the waveform. Raises `Abstained` if `seconds` is too short."""
        own = self.seconds
        if self.by_length:
            config: Any = job.args["generation_config"]
            own *= config["max_new_tokens"] / UNIT_TOKENS
        if own > seconds:
            raise Abstained(Abstention.TIMEOUT)
        for step in range(PROGRESS_STEPS):
            progress(step / PROGRESS_STEPS)
            await asyncio.sleep(own / PROGRESS_STEPS)
        payload = waveform(job, self.label, self.frames)
        file = self.scratch / uuid.uuid4().hex
        file.write_bytes(payload)
        return Execution(
            {"result": {"outputs": [_manifest_entry(payload)]}}, (file,), {"light": True}
        )

    async def close(self) -> None:
        """Do nothing."""


def waveform(job: Job, label: str = "", frames: int = FRAMES) -> bytes:
    """Return mono samples, binary32, made from the hash of the task's args and the label.

    `FRAMES` samples are repeated until there are `frames`.
    """
    seed = f"{label}|{sorted(job.args.items())}".encode()
    noise = hashlib.shake_128(seed).digest(FRAMES)
    samples = array("f", (byte / 256 for byte in noise))
    return (samples * -(-frames // FRAMES))[:frames].tobytes()


def _manifest_entry(payload: bytes) -> dict[str, Any]:
    frames = len(payload) // 4
    return waveform_entry(payload, sampling_rate=RATE, frames=frames, channels=1)


class LightDaemons(Daemons):
    """The light daemons of a network; all get `arguments`, before the flags of `helium run`."""

    def __init__(
        self, network_file: Path, nodes: Sequence[LocalNode], arguments: Sequence[str] = ()
    ) -> None:
        super().__init__(network_file, nodes)
        self._arguments = arguments

    def entry(self, node: LocalNode) -> list[str]:
        """Return the arguments of Python; the label of a lying node is its number."""
        lie = [] if node.lie is None else ["--lie", f"lie-{node.lie}"]
        return ["-m", "tests.integration.light", *lie, *self._arguments]


def plant_bug() -> None:
    """Make the handler of requests for the task `BUG` raise."""
    view = Coordinator.view

    def failing_view(coordinator: Coordinator, task: str) -> TaskView | None:
        if task == BUG:
            raise LookupError("a bug in a handler")
        return view(coordinator, task)

    setattr(Coordinator, "view", failing_view)  # noqa: B010 - mypy knows no other way


def main() -> None:
    """Run a light node until SIGTERM or SIGINT."""
    extra: list[click.Parameter] = [
        click.Option(["--seconds"], type=float, default=0.2, help="How long a task takes."),
        click.Option(
            ["--lie"], default="", help="Label of another waveform; empty is the honest one."
        ),
        click.Option(["--frames"], type=int, default=FRAMES, help="Samples of a waveform."),
        click.Option(["--by-length"], is_flag=True, help="The longer a task, the more it takes."),
    ]

    def light(
        config: Path | None,
        seconds: float,
        lie: str,
        frames: int,
        by_length: bool,
        **flags: object,
    ) -> None:
        settings: Settings = options.settings(flags, config)
        executor = LightExecutor(settings.data_dir / "scratch", seconds, lie, frames, by_length)
        plant_bug()
        serve(settings, lambda _: executor)

    click.Command("light", params=[*extra, *run.params], callback=light).main()


if __name__ == "__main__":
    main()
