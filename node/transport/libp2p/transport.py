"""The real transport: libp2p over TCP, Noise and Yamux, with GossipSub (specification section 7).

The only module that knows libp2p and trio, with its parts `bridge`, `gossip`, `guards`, `host`,
`seen` and `streams`. The host lives in a trio thread; who is connected is kept on the asyncio loop.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar, TypeVarTuple

import trio
from libp2p.abc import INetStream
from libp2p.peer.id import ID
from multiaddr import Multiaddr

from node.admission.peer_score import PeerAction, PeerScores
from node.config.limits import Limits
from node.transport.interface import Listener, ValidationResult
from node.transport.libp2p.host import Host, key_pair, port_taken
from node.transport.libp2p.quotas import IdleTracker, Quotas
from node.transport.libp2p.stream import Libp2pStream
from node.transport.libp2p.trio_bridge import TrioBridge
from protocol.wire.messages import Message

DIAL_SECONDS = 15.0  # 0.25 s on loopback; room for lost packets and a peer that is busy
OPEN_SECONDS = 15.0  # libp2p negotiates for at most 10 s, and waits for ever over 256 streams
START_SECONDS = 20.0  # listening takes under a second; a machine that loads models is slower
UNTAKEN = 1024  # some seconds of work, for messages that are on the journal's way
IDLE_CHECKS = 4  # in the time after which a caller is idle
REBUILD_SECONDS = (0.5, 30.0)  # the first and the longest pause before a failed host is rebuilt

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_log = logging.getLogger(__name__)


class Libp2pTransport:
    """A `node.transport.interface.Transport` with the Ed25519 private key `seed` (32 bytes).

    `listen` is a multiaddr such as "/ip4/0.0.0.0/tcp/4001"; `announce` are the multiaddrs to tell
    others instead of those listened on.
    """

    def __init__(
        self,
        seed: bytes,
        listen: str,
        announce: Sequence[str] = (),
        limits: Limits | None = None,
        counts: Counter[str] | None = None,
        score_floors: Mapping[str, float] | None = None,
    ) -> None:
        """`counts` is told how often a limit was met; `score_floors` is read, not kept."""
        self._key_pair, self.peer = key_pair(seed)
        self._listen = Multiaddr(listen)
        self._announce = tuple(announce)
        self._bridge = TrioBridge()
        self._listener: Listener | None = None
        self._host: Host | None = None
        self._addresses: tuple[str, ...] = ()
        self._peers: frozenset[str] = frozenset()
        self._rate_limit_keys: dict[str, str] = {}  # of those
        self._counts: Counter[str] = Counter() if counts is None else counts
        self._quotas = Quotas(limits or Limits(), self._counts)
        limits = self._quotas.limits
        self._peer_scores = PeerScores(
            trio.current_time, limits, {} if score_floors is None else score_floors
        )
        self._idle_tracker = IdleTracker(limits.idle_seconds, trio.current_time)
        self._untaken = 0  # accepted messages on their way to the asyncio loop
        self._dialled: set[str] = set()  # by the node's own wish: a few, and never idle
        self.rebuilds = 0
        """How often the host failed and was built anew."""

    @property
    def addresses(self) -> tuple[str, ...]:
        """Own multiaddrs, each with "/p2p/<peer>"; known after `start`."""
        return self._addresses

    async def start(
        self, listener: Listener, topics: Sequence[str], protocols: Sequence[str]
    ) -> None:
        """Listen, join `topics`, serve `protocols`; raise `OSError` if the address is taken."""
        if port_taken(self._listen):
            raise OSError(f"{self._listen} is taken")
        self._listener = listener
        started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        await self._bridge.start()
        try:
            self._bridge.spawn(self._supervise, started, tuple(topics), tuple(protocols))
            async with asyncio.timeout(START_SECONDS):
                await started
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Leave: cancel what is being served, reset all streams, free the port."""
        self._listener = None
        await self._bridge.stop()
        self._peers = frozenset()
        self._rate_limit_keys.clear()

    async def dial(self, address: str) -> str:
        """Connect to a multiaddr with "/p2p/<peer>", return the peer; raise `ConnectionError`."""
        return await self._bridge.run_in_trio(self._bounded, DIAL_SECONDS, self._dial, address)

    def peers(self) -> frozenset[str]:
        """Return who is connected now."""
        return self._peers

    def rate_limit_key(self, peer: str) -> str:
        """Return who is charged for what a connected peer brings, as for its streams."""
        return self._rate_limit_keys.get(peer, peer)

    def report(self, peer: str, action: PeerAction) -> None:
        """Report a peer for what no honest peer does."""
        self._bridge.spawn(self._report, peer, action)

    async def publish(self, topic: str, payload: bytes) -> None:
        """Gossip `payload`, once: a repeat within two minutes is dropped. No peers is no error."""
        try:
            await self._bridge.run_in_trio(self._publish, topic, payload)
        except ConnectionError as failure:
            _log.debug("nothing published: %s", failure)

    async def open(self, peer: str, protocol: str) -> Libp2pStream:
        """Open a stream to a connected peer; raise `ConnectionError`, bounded by a timeout."""
        return await self._bridge.run_in_trio(
            self._open, peer, protocol, on_abandoned=Libp2pStream.reset_in_trio
        )

    # What follows runs on the trio side.

    async def _supervise(
        self,
        started: "asyncio.Future[None]",
        topics: tuple[str, ...],
        protocols: tuple[str, ...],
    ) -> None:
        """Run the host; when it fails after all, build a new one with the same key and port."""
        pause = REBUILD_SECONDS[0]
        while True:
            began = trio.current_time()
            try:
                await self._run_host(started, topics, protocols)
            except Exception as failure:
                if self._host is None and not self.rebuilds:
                    self._bridge.post(_fail, started, failure)
                    return
                _log.exception("the libp2p host failed and is rebuilt")
            self._host = None
            self._bridge.post(self._forget_peers)
            self.rebuilds += 1
            pause = REBUILD_SECONDS[0] if trio.current_time() - began > 60 else pause * 2
            await trio.sleep(min(pause, REBUILD_SECONDS[1]))

    async def _run_host(
        self,
        started: "asyncio.Future[None]",
        topics: tuple[str, ...],
        protocols: tuple[str, ...],
    ) -> None:
        host = Host(self._key_pair, self._announce, self, self._quotas)
        for protocol in protocols:
            host.serve(protocol, self._serve)
        async with host.running(self._listen, topics):
            self._host = host
            self._listen = host.bound
            self._bridge.post(self._start_done, started, host.addresses)
            await self._cut_idle(host)

    async def _cut_idle(self, host: Host) -> None:
        """Close the connections of idle_tracker who want nothing, for ever."""
        while True:
            await trio.sleep(self._idle_tracker.seconds / IDLE_CHECKS)
            for peer in self._idle_tracker.idle_peers():
                self._counts["idle-cut"] += 1
                await host.disconnect(peer)

    async def _bounded(
        self, seconds: float, function: Callable[[*Ts], Awaitable[T]], *args: *Ts
    ) -> T:
        """Run a function within a time, and turn whatever it raises into `ConnectionError`."""
        try:
            with trio.fail_after(seconds):
                return await function(*args)
        except Exception as failure:
            raise ConnectionError(str(failure) or type(failure).__name__) from failure

    def _running(self) -> Host:
        if self._host is None:
            raise ConnectionError("the transport is not running")
        return self._host

    async def _dial(self, address: str) -> str:
        peer = Multiaddr(address).value_for_protocol("p2p")
        if peer is None or peer == self.peer or self.is_banned(peer):
            raise ConnectionError(f"no connection to {address} is wanted")
        self._dialled.add(peer)
        await self._running().dial(Multiaddr(address), ID.from_base58(peer))
        return str(peer)

    async def _publish(self, topic: str, payload: bytes) -> None:
        await self._running().gossip.publish(topic, payload)

    async def _report(self, peer: str, action: PeerAction) -> None:
        self._counts["misbehaviours"] += 1
        self.report_peer(peer, action)

    async def _open(self, peer: str, protocol: str) -> Libp2pStream:
        """Open shielded: half an opening would leak a stream, a whole one can be reset."""
        with trio.CancelScope(shield=True):
            opened = await self._bounded(OPEN_SECONDS, self._running().open, peer, protocol)
            return Libp2pStream(self._bridge, opened, self._quotas)

    async def _serve(self, stream: INetStream) -> None:
        listener, served = self._listener, Libp2pStream(self._bridge, stream, self._quotas)
        protocol = stream.get_protocol()
        if listener is None or protocol is None:
            await served.reset_in_trio()
            return
        try:
            with self._idle_tracker.request(served.peer):
                await self._bridge.run_in_asyncio(listener.serve, str(protocol), served)
            await served.close_gracefully()
        except BaseException as failure:
            if isinstance(failure, Exception):
                _log.warning("serving %s to %s failed: %r", protocol, served.peer, failure)
            await served.reset_in_trio()
            if not isinstance(failure, Exception):
                raise

    # What the host reports, on the trio side.

    def validate(self, topic: str, payload: bytes) -> tuple[ValidationResult, Message | None]:
        """Ask the listener; without one, or if it raises, nothing is delivered or forwarded."""
        try:
            if self._listener is not None:
                return self._listener.validate(topic, payload)
        except Exception:
            _log.exception("the gossip validator failed")
        return ValidationResult.IGNORE, None

    def on_accepted(self, peer: str, message: Message) -> None:
        """Hand an accepted message over; what waits is bounded, and feeds bring what is dropped."""
        self._idle_tracker.touch(peer)
        if self._untaken >= UNTAKEN:
            self._counts["gossip-dropped"] += 1
            return
        self._untaken += 1
        self._bridge.post(self._on_gossip, peer, message)

    def report_peer(self, peer: str, action: PeerAction = PeerAction.INVALID_GOSSIP) -> bool:
        """Take a point from a peer, and the connection when it was one too many."""
        known = self._peer_scores.is_banned(peer)
        banned = self._peer_scores.report(peer, action)
        if banned and not known:
            self._counts["bans"] += 1
            _log.warning("peer %s is banned for a while: too much of it was rejected", peer)
        if banned and self._host is not None:
            self._bridge.start_soon(self._host.disconnect, peer)
        return banned

    def is_banned(self, peer: str) -> bool:
        """Return whether nothing is to be had with `peer` for now."""
        return self._peer_scores.is_banned(peer)

    def connected(self, peer: str, rate_limit_key: str) -> None:
        """Report a first connection."""
        if peer not in self._dialled:
            self._idle_tracker.add(peer)
        self._bridge.post(self._add_peer, peer, rate_limit_key)

    def disconnected(self, peer: str) -> None:
        """Report that the last connection is gone."""
        self._idle_tracker.remove(peer)
        self._bridge.post(self._remove_peer, peer)

    # What follows runs on the asyncio loop.

    def _start_done(self, started: "asyncio.Future[None]", addresses: tuple[str, ...]) -> None:
        self._addresses = addresses
        if not started.done():
            started.set_result(None)

    def _on_gossip(self, peer: str, message: Message) -> None:
        self._untaken -= 1
        if self._listener is not None:
            self._listener.on_gossip(peer, message)

    def _add_peer(self, peer: str, rate_limit_key: str) -> None:
        if peer not in self._peers and self._listener is not None:
            self._peers |= {peer}
            self._rate_limit_keys[peer] = rate_limit_key
            self._listener.connected(peer)

    def _remove_peer(self, peer: str) -> None:
        if peer in self._peers and self._listener is not None:
            self._peers -= {peer}
            self._rate_limit_keys.pop(peer, None)
            self._listener.disconnected(peer)

    def _forget_peers(self) -> None:
        for peer in sorted(self._peers):
            self._remove_peer(peer)


def _fail(started: "asyncio.Future[None]", failure: Exception) -> None:
    if not started.done():
        started.set_exception(OSError(str(_first(failure))))


def _first(failure: BaseException) -> BaseException:
    """Return what raised first in nested nurseries."""
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    return failure
