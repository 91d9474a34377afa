"""Times by key, of which the earliest are found without a walk over all."""

import heapq
from collections.abc import Iterator

# A heap may hold as many outdated entries as valid ones, and this many more.
_SPARE_ENTRIES = 64


class Schedule:
    """One number for each key: Unix seconds, or a place in an order.

    `set` and `remove` cost the logarithm of the number of keys, and looking costs only what is
    found. Keys of equal numbers come in the order in which they were set: the order never depends
    on hashes.
    """

    def __init__(self) -> None:
        self._at: dict[str, tuple[float, int]] = {}
        # Also holds entries that were replaced or removed since; those are not in `_at` any more.
        self._heap: list[tuple[float, int, str]] = []
        self._sets = 0

    def __len__(self) -> int:
        return len(self._at)

    def __contains__(self, key: object) -> bool:
        return key in self._at

    def __iter__(self) -> Iterator[str]:
        return iter(self._at)

    def set(self, key: str, at: float) -> None:
        """Give a key its number, in place of an earlier one."""
        known = self._at.get(key)
        if known is not None and known[0] == at:
            return
        self._sets += 1
        self._at[key] = at, self._sets
        heapq.heappush(self._heap, (at, self._sets, key))
        if len(self._heap) > 2 * len(self._at) + _SPARE_ENTRIES:
            self._heap = [(*entry, key) for key, entry in self._at.items()]
            heapq.heapify(self._heap)

    def remove(self, key: str) -> None:
        """Remove a key, if it is here."""
        self._at.pop(key, None)

    def first(self) -> float | None:
        """Return the smallest number; None without keys."""
        while self._heap and not self._is_valid(self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def until(self, limit: float) -> list[str]:
        """Return the keys whose number is at most `limit`, in their order."""
        found, places = [], [0]
        while places:  # no child in a heap is smaller than its parent
            place = places.pop()
            if place < len(self._heap) and self._heap[place][0] <= limit:
                found.append(self._heap[place])
                places += (2 * place + 1, 2 * place + 2)
        return [entry[2] for entry in sorted(found) if self._is_valid(entry)]

    def pop_until(self, limit: float) -> list[str]:
        """Remove the keys whose number is at most `limit`, and return them in their order."""
        keys = []
        while (at := self.first()) is not None and at <= limit:
            keys.append(heapq.heappop(self._heap)[2])
            del self._at[keys[-1]]
        return keys

    def _is_valid(self, entry: tuple[float, int, str]) -> bool:
        return self._at.get(entry[2]) == entry[:2]
