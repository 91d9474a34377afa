"""The node's clock. No other module of the node reads the system time."""

import time
from collections.abc import Callable
from typing import Protocol


class Clock(Protocol):
    """A source of the time; tests use virtual ones."""

    def now(self) -> float:
        """Return Unix time in seconds; it never decreases."""
        ...


def _since_boot() -> float:
    # CLOCK_MONOTONIC stands still while a Linux machine sleeps, and peers' time does not.
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class SystemClock:
    """The wall clock at the start of the process, advanced by a monotonic clock.

    A correction of the system clock takes effect at the next start. Until then it moves no deadline
    and no grace period.
    """

    __slots__ = ("_offset", "_steady")

    def __init__(
        self, wall: Callable[[], float] = time.time, steady: Callable[[], float] = _since_boot
    ) -> None:
        self._steady = steady
        self._offset = wall() - steady()

    def now(self) -> float:
        """Return Unix time in seconds."""
        return self._offset + self._steady()
