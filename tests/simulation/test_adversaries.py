"""Each rule's adversary alone among the honest, so that none is drowned by chance."""

import dataclasses

import pytest

from tests.simulation import arena, memo, play, scenario
from tests.simulation.play import Wish
from tests.support.memory_transport.network import Link

SEEDS = 12


@pytest.mark.parametrize("role", scenario.MEMBERS)
def test_a_member_that_breaks_one_rule(role: str) -> None:
    _hold(Wish((4, 6), 1, among=(role,), outside=()))


@pytest.mark.parametrize("role", scenario.MEMBERS)
def test_many_members_that_break_one_rule(role: str) -> None:
    _hold(Wish((5, 9), 3, among=(role,), outside=()))


@pytest.mark.parametrize("role", scenario.OUTSIDERS)
def test_an_outsider_that_breaks_one_rule(role: str) -> None:
    _hold(Wish((4, 6), 0, outside=(role,)))


@pytest.mark.parametrize(
    "role", ["lying feed", "garbler", "flooder", "bad requester", "certificate forger"]
)
def test_an_outsider_that_lies_in_streams(role: str) -> None:
    _hold(Wish((4, 5), 0, "daemons", outside=(role,)), 5)


@pytest.mark.parametrize("role", [*scenario.SERVING, "certificate forger"])
def test_members_that_lie_in_streams(role: str) -> None:
    _hold(Wish((4, 5), 1, "daemons", among=(role,), outside=()), 6)


def test_a_copycat_is_on_no_list_however_slow_the_links() -> None:
    """Delays just below the grace period, so that both waits of specification 6.3 are needed."""
    for seed in range(80):
        drawn = scenario.draw(seed, 4, 1, ("copycat",), ())
        slow = dataclasses.replace(
            drawn,
            link=Link((0.005, 0.95)),
            execution=(3.0, 3.05),
            abstains=0.0,
            submissions=(1.0,),
            troubles=(),
        )
        assert slow.calm
        with memo.installed():
            arena.play(slow)


def _hold(wish: Wish, count: int = SEEDS) -> None:
    played = [play.play(wish, seed) for seed in range(count)]
    broken = [f"{one.seed} ({one.story}): {one.broken}" for one in played if one.broken]
    assert not broken, "\n".join(broken)
