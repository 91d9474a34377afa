"""Virtual time as a queue of events: what a history without an asyncio loop runs on."""

import heapq
from collections.abc import Callable
from typing import Any

MOST = 1_000_000  # events of a history; the longest have a tenth of them


class Timeline:
    """Events in the order of their times; those of one time in the order in which they were set."""

    def __init__(self) -> None:
        self.now = 0.0  # seconds
        self._set = 0
        self._events: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []

    def at(self, when: float, call: Callable[..., object], *args: Any) -> None:
        """Let `call(*args)` happen at `when`, or at once if that has passed."""
        self._set += 1
        heapq.heappush(self._events, (max(when, self.now), self._set, call, args))

    def after(self, seconds: float, call: Callable[..., object], *args: Any) -> None:
        """Let `call(*args)` happen `seconds` from now."""
        self.at(self.now + seconds, call, *args)

    def run(self, until: float) -> None:
        """Let everything happen that is due until then."""
        events, pop = self._events, heapq.heappop
        while events and events[0][0] <= until:
            if self._set > MOST:
                raise RuntimeError(f"more than {MOST} events: something never comes to rest")
            self.now, _, call, args = pop(events)
            call(*args)
        self.now = until


class TimelineClock:
    """Unix time by a timeline; `skew` seconds off."""

    def __init__(self, timeline: Timeline, start: float, skew: float = 0.0) -> None:
        self._timeline, self._start = timeline, start + skew

    def now(self) -> float:
        return self._start + self._timeline.now

    def when(self, unix: float) -> float:
        """Return the timeline's time of a Unix time; a microsecond late, for rounding's sake."""
        return unix - self._start + 1e-6
