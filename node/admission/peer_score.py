"""What a peer is charged for what no honest one sends (specification section 7)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from node.admission.rate_limits import remember
from node.config.limits import Limits


@dataclass(frozen=True, slots=True)
class _Record:
    points: float
    since: float
    banned_until: float = 0.0


@dataclass(slots=True)
class Penalties:
    """Points per peer that decay with time; at `ban_points` the peer is banned for a while.

    `now` is a monotonic clock in seconds. `score_floors` are points that never decay, of what a
    peer has voted (`protocol.consensus.conduct`): they shorten the patience with it, and ban
    nobody who does not offend.
    """

    now: Callable[[], float]
    limits: Limits = field(default_factory=Limits)
    score_floors: Mapping[str, float] = field(default_factory=dict)
    _records: dict[str, _Record] = field(default_factory=dict)

    def punish(self, peer: str, points: float = 1.0) -> bool:
        """Add points; return whether the peer is banned now."""
        now = self.now()
        old = self._records.get(peer, _Record(0.0, now))
        points += max(0.0, old.points - (now - old.since) * self.limits.forgiven_points)
        banned = points + self.score_floors.get(peer, 0.0) >= self.limits.ban_points
        until = now + self.limits.ban_seconds if banned else old.banned_until
        remember(self._records, peer, _Record(0.0 if banned else points, now, until))
        return until > now

    def banned(self, peer: str) -> bool:
        """Return whether nothing is to be had with `peer` for now."""
        record = self._records.get(peer)
        return record is not None and record.banned_until > self.now()
