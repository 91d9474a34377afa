"""Which members a node follows, and which it connects to (specification 7.9).

What one honest member has reaches all. A node therefore reads the feeds of a few members, drawn at
random, and draws others every hour: that all of them are faulty is unlikely, and passes.
"""

import random
from collections.abc import Collection, Iterable

from protocol.network import Network

# Between two draws.
DRAW_SECONDS = 3600.0
# Members to which a node connects beside those that it follows: the degree of GossipSub's mesh.
MESH_MEMBERS = 6


class Selection:
    """A random order of all other members, the first of which are chosen."""

    def __init__(self, network: Network, me: str, rng: random.Random) -> None:
        """`rng` must be unpredictable for others, who might else take the first places."""
        self._members = [peer for peer in network.roster if peer != me]
        self._rng, self.follow = rng, network.parameters.follow
        self._rank: dict[str, int] = {}
        self.draw()

    @property
    def has_all(self) -> bool:
        """Whether there are so few members that all of them are chosen."""
        return len(self._members) <= self.follow

    def draw(self) -> None:
        """Draw another order."""
        if self.has_all:
            self._rank = dict.fromkeys(self._members, 0)
            return
        order = list(self._members)
        self._rng.shuffle(order)
        self._rank = {peer: rank for rank, peer in enumerate(order)}

    def followed(self, connected: Iterable[str]) -> list[str]:
        """Return which of the connected members to follow; their places are taken by others."""
        members = [peer for peer in connected if peer in self._rank]
        if self.has_all:
            return members
        return sorted(members, key=self._rank.__getitem__)[: self.follow]

    def near(self, unreachable: Collection[str]) -> frozenset[str]:
        """Return the members to connect to, for their feeds or for gossip.

        The members that are `unreachable` leave their places to others, but are tried too.
        """
        if self.has_all:
            return frozenset(self._rank)
        near, places = list[str](), self.follow + MESH_MEMBERS
        for peer in self._rank:  # in the drawn order
            if not places:
                break
            near.append(peer)
            places -= peer not in unreachable
        return frozenset(near)
