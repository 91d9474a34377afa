"""Judges this node's clock by those of the network's members (specification 6.11)."""

import statistics

# One member, or two, could move a median alone.
MIN_MEMBERS = 3


class ClockCheck:
    """The differences between members' clocks and this node's, in seconds.

    The median lies between two honest members' differences for as long as the honest are a
    majority of those that answered, whatever the others say.
    """

    def __init__(self) -> None:
        self._differences: dict[str, float] = {}

    def add(self, member: str, seconds: float) -> None:
        """Note how far a member's clock is ahead; negative if it is behind."""
        self._differences[member] = seconds

    def remove(self, member: str) -> None:
        """Forget a member, which has disconnected."""
        self._differences.pop(member, None)

    def offset(self) -> float | None:
        """Return how far the members' clocks are ahead; None with fewer than three members."""
        if len(self._differences) < MIN_MEMBERS:
            return None
        return statistics.median(self._differences.values())
