"""What an honest requester gets of a network beside a flooder, as a ratio within one run.

Light nodes (a task's sound comes from a hash, in --seconds) are started on loopback. The honest
requester submits one task after another, in turns without and with a flooder of each kind beside
it, who is a process of its own. The fair share of two is a half: beside submissions, a ratio of
0.5 is all that an honest requester is due; less means that the flooder took of its half. Tasks that
ended without agreement are counted apart. Absolute figures are this machine's; the ratios are what
is worth keeping. With as many processors as nodes, the flooder does not take the nodes' own time.
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

from node.client.client import Client, NoAgreement
from protocol.manifest import blobs_of
from protocol.network import Network, NetworkParameters
from scripts.testnet_tool.nodes import create_network, events
from tests.integration import hostile
from tests.integration.light import RUNTIME, LightDaemons

FRAMES = 300_000  # of a sound, so that its readers can be stalled
KINDS = (
    "submissions",
    "submissions_of_many",
    "messages",
    "pings",
    "opened_and_reset",
    "unread_answers",
    "bad_messages",
)
BACKLOG = 64  # tasks that a flood leaves waiting at a node, by its settings
TASK = {
    "model": "helium/embedded-music",
    "prompt": "bells in the rain",
    "generation_config": {"max_new_tokens": 53},
}


@dataclass(frozen=True, slots=True)
class Turn:
    """Some seconds of honest use: how long each settled task took, and how many did not settle."""

    seconds: float
    took: tuple[float, ...]
    inconclusive: int

    @property
    def a_minute(self) -> float:
        """Tasks settled a minute."""
        return 60 * len(self.took) / self.seconds


async def use(client: Client, seconds: float, first: int) -> Turn:
    """Submit tasks one after another, each waiting for the last one's result."""
    began, took, failed = time.monotonic(), list[float](), 0
    while time.monotonic() - began < seconds:
        start = time.monotonic()
        seed = first + len(took) + failed
        submission = await client.submit("text-to-music", {**TASK, "seed": seed})
        try:
            await submission.tracker.certificate()
        except NoAgreement:
            failed += 1
        else:
            took.append(time.monotonic() - start)
    return Turn(time.monotonic() - began, tuple(took), failed)


@contextmanager
def flooding(kind: str, network: Path, address: str, blob: str) -> Iterator[None]:
    """Flood a node from another process while the block runs."""
    asked = ["--flood", kind, str(network), address, blob]
    flooder = subprocess.Popen(
        [sys.executable, "-P", "-m", "scripts.bench_tool.flood", *asked],
        stderr=subprocess.DEVNULL,  # it is told all the time that it is cut off
    )
    try:
        yield
    finally:
        flooder.kill()
        flooder.wait()


async def flood(kind: str, network: Network, address: str, blob: str) -> None:
    """Attack for ever."""
    target = hostile.Target(address, network, blob)
    while True:
        await getattr(hostile, kind)(target)


async def measure(network: Path, daemons: LightDaemons, options: argparse.Namespace) -> None:
    """Print a line for each kind of flood: tasks a minute without and with it, and their ratio."""
    document, first = network.read_bytes(), 0  # noqa: ASYNC240 - nothing else runs yet
    async with Client.connect(document, daemons.addresses) as client:
        await use(client, options.turn / 2, 1_000_000)
        submission = await client.submit("text-to-music", {**TASK, "seed": 0})
        [blob] = blobs_of((await submission.tracker.certificate()).outcome)
        for kind in options.kind or KINDS:
            calm, flooded = list[Turn](), list[Turn]()
            for _ in range(options.turns):
                calm.append(await use(client, options.turn, first))
                first += 1000
                with flooding(kind, network, daemons.addresses[0], blob.sha256):
                    flooded.append(await use(client, options.turn, first))
                await use(client, BACKLOG * options.seconds, 2_000_000 + first)  # until it is over
                first += 1000
            print(json.dumps(summary(kind, calm, flooded)), flush=True)


def summary(kind: str, calm: Sequence[Turn], flooded: Sequence[Turn]) -> Mapping[str, object]:
    """Return the figures of one kind."""
    without, beside = (statistics.median(t.a_minute for t in turns) for turns in (calm, flooded))
    took = [[each for turn in turns for each in turn.took] for turns in (calm, flooded)]
    return {
        "flood": kind,
        "tasks a minute without": round(without, 1),
        "tasks a minute beside it": round(beside, 1),
        "ratio": round(beside / without, 2),
        "inconclusive": [sum(turn.inconclusive for turn in turns) for turns in (calm, flooded)],
        "median seconds": [round(statistics.median(each), 3) if each else None for each in took],
        "worst seconds": [round(max(each), 2) if each else None for each in took],
    }


def main() -> None:
    """Run the benchmark, or be the flooder that it started."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kind", action="append", choices=KINDS, help="only this kind of flood")
    parser.add_argument("--nodes", type=int, default=1, help="light nodes (default 1)")
    parser.add_argument("--seconds", type=float, default=0.2, help="what a task takes")
    parser.add_argument("--turn", type=float, default=10.0, help="seconds of a turn (default 10)")
    parser.add_argument("--turns", type=int, default=2, help="turns of each (default 2)")
    parser.add_argument("--flood", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.flood:
        kind, network, address, blob = options.flood
        asyncio.run(flood(kind, Network.parse(Path(network).read_bytes()), address, blob))
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "net"
        _, nodes = create_network(
            root, options.nodes, RUNTIME, NetworkParameters(commit_grace_seconds=0.5)
        )
        light = [f"--seconds={options.seconds}", f"--frames={FRAMES}"]
        with LightDaemons(root / "network.json", nodes, light) as daemons:
            daemons.wait_ready()
            asyncio.run(measure(root / "network.json", daemons, options))
            daemons.stop()
            met = [event for event in events(nodes[0]) if event.get("event") == "limits"]
            print("limits met:", json.dumps(met[-1]))


if __name__ == "__main__":
    main()
