"""The command: what it prints of many seeds and of one, and how it ends."""

import pytest
from click.testing import CliRunner

from scripts import simulate
from tests.simulation import invariants, scenario


def run(*arguments: str) -> tuple[int, str]:
    found = CliRunner().invoke(simulate.main, arguments)
    return found.exit_code, found.output


def test_many_seeds_are_counted() -> None:
    code, said = run("--seeds", "0..5", "--nodes", "4..5", "--jobs", "1")
    assert code == 0
    assert "6 seeds (timeline)" in said
    assert "agreed" in said
    assert "violations: 0" in said


def test_one_seed_is_told() -> None:
    code, said = run("--replay", "1", "--nodes", "4", "--faulty", "1")
    assert code == 0
    assert "sends commit" in said
    assert "4 members" in said
    assert "every invariant holds" in said


def test_a_violation_is_named_and_the_command_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(invariants, "sure", lambda scene, task: True)
    monkeypatch.setattr(scenario, "LABELS", {**scenario.LABELS, "honest": "wrong"})
    monkeypatch.setattr("tests.simulation.arena.LABELS", {"honest": "wrong"})
    code, said = run("--seeds", "3..4", "--nodes", "4", "--faulty", "0", "--jobs", "1")
    assert code == 1
    assert "seed 3 (" in said
    assert "I3: a wrong outcome" in said


@pytest.mark.parametrize("bad", [("--seeds", "9..1"), ("--nodes", "4..40"), ("--seeds", "x")])
def test_a_bad_range_is_refused(bad: tuple[str, str]) -> None:
    code, said = run(*bad)
    assert code == 2
    assert "Error" in said
