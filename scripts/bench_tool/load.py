"""Measure how many tasks of a burst end with a certificate, on real daemons in virtual time.

Ten honest nodes, each with an operator of its own, execute one task at a time. A client submits all
tasks of a burst at once. Executions are lognormal. The network's attempt_seconds are a multiple of
the median execution, as `helium network create` chooses them. Only the wire, the clock, the blob
store and the executor are replaced; a seed always gives the same run.
"""

import argparse
import asyncio
import json
import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from node.client.client import Client
from node.config.limits import Limits
from node.daemon import Options
from node.sync.task_tracker import NoAgreement
from protocol.consensus.effects import State
from protocol.network import Network
from scripts import arguments as script_arguments
from scripts import one_line
from tests.simulation import virtual_loop
from tests.simulation.network import SimulatedNetwork, SimulatedNode
from tests.support import fixtures

# Seconds of virtual time between two submissions of a burst.
_SUBMISSION_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Load:
    """The burst and the network that it meets. Times are in virtual seconds."""

    tasks: int
    nodes: int
    median: float
    sigma: float
    attempt_factor: float
    grace: float
    deadline: int
    seed: int

    @property
    def network(self) -> Network:
        """The network document, with the specification's committee sizes."""
        return fixtures.network(
            self.nodes,
            attempt_seconds=round(self.attempt_factor * self.median),
            commit_grace_seconds=self.grace,
            max_deadline_seconds=self.deadline,
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a burst: tasks by state, attempts of the certificates, seconds until them."""

    certified: int
    states: dict[str, int]
    attempts: dict[int, int]
    median_seconds: float
    slowest_seconds: float


class _LoadedNode(SimulatedNode):
    def options(self) -> Options:
        return Options(
            tuple(
                self._world.address(i) for i in range(len(self.network.roster)) if i < self.index
            ),
            feed_seconds=10.0,
            models=tuple(self.network.models),
            limits=Limits(max_queued_tasks=4096),
        )


class _LoadedNetwork(SimulatedNetwork):
    def __init__(self, load: Load) -> None:
        super().__init__(load.seed, load.network)
        self._load = load

    def execution_seconds(self) -> float:
        return self.random.lognormvariate(math.log(self._load.median), self._load.sigma)

    async def populate(self, labels: list[str] | None = None) -> None:
        self.nodes = [_LoadedNode(self, index, "honest") for index in range(self._load.nodes)]
        for node in self.nodes:
            await node.start()
        await asyncio.sleep(1)


def run(load: Load) -> Outcome:
    """Run one burst to its end."""
    outcome: list[Outcome] = []

    async def main() -> None:
        world = _LoadedNetwork(load)
        await world.populate()
        async with world.client() as client:
            burst = [_one_task(client, number, load) for number in range(load.tasks)]
            results = await asyncio.gather(*burst)
        certified = [
            (attempt, seconds) for state, attempt, seconds in results if state == State.AGREED
        ]
        seconds = [seconds for _, seconds in certified] or [math.inf]
        outcome.append(
            Outcome(
                len(certified),
                dict(Counter(state for state, *_ in results)),
                dict(Counter(attempt for attempt, _ in certified)),
                statistics.median(seconds),
                max(seconds),
            )
        )
        await world.stop_all()

    virtual_loop.run(main)
    return outcome[0]


async def _one_task(client: Client, number: int, load: Load) -> tuple[str, int, float]:
    loop = asyncio.get_running_loop()
    await asyncio.sleep(number * _SUBMISSION_SECONDS)
    began = loop.time()
    submission = await client.submit(
        "text-to-music", fixtures.args(seed=number), deadline=load.deadline
    )
    try:
        certificate = await submission.tracker.certificate()
    except NoAgreement as ended:
        return str(ended.state), -1, loop.time() - began
    return str(State.AGREED), certificate.attempt, loop.time() - began


def _arguments() -> argparse.Namespace:
    whole, number = script_arguments.whole, script_arguments.number
    # The ranges of a network document's parameters (specification 3).
    parser = script_arguments.Parser("scripts/bench load", __doc__)
    parser.add_argument("--tasks", type=whole(1), nargs="+", default=[10, 30, 100])
    parser.add_argument("--nodes", type=whole(3, 31), default=10)
    parser.add_argument("--median", type=number(0), default=60, help="seconds of an execution")
    parser.add_argument(
        "--sigma", type=number(0, low_allowed=True), default=0.3, help="of its logarithm"
    )
    parser.add_argument(
        "--attempt-factor", type=number(0), default=5, help="attempts in executions"
    )
    parser.add_argument("--grace", type=number(0, 60), default=2)
    parser.add_argument("--deadline", type=whole(1, 86_400), default=3600)
    parser.add_argument("--seeds", type=whole(1), default=3, help="bursts of each size")
    parser.add_argument("--json", action="store_true", help="print one document")
    options = parser.parse_args()
    if not 1 <= round(options.attempt_factor * options.median) <= 86_400:
        parser.error("--attempt-factor: an attempt must last 1 to 86400 s, --median times it")
    return options


def _report(loads: Sequence[Load], as_json: bool) -> None:
    lines = []
    for load in loads:
        outcome = run(load)
        lines.append({**asdict(load), **asdict(outcome)})
        if not as_json:
            print(
                f"{load.tasks} tasks, seed {load.seed}: {outcome.certified} certified"
                f" ({outcome.certified / load.tasks:.0%}), by attempt {outcome.attempts},"
                f" after {outcome.median_seconds:.0f} s (median), {outcome.slowest_seconds:.0f} s"
                f" (slowest); {outcome.states}",
                flush=True,
            )
    if as_json:
        print(json.dumps(lines))


def main() -> None:
    """Run the bursts that the arguments describe."""
    arguments = _arguments()
    _report(
        [
            Load(
                tasks,
                arguments.nodes,
                arguments.median,
                arguments.sigma,
                arguments.attempt_factor,
                arguments.grace,
                arguments.deadline,
                seed,
            )
            for tasks in arguments.tasks
            for seed in range(arguments.seeds)
        ],
        arguments.json,
    )


if __name__ == "__main__":
    one_line.run(main)
