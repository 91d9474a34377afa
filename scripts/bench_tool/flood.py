"""Measure the service that an honest requester gets from a network beside a flooder.

Light nodes run on loopback; a task's audio is a hash, and takes --seconds. An honest requester
submits one task after another, in turns without and with a flooder of each kind, which is a process
of its own. The fair share of two requesters is a half. Beside a flood of submissions, a ratio of
0.5 is therefore all that an honest requester is due; less means that the flooder took more than its
half. Tasks that ended without agreement are counted separately. A heavy task takes four times an
honest one's time. A running task is not interrupted, so the bound beside heavy ones is twice the
time alone and the rest of one running task: 2 + 4. The absolute figures are this
machine's. Use as many processors as nodes, or the flooder takes the nodes' own time.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from node.cli import interrupts
from node.client.client import Client
from node.sync.task_tracker import NoAgreement
from protocol.manifest import blobs_of
from protocol.network import Network, NetworkParameters
from protocol.wire.encoding import Json
from scripts import arguments, one_line
from scripts.testnet_tool.nodes import create_network, events
from tests.integration import hostile
from tests.integration.attacker import Target
from tests.integration.light import CLASSES, LightDaemons

# The length of the audio in frames: enough to stall a reader of it.
FRAMES = 300_000
# Functions of `tests.integration.hostile`.
FLOOD_KINDS = (
    "submissions",
    "submissions_of_many",
    "heavy_submissions",
    "messages",
    "pings",
    "opened_and_reset",
    "unread_answers",
    "bad_messages",
)
# Tasks that a flood leaves in a node's queue, by the default limits.
MAX_BACKLOG = 64
TASK: dict[str, Json] = {
    "model": "helium/embedded-music",
    "prompt": "bells in the rain",
    "generation_config": {"max_new_tokens": 53},
}


@dataclass(frozen=True, slots=True)
class Turn:
    """A period of honest use: the duration of each certified task, and the tasks without one."""

    seconds: float
    durations: tuple[float, ...]
    inconclusive: int

    @property
    def tasks_per_minute(self) -> float:
        """The rate of certified tasks."""
        return 60 * len(self.durations) / self.seconds


async def submit_for(client: Client, seconds: float, first_seed: int) -> Turn:
    """Submit tasks for some time, each after the result of the previous one."""
    started, durations, failed = time.monotonic(), list[float](), 0
    while time.monotonic() - started < seconds:
        submitted = time.monotonic()
        seed = first_seed + len(durations) + failed
        submission = await client.submit("text-to-music", {**TASK, "seed": seed})
        try:
            await submission.tracker.certificate()
        except NoAgreement:
            failed += 1
        else:
            durations.append(time.monotonic() - submitted)
    return Turn(time.monotonic() - started, tuple(durations), failed)


@contextmanager
def flooding(kind: str, network: Path, address: str, blob: str) -> Iterator[None]:
    """Flood a node from another process during the block."""
    arguments = ["--flood", kind, str(network), address, blob]
    flooder = subprocess.Popen(
        [sys.executable, "-P", "-m", "scripts.bench_tool.flood", *arguments],
        # The node disconnects it again and again, which it would log.
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        flooder.kill()
        flooder.wait()


async def flood(kind: str, network: Network, address: str, blob: str) -> None:
    """Attack a node. Never returns."""
    target = Target(address, network, blob)
    while True:
        await getattr(hostile, kind)(target)


async def measure(network: Path, daemons: LightDaemons, options: argparse.Namespace) -> None:
    """Print a JSON line for each kind of flood."""
    document, seed = network.read_bytes(), 0  # noqa: ASYNC240 - nothing else runs yet
    async with Client.connect(document, daemons.addresses) as client:
        await submit_for(client, options.turn / 2, 1_000_000)  # warm-up
        submission = await client.submit("text-to-music", {**TASK, "seed": 0})
        [blob] = blobs_of((await submission.tracker.certificate()).outcome)
        for kind in options.kind or FLOOD_KINDS:
            calm, flooded = list[Turn](), list[Turn]()
            for _ in range(options.turns):
                calm.append(await submit_for(client, options.turn, seed))
                seed += 1000
                with flooding(kind, network, daemons.addresses[0], blob.sha256):
                    flooded.append(await submit_for(client, options.turn, seed))
                # Until the queue that the flood has left is empty.
                await submit_for(client, MAX_BACKLOG * options.seconds, 2_000_000 + seed)
                seed += 1000
            print(json.dumps(summary(kind, calm, flooded)), flush=True)


def summary(kind: str, calm: Sequence[Turn], flooded: Sequence[Turn]) -> Mapping[str, object]:
    """Return the figures of one kind of flood."""
    without, beside = (
        statistics.median(turn.tasks_per_minute for turn in turns) for turns in (calm, flooded)
    )
    durations = [[d for turn in turns for d in turn.durations] for turns in (calm, flooded)]
    return {
        "flood": kind,
        "tasks a minute without": round(without, 1),
        "tasks a minute beside it": round(beside, 1),
        "ratio": round(beside / without, 2),
        "inconclusive": [sum(turn.inconclusive for turn in turns) for turns in (calm, flooded)],
        "times its time alone": _times_alone(*durations),
        "median seconds": [round(statistics.median(d), 3) if d else None for d in durations],
        "worst seconds": [round(max(d), 2) if d else None for d in durations],
    }


def _times_alone(without: Sequence[float], beside: Sequence[float]) -> float | None:
    """Return how many times as long a task takes beside the flood, by the medians."""
    if not (without and beside):
        return None
    return round(statistics.median(beside) / statistics.median(without), 2)


def main() -> None:
    """Run the benchmark, or with --flood be the flooder that it started."""
    parser = arguments.Parser("scripts/bench flood", __doc__)
    seconds = arguments.number(0)
    parser.add_argument(
        "--kind", action="append", choices=FLOOD_KINDS, help="only this kind of flood"
    )
    parser.add_argument(
        "--nodes", type=arguments.whole(1, 31), default=1, help="light nodes (default 1)"
    )
    parser.add_argument(
        "--seconds", type=seconds, default=0.2, help="duration of a task (default 0.2)"
    )
    parser.add_argument("--turn", type=seconds, default=10.0, help="seconds per turn (default 10)")
    parser.add_argument(
        "--turns", type=arguments.whole(1), default=2, help="turns of each kind (default 2)"
    )
    parser.add_argument("--flood", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.flood:
        kind, network, address, blob = options.flood
        asyncio.run(flood(kind, Network.parse(Path(network).read_bytes()), address, blob))
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "net"
        _, nodes = create_network(
            root, options.nodes, CLASSES, NetworkParameters(commit_grace_seconds=0.5)
        )
        light = [f"--seconds={options.seconds}", f"--frames={FRAMES}", "--by-length"]
        with LightDaemons(root / "network.json", nodes, light) as daemons:
            daemons.wait_ready()
            interrupts.run(measure(root / "network.json", daemons, options))
            daemons.stop()
            rejections = [event for event in events(nodes[0]) if event.get("event") == "limits"]
            print("rejections by limit:", json.dumps(rejections[-1]))


if __name__ == "__main__":
    one_line.run(main)
