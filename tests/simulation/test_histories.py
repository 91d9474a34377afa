"""Random histories: a hundred seeds of weather, crashes, partitions and adversaries."""

import random
from functools import partial

import pytest

from tests.simulation import history, virtual


@pytest.mark.parametrize("block", range(10))
def test_no_invariant_is_broken(block: int) -> None:
    for seed in range(block * 10, block * 10 + 10):
        members, faulty = size(seed)
        try:
            virtual.run(partial(history.play, seed, members, faulty))
        except AssertionError as broken:
            pytest.fail(f"seed {seed}, {members} members, {faulty} faulty: {broken}")


def test_the_same_seed_gives_the_same_history() -> None:
    first, second = (virtual.run(partial(history.play, 5, 5, 2)) for _ in range(2))
    assert first == second
    assert first.trace


def size(seed: int) -> tuple[int, int]:
    """Members and faulty members of a seed's history."""
    dice = random.Random(seed + 1_000_000)
    members = dice.choice((3, 4, 5, 7))
    return members, dice.randint(0, (members - 1) // 2)
