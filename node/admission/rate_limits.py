"""Rate limits and concurrency limits, kept per key.

A key is a peer or an address (`rate_limit_key` and `slot_key` of `node.transport.interface`).
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from node.admission.lru_dict import LruDict


class TokenBuckets:
    """Token buckets, one per key.

    Each refills at `rate` tokens per second up to `rate * burst_seconds` tokens, at least one.
    Idle keys are evicted and start with a full bucket again. `now` is a monotonic clock in seconds.
    """

    def __init__(self, rate: float, burst_seconds: float, now: Callable[[], float]) -> None:
        self._rate, self._now = rate, now
        self._capacity = max(1.0, rate * burst_seconds)
        self._levels: LruDict[str, tuple[float, float]] = LruDict()  # tokens, and as of when

    def try_take(self, key: str, tokens: float = 1.0) -> float:
        """Take tokens and return 0; or take none, and return the seconds until they are there."""
        level = self._refill(key)
        if level < tokens:
            return (tokens - level) / self._rate
        self._levels[key] = (level - tokens, self._levels[key][1])
        return 0.0

    def take_with_debt(self, key: str, tokens: float = 1.0) -> float:
        """Take tokens even if the bucket goes negative.

        Returns the seconds that the caller must wait until the bucket is back at zero.
        """
        level = self._refill(key) - tokens
        self._levels[key] = (level, self._levels[key][1])
        return max(0.0, -level / self._rate)

    def _refill(self, key: str) -> float:
        now = self._now()
        level, since = self._levels.get(key, (self._capacity, now))
        level = min(self._capacity, level + (now - since) * self._rate)
        # Written even if nothing is taken: a key that is refused again and again must not be
        # evicted, as it would come back with a full bucket.
        self._levels[key] = (level, now)
        return level


class ConcurrencyLimit:
    """At most `per_key` slots at a time for each key, and at most `total` for all of them."""

    def __init__(self, per_key: int, total: float = math.inf) -> None:
        self._per_key, self._free = per_key, total
        self._held: dict[str, int] = {}

    @contextmanager
    def slot(self, key: str, *, counts_to_total: bool = True) -> Iterator[bool]:
        """Hold a slot while the block runs; yields False if there is none.

        A slot that does not count to the total is for keys that are few by themselves.
        """
        held, cost = self._held.get(key, 0), int(counts_to_total)
        if held >= self._per_key or self._free < cost:
            yield False
            return
        self._held[key] = held + 1
        self._free -= cost
        try:
            yield True
        finally:
            self._free += cost
            self._held[key] -= 1
            if not self._held[key]:
                del self._held[key]
