"""Measure what a burst of tasks costs a network: time, and processor time of nodes and client.

Light nodes run on loopback, each in a process of its own: the real daemon, whose executions take
--execution seconds each, one after the other. One client, in the process of this benchmark, submits
all tasks at once and waits for every certificate. A network of each size is started once. One task
goes ahead of the measured ones, because the first one pays for imports.

  certified      tasks with a certificate, and their number per second until the last one
  per node       processor time of a node, from the first submission until every node has logged
                 the certificates of all tasks: the median over the nodes and bursts. What the node
                 uses while idle is part of it. It is also given without that, by the measure of
                 --idle seconds before the burst. Nodes that lack certificates two minutes later
                 are not waited for; they are counted
  client         processor time of the client until it has the certificates, per task

--tasks 1 submits one task alone, by default nine times in turn, and tells how long it took beyond
its execution and its waits. The members wait twice for --grace seconds, but not at all if all of
the committee commit before the first wait ends. The reveals say which it was.

--profile says what the nodes' time was spent on, as scripts/bench idle --help explains. Of more
than 64 tasks at once, members abstain from those that their queues cannot hold.

    scripts/bench burst --nodes 4 10 --tasks 60
    scripts/bench burst --nodes 4 --tasks 1 --json
"""

import argparse
import asyncio
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from node.cli import interrupts
from node.cli.session import silence_libp2p
from node.client.client import Client
from node.config import log_setup
from node.sync.task_tracker import NoAgreement
from protocol.consensus.certificate import Certificate
from protocol.consensus.committee import committees
from protocol.network import Network, NetworkParameters
from protocol.wire.encoding import Json
from schemas.errors import HeliumError
from scripts import arguments, one_line
from scripts.bench_tool.light.network import (
    Meter,
    MeteredDaemons,
    Usage,
    machine,
    running,
    spread,
)
from scripts.bench_tool.light.samples import PARTS, shares
from scripts.bench_tool.output import describe_parts, progress, report
from scripts.testnet_tool.nodes import LocalNode, events

TASK: dict[str, Json] = {"model": "helium/embedded-music", "prompt": "bells in the rain"}
# How often a task alone is submitted, if --rounds does not say.
ROUNDS_OF_ONE = 9
# The time that nodes have to learn of a certificate which the client has..
SETTLE_SECONDS = 120.0
POLL_SECONDS = 0.2
PROGRESS_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Ended:
    """How a task ended: its state or the name of an error, and the seconds since its submission.

    `waited` are the seconds for which the members waited for commits.
    """

    state: str
    seconds: float
    waited: float = 0.0


@dataclass(frozen=True, slots=True)
class Burst:
    """One burst: how its tasks ended, seconds until the last one, processor time.

    `missing` are the certificates that nodes lacked in the end, each for each node.
    """

    ended: Sequence[Ended]
    seconds: float
    client: float
    usage: Usage
    missing: int

    @property
    def certified(self) -> list[Ended]:
        """The tasks with a certificate."""
        return [task for task in self.ended if task.state == CERTIFIED]


CERTIFIED = "certified"


