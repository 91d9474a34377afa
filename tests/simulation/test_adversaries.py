"""Each adversary alone against honest nodes. Random runs may leave an adversary out."""

import dataclasses

import pytest

from tests.simulation import scenario
from tests.simulation.runner import RunConfig, run_scenario, run_seed
from tests.support.memory_transport.network import Link


@pytest.mark.parametrize("role", scenario.MEMBERS)
def test_one_faulty_member_violates_no_invariant(role: str) -> None:
    _check(RunConfig((4, 6), 1, roles=(role,), outsiders=()), range(2))


@pytest.mark.parametrize("role", scenario.MEMBERS)
def test_three_faulty_members_violate_no_invariant(role: str) -> None:
    _check(RunConfig((5, 9), 3, roles=(role,), outsiders=()), range(1))


@pytest.mark.parametrize("role", scenario.OUTSIDERS)
def test_faulty_outsider_violates_no_invariant(role: str) -> None:
    _check(RunConfig((4, 6), 0, outsiders=(role,)), range(2))


def test_late_commit_is_listed_by_no_honest_member_on_slow_links() -> None:
    """Delays just below the grace period need both waits of specification 6.3."""
    for seed in range(12):
        late_scenario = scenario.draw(seed, 4, 1, ("copycat",), ())
        slow = dataclasses.replace(
            late_scenario,
            link=Link((0.005, 0.95)),
            execution=(3.0, 3.05),
            abstains=0.0,
            submissions=(1.0,),
            faults=(),
        )
        assert slow.synchronous
        result = run_scenario(slow)
        assert not result.violation, result


def _check(config: RunConfig, seeds: range) -> None:
    results = [run_seed(config, seed) for seed in seeds]
    failed = [f"{r.seed} ({r.summary}): {r.violation}" for r in results if r.violation]
    assert not failed, "\n".join(failed)
