"""Fault injection. The seed decides which faults hit which nodes, the machine decides when."""

import asyncio
import random
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import TypeAlias

from scripts.chaos_tool.checks import read_own_votes
from scripts.chaos_tool.cluster import DATABASE_POLL, Cluster
from scripts.chaos_tool.load import submitting
from scripts.chaos_tool.observers import Event, LogTail
from scripts.chaos_tool.options import ChaosOptions
from scripts.chaos_tool.proxy import LinkCondition, degraded
from scripts.testnet_tool.nodes import LocalNode

# Faults at a time. A minority of the nodes, and as many as the test machine has cores.
CONCURRENT_FAULTS = 2
# The longest pause in seconds before each fault.
MAX_PAUSE = 1.0
# Seconds between two reads of a victim's log. A member may reveal 10 ms after its commit.
COMMIT_POLL = 0.002
# Seconds to wait for a victim to commit. It commits only to tasks whose committee it is in.
COMMIT_TIMEOUT = 30.0
# Some attempts fail: a kill may come too late, a task may be inconclusive. Stop after this many
# times the number that was asked for.
MAX_TRIES = 4
# Seconds until all nodes agree after the last fault: all attempts at a task, one by one, and some.
SETTLE_TIMEOUT = 240.0

Fault: TypeAlias = Callable[[], Awaitable[None]]
LinkFault: TypeAlias = tuple[str, LinkCondition, LocalNode, Sequence[LocalNode], float]


