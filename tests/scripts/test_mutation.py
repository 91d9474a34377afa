"""Every mutant can be planted; and what `scripts/mutants` says of one that lives or dies."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner

from scripts.mutation.__main__ import line, mutants
from scripts.mutation.planted import ROOT, Mutant, Stale, planted, stale
from scripts.mutation.trial import SUITES, Copy, Unsound

LEAST = 30  # rules that are to be broken, by the design
RULE = "def taken(votes: int) -> bool:\n    return votes > 2\n"
NEAREST = "tests/protocol/test_rule.py"
FARTHER = "tests/protocol/test_world.py"
TESTS = {
    NEAREST: "from protocol.rule import taken\n\n\ndef test_few() -> None:\n"
    "    assert not taken(1)\n",
    FARTHER: "from protocol.rule import taken\n\n\ndef test_many() -> None:\n    assert taken(3)\n",
}


def mutant(new: str, old: str = "votes > 2") -> Mutant:
    return Mutant("weaker", "6: three votes", "protocol/rule.py", old, new)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """One rule and two tests of it."""
    for name, text in {"protocol/__init__.py": "", "protocol/rule.py": RULE, **TESTS}.items():
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "tree"


def copied(tree: Path, suites: Mapping[str, tuple[str, ...]] | None = None) -> Copy:
    return Copy(tree.parent / "copy", suites or {"protocol": ("tests/protocol",)}, tree)


def test_every_mutant_can_be_planted() -> None:
    assert stale(planted()) == []


def test_enough_rules_are_broken_each_once() -> None:
    every = planted()
    assert len({m.name for m in every}) == len(every) >= LEAST
    assert len({(m.file, m.old, m.new) for m in every}) == len(every)
    for each in every:
        assert each.old != each.new
        assert each.rule


def test_every_mutant_is_python_still() -> None:
    for each in planted():
        if each.file.endswith(".py"):
            compile(each.applied((ROOT / each.file).read_text("utf-8")), each.file, "exec")


def test_the_tests_that_are_tried_exist() -> None:
    named = [test.split("::")[0] for tests in SUITES.values() for test in tests]
    for test in [*named, *(file for m in planted() for file in m.nearest(ROOT))]:
        assert (ROOT / test).exists(), test


@pytest.mark.parametrize("old", ["votes > 1", "votes"])
def test_a_text_that_does_not_stand_there_once_is_stale(tree: Path, old: str) -> None:
    with pytest.raises(Stale):
        mutant("True", old).applied(RULE)
    (said,) = stale([mutant("True", old), mutant("True")], tree)
    assert said.startswith("weaker: its text stands ")


def test_a_file_that_is_gone_makes_its_mutants_stale(tree: Path) -> None:
    (tree / "protocol/rule.py").unlink()
    assert len(stale([mutant("True")], tree)) == 1


def test_the_nearest_test_that_notices_is_named(tree: Path) -> None:
    verdict = copied(tree).judge(mutant("votes > 0"))
    assert (verdict.suite, verdict.how) == ("protocol", "failed")
    assert verdict.test == f"{NEAREST}::test_few"
    assert f"killed by {NEAREST}::test_few" in line(verdict)
    assert (tree.parent / "copy/protocol/rule.py").read_text() == RULE


def test_the_others_notice_what_the_nearest_do_not(tree: Path) -> None:
    verdict = copied(tree).judge(mutant("votes > 3"))
    assert verdict.test == f"{FARTHER}::test_many"


def test_a_survivor_is_told_with_the_rule_that_it_breaks(tree: Path) -> None:
    verdict = copied(tree).judge(mutant("votes > 1"))
    assert verdict.survived
    assert "SURVIVED" in line(verdict)
    assert "6: three votes" in line(verdict)


def test_only_the_chosen_tests_are_tried(tree: Path) -> None:
    verdict = copied(tree, {"protocol": (NEAREST,)}).judge(mutant("votes > 3"))
    assert verdict.survived


def test_what_cannot_be_loaded_is_marked(tree: Path) -> None:
    verdict = copied(tree).judge(mutant("votes >"))
    assert verdict.how == "import"
    assert not verdict.survived
    assert "killed [import]" in line(verdict)


def test_tests_that_fail_anyway_prove_nothing(tree: Path) -> None:
    (tree / "protocol/rule.py").write_text(RULE.replace("votes > 2", "votes > 2 or True"))
    with pytest.raises(Unsound, match="test_few"):
        copied(tree).judge(mutant("votes > 3"))


def test_tests_that_take_too_long_are_stopped(tree: Path) -> None:
    endless = Copy(tree.parent / "copy", {"protocol": (NEAREST,)}, tree, seconds=0.01)
    with pytest.raises(Unsound, match="timeout"):
        endless.judge(mutant("votes > 0"))


def test_the_list_names_every_mutant_and_its_rule() -> None:
    said = CliRunner().invoke(mutants, ["--list"])
    assert said.exit_code == 0
    assert len(said.output.splitlines()) == len(planted())
    assert (
        "half-is-a-quorum: 5: quorum = ⌊k/2⌋ + 1 (protocol/consensus/committee.py)" in said.output
    )


def test_a_name_that_no_mutant_has_is_refused() -> None:
    said = CliRunner().invoke(mutants, ["--only", "half-is-a-quorum", "--only", "none"])
    assert said.exit_code == 1
    assert "no such mutant: none" in said.output
