"""Says hello to peers (specification 7.4): their network, this node's clock, and its key.

Two conclusions go to the log, for the operator: that this node's clock differs from those of the
members, and that another instance of this node's key is running. With a clock that differs by more
than the network allows, the node is not ready.
"""

from collections.abc import Callable

from node.clock import Clock
from node.log import get_logger
from node.rpc.client import send_request
from node.sync.clock_check import ClockCheck, clock_ahead
from node.transport.interface import Transport
from protocol.network import Network
from protocol.wire.encoding import Document

log = get_logger("handshakes")

# Seconds between two hellos to a peer. Clocks drift, and a second instance may start at any time.
HELLO_SECONDS = 300.0


class Handshakes:
    """Says hello to peers, and reports what their answers say about this node."""

    def __init__(
        self,
        transport: Transport,
        network: Network,
        clock: Clock,
        request: Callable[[], Document],
        on_duplicates: Callable[[frozenset[str]], None] = lambda tellers: None,
    ) -> None:
        """`request` returns the hello of this node.

        `on_duplicates` is called with the members that say `duplicate`, when they change.
        """
        self._transport, self._network = transport, network
        self._clock, self._request, self._on_duplicates = clock, request, on_duplicates
        # A task may lie ahead by `clock_skew_seconds`. At half of it the operator has time to act.
        self._tolerance = network.parameters.clock_skew_seconds / 2
        self._clocks = ClockCheck()
        self._clock_differs = False
        self._duplicate_tellers: frozenset[str] = frozenset()  # members: the roster bounds them

    async def greet(self, peer: str) -> bool:
        """Say hello to a peer; return whether it is of this network.

        Raises RequestRefused, ProtocolViolation and ConnectionError.
        """
        sent = self._clock.now()
        answer = await send_request(self._transport, peer, "hello", self._request())
        received = self._clock.now()
        if answer["network"] != self._network.id:
            log.warning("peer of another network", peer=peer, network=answer["network"])
            return False
        member = self._network.roster.get(peer)
        if member is None:  # anybody could make the operator stop the node, or change its clock
            return True
        self._note_duplicate(peer, answer["duplicate"])
        # A slow answer tells too little.
        if received - sent <= self._tolerance:
            ahead = clock_ahead(answer["time"], sent, received - sent)
            self._clocks.add(peer, member.operator, ahead)
            self._judge_clock()
        return True

    def clock_fault(self) -> str | None:
        """Return why this node's clock makes it useless, or None. Other nodes refuse its tasks."""
        return self._clocks.fault(self._network.parameters.clock_skew_seconds)

    def forget(self, peer: str) -> None:
        """Forget a peer that has disconnected."""
        self._clocks.remove(peer)
        self._note_duplicate(peer, False)

    def _note_duplicate(self, peer: str, duplicate: bool) -> None:
        if duplicate == (peer in self._duplicate_tellers):
            return
        if duplicate:
            log.error(
                "another instance of this node's key is connected: two that run at a time sign"
                " conflicting votes; stop one of them",
                told_by=peer,
            )
        self._duplicate_tellers ^= {peer}
        self._on_duplicates(self._duplicate_tellers)

    def _judge_clock(self) -> None:
        offset = self._clocks.offset()
        differs = offset is not None and abs(offset) > self._tolerance
        if differs and not self._clock_differs:
            log.warning(
                "this node's clock differs from the members' clocks: set it, and restart the node",
                members_ahead_by=round(offset or 0.0, 3),
                most=self._network.parameters.clock_skew_seconds,
            )
        self._clock_differs = differs
