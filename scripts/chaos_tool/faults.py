"""The faults: which, on whom and for how long follows from the seed; when, from the machine."""

import asyncio
import random
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import TypeAlias

from scripts.chaos_tool import stores
from scripts.chaos_tool.cluster import LOOK, Field, dice_of
from scripts.chaos_tool.load import requesting
from scripts.chaos_tool.proxy import Weather, spoilt
from scripts.chaos_tool.tail import Event, Tail
from scripts.chaos_tool.wish import Wish
from scripts.testnet_tool.nodes import Place

LANES = 2  # nodes that are in trouble at a time: a minority, and as many as there are cores
PAUSE = 1.0  # seconds at most between two faults of a lane
COMMIT_POLL = 0.002  # seconds; a member may reveal 10 ms after its commit
COMMIT_SECONDS = 30.0  # in which a member of some committee commits, if it is not in bad luck
TRIES = 4  # times what was wished for that may fail: kills too late, tasks inconclusive
SETTLE_SECONDS = 240.0  # all attempts at a task, one after the other, and room

Fault: TypeAlias = Callable[[], Awaitable[None]]


class Scenes:
    """What happens to one network."""

    def __init__(self, field: Field, wish: Wish, tell: Callable[[str], None]) -> None:
        self._field, self._wish, self._tell = field, wish, tell
        self._requesters = 0
        self.counts: Counter[str] = Counter()
        """How often each fault was done."""
        self.trouble: list[str] = []
        """What went wrong that no database shows."""

    async def kills(self) -> None:
        """Kill nodes at random moments, then nodes that are just committed."""
        dice = dice_of(self._wish, "kills")
        victims = [dice.choice(self._field.places) for _ in range(self._wish.kills)]
        most = TRIES * self._wish.commit_kills
        async with self._requesting(self._field.places):
            await self._lanes(partial(self._kill, victim) for victim in victims)
            await self._lanes(
                partial(self._kill_at_commit, victim) for victim in self._while_wanted(dice, most)
            )

    async def _kill(self, victim: Place) -> None:
        async with self._field.free(victim):
            self.counts["kills"] += 1
            await self._field.crash(victim)

    def _while_wanted(self, dice: random.Random, most: int) -> Iterator[Place]:
        for _ in range(most):
            if self.counts["commit_kills"] < self._wish.commit_kills:
                yield dice.choice(self._field.places)

    async def _kill_at_commit(self, victim: Place) -> None:
        """Kill a node as soon as it says that it commits; count it if its reveal was not signed."""
        async with self._field.free(victim):
            with Tail(victim) as tail:
                committed = await tail.find(_commits, COMMIT_SECONDS, COMMIT_POLL)
            if committed is None:
                self.counts["commit_kills_without_commit"] += 1
                return
            self._field.die(victim)
            signed = stores.own_votes(victim, committed["task"], committed["attempt"])
            self.counts[_moment(signed)] += 1
            await self._field.revive(victim)

    async def stops(self) -> None:
        """Stop nodes with SIGSTOP, and let them go on later."""
        dice = dice_of(self._wish, "stops")
        longest = self._wish.fault_seconds
        plan = [
            (dice.choice(self._field.places), dice.uniform(0.05, 1.0) * longest)
            for _ in range(self._wish.stops)
        ]
        async with self._requesting(self._field.places):
            await self._lanes(partial(self._stop, *part) for part in plan)

    async def _stop(self, victim: Place, seconds: float) -> None:
        async with self._field.free(victim):
            self.counts["stops"] += 1
            self._field.nodes.send_signal(victim, signal.SIGSTOP)
            try:
                await asyncio.sleep(seconds)
            finally:
                self._field.nodes.send_signal(victim, signal.SIGCONT)

    async def proxy(self) -> None:
        """Cut, hold, delay and throttle links, of one node or between two."""
        dice = dice_of(self._wish, "proxy")
        plan = [self._drawn(dice) for _ in range(self._wish.cuts)]
        async with self._requesting(self._field.places):
            await self._lanes(partial(self._spoil, *part) for part in plan)

    def _drawn(self, dice: random.Random) -> tuple[str, Weather, Place, Sequence[Place], float]:
        near = dice.choice(self._field.places)
        far = self._field.places if dice.random() < 0.5 else [dice.choice(self._field.places)]
        name, weather = dice.choice(
            [
                ("links_cut", Weather(cut=True)),
                ("links_held", Weather(held=True)),
                ("links_delayed", Weather(delay=dice.uniform(0.05, 0.5))),
                ("links_throttled", Weather(rate=dice.uniform(2_000, 20_000))),
            ]
        )
        return name, weather, near, far, dice.uniform(0.1, 1.0) * self._wish.fault_seconds

    async def _spoil(
        self, name: str, weather: Weather, near: Place, far: Sequence[Place], seconds: float
    ) -> None:
        async with self._field.free(near):
            self.counts[name] += 1
            with spoilt(self._field.links([near], far), weather):
                await asyncio.sleep(seconds)

    async def partitions(self) -> None:
        """Split the network in two, each half with a requester of its own, and let it heal."""
        dice = dice_of(self._wish, "partitions")
        for number in range(self._wish.partitions):
            await self._partition(number, dice)

    async def _partition(self, number: int, dice: random.Random) -> None:
        field, wish = self._field, self._wish
        count = wish.nodes // 2 if number % 2 == 0 else round(0.3 * wish.nodes)
        weather = Weather(held=True) if number // 2 % 2 == 0 else Weather(cut=True)
        places = dice.sample(field.places, len(field.places))
        near, far = places[:count], places[count:]
        how = "held" if weather.held else "cut"
        self._tell(f"partition {len(far)}/{len(near)}, {how}, {wish.partition_seconds:.0f} s")
        self.counts[f"partitions_{how}"] += 1
        async with self._requesting(near), self._requesting(far):
            with spoilt(field.links(near, far), weather):
                await asyncio.sleep(wish.partition_seconds)
                held_up = field.uncertified()
            field.noted.heals.append((time.time(), held_up))
        await self.settle()

    async def settle(self) -> None:
        """Wait until all nodes stand alike, or note that they do not."""
        if not await self._field.settle(SETTLE_SECONDS):
            self.trouble.append(f"no common state {SETTLE_SECONDS:.0f} s after the faults")

    async def liars(self) -> None:
        """Submit tasks until enough are certified; the liars lie on their own."""
        noted, wanted = self._field.noted, self._wish.liar_tasks
        async with self._requesting(self._field.places):
            while len(noted.certified) < wanted and noted.unlucky.total() < TRIES * wanted:
                self._field.nodes.check()
                await asyncio.sleep(LOOK)

    def _requesting(self, places: Sequence[Place]) -> AbstractAsyncContextManager[None]:
        """Submit tasks to these nodes, other ones than any requester before."""
        self._requesters += 1
        dice = dice_of(self._wish, f"requester {self._requesters}")
        addresses = [place.address for place in places]
        return requesting(self._field.network, addresses, dice, self._field.noted)

    async def _lanes(self, faults: Iterator[Fault]) -> None:
        """Do faults in their order, some at a time."""
        dice = dice_of(self._wish, "pauses")

        async def lane() -> None:
            for fault in faults:
                await asyncio.sleep(dice.uniform(0, PAUSE))
                self._field.nodes.check()
                await fault()

        async with asyncio.TaskGroup() as group:
            for _ in range(LANES):
                group.create_task(lane())


def _commits(event: Event) -> bool:
    return event.get("event") == "task" and event.get("state") == "committed"


def _moment(signed: set[str]) -> str:
    """Name the moment of a kill by what the journal holds of the victim's."""
    if "reveal" in signed:
        return "commit_kills_after_reveal"
    return "commit_kills" if "commit" in signed else "commit_kills_before_journal"
