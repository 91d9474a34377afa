"""Scores of peers that break the protocol, and their bans (specification 7.1, 9)."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from node.admission.lru_dict import LruDict
from node.config.limits import Limits

_log = logging.getLogger(__name__)

# Every action costs the same: none of them happens to an honest peer, whatever its version.
POINTS_PER_ACTION = 1.0
# A peer of another version, which sends something odd now and then, is never banned.
FORGIVEN_PER_SECOND = 0.1


class PeerAction(Enum):
    """What a peer is reported for; no honest peer does any of it."""

    INVALID_GOSSIP = "invalid gossip"
    PROTOCOL_VIOLATION = "protocol violation"
    INVALID_FEED = "invalid feed"
    WRONG_BYTES = "wrong bytes"


@dataclass(frozen=True, slots=True)
class _Record:
    points: float
    since: float
    banned_until: float = 0.0


@dataclass(slots=True)
class PeerScores:
    """Penalty points per peer that decay with time; at `ban_points` the peer is banned for a while.

    `now` is a monotonic clock in seconds. `score_floors` are points that never decay, for what a
    peer has voted (`protocol.consensus.conduct`). They lower its ban threshold; alone they ban
    nobody, as only a report bans.

    A record's states: scored → banned, when a report reaches `ban_points`; banned → scored with
    no points, `ban_seconds` later.
    """

    now: Callable[[], float]
    limits: Limits = field(default_factory=Limits)
    score_floors: Mapping[str, float] = field(default_factory=dict)
    _records: LruDict[str, _Record] = field(default_factory=LruDict)

    def report(self, peer: str, action: PeerAction) -> bool:
        """Add the points of an action; return whether the peer is banned now."""
        _log.debug("peer %s reported: %s", peer, action.value)
        now = self.now()
        record = self._records.get(peer, _Record(0.0, now))
        decay = (now - record.since) * FORGIVEN_PER_SECOND
        points = POINTS_PER_ACTION + max(0.0, record.points - decay)
        banned = points + self.score_floors.get(peer, 0.0) >= self.limits.ban_points
        until = now + self.limits.ban_seconds if banned else record.banned_until
        self._records[peer] = _Record(0.0 if banned else points, now, until)
        return until > now

    def is_banned(self, peer: str) -> bool:
        """Return whether `peer` is banned now."""
        record = self._records.get(peer)
        return record is not None and record.banned_until > self.now()