def measure(nodes: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the figures of one network, a row for each number of tasks."""
    parameters = NetworkParameters(
        committee_size=options.committee,
        committee_max=max(options.committee, NetworkParameters().committee_max),
        commit_grace_seconds=options.grace,
    )
    with running(nodes, parameters, options.execution, sample=options.profile) as (net, daemons):
        return list(interrupts.run(_measure(net, daemons, options)))


async def _measure(
    network: Network, daemons: MeteredDaemons, options: argparse.Namespace
) -> list[dict[str, Any]]:
    rows = []
    async with Client.connect(network, daemons.addresses) as client:
        bench = _Bench(client, daemons)
        await bench.burst(1)
        for tasks in options.tasks:
            before = machine()
            rounds = options.rounds or (ROUNDS_OF_ONE if tasks == 1 else 1)
            meter = Meter(daemons)
            await asyncio.sleep(options.idle)
            idle = meter.read()
            bursts = [await bench.burst(tasks) for _ in range(rounds)]
            progress(f"{len(daemons.nodes)} nodes: {rounds} times {tasks} tasks done")
            row = {
                "nodes": len(daemons.nodes),
                **before,
                "committee": len(bench.committee),
                "grace_seconds": options.grace,
                "execution_seconds": options.execution,
                "tasks": tasks,
                "rounds": rounds,
            }
            rows.append(row | summary(bursts, idle, options.execution))
    return rows


class _Bench:
    """Submits bursts to a network."""

    def __init__(self, client: Client, daemons: MeteredDaemons) -> None:
        self._client, self._daemons = client, daemons
        self._submitted = 0  # for seeds, so that no two tasks are equal
        self._certified: set[str] = set()  # the ids of this burst's tasks
        self._done = 0  # tasks of this burst
        self.committee: tuple[str, ...] = ()

    async def burst(self, tasks: int) -> Burst:
        """Submit so many tasks at once, and wait until every node has their certificates."""
        self._done = 0
        meter, client = Meter(self._daemons), time.process_time()
        began = time.monotonic()
        watcher = asyncio.create_task(self._show_progress(tasks))
        try:
            ended = await asyncio.gather(*(self._one() for _ in range(tasks)))
        finally:
            watcher.cancel()
        seconds, client = time.monotonic() - began, time.process_time() - client
        missing = await self._settle()
        return Burst(ended, seconds, client, meter.read(), missing)

    async def _one(self) -> Ended:
        self._submitted += 1
        began = time.monotonic()
        try:
            submission = await self._client.submit(
                "text-to-music", {**TASK, "seed": self._submitted}
            )
            certificate = await submission.tracker.certificate()
        except NoAgreement as ended:
            return Ended(str(ended.state), time.monotonic() - began)
        except HeliumError as error:  # refused, or no node answered
            return Ended(type(error).__name__, time.monotonic() - began)
        finally:
            self._done += 1
        self._certified.add(certificate.task.id)
        return Ended(CERTIFIED, time.monotonic() - began, self._waited(certificate))

    def _waited(self, certificate: Certificate) -> float:
        """Return for how long the members waited: not at all if their lists have all commits."""
        network = self._client.network
        self.committee = committees(network, certificate.task)[certificate.attempt]
        if all(len(vote.commits) == len(self.committee) for vote in certificate.votes):
            return 0.0
        return 2 * network.parameters.commit_grace_seconds

    async def _show_progress(self, tasks: int) -> None:
        while True:
            await asyncio.sleep(PROGRESS_SECONDS)
            progress(f"{self._done} of {tasks} tasks have ended")

    async def _settle(self) -> int:
        """Wait until all nodes have all certificates; return how many they lack after a while.

        Raises NodeDown.
        """
        deadline = time.monotonic() + SETTLE_SECONDS
        missing = 0
        for node in self._daemons.nodes:
            while lacking := self._certified - _certificates(node):
                self._daemons.check()
                if time.monotonic() > deadline:
                    missing += len(lacking)
                    break
                await asyncio.sleep(POLL_SECONDS)
        self._certified.clear()
        return missing


def _certificates(node: LocalNode) -> set[str]:
    """Return the ids of the tasks of which a node has logged a certificate."""
    return {str(event["task"]) for event in events(node) if event.get("event") == "certificate"}


def summary(bursts: Sequence[Burst], idle: Usage, execution: float) -> dict[str, Any]:
    """Return the figures of equal bursts; `idle` is what the nodes used before them."""
    certified = [task for burst in bursts for task in burst.certified]
    others = Counter(
        task.state for burst in bursts for task in burst.ended if task.state != CERTIFIED
    )
    size = len(bursts[0].ended)
    rate = [used / idle.seconds for used in idle.processor]
    # By burst and node.
    whole = [used / size for burst in bursts for used in burst.usage.processor]
    beyond_idle = [
        (used - per_second * burst.usage.seconds) / size
        for burst in bursts
        for used, per_second in zip(burst.usage.processor, rate, strict=True)
    ]
    parts = {part: sum(burst.usage.parts[part] for burst in bursts) for part in PARTS}
    busy = statistics.median(burst.usage.processors_busy for burst in bursts)
    return {
        "certified": len(certified),
        "others": dict(others),
        "seconds": spread([burst.seconds for burst in bursts], 2),
        "certified_per_second": round(
            statistics.median(len(burst.certified) / burst.seconds for burst in bursts), 2
        ),
        "task_seconds": spread([task.seconds for task in certified], 3) if certified else None,
        "beyond_ms": _beyond(certified, execution) if certified and size == 1 else None,
        "missing": sum(burst.missing for burst in bursts),
        "waited": sum(task.waited > 0 for task in certified),
        "node_ms_per_task": spread([1000 * used for used in whole]),
        "node_ms_per_task_beyond_idle": spread([1000 * used for used in beyond_idle]),
        "idle_ms_per_second": spread([1000 * used for used in rate]),
        "client_ms_per_task": spread([1000 * burst.client / size for burst in bursts]),
        "processors_busy": round(busy, 2),
        "profile": shares(parts),
    }


def _beyond(certified: Sequence[Ended], execution: float) -> dict[str, float]:
    """Return the milliseconds of tasks beyond their executions and waits."""
    return spread([1000 * (task.seconds - task.waited - execution) for task in certified])


def line(row: Mapping[str, Any]) -> str:
    """Return a row in words."""
    submitted = row["tasks"] * row["rounds"]
    others = "".join(f", {count} {state}" for state, count in row["others"].items())
    if row["missing"]:
        others += f", {row['missing']} certificates missing at nodes"
    cost, idle = row["node_ms_per_task"], row["idle_ms_per_second"]
    if row["beyond_ms"]:
        beyond = row["beyond_ms"]
        duration = (
            f"{beyond['median']:.0f} ms beyond execution and waits"
            f" ({beyond['min']:.0f} to {beyond['max']:.0f}; {row['waited']} had to wait)"
        )
    else:
        rate = row["certified_per_second"]
        duration = f"{row['seconds']['median']:.1f} s, {rate:.2f} certified per second"
    return (
        f"{row['nodes']} nodes, {row['rounds']} times {row['tasks']} at once:"
        f" {row['certified']} of {submitted} certified{others}: {duration}; per node and task"
        f" {cost['median']:.0f} ms of processor time ({cost['min']:.0f} to {cost['max']:.0f};"
        f" {row['node_ms_per_task_beyond_idle']['median']:.0f} beyond idle, which is"
        f" {idle['median']:.0f} ms a second), client {row['client_ms_per_task']['median']:.0f} ms;"
        f" committee {row['committee']}, grace {row['grace_seconds']:g} s;"
        f" {row['processors_busy']:.2f} of {row['processors']} processors busy;"
        f" load {row['load_before']} before" + describe_parts(row["profile"])
    )


def main() -> None:
    """Measure the bursts that the arguments describe."""
    whole, number = arguments.whole, arguments.number
    parser = arguments.Parser("scripts/bench burst", __doc__)
    parser.add_argument(
        "--nodes",
        type=whole(2, 100),
        nargs="+",
        default=[4, 10, 30],
        help="sizes of networks, one after the other (default 4 10 30)",
    )
    parser.add_argument(
        "--tasks",
        type=whole(1, 1000),
        nargs="+",
        default=[60],
        help="tasks submitted at once, in turn (default 60)",
    )
    parser.add_argument(
        "--rounds", type=whole(1), help="bursts of each number (default 9 of one task, else 1)"
    )
    parser.add_argument(
        "--execution", type=number(0, 60), default=0.05, help="seconds of one (default 0.05)"
    )
    parser.add_argument(
        "--grace", type=number(0, 60), default=0.5, help="commit_grace_seconds (default 0.5)"
    )
    parser.add_argument(
        "--committee", type=whole(1, 31), default=3, help="of the first attempt (default 3)"
    )
    parser.add_argument(
        "--idle", type=number(0, 600), default=5.0, help="seconds measured before (default 5)"
    )
    parser.add_argument("--profile", action="store_true", help="say what the time was spent on")
    parser.add_argument("--json", action="store_true", help="print one document")
    options = parser.parse_args()
    log_setup.configure("error", "auto")
    silence_libp2p()

    def rows() -> Iterator[dict[str, Any]]:
        for nodes in options.nodes:
            yield from measure(nodes, options)

    report(rows(), line, as_json=options.json)


if __name__ == "__main__":
    one_line.run(main)
