"""A network of daemons in the open field: every connection among them runs through a proxy."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from node.cli.commands.network import local_compute_class
from protocol.consensus.effects import State
from protocol.network import Network, NetworkParameters
from scripts.chaos_tool import stores
from scripts.chaos_tool.noted import Noted
from scripts.chaos_tool.proxy import Link
from scripts.chaos_tool.tail import Event, Tail, at
from scripts.chaos_tool.tap import tapping
from scripts.chaos_tool.wish import Wish
from scripts.testnet_tool.nodes import START_SECONDS, NodeDown, Nodes, Place, lay_out
from tests.integration.light import RUNTIME

FASTEST, SLOWEST = 0.1, 0.9  # seconds that a task takes at the first and the last light node
POLL = 0.01  # seconds between looks into a log
LOOK = 0.5  # seconds between looks into all databases


class ProxiedNodes(Nodes):
    """Daemons that dial each other through links."""

    def __init__(
        self,
        network_file: Path,
        places: Sequence[Place],
        links: dict[tuple[str, str], Link],
        *,
        real: bool,
    ) -> None:
        super().__init__(network_file, places)
        self._links, self._real = links, real

    def entry(self, place: Place) -> list[str]:
        """Return what Python is to run; all liars tell one lie, and at once."""
        announced = [
            f"--announce=/ip4/127.0.0.1/tcp/{link.port}"
            for (_, to), link in self._links.items()
            if to == place.name
        ]
        if self._real:
            return [*super().entry(place), *announced]
        if place.lie is not None:
            return ["-m", "tests.integration.light", "--seconds=0", "--lie=one", *announced]
        share = self.places.index(place) / max(1, len(self.places) - 1)
        seconds = FASTEST + share * (SLOWEST - FASTEST)
        return ["-m", "tests.integration.light", f"--seconds={seconds:.2f}", *announced]

    def peers(self, place: Place) -> list[str]:
        """Return the ends of the links from a node."""
        return [
            f"/ip4/127.0.0.1/tcp/{self._links[place.name, other.name].port}/p2p/{other.peer}"
            for other in self.places
            if other is not place
        ]


class Field:
    """The running network, what can be done to it, and what was noted while it was done."""

    def __init__(self, network: Network, nodes: Nodes, links: dict[tuple[str, str], Link]) -> None:
        self.network, self.nodes, self.noted = network, nodes, Noted()
        self._links = links
        self._locks = {place.name: asyncio.Lock() for place in nodes.places}

    @property
    def places(self) -> Sequence[Place]:
        """All nodes."""
        return self.nodes.places

    def free(self, place: Place) -> asyncio.Lock:
        """Return the lock of a node, held while a fault is done to it."""
        return self._locks[place.name]

    async def crash(self, place: Place) -> None:
        """Kill a node, start it at once, and wait until it is ready."""
        self.die(place)
        await self.revive(place)

    def die(self, place: Place) -> None:
        """Kill a node, and note what it held."""
        self.nodes.kill(place)
        before = self.noted.kept.get(place.name, frozenset())
        self.noted.kept[place.name] = before | stores.certified(place)

    async def revive(self, place: Place) -> None:
        """Start a killed node and wait until it is ready. Raises NodeDown."""
        with Tail(place) as tail:
            began = time.time()
            self.nodes.start(place)
            ready = await tail.find(_is_ready, START_SECONDS, POLL)
        if ready is None:
            raise NodeDown(f"{place.name} is not ready {START_SECONDS} s after its restart")
        self.noted.restarts.append(at(ready) - began)

    def links(self, near: Iterable[Place], far: Iterable[Place]) -> list[Link]:
        """Return the links between two groups, both ways."""
        pairs = [(a.name, b.name) for a in near for b in far if a is not b]
        return [self._links[pair] for a, b in pairs for pair in ((a, b), (b, a))]

    async def settle(self, seconds: float) -> bool:
        """Wait until every node knows every task, all have ended, and alike; False if they do not.

        Raises NodeDown when one ended meanwhile.
        """
        until = time.monotonic() + seconds
        while not self.settled():
            self.nodes.check()
            if time.monotonic() > until:
                return False
            await asyncio.sleep(LOOK)
        return True

    def settled(self) -> bool:
        """Whether all nodes stand alike, and nothing is open."""
        first, *others = (stores.states(place) for place in self.places)
        return all(other == first for other in others) and all(
            State(state).terminal for state in first.values()
        )

    def uncertified(self) -> frozenset[str]:
        """Return the tasks known to some node and not certified at all of them now."""
        known = frozenset().union(*(stores.states(place) for place in self.places))
        everywhere = [{task for task, _ in stores.certified(place)} for place in self.places]
        return known - set.intersection(*everywhere)


def _is_ready(event: Event) -> bool:
    return event.get("event") == "executor" and bool(event["ready"])


@asynccontextmanager
async def fielded(
    root: Path, wish: Wish, parameters: NetworkParameters, liars: int
) -> AsyncIterator[Field]:
    """Start a network in the folder `root`, and stop it when the block ends. Raises NodeDown."""
    runtime = local_compute_class() if wish.real else RUNTIME
    network, places = lay_out(root, wish.nodes, runtime, parameters, liars)
    links = {(a.name, b.name): Link(b.port) for a in places for b in places if a is not b}
    for link in links.values():
        await link.start()
    nodes = ProxiedNodes(root / "network.json", places, links, real=wish.real)
    try:
        # Started on the main thread: a daemon is told to stop when the thread that began it ends.
        with nodes:
            await asyncio.to_thread(nodes.wait_ready)
            field = Field(network, nodes, links)
            async with tapping(network.id, nodes.addresses, field.noted.heard):
                yield field
            await asyncio.to_thread(nodes.stop)
    finally:
        for link in links.values():
            await link.stop()


def dice_of(wish: Wish, what: str) -> random.Random:
    """Return the dice of one part of the run: the choices of one part leave the others' alone."""
    return random.Random(f"{wish.seed} {what}")
