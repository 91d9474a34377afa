"""Random runs: link faults, crashes, disk faults and adversaries, with every invariant checked.

The suite runs a few dozen seeds. `scripts/simulate` runs any number.
"""

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from tests.simulation.runner import RunConfig, run_scenario, run_seed
from tests.simulation.scenario import GRACE, Fault, Scenario, draw
from tests.support import fixtures
from tests.support.memory_transport.network import Link

SMALL = RunConfig((3, 8))
LARGE = RunConfig((9, 31))
# Seeds of one test. Short tests spread better over processes.
BLOCK = 10


@pytest.mark.parametrize("block", range(4))
def test_small_networks_violate_no_invariant(block: int) -> None:
    _check(SMALL, range(block * BLOCK, (block + 1) * BLOCK))


@pytest.mark.parametrize("seed", range(2))
def test_large_networks_violate_no_invariant(seed: int) -> None:
    _check(LARGE, range(seed, seed + 1))


@pytest.mark.parametrize("seed", [6, 13])
def test_same_seed_gives_the_same_run_in_another_process(seed: int) -> None:
    """Another hash seed orders sets differently; no behaviour may depend on their order."""
    script = f"from tests.simulation.test_runs import print_trace; print_trace({seed})"
    environment = {**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": ":".join(sys.path)}
    process = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, check=True
    )
    lines, result = list[str](), run_seed(SMALL, seed)
    assert run_seed(SMALL, seed, lines.append) == result
    assert len(lines) > 8
    assert process.stdout.decode().strip() == _digest(lines)


def test_run_waits_for_the_deadline_of_a_task_that_is_accepted_late() -> None:
    """The first task holds the requester's only place until its deadline."""
    scenario = scenario_of(
        "honest", "certificate forger", max_open=1, submissions=(1.0, 2.0), skews=(-29.0, 0.0)
    )
    result = run_scenario(scenario)
    assert not result.violation
    assert result.report.ends == {"expired": 2}


def test_database_is_lost_only_once_the_other_nodes_have_its_votes() -> None:
    """A partition keeps the task, and the votes of the node that accepted it, from the others."""
    faults = (Fault("partition", 3.0, 30.0, (1, 2)), Fault("restore", 12.0, 0.0, (0,)))
    scenario = scenario_of("honest", "honest", "honest", submissions=(4.0,), faults=faults)
    lines = list[str]()
    result = run_scenario(scenario, lines.append)
    assert not result.violation
    assert result.report.ends == {"agreed": 3}
    [stop] = [line.split() for line in lines if "an empty database" in line]
    assert float(stop[0]) > 33.0


@pytest.mark.parametrize(
    "crashes", [(), (Fault("crash", 165.0, 0.0, (2,), 1, "before COMMIT"),)], ids=["", "crash"]
)
def test_run_ends_only_once_the_feeds_are_read(crashes: tuple[Fault, ...]) -> None:
    """The others settle the task in a partition, and the links are slow.

    The third node dials, says hello and reads the task in a feed, for half a minute. It may crash
    when it stores the task, which takes it another half.
    """
    partition = Fault("partition", 40.0, 120.0, (2,))
    scenario = scenario_of(
        "honest",
        "honest",
        "honest",
        link=Link((3.0, 3.0)),
        submissions=(1.0,),
        faults=(partition, *crashes),
    )
    result = run_scenario(scenario)
    assert not result.violation
    assert result.report.ends == {"agreed": 3}
    assert result.report.faults["crash before COMMIT"] == len(crashes)


def scenario_of(*roles: str, **changes: Any) -> Scenario:
    """Return a scenario of members with these roles, all in one committee, on perfect links."""
    network = fixtures.network(
        len(roles), committee_size=len(roles), attempt_seconds=40, commit_grace_seconds=GRACE
    )
    quiet = replace(
        draw(0, len(roles), 0, outsider_roles=()),
        network=network,
        roles=roles,
        link=Link(),
        skews=(0.0,) * len(roles),
        execution=(1.0, 2.0),
        abstains=0.0,
        feed_seconds=5.0,
        faults=(),
        max_open=1000,
    )
    return replace(quiet, **changes)


def print_trace(seed: int) -> None:
    """Print the digest of a run's trace."""
    lines = list[str]()
    run_seed(SMALL, seed, lines.append)
    sys.stdout.write(_digest(lines))


def _digest(lines: list[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _check(config: RunConfig, seeds: range) -> None:
    results = [run_seed(config, seed) for seed in seeds]
    failed = [f"{r.seed} ({r.summary}): {r.violation}" for r in results if r.violation]
    assert not failed, "\n".join(failed)
