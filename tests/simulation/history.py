"""A history of real daemons and a real client, on a virtual asyncio loop, from one scenario.

Slower than `arena` by far, it goes through everything that a node is: streams, feeds, the client's
following, fetching and verifying. The invariants are the same.
"""

import asyncio
import random
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from node.client.client import (
    Client,
    GenerationFailed,
    NoAgreement,
    NoNodeReachable,
    Submission,
    TaskRejected,
)
from node.sync.blob_download import BlobUnavailable
from node.sync.task_tracker import UnknownTask
from protocol.wire.messages import Task
from tests.simulation import executing, invariants
from tests.simulation.actors import Actor, Stage
from tests.simulation.certifying import CertificateForger
from tests.simulation.citizens import Citizen
from tests.simulation.faults import Blank, Crashed
from tests.simulation.report import Report, Violation, told
from tests.simulation.roles import AGENTS
from tests.simulation.scenario import DEADLINE, Scenario, Trouble
from tests.simulation.sound import waveform
from tests.simulation.world import Weather, World
from tests.support import fixtures

OUTSIDE = 1001  # the first peer outside the roster that is not the client
LONGEST = DEADLINE + 180.0
PATIENT = 8  # feed rounds after which a node asks again whose store had failed


class History:
    """Everything there is in one history."""

    def __init__(self, scenario: Scenario, report: Report, note: Callable[[str], None] | None):
        self.scenario, self.network, self.report = scenario, scenario.network, report
        self.world = World(scenario.seed, self.network, Weather(scenario.link, scenario.execution))
        self.random = random.Random(f"history {scenario.seed}")
        self.blank = Blank(self.network.id)
        self.proven: dict[str, Any] = {}
        self.submitted: list[Task] = []
        self.citizens: list[Citizen] = []
        self.actors: list[Actor] = []
        self._note, self._loop = note, asyncio.get_running_loop()
        self._faults: list[BaseException] = []
        self._going_on: set[asyncio.Task[None]] = set()
        self._populate()
        self.signatures = invariants.Signatures({c.peer for c in self.honest})

    @property
    def honest(self) -> list[Citizen]:
        return [c for c in self.citizens if self.scenario.honest(c.index)]

    @property
    def bans(self) -> list[tuple[str, str]]:
        """Who found whom to forward too much that is rejected."""
        return [
            (c.peer, other.peer)
            for c in self.honest
            for other in self.honest
            if (carrier := self.world.medium.transport(c.peer)) and carrier.bans(other.peer)
        ]

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Let the databases be read from outside, whatever is wrong with their disks."""
        before = [(c, c.disk, c.dead) for c in self.citizens]
        for citizen in self.citizens:
            citizen.disk, citizen.dead = None, False
        yield
        for citizen, disk, dead in before:
            citizen.disk, citizen.dead = disk, dead

    # Life

    async def play(self) -> None:
        """Let it all happen; raise Violation for what must not."""
        self._loop.set_exception_handler(self._fault)
        async with self._inhabited():
            for trouble in self.scenario.troubles:
                self._go_on(self._trouble(trouble))
            async with self._client() as client:
                tasks = [self._follow(client, n) for n in range(len(self.scenario.submissions))]
                await asyncio.gather(*tasks, self._live())
            invariants.check_end(self)
            self._tell_ends()
        if self._faults or self.world.medium.failures:
            raise Violation("no fault of ours", repr([*self._faults, *self.world.medium.failures]))

    def _populate(self) -> None:
        stage = Stage(
            self.network, self.world.medium, self.random, self._hear, self.scenario.obedient
        )
        places = [(role, i) for i, role in enumerate(self.scenario.roles)]
        places += [(role, OUTSIDE + n) for n, role in enumerate(self.scenario.outsiders)]
        for role, index in places:
            if role in AGENTS:
                self.actors.append(Actor(self.world.medium, AGENTS[role](stage, index)))
            else:
                self.citizens.append(Citizen(self, index))
            if role != "honest":
                self.report.adversaries[role + (" outside" if index >= OUTSIDE else "")] += 1

    @asynccontextmanager
    async def _inhabited(self) -> AsyncIterator[None]:
        for citizen in self.citizens:
            await citizen.start()
        addresses = [self.world.address(c.index) for c in self.citizens]
        for actor in self.actors:
            chosen = self.random.sample(addresses, min(len(addresses), 6))
            await actor.start(sorted(chosen))
        try:
            yield
        finally:
            for going in list(self._going_on):
                going.cancel()
            for citizen in self.citizens:
                await citizen.crash()
            for actor in self.actors:
                self.world.medium.crash(actor.transport.peer)

    async def _live(self) -> None:
        """Wait until all has ended and no feed has anything new for anyone."""
        tips: list[int] | None = None
        pause = self.scenario.feed_seconds
        stores = any(t.kind in ("full", "broken") for t in self.scenario.troubles)
        healed = self.scenario.troubled_until + (PATIENT * pause if stores else 20.0)
        quiet = max((*self.scenario.submissions, healed, 20.0))
        while self._loop.time() < LONGEST:
            await asyncio.sleep(pause + 5.0)
            invariants.check_now(self)
            for citizen in self.honest:
                for what, (count, most) in citizen.holds().items() if citizen.up else ():
                    if count > most:
                        raise Violation("I7", f"{citizen.index}: {what}: {count}, at most {most}")
            with self.looking():
                before, tips = tips, [c.journal.tip() for c in self.honest]
                over = all(not c.journal.open_tasks() for c in self.honest)
            if (
                self._loop.time() > quiet
                and before == tips
                and over
                and all(c.up for c in self.honest)
            ):
                return

    def _tell_ends(self) -> None:
        for citizen in self.citizens if self._note else ():
            for task in citizen.tasks():
                votes = [told(entry.envelope.encode()) for entry in citizen.journal.entries(task)]
                self.note(citizen, f"{task[:8]} is {citizen.state(task)} with {votes}")

    # What happens

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[Client]:
        nodes = [c.index for c in self.citizens]
        chosen = self.random.sample(nodes, min(len(nodes), 5))
        forgers = [a.agent.index for a in self.actors if isinstance(a.agent, CertificateForger)]
        async with self.world.client([*chosen, *forgers]) as client:
            yield client

    async def _follow(self, client: Client, number: int) -> None:
        """Submit a task, follow it to its end and fetch its sound, as a requester does."""
        await asyncio.sleep(self.scenario.submissions[number])
        prompt = self.random.choice(("song", "song", "song", "fail"))
        args = fixtures.args(seed=number, prompt=prompt)
        submission = await self._submit(client, args)
        task = submission.tracker.task
        assert task is not None
        self.submitted.append(task)
        self.note("requester", f"submits {task.id[:8]}")
        try:
            result = await submission.result()
        except GenerationFailed as failed:
            self._check_result(args, failed.certificate, failed.code)
        except (NoAgreement, UnknownTask, BlobUnavailable, NoNodeReachable) as ended:
            self.note("requester", f"{task.id[:8]}: {ended!r}")
            if invariants.sure(self, task):
                raise Violation("liveness", f"the requester got {ended!r}") from ended
        else:
            self._check_result(args, result.certificate, result.audio.tobytes())
        for found in submission.tracker.certificates:  # whether or not it could be fetched
            invariants.digest_of(self, found.encode().decode())

    async def _submit(self, client: Client, args: dict[str, Any]) -> Submission:
        while True:
            try:
                return await client.submit(
                    "text-to-music", args, compute_class=fixtures.CLASS, deadline=DEADLINE
                )
            except (NoNodeReachable, TaskRejected) as error:  # cut off, or all of them busy
                self.note("requester", f"tries again: {error}")
                await asyncio.sleep(2.0)

    def _check_result(self, args: dict[str, Any], certificate: Any, given: object) -> None:
        """I3 and the bytes, as the requester sees them."""
        digest = invariants.digest_of(self, certificate.encode().decode())
        right = executing.outcome(args)
        if certificate.outcome == right and given not in (waveform(args), right.get("error")):
            raise Violation("I3", f"a right certificate and other bytes, {digest[:8]}")

    async def _trouble(self, trouble: Trouble) -> None:
        await asyncio.sleep(trouble.at)
        self.report.faults[trouble.kind] += 1
        if trouble.kind == "partition":
            self.note("weather", f"cuts off {list(trouble.who)} for {trouble.seconds:.1f} s")
            self.world.medium.partition([fixtures.peer(i) for i in trouble.who])
            await asyncio.sleep(trouble.seconds)
            self.world.medium.heal()
            return
        citizen = next((c for c in self.citizens if c.index == trouble.who[0]), None)
        if citizen is None:
            return
        if trouble.kind != "crash":
            self.note(citizen, f"has a {trouble.kind} disk for {trouble.seconds:.1f} s")
            citizen.disk = trouble.kind
            await asyncio.sleep(trouble.seconds)
            citizen.disk = None
        elif trouble.boundary:
            citizen.boundaries.fuse, citizen.boundaries.only = trouble.boundary, trouble.only
            await asyncio.sleep(trouble.seconds + 40.0)
            citizen.boundaries.fuse = None
        elif citizen.up:
            citizen.dead = True
            self.world.medium.crash(citizen.peer)
            self.fell(citizen, "at rest")

    # What citizens tell

    def fell(self, citizen: Citizen, where: str) -> None:
        """A citizen died; it comes back later."""
        self.note(citizen, f"crashes {where}")
        self.report.faults[f"crash {where}"] += 1
        self._go_on(self._revive(citizen))

    async def _revive(self, citizen: Citizen) -> None:
        await citizen.crash()
        invariants.check_kept(self, citizen)
        while True:
            await asyncio.sleep(self.random.uniform(0.1, 15.0))
            self.note(citizen, "starts again")
            try:
                await citizen.start()
                break
            except Crashed:  # as it came up; `fell` was told
                return
            except sqlite3.Error as error:
                self.note(citizen, f"does not start: {error}")
        invariants.check_kept(self, citizen)

    def _hear(self, peer: str, payload: bytes) -> None:
        if self._note is not None:
            self.note(fixtures.index_of(peer), "says " + told(payload))

    def sent(self, citizen: Citizen, payload: bytes) -> None:
        self.signatures.see(payload)
        if self._note is not None:
            self.note(citizen, "sends " + told(payload))

    def note(self, who: object, what: str) -> None:
        """Write a line of the trace, if there is one."""
        if self._note is not None:
            name = f"{who.index}" if isinstance(who, Citizen) else str(who)
            self._note(f"{self._loop.time():9.3f}  {name:>9}  {what}")

    def _go_on(self, happening: Any) -> None:
        going = self._loop.create_task(self._watched(happening))
        self._going_on.add(going)
        going.add_done_callback(self._going_on.discard)

    async def _watched(self, happening: Any) -> None:
        try:
            await happening
        except Exception as fault:
            self._faults.append(fault)

    def _fault(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not isinstance(error, Crashed):
            self._faults.append(error or RuntimeError(str(context.get("message"))))


async def play(scenario: Scenario, note: Callable[[str], None] | None = None) -> Report:
    """Live through one scenario and check every invariant. Raises Violation."""
    report = Report()
    report.members[len(scenario.roles)] += 1
    history = History(scenario, report, note)
    try:
        await history.play()
    except Violation:
        raise
    except Exception as fault:
        raise Violation("no fault of ours", repr(fault)) from fault
    return report
