"""Runs one seed: real daemons, a real client and adversaries, in virtual time.

`run_seed` draws the scenario, runs it until all tasks have ended, and checks every invariant.
"""

import asyncio
import logging
import random
import sqlite3
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog

from node.client.client import Client
from node.client.nodes import NoNodeReachable, TaskRejected
from node.client.submission import GenerationFailed, Submission
from node.sync.blob_download import BlobUnavailable
from node.sync.task_tracker import NoAgreement, UnknownTask
from protocol.consensus.certificate import Certificate
from protocol.wire.messages import Task
from tests.simulation import doubles, invariants, memoization, virtual_loop
from tests.simulation.adversaries import ADVERSARIES
from tests.simulation.adversaries.adversary import Environment
from tests.simulation.adversaries.certificate_forger import CertificateForger
from tests.simulation.adversaries.host import AdversaryHost
from tests.simulation.faults import DatabaseTemplate, SimulatedCrash
from tests.simulation.faulty_nodes import FaultyNode
from tests.simulation.network import Conditions, SimulatedNetwork
from tests.simulation.report import Report, Violation, describe_envelope
from tests.simulation.scenario import (
    DEADLINE,
    MEMBERS,
    OFFLINE_SECONDS,
    OUTSIDERS,
    Fault,
    Scenario,
    draw,
    size,
)
from tests.support import fixtures

# The first key index of peers outside the roster. The client has the one before it.
OUTSIDE = 1001
# Virtual seconds in which a node accepts each task: nodes may not be ready because others are away
# (6.12), and the requester's other task may hold its share of the places until its deadline.
SUBMIT_SECONDS = DEADLINE + 300.0
# Virtual seconds of a run: the deadline of a task that is accepted last, skewed clocks, and disks
# that fail at the last moment.
MAX_SECONDS = SUBMIT_SECONDS + DEADLINE + 100.0
# Virtual seconds of a run after its faults, in which armed crash points may yet be passed.
CRASH_POINT_SECONDS = 20.0
# Virtual seconds between checks whether the other nodes have what one is to lose.
RECOVERY_POLL_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class RunConfig:
    """Which scenario a seed stands for."""

    members: tuple[int, int]  # at least, at most
    faulty: int | None = None  # drawn from the seed if None
    roles: tuple[str, ...] = MEMBERS  # of faulty members
    outsiders: tuple[str, ...] = OUTSIDERS


@dataclass(frozen=True, slots=True)
class RunResult:
    """The result of one run. `violation` names the invariant that does not hold."""

    seed: int
    summary: str
    report: Report
    violation: str = ""


def run_seed(config: RunConfig, seed: int, trace: Callable[[str], None] | None = None) -> RunResult:
    """Run the scenario of a seed. `trace` takes the lines of its log."""
    members, faulty = size(seed, config.members, config.faulty)
    return run_scenario(draw(seed, members, faulty, config.roles, config.outsiders), trace)


def run_scenario(scenario: Scenario, trace: Callable[[str], None] | None = None) -> RunResult:
    """Run one scenario and check every invariant."""
    _silence_nodes()
    report, summary = Report(), summarize(scenario)
    report.members[len(scenario.roles)] += 1
    try:
        with memoization.installed():
            virtual_loop.run(partial(_run, scenario, report, trace))
    except Violation as violation:
        return RunResult(scenario.seed, summary, Report(), str(violation))
    return RunResult(scenario.seed, summary, report)


async def _run(scenario: Scenario, report: Report, trace: Callable[[str], None] | None) -> None:
    try:
        await Simulation(scenario, report, trace).run()
    except (Exception, SimulatedCrash) as exception:
        raise _violation_in([exception]) from exception


def _violation_in(exceptions: Sequence[BaseException]) -> Violation:
    """Return the first violation among these exceptions, also in groups."""
    leaves = list(exceptions)
    for exception in leaves:
        if isinstance(exception, Violation):
            return exception
        if isinstance(exception, BaseExceptionGroup):
            leaves.extend(exception.exceptions)
    return Violation("unexpected exception", repr(exceptions))


