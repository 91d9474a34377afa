"""Judges this node's clock by those of the network's operators (specification 6.11)."""

import statistics
from collections import defaultdict

# One operator, or two, could move a median alone.
MIN_OPERATORS = 3


def clock_ahead(time: int, sent: float, seconds: float) -> float:
    """Return how far a peer's clock is ahead of this one, in seconds; negative if it is behind.

    `time` is the peer's clock in Unix milliseconds, in its answer to a request that was sent at
    `sent` (Unix seconds). The answer took `seconds`: the peer read its clock at some time between.
    """
    return time / 1000 - sent - seconds / 2


class ClockCheck:
    """The differences between members' clocks and this node's, in seconds.

    An operator counts once, however many members it has: with the median of theirs. The median of
    the operators lies between two honest ones' differences for as long as the honest are a
    majority of those that answered, whatever the others say.
    """

    def __init__(self) -> None:
        self._differences: dict[str, tuple[str, float]] = {}  # operator and seconds, by member

    def add(self, member: str, operator: str, seconds: float) -> None:
        """Note how far a member's clock is ahead; negative if it is behind."""
        self._differences[member] = (operator, seconds)

    def remove(self, member: str) -> None:
        """Forget a member, which has disconnected."""
        self._differences.pop(member, None)

    @property
    def operators(self) -> int:
        """The number of operators with a member that has answered."""
        return len({operator for operator, _ in self._differences.values()})

    def describe(self) -> str:
        """Return how this machine's clock differs from the median of the operators' clocks."""
        offset = self.offset()
        if offset is None:
            return f"{self.operators} of the {MIN_OPERATORS} operators have answered who are needed"
        seconds, side = (
            f"{abs(offset):.1f}".removesuffix(".0"),
            "behind" if offset > 0 else "ahead of",
        )
        return (
            f"this machine's clock is {seconds} s {side} the median of the other operators' clocks"
        )

    def fault(self, limit: float) -> str | None:
        """Return why a node with this clock is of no use, or None; the network allows `limit`."""
        offset = self.offset()
        if offset is None or abs(offset) <= limit:
            return None
        return (
            f"{self.describe()}, and the network allows {limit:g} s: set the clock and restart the"
            " node"
        )

    def offset(self) -> float | None:
        """Return how far the operators' clocks are ahead; None with fewer than three operators."""
        by_operator: defaultdict[str, list[float]] = defaultdict(list)
        for operator, seconds in self._differences.values():
            by_operator[operator].append(seconds)
        if len(by_operator) < MIN_OPERATORS:
            return None
        return statistics.median(statistics.median(group) for group in by_operator.values())
