"""What a rejected message costs the peer that forwarded it (specification section 7)."""

from collections.abc import Callable
from dataclasses import dataclass, field

# A peer of another version gets some patience; an attacker gets 20 messages for a 300 s ban.
THRESHOLD = 20.0
FORGIVEN_PER_SECOND = 0.1
BAN_SECONDS = 300.0
REMEMBERED = 4096  # peers; ids are free to make, memory is not


@dataclass(frozen=True, slots=True)
class _Standing:
    points: float
    since: float
    banned_until: float = 0.0


@dataclass(slots=True)
class Penalties:
    """Points per peer that decay with time; over the threshold the peer is banned for a while.

    `now` is a monotonic clock in seconds.
    """

    now: Callable[[], float]
    _standings: dict[str, _Standing] = field(default_factory=dict)

    def punish(self, peer: str) -> bool:
        """Add one point; return whether the peer is banned now."""
        now = self.now()
        old = self._standings.pop(peer, _Standing(0.0, now))
        points = max(0.0, old.points - (now - old.since) * FORGIVEN_PER_SECOND) + 1.0
        banned = points >= THRESHOLD
        until = now + BAN_SECONDS if banned else old.banned_until
        self._standings[peer] = _Standing(0.0 if banned else points, now, until)
        if len(self._standings) > REMEMBERED:
            del self._standings[next(iter(self._standings))]  # the one punished longest ago
        return until > now

    def banned(self, peer: str) -> bool:
        """Return whether nothing is to be had with `peer` for now."""
        standing = self._standings.get(peer)
        return standing is not None and standing.banned_until > self.now()
