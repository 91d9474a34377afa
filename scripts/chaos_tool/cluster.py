"""A network of daemons in which every connection runs through a proxy."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from protocol.consensus.effects import State
from protocol.network import Network, NetworkParameters
from protocol.wire.encoding import Document
from scripts.chaos_tool.checks import Observations, read_certified, read_states
from scripts.chaos_tool.observers import Event, LogTail, logged_at, record_gossip
from scripts.chaos_tool.options import ChaosOptions
from scripts.chaos_tool.proxy import Link
from scripts.testnet_tool import folder
from scripts.testnet_tool.nodes import (
    START_SECONDS,
    Daemons,
    LocalNode,
    NodeDown,
    create_network,
    measured_classes,
)
from tests.integration.light import CLASSES

# Seconds that a task takes at the first and at the last light node. Different speeds spread the
# commits of one task over the grace period.
FASTEST_TASK, SLOWEST_TASK = 0.1, 0.9
# Seconds between two reads of a log.
LOG_POLL = 0.01
# Seconds between two reads of all databases.
DATABASE_POLL = 0.5


class ProxiedDaemons(Daemons):
    """Daemons that dial each other through links."""

    def __init__(
        self,
        network_file: Path,
        nodes: Sequence[LocalNode],
        links: dict[tuple[str, str], Link],
        *,
        real: bool,
    ) -> None:
        """`links` are by the names of the dialling and the dialled node."""
        super().__init__(network_file, nodes)
        self._links, self._real = links, real

    def entry(self, node: LocalNode) -> list[str]:
        """Return the Python arguments of a daemon. All liars send the same result, and at once."""
        announced = [
            f"--announce=/ip4/127.0.0.1/tcp/{link.port}"
            for (_, dialled), link in self._links.items()
            if dialled == node.name
        ]
        if self._real:
            return [*super().entry(node), *announced]
        if node.lie is not None:
            return ["-m", "tests.integration.light", "--seconds=0", "--lie=one", *announced]
        position = self.nodes.index(node) / max(1, len(self.nodes) - 1)
        seconds = FASTEST_TASK + position * (SLOWEST_TASK - FASTEST_TASK)
        return ["-m", "tests.integration.light", f"--seconds={seconds:.2f}", *announced]

    def peers(self, node: LocalNode) -> list[str]:
        """Return the multiaddrs of the proxies through which a node dials the others."""
        return [
            f"/ip4/127.0.0.1/tcp/{self._links[node.name, peer.name].port}/p2p/{peer.peer}"
            for peer in self.nodes
            if peer is not node
        ]


class Cluster:
    """The running network: operations for fault injection, and what was observed so far."""

    def __init__(
        self, network: Network, daemons: Daemons, links: dict[tuple[str, str], Link]
    ) -> None:
        self.network, self.daemons, self.observed = network, daemons, Observations()
        self._links = links
        self._locks = {node.name: asyncio.Lock() for node in daemons.nodes}

    @property
    def nodes(self) -> Sequence[LocalNode]:
        """All nodes, running or not."""
        return self.daemons.nodes

    def lock(self, node: LocalNode) -> asyncio.Lock:
        """Return a node's lock. Faults hold it, so that no two hit one node at a time."""
        return self._locks[node.name]

    async def crash(self, node: LocalNode) -> None:
        """Kill a node, restart it at once, and wait until it is ready."""
        self.kill(node)
        await self.restart(node)

    def kill(self, node: LocalNode) -> None:
        """Kill a node and record which certificates it had stored."""
        self.daemons.kill(node)
        certified = self.observed.certified_at_kill.get(node.name, frozenset())
        self.observed.certified_at_kill[node.name] = certified | read_certified(node)

    async def restart(self, node: LocalNode) -> None:
        """Start a killed node and wait until it is ready. Raises NodeDown."""
        with LogTail(node) as log:
            started = time.time()
            self.daemons.start(node)
            ready = await log.wait_for(_is_ready, START_SECONDS, LOG_POLL)
        if ready is None:
            raise NodeDown(f"{node.name} is not ready {START_SECONDS} s after its restart")
        self.observed.restart_seconds.append(logged_at(ready) - started)

    def links(self, near: Sequence[LocalNode], far: Sequence[LocalNode]) -> list[Link]:
        """Return the links between two groups of nodes, in both directions."""
        pairs = [(a.name, b.name) for a in near for b in far if a is not b]
        return [self._links[pair] for a, b in pairs for pair in ((a, b), (b, a))]

    async def wait_settled(self, seconds: float) -> bool:
        """Wait until `settled`. Returns False on timeout; raises NodeDown if a daemon ended."""
        deadline = time.monotonic() + seconds
        while not self.settled():
            self.daemons.check()
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(DATABASE_POLL)
        return True

    def settled(self) -> bool:
        """Whether all nodes store the same tasks in the same states, all of them terminal."""
        first, *rest = (read_states(node) for node in self.nodes)
        return all(states == first for states in rest) and all(
            State(state).terminal for state in first.values()
        )

    def uncertified(self) -> frozenset[str]:
        """Return the tasks that some node knows and that lack a certificate at any node."""
        accepted = frozenset[str]().union(*(read_states(node) for node in self.nodes))
        certified = [{task for task, _ in read_certified(node)} for node in self.nodes]
        return frozenset(t for t in accepted if not all(t in tasks for tasks in certified))


def _is_ready(event: Event) -> bool:
    return event.get("event") == "executor" and bool(event["ready"])


@asynccontextmanager
async def running_cluster(
    root: Path, options: ChaosOptions, parameters: NetworkParameters, liars: int
) -> AsyncIterator[Cluster]:
    """Run a network in the folder `root` during the block, in place of a former one.

    Raises NodeDown, FileExistsError and FolderInUse.
    """
    classes = measured_classes() if options.real else CLASSES
    with folder.locked(root):
        folder.clear(root)
        async with _running(root, options, parameters, liars, classes) as cluster:
            yield cluster


@asynccontextmanager
async def _running(
    root: Path,
    options: ChaosOptions,
    parameters: NetworkParameters,
    liars: int,
    classes: dict[str, Document],
) -> AsyncIterator[Cluster]:
    network, nodes = create_network(root, options.nodes, classes, parameters, liars)
    links = {(a.name, b.name): Link(b.port) for a in nodes for b in nodes if a is not b}
    for link in links.values():
        await link.start()
    daemons = ProxiedDaemons(root / "network.json", nodes, links, real=options.real)
    try:
        # PR_SET_PDEATHSIG fires when the starting thread ends, so the main thread starts them.
        with daemons:
            await asyncio.to_thread(daemons.wait_ready)
            cluster = Cluster(network, daemons, links)
            async with record_gossip(network.id, daemons.addresses, cluster.observed.gossip):
                yield cluster
            await asyncio.to_thread(daemons.stop)
    finally:
        for link in links.values():
            await link.stop()
