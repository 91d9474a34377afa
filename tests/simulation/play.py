"""One seed, start to end: drawn, lived through, and what is to be said of it."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import structlog

from tests.simulation import arena, history, memo, scenario, virtual
from tests.simulation.report import Report, Violation
from tests.simulation.scenario import Scenario

LEVELS = ("timeline", "daemons")


@dataclass(frozen=True, slots=True)
class Wish:
    """Which history a seed stands for."""

    members: tuple[int, int]  # at least, at most
    faulty: int | None = None
    level: str = LEVELS[0]
    among: tuple[str, ...] = ()  # what faulty members may be; whatever the level has if empty
    outside: tuple[str, ...] = scenario.OUTSIDERS


@dataclass(frozen=True, slots=True)
class Played:
    """One history that was lived through; `broken` names the invariant that does not hold."""

    seed: int
    story: str
    report: Report
    broken: str = ""


def play(wish: Wish, seed: int, note: Callable[[str], None] | None = None) -> Played:
    """Live through a seed's history. `note` takes the lines of its trace."""
    silence()
    members, faulty = scenario.size(seed, wish.members, wish.faulty)
    serving = scenario.SERVING if wish.level == LEVELS[1] else ()
    among = wish.among or (*scenario.MEMBERS, *serving)
    drawn = scenario.draw(seed, members, faulty, among, wish.outside)
    told = story(drawn)
    try:
        with memo.installed():
            if wish.level == LEVELS[0]:
                report = arena.play(drawn, note)
            else:
                report = virtual.run(partial(history.play, drawn, note))
    except Violation as violation:
        return Played(seed, told, Report(), str(violation))
    return Played(seed, told, report)


def story(drawn: Scenario) -> str:
    """What a scenario is about, in a line."""
    parameters = drawn.network.parameters
    faulty = [f"{i} {role}" for i, role in enumerate(drawn.roles) if role != "honest"]
    weather = f"loss {drawn.link.loss:g}, delay to {drawn.link.delay[1]:g} s"
    return "; ".join(
        (
            f"{len(drawn.roles)} members, committees {parameters.committee_size} to "
            f"{parameters.committee_max}",
            "calm" if drawn.calm else weather,
            ", ".join(faulty) or "all honest",
            ", ".join(f"{role} outside" for role in drawn.outsiders) or "nobody outside",
            f"{len(drawn.troubles)} troubles",
        )
    )


def silence() -> None:
    """Let the nodes of a simulation log nothing: what is wrong is told by the invariants."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL),
        cache_logger_on_first_use=False,
    )
