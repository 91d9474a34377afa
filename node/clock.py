"""Time, as the node tells it: the only way in which anything here learns what time it is."""

import time
from collections.abc import Callable
from typing import Protocol


class Clock(Protocol):
    """What tells the time; tests have their own."""

    def now(self) -> float:
        """Unix time in seconds; never less than an answer before."""
        ...


def _since_boot() -> float:
    # CLOCK_MONOTONIC stands still while a Linux machine sleeps, and peers' time does not.
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class SystemClock:
    """The wall clock as it was at the start, carried on by one that is never set.

    A correction of the system's clock moves neither deadlines nor grace periods under way; it takes
    effect at the next start.
    """

    __slots__ = ("_offset", "_steady")

    def __init__(
        self, wall: Callable[[], float] = time.time, steady: Callable[[], float] = _since_boot
    ) -> None:
        self._steady = steady
        self._offset = wall() - steady()

    def now(self) -> float:
        """Unix time in seconds."""
        return self._offset + self._steady()
