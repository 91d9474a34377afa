"""The median of operators' clocks (specification 6.11)."""

import itertools

import pytest

from node.sync.clock_check import MIN_OPERATORS, ClockCheck

# The largest and the smallest difference that an answer to hello can show, in seconds.
EXTREME = 253_402_300_799.999


def check(*differences: float) -> float | None:
    clocks = ClockCheck()
    for number, seconds in enumerate(differences):
        clocks.add(f"member {number}", f"operator {number}", seconds)
    return clocks.offset()


@pytest.mark.parametrize("differences", [(), (5.0,), (5.0, 5.0)])
def test_fewer_than_three_operators_judge_no_clock(differences: tuple[float, ...]) -> None:
    assert MIN_OPERATORS == 3
    assert check(*differences) is None


def test_the_median_of_three_members_counts() -> None:
    for differences in itertools.permutations((1.0, 2.0, 40.0)):
        assert check(*differences) == 2.0


@pytest.mark.parametrize(
    ("honest", "liars"),
    [
        ((0.1, -0.1), (EXTREME,)),
        ((0.1, -0.1), (-EXTREME,)),
        ((0.1, 0.0, -0.1), (EXTREME,)),
        ((0.1, 0.0, -0.1), (EXTREME, EXTREME)),
        ((0.1, 0.0, -0.1), (EXTREME, -EXTREME)),
        ((0.1, 0.0, -0.1, 0.05), (-EXTREME, -EXTREME, -EXTREME)),
    ],
)
def test_a_minority_of_liars_moves_the_median_within_the_honest(
    honest: tuple[float, ...], liars: tuple[float, ...]
) -> None:
    for differences in itertools.permutations(honest + liars):
        offset = check(*differences)
        assert offset is not None
        assert min(honest) <= offset <= max(honest)


def test_a_member_counts_once_with_its_last_answer() -> None:
    clocks = ClockCheck()
    for _ in range(10):
        clocks.add("liar", "liar", EXTREME)
    assert clocks.offset() is None
    for member in ("liar", "a", "b"):
        clocks.add(member, member, 1.0)
    assert clocks.offset() == 1.0


def test_a_removed_member_does_not_count() -> None:
    clocks = ClockCheck()
    for member in ("a", "b", "c"):
        clocks.add(member, member, 1.0)
    clocks.remove("c")
    clocks.remove("never there")
    assert clocks.offset() is None


def test_an_operator_counts_once_however_many_members_it_has() -> None:
    clocks = ClockCheck()
    for number in range(10):
        clocks.add(f"liar {number}", "liar", EXTREME)
    assert clocks.offset() is None
    for member in ("a", "b"):
        clocks.add(member, member, 1.0)
    assert clocks.offset() == 1.0
    clocks.remove("a")
    assert clocks.offset() is None
