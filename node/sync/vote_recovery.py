"""Holds this node's votes until it knows what it has signed (specification 6.12).

The data folder may be an old copy, or new beside a used key. The journal then lacks votes of this
node, and the node could sign votes that contradict them. Its peers' feeds still hold them.

    state     this node                       leaves it when
    held      reads feeds, votes on tasks     a majority of the other operators has shown a feed to
              that are new since its start    its end, or `max_deadline_seconds` after the start: no
                                              task is open by then that was accepted before it
    allowed   votes                           its key signs elsewhere
    stopped   signs no vote until a restart   -

A network that starts at once does not wait for itself: feeds are served in every state. Where half
of the operators are away, the others vote on what is new.
"""

import asyncio
from collections.abc import Callable

from node.consensus.coordinator import Coordinator, Step, Voting
from node.log import get_logger
from schemas.errors import HeliumError

log = get_logger("vote_recovery")

# One operator that says `duplicate` may lie. It is believed alone where it is the only other one.
MIN_TELLERS = 2


class KeyInUse(HeliumError):
    """Another process uses this node's key."""


class VoteRecovery:
    """Decides when a member may vote, by what its peers showed since this process started."""

    def __init__(self, coordinator: Coordinator, act: Callable[[Step], None]) -> None:
        """`act` carries out the effects of a step of the coordinator."""
        self._coordinator, self._act = coordinator, act
        roster = coordinator.network.roster
        me = roster.get(coordinator.me)
        self._operators = {p: m.operator for p, m in roster.items() if m is not me}
        self._others = set(self._operators.values()) - {None if me is None else me.operator}
        self._majority = len(self._others) // 2 + 1 if me is not None and self._others else 0
        self._shown: set[str] = set()  # other operators that showed a feed to its end
        self._tellers: set[str] = set()  # members that say `duplicate`
        self._changed = asyncio.Event()
        if self._majority:
            coordinator.hold_votes()

    def feed_ended(self, peer: str) -> None:
        """Note that a peer's feed was read to its end."""
        if self._operators.get(peer) in self._others:
            self._shown.add(self._operators[peer])
            self._changed.set()

    def set_duplicates(self, tellers: frozenset[str]) -> None:
        """Take the peers that say that another instance of this node's key is connected to them."""
        self._tellers = self._operators.keys() & tellers
        self._changed.set()
        if self._is_duplicate and self._coordinator.voting is Voting.ALLOWED:
            self._coordinator.stop_votes()

    @property
    def _is_duplicate(self) -> bool:
        operators = {self._operators[peer] for peer in self._tellers}
        return len(operators) >= MIN_TELLERS or (bool(operators) and operators >= self._others)

    def reason(self) -> str | None:
        """Return why this node does not vote; None if it does."""
        if self._coordinator.voting is Voting.STOPPED:
            return (
                "this node does not vote: another process signs with its key. Stop the other one,"
                " then restart this node"
            )
        if self._coordinator.voting is Voting.HELD and not self._votes_on_new_tasks:
            return (
                "this node does not vote yet: it looks for votes that it signed earlier, and has"
                f" read the feeds of {len(self._shown)} of {len(self._others)} other operators; it"
                f" needs {self._majority}"
            )
        return None

    @property
    def _votes_on_new_tasks(self) -> bool:
        """Whether a task that is created now is new here, by its requester's clock too."""
        skew = self._coordinator.network.parameters.clock_skew_seconds
        return self._coordinator.clock.now() > self._coordinator.new_from + skew

    async def run(self) -> None:
        """Allow votes once that is safe. Raises KeyInUse."""
        if not self._majority:
            return
        log.info("votes held", operators_needed=self._majority)
        try:
            async with asyncio.timeout(self._coordinator.network.parameters.max_deadline_seconds):
                await self._read_enough()
        except TimeoutError:
            log.warning("votes allowed without the feeds of a majority")
        self._act(self._coordinator.allow_votes)
        log.info("votes allowed", operators=len(self._shown))

    async def _read_enough(self) -> None:
        while len(self._shown) < self._majority:
            await self._changed.wait()
            self._changed.clear()
            if self._is_duplicate:
                raise KeyInUse(
                    "another process uses this node's key, say "
                    f"{' and '.join(sorted(self._tellers))}: two that run at a time sign"
                    " conflicting votes, which prove misconduct of their owner for ever. Stop the"
                    " other one. If this is the only one, after a loss of power, its former"
                    " connections close in a minute: start the node again then"
                )