def summarize(scenario: Scenario) -> str:
    """Describe a scenario in one line."""
    parameters = scenario.network.parameters
    faulty = [f"{i} {role}" for i, role in enumerate(scenario.roles) if role != "honest"]
    link = f"loss {scenario.link.loss:g}, delay up to {scenario.link.delay[1]:g} s"
    return "; ".join(
        (
            f"{len(scenario.roles)} members, committees {parameters.committee_size} to "
            f"{parameters.committee_max}",
            "synchronous" if scenario.synchronous else link,
            ", ".join(faulty) or "all honest",
            ", ".join(f"{role} outside" for role in scenario.outsiders) or "nobody outside",
            f"{len(scenario.faults)} faults",
        )
    )


class Simulation:
    """One run: the network, its adversaries, the requester and the injected faults."""

    def __init__(
        self, scenario: Scenario, report: Report, trace: Callable[[str], None] | None
    ) -> None:
        self.scenario, self.network, self.report = scenario, scenario.network, report
        conditions = Conditions(scenario.link, scenario.execution)
        self.world = SimulatedNetwork(scenario.seed, self.network, conditions)
        self.random = random.Random(f"history {scenario.seed}")
        self.database_template = DatabaseTemplate(self.network.id)
        self.verified: dict[str, Any] = {}  # certificates and evidence that were verified, by text
        self.submitted: list[Task] = []
        self.nodes: list[FaultyNode] = []
        self.hosts: list[AdversaryHost] = []
        self._trace, self._loop = trace, asyncio.get_running_loop()
        self._exceptions: list[BaseException] = []
        self._restoring = asyncio.Lock()
        self._background: set[asyncio.Task[None]] = set()
        self._create_peers()
        self.signatures = invariants.Signatures({node.peer for node in self.honest})

    @property
    def honest(self) -> list[FaultyNode]:
        return [node for node in self.nodes if self.scenario.honest(node.index)]

    @property
    def bans(self) -> list[tuple[str, str]]:
        """Pairs of honest nodes in which the first bans the second."""
        return [
            (node.peer, peer.peer)
            for node in self.honest
            for peer in self.honest
            if (transport := self.world.medium.transport(node.peer)) and transport.bans(peer.peer)
        ]

    @contextmanager
    def faults_suspended(self) -> Iterator[None]:
        """Make all databases readable inside the block."""
        states = [(node, node.disk, node.dead) for node in self.nodes]
        for node in self.nodes:
            node.disk, node.dead = None, False
        yield
        for node, disk, dead in states:
            node.disk, node.dead = disk, dead

    # The run

    async def run(self) -> None:
        """Run until all has ended, then check all invariants. Raises Violation."""
        self._loop.set_exception_handler(self._on_loop_exception)
        async with self._running_peers():
            restored = {i for f in self.scenario.faults if f.kind == "restore" for i in f.who}
            for node in self.nodes:
                if node.index in restored:
                    self._start_background(node.keep_copies())
            for fault in self.scenario.faults:
                self._start_background(self._inject(fault))
            async with self._client() as client:
                submissions = range(len(self.scenario.submissions))
                requests = asyncio.gather(*(self._run_requester(client, n) for n in submissions))
                await asyncio.gather(requests, self._wait_for_end(requests))
            self._check_forgeries()
            invariants.check_end(self)
            self._trace_final_states()
        exceptions = [*self._exceptions, *self.world.medium.failures]
        if exceptions:
            raise _violation_in(exceptions)

    def _create_peers(self) -> None:
        environment = Environment(
            self.network,
            self.world.medium,
            self.random,
            self._trace_adversary,
            self.scenario.honest_peers,
        )
        roles = list(enumerate(self.scenario.roles))
        roles += list(enumerate(self.scenario.outsiders, OUTSIDE))
        for index, role in roles:
            if role in ADVERSARIES:
                adversary = ADVERSARIES[role](environment, index)
                self.hosts.append(AdversaryHost(self.world.medium, adversary))
            else:
                self.nodes.append(FaultyNode(self, index))
            if role != "honest":
                self.report.adversaries[role + (" outside" if index >= OUTSIDE else "")] += 1

    @asynccontextmanager
    async def _running_peers(self) -> AsyncIterator[None]:
        for node in self.nodes:
            await node.start()
        addresses = [self.world.address(node.index) for node in self.nodes]
        for host in self.hosts:
            dialled = self.random.sample(addresses, min(len(addresses), 6))
            await host.start(sorted(dialled))
        try:
            yield
        finally:
            for task in list(self._background):
                task.cancel()
            for node in self.nodes:
                await node.crash()
            for host in self.hosts:
                self.world.medium.crash(host.transport.peer)

    async def _wait_for_end(self, requests: asyncio.Future[list[None]]) -> None:
        """Wait until all tasks have ended and all feeds are read; check invariants meanwhile.

        No time is enough for the feeds: a node may crash long after the others have ended a task,
        and slow links take many seconds to dial, to say hello and to read.
        """
        earliest = self.scenario.faulty_until + CRASH_POINT_SECONDS
        tips: list[int] | None = None
        while self._loop.time() < MAX_SECONDS:
            await asyncio.sleep(self.scenario.feed_seconds + 5.0)
            invariants.check_now(self)
            with self.faults_suspended():
                last_tips, tips = tips, [node.journal.last_cursor() for node in self.honest]
                all_ended = all(not node.journal.open_tasks() for node in self.honest)
                all_read = not invariants.unread_feeds(self)
            up = all(node.up for node in self.honest) and not self._restoring.locked()
            quiet = up and last_tips == tips
            done = requests.done() and all_ended and all_read and quiet
            if done and self._loop.time() > earliest:
                return

    def _check_forgeries(self) -> None:
        """I2 and I3 of whatever the adversaries show, whether or not a node asked for it."""
        for host in self.hosts:
            for task in self.submitted:
                invariants.check_shown(self, host.adversary.certificates_of(task.id))

    # The requester

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[Client]:
        nodes = [node.index for node in self.nodes]
        dialled = self.random.sample(nodes, min(len(nodes), 5))
        forgers = [
            host.adversary.index
            for host in self.hosts
            if isinstance(host.adversary, CertificateForger)
        ]
        async with self.world.client([*dialled, *forgers]) as client:
            yield client

    async def _run_requester(self, client: Client, number: int) -> None:
        """Submit a task, wait for its result and check it."""
        await asyncio.sleep(self.scenario.submissions[number])
        prompt = self.random.choice(("song", "song", "song", "fail"))
        args = fixtures.args(seed=number, prompt=prompt)
        submission = await self._submit(client, args)
        task = submission.tracker.task
        assert task is not None
        self.submitted.append(task)
        self.trace("requester", f"submits {task.id[:8]}")
        try:
            result = await submission.result()
        except GenerationFailed as failed:
            self._check_result(args, failed.certificate, failed.code)
        except (NoAgreement, UnknownTask, BlobUnavailable, NoNodeReachable) as failure:
            self.trace("requester", f"{task.id[:8]}: {failure!r}")
            if invariants.must_settle(self, task):
                raise Violation("liveness", f"the requester got {failure!r}") from failure
        else:
            self._check_result(args, result.certificate, result.audio.tobytes())
        for certificate in submission.tracker.certificates:  # fetched or not
            invariants.verify(self, certificate.encode().decode())

    async def _submit(self, client: Client, args: dict[str, Any]) -> Submission:
        refusal: Exception | None = None
        while self._loop.time() < SUBMIT_SECONDS:
            try:
                return await client.submit(
                    "text-to-music", args, compute_class=fixtures.CLASS, deadline=DEADLINE
                )
            except (NoNodeReachable, TaskRejected) as error:  # a partition, or all nodes are busy
                self.trace("requester", f"retries: {error}")
                refusal = error
                await asyncio.sleep(2.0)
        raise Violation("liveness", f"no node ever accepts a task: {refusal}")

    def _check_result(self, args: dict[str, Any], certificate: Certificate, result: object) -> None:
        """I3 and the bytes, as the requester sees them."""
        digest = invariants.verify(self, certificate.encode().decode())
        right = invariants.right_outcome(self, certificate.task)
        expected = (doubles.waveform(args), right.get("error"))
        if certificate.outcome == right and result not in expected:
            raise Violation("I3", f"a right certificate with other bytes, {digest[:8]}")

    # Faults

    async def _inject(self, fault: Fault) -> None:
        await asyncio.sleep(fault.at)
        self.report.faults[fault.kind] += 1
        if fault.kind == "partition":
            self.trace("network", f"partitions {list(fault.who)} for {fault.seconds:.1f} s")
            self.world.medium.partition([fixtures.peer(i) for i in fault.who])
            await asyncio.sleep(fault.seconds)
            self.world.medium.heal()
            return
        node = next((node for node in self.nodes if node.index == fault.who[0]), None)
        if node is None:
            return
        if fault.kind == "restore":
            await self._restore(node, fault)
        elif fault.kind != "crash":
            self.trace(node, f"has a {fault.kind} disk for {fault.seconds:.1f} s")
            node.disk = fault.kind
            await asyncio.sleep(fault.seconds)
            node.disk = None
        elif fault.crash_point:
            node.crash_points.remaining, node.crash_points.only = fault.crash_point, fault.only
            await asyncio.sleep(fault.seconds + 40.0)
            node.crash_points.remaining = None
        elif node.up:
            node.dead = True
            self.world.medium.crash(node.peer)
            self.on_crash(node, "at rest")

    async def _restore(self, node: FaultyNode, fault: Fault) -> None:
        """Put a copy of a node's database back, from `fault.seconds` ago, or an empty one."""
        async with self._restoring:  # one that has to wait may meet the next one
            while not self._can_be_recovered(node):  # noqa: ASYNC110
                await asyncio.sleep(RECOVERY_POLL_SECONDS)
            copy = node.oldest_copy(self._loop.time() - fault.seconds) if fault.seconds else None
            what = f"a copy that is {fault.seconds:.1f} s old" if copy else "an empty database"
            self.trace(node, f"stops, to go on with {what}")
            node.dead = True
            self.world.medium.crash(node.peer)
            await node.crash()
            node.replace_database(copy)
            await asyncio.sleep(OFFLINE_SECONDS)
            self.trace(node, "restarts")
            await node.start()

    def _can_be_recovered(self, node: FaultyNode) -> bool:
        """Whether each honest node has what this one must find again (specification 6.12).

        What is on its way, or at a node that has no room for it, is lost with the database.
        """
        others = [other for other in self.honest if other is not node]
        with self.faults_suspended():
            irreplaceable = node.irreplaceable()
        return all(other.has_journalled(e) for e in irreplaceable for other in others)

    def on_crash(self, node: FaultyNode, where: str) -> None:
        """Count a crash and restart the node later."""
        self.trace(node, f"crashes {where}")
        self.report.faults[f"crash {where}"] += 1
        self._start_background(self._restart(node))

    async def _restart(self, node: FaultyNode) -> None:
        await node.crash()
        invariants.check_settled(self, node)
        while True:
            await asyncio.sleep(self.random.uniform(0.1, 15.0))
            self.trace(node, "restarts")
            try:
                await node.start()
                break
            except SimulatedCrash:  # during the start; `on_crash` was called again
                return
            except sqlite3.Error as error:
                self.trace(node, f"does not start: {error}")
        invariants.check_settled(self, node)

    def on_send(self, node: FaultyNode, payload: bytes) -> None:
        """Check what a node sends: it never contradicts itself, and its journal has the message."""
        self.signatures.add(payload)
        invariants.check_journalled(node, payload)
        if self._trace is not None:
            self.trace(node, "sends " + describe_envelope(payload))

    # The trace

    def trace(self, source: object, event: str) -> None:
        """Write a line of the trace, if there is one."""
        if self._trace is not None:
            name = f"{source.index}" if isinstance(source, FaultyNode) else str(source)
            self._trace(f"{self._loop.time():9.3f}  {name:>9}  {event}")

    def _trace_adversary(self, peer: str, payload: bytes) -> None:
        if self._trace is not None:
            self.trace(fixtures.index_of(peer), "gossips " + describe_envelope(payload))

    def _trace_final_states(self) -> None:
        for node in self.nodes if self._trace else ():
            for task in node.tasks():
                entries = node.journal.entries(task)
                votes = [describe_envelope(entry.envelope.encode()) for entry in entries]
                self.trace(node, f"{task[:8]} is {node.state(task)} with {votes}")

    # Background tasks

    def _start_background(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(self._collect_exceptions(coroutine))
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _collect_exceptions(self, coroutine: Coroutine[Any, Any, None]) -> None:
        try:
            await coroutine
        except Exception as exception:
            self._exceptions.append(exception)

    def _on_loop_exception(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        exception = context.get("exception")
        if not isinstance(exception, SimulatedCrash):
            self._exceptions.append(exception or RuntimeError(str(context.get("message"))))


def _silence_nodes() -> None:
    """Disable the nodes' logs. Invariants report what is wrong."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL),
        cache_logger_on_first_use=False,
    )
