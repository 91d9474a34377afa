"""An in-memory transport for simulation: no threads, no wall clock.

It uses only `call_soon` and `call_at` of the running loop, so that it runs in virtual time on a
virtual loop; the same seed and the same calls then give the same trace. A `Link` says how one
direction delays and loses messages; links and partitions can be changed at any time.
"""

import asyncio
import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random

from node.admission.peer_score import PeerAction, PeerScores
from node.transport.interface import SEEN_SECONDS, Listener, ValidationResult, message_id
from tests.support.memory_transport.pipes import MemoryConnection, MemoryStream, pair

# Virtual. libp2p's negotiation has the same timeout, so that slow links fail in the same way.
OPEN_SECONDS = 10.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Link:
    """One direction between two peers: a range of delays in seconds, and probabilities.

    Loss, duplication and reordering are for gossip only; a stream loses nothing until it is reset.
    `reordering` is the probability that a message does not wait for those sent before it.
    """

    delay: tuple[float, float] = (0.001, 0.005)
    loss: float = 0.0
    duplication: float = 0.0
    reordering: float = 0.0


class MemoryNetwork:
    """Connects all `MemoryTransport`s of one simulation."""

    def __init__(self, random: Random, link: Link | None = None) -> None:
        self.random = random
        self.link = link or Link()
        self.failures: list[BaseException] = []
        """The exceptions that listeners raised in `serve`; the transport survives them."""
        self._links: dict[tuple[str, str], Link] = {}
        self._groups: tuple[frozenset[str], ...] = ()
        self._present: dict[str, MemoryTransport] = {}
        self._last_arrival: dict[tuple[str, str], float] = {}

    def set_link(self, source: str, target: str, link: Link) -> None:
        """Give one direction a link of its own."""
        self._links[source, target] = link

    def partition(self, *groups: Iterable[str]) -> None:
        """Cut all links between different groups; peers named in none form one more group."""
        self._groups = tuple(frozenset(group) for group in groups)
        for transport in list(self._present.values()):
            for peer in sorted(transport.peers()):
                if not self.reachable(transport.peer, peer):
                    self.disconnect(transport.peer, peer)

    def heal(self) -> None:
        """Undo all partitions; peers have to dial again."""
        self._groups = ()

    def crash(self, peer: str) -> None:
        """Remove a peer at once: its streams are reset and its listener is called no more."""
        transport = self._present.pop(peer, None)
        if transport is not None:
            for neighbour in sorted(transport.peers()):
                self.disconnect(peer, neighbour)
            transport.vanish()

    def reachable(self, a: str, b: str) -> bool:
        """Return whether no partition lies between two peers."""
        return self._group(a) == self._group(b)

    def transport(self, peer: str) -> "MemoryTransport | None":
        """Return the running transport of `peer`."""
        return self._present.get(peer)

    def enter(self, transport: "MemoryTransport") -> None:
        """Make a transport reachable. Raises `OSError` if its peer is running already."""
        if transport.peer in self._present:
            raise OSError(f"{transport.peer} is running already")
        self._present[transport.peer] = transport

    def connect(self, a: "MemoryTransport", b: "MemoryTransport") -> None:
        """Bring up a connection on both sides."""
        a.connect(b.peer)
        b.connect(a.peer)

    def disconnect(self, a: str, b: str) -> None:
        """Take a connection down on both sides at once."""
        for near, far in ((a, b), (b, a)):
            transport = self._present.get(near)
            if transport is not None:
                transport.disconnect(far)

    def delay(self, source: str, target: str) -> float:
        """Return a random delay in seconds from `source` to `target`."""
        return self.random.uniform(*self._links.get((source, target), self.link).delay)

    def send(self, source: str, target: str, topic: str, payload: bytes) -> None:
        """Send one gossip message over one link, which may lose or duplicate it."""
        link = self._links.get((source, target), self.link)
        receiver = self._present.get(target)
        if receiver is None or self.random.random() < link.loss:
            return
        for _ in range(2 if self.random.random() < link.duplication else 1):
            asyncio.get_running_loop().call_at(
                self._arrival(source, target, link), receiver.receive, source, topic, payload
            )

    def _arrival(self, source: str, target: str, link: Link) -> float:
        at = asyncio.get_running_loop().time() + self.random.uniform(*link.delay)
        if self.random.random() >= link.reordering:
            last = self._last_arrival.get((source, target), 0.0)
            at = max(at, math.nextafter(last, math.inf))  # loops keep no order among equals
            self._last_arrival[source, target] = at
        return at

    def _group(self, peer: str) -> int:
        return next((n for n, group in enumerate(self._groups) if peer in group), -1)


