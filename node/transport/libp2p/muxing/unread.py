"""The bound on the unread bytes of all connections together."""

from collections import Counter, defaultdict
from typing import Any, Protocol
from weakref import WeakSet

# Of all connections together: 32 whole windows.
UNREAD_TOTAL = 32 * 1024 * 1024
# Bytes that arrive between two counts of all unread bytes; counting at each read costs too much.
UNREAD_CHECK = 1024 * 1024


class UnreadConnection(Protocol):
    """What `UnreadBytes` needs of a connection."""

    @property
    def rate_limit_key(self) -> str:
        """The key that the connection is charged to."""

    def unread(self) -> int:
        """Return the number of its bytes that nobody has read."""

    def close_soon(self) -> None:
        """Close the connection, without waiting for it."""


class UnreadBytes:
    """Bounds the unread bytes of all connections; above it, the key with the most loses some.

    All connections of a key count together: spread over many connections, none of them need have
    more than an honest one. They are closed from the largest on, until the rest is within bounds.
    """

    def __init__(self, counts: Counter[str]) -> None:
        self._connections: WeakSet[Any] = WeakSet()
        self._counts = counts
        self._unchecked = 0

    def add(self, connection: UnreadConnection) -> None:
        """Watch a connection for as long as anything else refers to it."""
        self._connections.add(connection)

    def count_read(self, count: int) -> None:
        """Count bytes that have arrived; check the bound from time to time."""
        self._unchecked += count
        if self._unchecked >= UNREAD_CHECK:
            self._unchecked = 0
            self._enforce_bound()

    def _enforce_bound(self) -> None:
        by_key: defaultdict[str, list[tuple[int, UnreadConnection]]] = defaultdict(list)
        for connection in self._connections:
            by_key[connection.rate_limit_key].append((connection.unread(), connection))
        totals = {key: sum(size for size, _ in sizes) for key, sizes in by_key.items()}
        total = sum(totals.values())
        if total <= UNREAD_TOTAL:
            return
        largest = by_key[max(totals, key=lambda key: totals[key])]
        for size, connection in sorted(largest, key=lambda pair: pair[0], reverse=True):
            if total > UNREAD_TOTAL:
                self._counts["unread-cut"] += 1
                connection.close_soon()
                total -= size