class FaultInjector:
    """Injects faults into one cluster while requesters submit tasks to it."""

    def __init__(
        self, cluster: Cluster, options: ChaosOptions, show: Callable[[str], None]
    ) -> None:
        """`show` prints a line of progress."""
        self._cluster, self._options, self._show = cluster, options, show
        self._requesters = 0
        self.counts: Counter[str] = Counter()
        """How many faults of each kind were injected."""
        self.problems: list[str] = []
        """Problems that no database shows."""

    async def inject(self, kind: str) -> None:
        """Inject all faults of one kind of `FAULT_KINDS`."""
        injections = {
            "kills": self._inject_kills,
            "stops": self._inject_stops,
            "proxy": self._inject_link_faults,
            "partitions": self._inject_partitions,
            "liars": self._run_with_liars,
        }
        await injections[kind]()

    async def wait_settled(self) -> None:
        """Wait until all nodes store the same states. Records a problem on timeout."""
        if not await self._cluster.wait_settled(SETTLE_TIMEOUT):
            self.problems.append(
                f"the nodes still differ {SETTLE_TIMEOUT:.0f} s after the last fault"
            )

    # Kills

    async def _inject_kills(self) -> None:
        """Kill nodes at random moments, then members between commit and reveal."""
        rng = self._options.rng("kills")
        victims = [rng.choice(self._cluster.nodes) for _ in range(self._options.kills)]
        async with self._load(self._cluster.nodes):
            await self._run_all(partial(self._kill, victim) for victim in victims)
            await self._run_all(
                partial(self._kill_at_commit, victim) for victim in self._commit_victims(rng)
            )

    async def _kill(self, victim: LocalNode) -> None:
        async with self._cluster.lock(victim):
            self.counts["kills"] += 1
            await self._cluster.crash(victim)

    def _commit_victims(self, rng: random.Random) -> Iterator[LocalNode]:
        for _ in range(MAX_TRIES * self._options.commit_kills):
            if self.counts["commit_kills"] < self._options.commit_kills:
                yield rng.choice(self._cluster.nodes)

    async def _kill_at_commit(self, victim: LocalNode) -> None:
        """Kill a node when it logs a commit. Counts only if its reveal was not signed by then."""
        async with self._cluster.lock(victim):
            with LogTail(victim) as log:
                commit = await log.wait_for(_is_commit, COMMIT_TIMEOUT, COMMIT_POLL)
            if commit is None:
                self.counts["commit_kills_without_commit"] += 1
                return
            self._cluster.kill(victim)
            votes = read_own_votes(victim, commit["task"], commit["attempt"])
            self.counts[_moment_of_kill(votes)] += 1
            await self._cluster.restart(victim)

    # Stops

    async def _inject_stops(self) -> None:
        """Suspend nodes with SIGSTOP and resume them later."""
        rng = self._options.rng("stops")
        plan = [
            (rng.choice(self._cluster.nodes), rng.uniform(0.05, 1.0) * self._options.fault_seconds)
            for _ in range(self._options.stops)
        ]
        async with self._load(self._cluster.nodes):
            await self._run_all(partial(self._stop, *stop) for stop in plan)

    async def _stop(self, victim: LocalNode, seconds: float) -> None:
        async with self._cluster.lock(victim):
            self.counts["stops"] += 1
            self._cluster.daemons.send_signal(victim, signal.SIGSTOP)
            try:
                await asyncio.sleep(seconds)
            finally:
                self._cluster.daemons.send_signal(victim, signal.SIGCONT)

    # Links

    async def _inject_link_faults(self) -> None:
        """Cut, hold, delay and throttle links: all links of one node, or those of one pair."""
        rng = self._options.rng("proxy")
        plan = [self._draw_link_fault(rng) for _ in range(self._options.cuts)]
        async with self._load(self._cluster.nodes):
            await self._run_all(partial(self._degrade, *fault) for fault in plan)

    def _draw_link_fault(self, rng: random.Random) -> LinkFault:
        nodes = self._cluster.nodes
        near = rng.choice(nodes)
        far = nodes if rng.random() < 0.5 else [rng.choice(nodes)]
        name, condition = rng.choice(
            [
                ("links_cut", LinkCondition(cut=True)),
                ("links_held", LinkCondition(held=True)),
                ("links_delayed", LinkCondition(delay=rng.uniform(0.05, 0.5))),
                ("links_throttled", LinkCondition(rate=rng.uniform(2_000, 20_000))),
            ]
        )
        return name, condition, near, far, rng.uniform(0.1, 1.0) * self._options.fault_seconds

    async def _degrade(
        self,
        name: str,
        condition: LinkCondition,
        near: LocalNode,
        far: Sequence[LocalNode],
        seconds: float,
    ) -> None:
        async with self._cluster.lock(near):
            self.counts[name] += 1
            with degraded(self._cluster.links([near], far), condition):
                await asyncio.sleep(seconds)

    # Partitions

    async def _inject_partitions(self) -> None:
        """Partition the network, with a requester on either side, and let it heal."""
        rng = self._options.rng("partitions")
        for number in range(self._options.partitions):
            await self._partition(number, rng)

    async def _partition(self, number: int, rng: random.Random) -> None:
        cluster, options = self._cluster, self._options
        # Alternate between 1:1 and 3:7, and after each pair between held and cut links.
        size = options.nodes // 2 if number % 2 == 0 else round(0.3 * options.nodes)
        held = number // 2 % 2 == 0
        condition, name = LinkCondition(held=held, cut=not held), "held" if held else "cut"
        shuffled = rng.sample(cluster.nodes, len(cluster.nodes))
        near, far = shuffled[:size], shuffled[size:]
        self._show(f"partition {len(far)}/{len(near)}, {name}, {options.partition_seconds:.0f} s")
        self.counts[f"partitions_{name}"] += 1
        async with self._load(near), self._load(far):
            with degraded(cluster.links(near, far), condition):
                await asyncio.sleep(options.partition_seconds)
                delayed = cluster.uncertified()
            cluster.observed.heals.append((time.time(), delayed))
        await self.wait_settled()

    # Liars

    async def _run_with_liars(self) -> None:
        """Submit tasks until enough are certified. The liars need no injection."""
        observed, goal = self._cluster.observed, self._options.liar_tasks
        async with self._load(self._cluster.nodes):
            while len(observed.certified) < goal and observed.failures.total() < MAX_TRIES * goal:
                self._cluster.daemons.check()
                await asyncio.sleep(DATABASE_POLL)

    # For all kinds

    def _load(self, nodes: Sequence[LocalNode]) -> AbstractAsyncContextManager[None]:
        """Submit tasks to these nodes during the block. No two requesters draw the same tasks."""
        self._requesters += 1
        rng = self._options.rng(f"requester {self._requesters}")
        addresses = [node.address for node in nodes]
        return submitting(self._cluster.network, addresses, rng, self._cluster.observed)

    async def _run_all(self, faults: Iterator[Fault]) -> None:
        """Run faults in order, up to CONCURRENT_FAULTS at a time, with random pauses."""
        rng = self._options.rng("pauses")

        async def run_next() -> None:
            for fault in faults:
                await asyncio.sleep(rng.uniform(0, MAX_PAUSE))
                self._cluster.daemons.check()
                await fault()

        async with asyncio.TaskGroup() as group:
            for _ in range(CONCURRENT_FAULTS):
                group.create_task(run_next())


def _is_commit(event: Event) -> bool:
    return event.get("event") == "task state changed" and event.get("state") == "committed"


def _moment_of_kill(votes: set[str]) -> str:
    """Return the counter for a kill by the votes of the victim that its journal holds."""
    if "reveal" in votes:
        return "commit_kills_after_reveal"
    return "commit_kills" if "commit" in votes else "commit_kills_before_journal"
