"""`scripts/simulate`: its output for many seeds and for one, and its exit code."""

import pytest
from click.testing import CliRunner

from scripts import simulate
from tests.simulation import faulty_nodes, invariants


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(simulate.main, arguments)
    return result.exit_code, result.output


def test_summary_counts_final_states_and_violations() -> None:
    code, output = run("--seeds", "0..5", "--nodes", "4..5", "--jobs", "1")
    assert code == 0
    assert "6 seeds in" in output
    assert "agreed" in output
    assert "violations: 0" in output


def test_replay_prints_the_trace_of_one_seed() -> None:
    code, output = run("--replay", "1", "--nodes", "4", "--faulty", "1")
    assert code == 0
    assert "sends commit" in output
    assert "4 members" in output
    assert "every invariant holds" in output


def test_violation_is_reported_with_its_seed_and_exit_code_1(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(invariants, "must_settle", lambda simulation, task: True)
    monkeypatch.setattr(faulty_nodes, "LABELS", {"honest": "wrong"})
    code, output = run("--seeds", "3..4", "--nodes", "4", "--faulty", "0", "--jobs", "1")
    assert code == 1
    assert "seed 3 (" in output
    assert "I3: a wrong outcome" in output


@pytest.mark.parametrize("bad", [("--seeds", "9..1"), ("--nodes", "4..40"), ("--seeds", "x")])
def test_invalid_range_exits_with_2(bad: tuple[str, str]) -> None:
    code, output = run(*bad)
    assert code == 2
    assert "Error" in output
