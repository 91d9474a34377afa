"""Gossip between the peers of a history on a timeline: losing, doubling, late, cut in two.

The twin of `tests.support.memory_transport.network` without streams: each link is a neighbourhood
in a sparse graph,
and every peer forwards what it accepts to its neighbours.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Protocol

from node.admission.peer_score import PeerAction, PeerScores
from node.transport.interface import SEEN_SECONDS, ValidationResult, message_id
from tests.simulation.timeline import Timeline
from tests.support.memory_transport.network import Link


class Peer(Protocol):
    """Who hears gossip."""

    @property
    def up(self) -> bool: ...

    def validate(self, topic: str, payload: bytes) -> ValidationResult: ...

    def on_gossip(self, source: str, topic: str, payload: bytes) -> None: ...


@dataclass
class Place:
    """One peer's place in the graph."""

    peer: Peer
    neighbours: list[str] = field(default_factory=list)
    seen: dict[bytes, float] = field(default_factory=dict)
    peer_scores: PeerScores | None = None


class Ether:
    """All peers and the links between them."""

    def __init__(self, timeline: Timeline, random: Random, link: Link) -> None:
        self._timeline, self._random, self._link = timeline, random, link
        self.places: dict[str, Place] = {}
        self.bans: list[tuple[str, str]] = []
        """Who found whom to do too much that no honest peer does."""
        self.carried = self.lost = 0
        self._apart: frozenset[str] = frozenset()
        self._last_arrival: dict[tuple[str, str], float] = {}

    def settle(self, name: str, peer: Peer) -> None:
        """Give a peer a place, without neighbours yet."""
        peer_scores = PeerScores(lambda: self._timeline.now)
        self.places[name] = Place(peer, peer_scores=peer_scores)

    def link(self, one: str, other: str) -> None:
        """Make two peers neighbours."""
        if one != other and other not in self.places[one].neighbours:
            self.places[one].neighbours.append(other)
            self.places[other].neighbours.append(one)

    def partition(self, apart: Sequence[str]) -> None:
        """Cut all links between these peers and all others; none for a whole network again."""
        self._apart = frozenset(apart)

    def connected(self, one: str, other: str) -> bool:
        """Whether a link carries anything now."""
        near, far = self.places[one], self.places[other]
        if (one in self._apart) is not (other in self._apart):
            return False
        return near.peer.up and far.peer.up and not (_bans(near, other) or _bans(far, one))

    def forget(self, name: str) -> None:
        """A peer lost its memory of what it has seen."""
        self.places[name].seen.clear()

    def publish(
        self, source: str, topic: str, payload: bytes, to: Sequence[str] | None = None
    ) -> None:
        """Gossip to all neighbours, or to some; a repeat within two minutes is dropped."""
        identity = message_id(topic, payload)
        if self._first_seen(self.places[source], identity) or to is not None:
            self._forward(source, "", topic, payload, identity, to)

    def _forward(
        self,
        source: str,
        back: str,
        topic: str,
        payload: bytes,
        identity: bytes,
        to: Sequence[str] | None = None,
    ) -> None:
        draw, link = self._random.random, self._link
        for target in self.places[source].neighbours if to is None else to:
            if target == back or not self.connected(source, target):
                continue
            if draw() < link.loss:
                self.lost += 1
                continue
            for _ in range(2 if draw() < link.duplication else 1):
                at = self._arrival(source, target)
                self._timeline.at(at, self._arrive, source, target, topic, payload, identity)

    def _arrival(self, source: str, target: str) -> float:
        low, high = self._link.delay
        at = self._timeline.now + low + (high - low) * self._random.random()
        if self._random.random() >= self._link.reordering:
            last = self._last_arrival.get((source, target), 0.0)
            at = self._last_arrival[source, target] = max(at, math.nextafter(last, math.inf))
        return at

    def _arrive(self, source: str, target: str, topic: str, payload: bytes, name: bytes) -> None:
        place = self.places[target]
        if not self._first_heard(place, name) or not self.connected(source, target):
            return
        self._first_seen(place, name)
        self.carried += 1
        match place.peer.validate(topic, payload):
            case ValidationResult.ACCEPT:
                self._forward(target, source, topic, payload, name)
                place.peer.on_gossip(source, topic, payload)
            case ValidationResult.REJECT:
                self.report(target, source)
            case ValidationResult.IGNORE:
                pass

    def report(self, name: str, peer: str) -> None:
        """Let one peer take a point from another."""
        peer_scores = self.places[name].peer_scores
        if peer_scores and peer_scores.report(peer, PeerAction.INVALID_GOSSIP):
            self.bans.append((name, peer))

    def _first_heard(self, place: Place, identity: bytes) -> bool:
        until = place.seen.get(identity)
        return until is None or until <= self._timeline.now

    def _first_seen(self, place: Place, identity: bytes) -> bool:
        first = self._first_heard(place, identity)
        if first:
            place.seen[identity] = self._timeline.now + SEEN_SECONDS
        return first


def _bans(place: Place, peer: str) -> bool:
    return place.peer_scores is not None and place.peer_scores.is_banned(peer)
