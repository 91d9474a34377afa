"""What one peer may cost this node: rates, sizes and counts, and the buckets that keep the rates.

A peer over a rate is slowed down by not being read from, refused with a reason, or cut off; each
time is counted, under a name of its own, for the operator to see.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")

MAX_KEYS = 4096  # keys of one kind; peer ids are free to make, memory is not


def remember(kept: dict[K, V], key: K, value: V) -> None:
    """Keep a value as the newest; of more than `MAX_KEYS`, the oldest is forgotten."""
    kept.pop(key, None)
    kept[key] = value
    if len(kept) > MAX_KEYS:
        del kept[next(iter(kept))]


class TokenBuckets:
    """A token bucket for each key; keys that were not seen for long have a full one.

    `per_second` tokens come back, up to the `seconds`' worth that may be spent at once, at least
    one; `now` is a monotonic clock in seconds.
    """

    def __init__(self, per_second: float, seconds: float, now: Callable[[], float]) -> None:
        self._rate, self._most, self._now = per_second, max(1.0, per_second * seconds), now
        self._kept: dict[str, tuple[float, float]] = {}  # tokens, and when there were so many

    def try_take(self, key: str, tokens: float = 1.0) -> float:
        """Take tokens and return 0; or take none, and return the seconds until they are there."""
        level = self._level(key)
        if level < tokens:
            return (tokens - level) / self._rate
        self._keep(key, level - tokens)
        return 0.0

    def take_with_debt(self, key: str, tokens: float = 1.0) -> float:
        """Take tokens that may not be there yet; return the seconds until the debt is paid."""
        level = self._level(key) - tokens
        self._keep(key, level)
        return max(0.0, -level / self._rate)

    def _level(self, key: str) -> float:
        now = self._now()
        level, since = self._kept.get(key, (self._most, now))
        level = min(self._most, level + (now - since) * self._rate)
        remember(self._kept, key, (level, now))
        return level

    def _keep(self, key: str, level: float) -> None:
        self._kept[key] = (level, self._kept[key][1])


class Places:
    """So many of something at a time: for each key, and in all."""

    def __init__(self, each: int, total: int) -> None:
        self._each, self._left = each, total
        self._held: dict[str, int] = {}

    @contextmanager
    def one(self, key: str, *, counted: bool = True) -> Iterator[bool]:
        """Hold one while the block runs, if there is one; gives whether there is.

        One that is not `counted` comes on top of those in all: of keys that are few anyway.
        """
        held, taken = self._held.get(key, 0), int(counted)
        if held >= self._each or self._left < taken:
            yield False
            return
        self._held[key], self._left = held + 1, self._left - taken
        try:
            yield True
        finally:
            self._left += taken
            self._held[key] -= 1
            if not self._held[key]:
                del self._held[key]
