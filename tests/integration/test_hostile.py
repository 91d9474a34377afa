"""Every known attack on the wire, a thousand times each: the node stays up, and serves others."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from node.client import Client
from protocol.parameters import Parameters
from scripts.testnet_nodes import events, lay_out
from tests.integration.conftest import Running, task
from tests.integration.hostile import FLOODS, PARSERS, TIMES, Attack, Target
from tests.integration.light import RUNTIME, LightNodes

GROWTH = 50 * 1024  # KiB of resident memory that an attack may leave behind
SERVED_SECONDS = 20.0  # an honest task of 0.05 s takes 0.2 s with nobody else there
SETTLE_SECONDS = 30.0  # until what an attack held is given back

# What is met by a limit never reaches the code behind it: for that, there is a node with none.
UNLIMITED = [
    "--ban-points=1e6",
    "--peer-streams=1e6",
    "--peer-messages=1e6",
    "--peer-submissions=1e6",
    "--peer-bytes=999999999",
]


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Running]]:
    """A network of one light node with the default limits, and one without limits."""
    found = {}
    with ExitStack() as stack:
        for name, more in {"limited": [], "unlimited": UNLIMITED}.items():
            root = tmp_path_factory.mktemp(name)
            network, places = lay_out(root, 1, RUNTIME, Parameters(commit_grace_seconds=0.2))
            light = LightNodes(root / "network.json", places, ["--seconds=0.05", *more])
            nodes = stack.enter_context(light)
            nodes.wait_ready()
            found[name] = Running(network, nodes, root)
        yield found


class Process:
    """What the system says of the attacked process."""

    def __init__(self, found: Running) -> None:
        [running] = found.nodes._running.values()
        self._running, self._folder = running, Path(f"/proc/{running.pid}")

    @property
    def alive(self) -> bool:
        return self._running.poll() is None

    def memory(self) -> int:
        """Resident, KiB."""
        [line] = [
            row for row in (self._folder / "status").read_text().splitlines() if "VmRSS" in row
        ]
        return int(line.split()[1])

    def descriptors(self) -> int:
        return len(list((self._folder / "fd").iterdir()))

    async def settle(self, descriptors: int) -> None:
        """Wait until no more descriptors are open than before."""
        async with asyncio.timeout(SETTLE_SECONDS):
            while self.descriptors() > descriptors:  # noqa: ASYNC110 - another process tells nobody
                await asyncio.sleep(0.1)


async def serve_honestly(client: Client, attack: "asyncio.Future[int]") -> list[float]:
    """Submit tasks for as long as the attack lasts; return how long each took, in seconds."""
    took: list[float] = []
    while not took or not attack.done():
        began = time.monotonic()
        async with asyncio.timeout(SERVED_SECONDS):
            submission = await client.submit("text-to-music", task(seed=len(took)))  # type: ignore[arg-type]
            await submission.result()
        took.append(time.monotonic() - began)
    return took


async def withstand(found: Running, attack: Attack) -> None:
    """Attack a node while an honest client uses it, and compare it with what it was before."""
    target, process = Target(found.places[0].address, found.network), Process(found)
    async with Client.connect(found.network, found.nodes.addresses) as client:
        await (await client.submit("text-to-music", task())).result()  # type: ignore[arg-type]
        memory, descriptors = process.memory(), process.descriptors()
        attacking = asyncio.ensure_future(attack(target))
        began = time.monotonic()
        took = await serve_honestly(client, attacking)
        times = await attacking
        ended = time.monotonic()
        assert process.alive
        await process.settle(descriptors)
        grown = process.memory() - memory
        print(
            f"{attack.__name__}: {times} times in {ended - began:.1f} s, {len(took)} tasks "
            f"meanwhile, the slowest {max(took):.2f} s; {grown} KiB more, "
            f"settled after {time.monotonic() - ended:.1f} s"
        )
        assert times >= TIMES
        assert grown < GROWTH
        assert not any(
            event.get("event") == "the libp2p host failed and is rebuilt"
            for event in events(found.places[0])
        )


@pytest.mark.parametrize("attack", PARSERS, ids=lambda attack: attack.__name__)
async def test_what_no_honest_peer_sends(nodes: dict[str, Running], attack: Attack) -> None:
    await withstand(nodes["unlimited"], attack)


@pytest.mark.parametrize("attack", FLOODS, ids=lambda attack: attack.__name__)
async def test_too_much_of_anything(nodes: dict[str, Running], attack: Attack) -> None:
    await withstand(nodes["limited"], attack)


def test_what_was_met_is_told_to_the_operator(nodes: dict[str, Running]) -> None:
    """The last test here: it stops the nodes, which tell all their counts on stopping."""
    met: dict[str, Any] = {}
    for name, found in nodes.items():
        found.nodes.stop()
        [*_, last] = [event for event in events(found.places[0]) if event["event"] == "limits"]
        met[name] = last
        print(name, last)
    assert met["unlimited"]["messages-rejected"] >= TIMES
    refused = {"streams-refused", "requests-refused", "submissions-refused", "unread-cut"}
    assert {*refused, "gossip-slowed"} <= met["limited"].keys()