class MemoryTransport:
    """One peer in a `MemoryNetwork`; a restart after `stop` or a crash is a new object."""

    def __init__(self, network: MemoryNetwork, peer: str) -> None:
        self.peer = peer
        self._network = network
        self._listener: Listener | None = None
        self._topics: frozenset[str] = frozenset()
        self._fanout: frozenset[str] = frozenset()
        self._protocols: frozenset[str] = frozenset()
        self._streams: dict[str, list[MemoryStream]] = {}  # by connected peer
        self.connections: dict[str, MemoryConnection] = {}  # by connected peer
        self._seen: dict[bytes, float] = {}
        self._serving: dict[asyncio.Task[None], None] = {}
        self._peer_scores = PeerScores(lambda: asyncio.get_running_loop().time())

    @property
    def addresses(self) -> tuple[str, ...]:
        """The one address, which only this network understands."""
        return (f"/memory/0/p2p/{self.peer}",)

    async def start(
        self,
        listener: Listener,
        topics: Sequence[str],
        protocols: Sequence[str],
        fanout: Sequence[str] = (),
    ) -> None:
        """Enter the network; raise `OSError` if this peer is there already."""
        self._network.enter(self)
        self._listener = listener
        self._topics, self._protocols = frozenset(topics), frozenset(protocols)
        self._fanout = frozenset(fanout)

    async def stop(self) -> None:
        """Leave, and wait for what was being served."""
        serving = list(self._serving)
        self._network.crash(self.peer)
        await asyncio.gather(*serving, return_exceptions=True)

    async def dial(self, address: str) -> str:
        """Connect to the peer named at the end of `address`."""
        peer = address.rpartition("/p2p/")[2]
        await asyncio.sleep(self._network.delay(self.peer, peer))
        remote = self._network.transport(peer)
        if remote is None or peer == self.peer or not self._network.reachable(self.peer, peer):
            raise ConnectionError(f"{peer} cannot be reached")
        if self._listener is None or self.bans(peer) or remote.bans(self.peer):
            raise ConnectionError(f"one side bans the other: {peer}")
        self._network.connect(self, remote)
        return peer

    def peers(self) -> frozenset[str]:
        """Return who is connected now."""
        return frozenset(self._streams)

    def rate_limit_key(self, peer: str) -> str:
        """Return the peer: there are no addresses here."""
        return peer

    def report(self, peer: str, action: PeerAction) -> None:
        """Report a peer; close the connection if that bans it."""
        if self._peer_scores.report(peer, action):
            self._network.disconnect(self.peer, peer)

    async def publish(self, topic: str, payload: bytes) -> None:
        """Gossip to all connected peers; a repeat on a joined topic is dropped for two minutes."""
        self.gossip(topic, payload)

    def gossip(self, topic: str, payload: bytes) -> None:
        """Do what `publish` does, without awaiting."""
        if self._listener is None:
            return
        if topic in self._fanout or self._first_seen(topic, payload):
            self._forward(topic, payload)

    async def open(
        self, peer: str, protocol: str, request: bytes = b"", *, half_close: bool = False
    ) -> MemoryStream:
        """Open a stream to a connected peer that serves `protocol`, and send `request`."""
        delay = self._network.delay(self.peer, peer) + self._network.delay(peer, self.peer)
        await asyncio.sleep(min(delay, OPEN_SECONDS))
        remote = self._network.transport(peer)
        if peer not in self._streams or remote is None or delay > OPEN_SECONDS:
            raise ConnectionError(f"{peer} is not connected")
        if not remote.serves(protocol):
            raise ConnectionError(f"{peer} does not serve {protocol}")
        connections = self.connections[peer], remote.connections[self.peer]
        near, far = pair(self.peer, peer, lambda: self._network.delay(self.peer, peer), connections)
        self._hold(near)
        remote.accept(protocol, far)
        if request:
            await near.write(request)
            if half_close:
                await near.close_write()
        return near

    # What follows is called by the network and by the other side's transport.

    def bans(self, peer: str) -> bool:
        """Return whether `peer` is banned here."""
        return self._peer_scores.is_banned(peer)

    def serves(self, protocol: str) -> bool:
        """Return whether a stream of `protocol` is answered here."""
        return protocol in self._protocols

    def connect(self, peer: str) -> None:
        """Note a connection, and tell the listener if it is the first with this peer."""
        if self._listener is not None and peer not in self._streams:
            self._streams[peer] = []
            self.connections[peer] = MemoryConnection()
            asyncio.get_running_loop().call_soon(self._listener.connected, peer)

    def disconnect(self, peer: str) -> None:
        """Break all streams with `peer` and tell the listener."""
        streams = self._streams.pop(peer, None)
        if streams is None:
            return
        self.connections.pop(peer).closed = True
        for stream in streams:
            stream.break_off()
        if self._listener is not None:
            asyncio.get_running_loop().call_soon(self._listener.disconnected, peer)

    def accept(self, protocol: str, stream: MemoryStream) -> None:
        """Serve an inbound stream in a task of its own."""
        if self._listener is None:
            stream.break_off()
            return
        self._hold(stream)
        serving = self._serve(self._listener, protocol, stream)
        task = asyncio.get_running_loop().create_task(serving)
        self._serving[task] = None
        task.add_done_callback(lambda done: self._serving.pop(done, None))

    def receive(self, source: str, topic: str, payload: bytes) -> None:
        """Judge what `source` forwarded; deliver and forward it if it is accepted."""
        listener = self._listener
        if listener is None or source not in self._streams or topic not in self._topics:
            return
        if not self._first_seen(topic, payload):
            return
        result, message = listener.validate(topic, payload)
        if result is ValidationResult.REJECT:
            self.report(source, PeerAction.INVALID_GOSSIP)
        if message is not None:
            self._forward(topic, payload, source)
            listener.on_gossip(source, message)

    def vanish(self) -> None:
        """Stop at once; the listener is called no more."""
        self._listener = None
        self._streams.clear()
        for connection in self.connections.values():
            connection.closed = True
        self.connections.clear()
        for task in list(self._serving):
            task.cancel()

    def _forward(self, topic: str, payload: bytes, source: str = "") -> None:
        for peer in list(self._streams):
            if peer != source:
                self._network.send(self.peer, peer, topic, payload)

    def _first_seen(self, topic: str, payload: bytes) -> bool:
        now = asyncio.get_running_loop().time()
        while self._seen and next(iter(self._seen.values())) <= now:
            del self._seen[next(iter(self._seen))]
        identity = message_id(topic, payload)
        if identity in self._seen:
            return False
        self._seen[identity] = now + SEEN_SECONDS
        return True

    def _hold(self, stream: MemoryStream) -> None:
        held = self._streams[stream.peer]
        held[:] = [open_stream for open_stream in held if not open_stream.finished]
        held.append(stream)

    async def _serve(self, listener: Listener, protocol: str, stream: MemoryStream) -> None:
        try:
            await listener.serve(protocol, stream)
            await stream.close()
        except asyncio.CancelledError:
            stream.break_off()
            raise
        except Exception as failure:
            self._network.failures.append(failure)
            _log.warning("serving %s failed: %r", stream.peer, failure)
            stream.break_off()
