"""The real transport: libp2p over TCP, Noise and Yamux, with GossipSub (specification 7.1, 7.2).

The libp2p host runs in a trio thread; the set of connected peers is kept on the asyncio loop. The
host passes these states:

| state    | event                    | next                                        |
| -------- | ------------------------ | ------------------------------------------- |
| starting | it listens               | running                                     |
| starting | an exception             | none: `start` raises `OSError`              |
| running  | an exception             | paused; all peers are reported disconnected |
| paused   | `REBUILD_SECONDS` passed | running: a new host, the same key and port  |
| any      | `stop`                   | none                                        |
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
from node.transport.interface import (
    BYTES_IN,
    BYTES_OUT,
    MESSAGES_REPEATED,
    Listener,
    ValidationResult,
)
from node.transport.libp2p.dial_errors import describe_dial_failure
from node.transport.libp2p.gossipsub import Topics
from node.transport.libp2p.host import Host, key_pair, port_taken
from node.transport.libp2p.quotas import IdleTracker, Quotas
from node.transport.libp2p.stream import Libp2pStream
from node.transport.libp2p.trio_bridge import TrioBridge
from protocol.wire.messages import Message

# A dial takes 0.25 s on loopback. The rest is for lost packets and a busy peer.
DIAL_SECONDS = 15.0
# libp2p negotiates for at most 10 s. With 256 streams open it would wait for ever.
OPEN_SECONDS = 15.0
# Listening takes under a second, and longer on a machine that is loading models.
START_SECONDS = 20.0
# Accepted messages that wait for the asyncio loop: some seconds of writing to the journal.
MAX_UNDELIVERED = 1024
# Looks for idle peers in the time after which a peer is idle.
IDLE_CHECKS = 4
# The first and the longest pause before a failed host is rebuilt; each is twice the last.
REBUILD_SECONDS = (0.5, 30.0)
# A host that ran for this long starts again with the first pause.
STABLE_SECONDS = 60.0
# The log event of a failed host. A test looks for it in the log of a node under attack.
REBUILDING = "libp2p host failed; rebuilding it"

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_log = logging.getLogger(__name__)


class Libp2pTransport:
    """A `node.transport.interface.Transport` with the Ed25519 private key `seed` (32 bytes).

    `listen` is a multiaddr such as "/ip4/0.0.0.0/tcp/4001". `announce` are the multiaddrs to send
    to other peers instead of the listen addresses.
    """

    def __init__(
        self,
        seed: bytes,
        listen: str,
        announce: Sequence[str] = (),
        limits: Limits | None = None,
        counts: Counter[str] | None = None,
        score_floors: Mapping[str, float] | None = None,
        traffic: Counter[str] | None = None,
    ) -> None:
        """`counts` counts how often each limit was met; `score_floors` is read at each report.

        `traffic` counts what passes, by the names of `node.transport.interface`.
        """
        self._key_pair, self.peer = key_pair(seed)
        self._listen = Multiaddr(listen)
        self._announce = tuple(announce)
        self._bridge = TrioBridge()
        self._listener: Listener | None = None
        self._host: Host | None = None
        self._addresses: tuple[str, ...] = ()
        self._peers: frozenset[str] = frozenset()
        self._rate_limit_keys: dict[str, str] = {}  # of connected peers
        self._counts: Counter[str] = Counter() if counts is None else counts
        self._quotas = Quotas(limits or Limits(), self._counts, traffic)
        self._quotas.traffic.update(dict.fromkeys((BYTES_IN, BYTES_OUT, MESSAGES_REPEATED), 0))
        limits = self._quotas.limits
        self._peer_scores = PeerScores(
            trio.current_time, limits, {} if score_floors is None else score_floors
        )
        self._idle_tracker = IdleTracker(limits.idle_seconds, trio.current_time)
        # Accepted messages posted to the asyncio loop, and handled there; one thread writes each.
        self._posted = self._delivered = 0
        self._dialled: set[str] = set()  # the node's configured peers: a few, and never idle
        self.rebuilds = 0
        """The number of times that the host failed and was rebuilt."""

    @property
    def addresses(self) -> tuple[str, ...]:
        """The multiaddrs of this node, each with "/p2p/<peer>"; known after `start`."""
        return self._addresses

    async def start(
        self,
        listener: Listener,
        topics: Sequence[str],
        protocols: Sequence[str],
        fanout: Sequence[str] = (),
    ) -> None:
        """Listen, join `topics`, serve `protocols`. Raises `OSError` if the address is in use.

        `fanout` are topics that are not joined: this peer publishes on them, and receives nothing.
        """
        if port_taken(self._listen):
            raise OSError(f"{self._listen} is already in use")
        self._listener = listener
        started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        await self._bridge.start()
        try:
            self._bridge.spawn(
                self._supervise, started, Topics(tuple(topics), tuple(fanout)), tuple(protocols)
            )
            async with asyncio.timeout(START_SECONDS):
                await started
        # A cancellation, too: the thread would outlive the caller, and hold the port.
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Cancel all handlers, reset all streams and free the port."""
        # First, so that calls which the thread has posted already do not reach the listener.
        self._listener = None
        await self._bridge.stop()
        self._peers = frozenset()
        self._rate_limit_keys.clear()

    async def dial(self, address: str) -> str:
        """Connect to a multiaddr with "/p2p/<peer>"; return the peer. Raises `ConnectionError`."""
        return await self._bridge.run_in_trio(self._dial, address)

    def peers(self) -> frozenset[str]:
        """Return the peers that are connected now."""
        return self._peers

    def rate_limit_key(self, peer: str) -> str:
        """Return the key of the token buckets that a connected peer is charged to."""
        return self._rate_limit_keys.get(peer, peer)

    def report(self, peer: str, action: PeerAction) -> None:
        """Report a peer for what no honest peer does."""
        self._bridge.spawn(self._report, peer, action)

    async def publish(self, topic: str, payload: bytes) -> None:
        """Gossip `payload`. Never raises.

        On a joined topic, a repetition within `SEEN_SECONDS` is dropped.
        """
        try:
            await self._bridge.run_in_trio(self._publish, topic, payload)
        except ConnectionError as failure:
            _log.debug("gossip not published: %s", failure)

    async def open(
        self, peer: str, protocol: str, request: bytes = b"", *, half_close: bool = False
    ) -> Libp2pStream:
        """Open a stream to a connected peer and send `request`, with a timeout.

        Raises `ConnectionError`; if the peer does not speak the protocol, the first read may.
        """
        return await self._bridge.run_in_trio(
            self._open,
            peer,
            protocol,
            request,
            half_close,
            on_abandoned=Libp2pStream.reset_in_trio,
        )

    # What follows runs on the trio side.

    async def _supervise(
        self,
        started: "asyncio.Future[None]",
        topics: Topics,
        protocols: tuple[str, ...],
    ) -> None:
        """Run the host; if it fails, build a new one with the same key and port."""
        pause = REBUILD_SECONDS[0]
        while True:
            began = trio.current_time()
            try:
                await self._run_host(started, topics, protocols)
            except Exception as failure:
                # It has never listened. `start` raises this: most likely its address is wrong.
                if self._host is None and not self.rebuilds:
                    self._bridge.post(_fail, started, failure)
                    return
                _log.exception(REBUILDING)
            self._host = None
            self._bridge.post(self._forget_peers)
            self.rebuilds += 1
            pause = (
                REBUILD_SECONDS[0] if trio.current_time() - began > STABLE_SECONDS else pause * 2
            )
            await trio.sleep(min(pause, REBUILD_SECONDS[1]))

    async def _run_host(
        self,
        started: "asyncio.Future[None]",
        topics: Topics,
        protocols: tuple[str, ...],
    ) -> None:
        host = Host(self._key_pair, self._announce, self, self._quotas)
        for protocol in protocols:
            host.serve(protocol, self._serve)
        async with host.running(self._listen, topics):
            self._host = host
            # Port 0 lets the system choose. A rebuilt host must have the port that peers know.
            self._listen = host.bound
            self._bridge.post(self._on_started, started, host.addresses)
            await self._disconnect_idle_peers(host)

    async def _disconnect_idle_peers(self, host: Host) -> None:
        """Disconnect inbound peers that are idle, for ever."""
        while True:
            await trio.sleep(self._idle_tracker.seconds / IDLE_CHECKS)
            for peer in self._idle_tracker.idle_peers():
                self._counts["idle-cut"] += 1
                await host.disconnect(peer)

    async def _bounded(
        self, seconds: float, function: Callable[[*Ts], Awaitable[T]], *args: *Ts
    ) -> T:
        """Run a function with a timeout; turn whatever it raises into `ConnectionError`."""
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
        try:
            peer = Multiaddr(address).value_for_protocol("p2p")
        except Exception as failure:
            raise ConnectionError(describe_dial_failure(failure)) from failure
        if peer is None:
            raise ConnectionError("it is no peer's address")
        if peer == self.peer:
            raise ConnectionError("it is this node itself")
        if self.is_banned(peer):
            raise ConnectionError("the peer is banned")
        # Before the dial, because `connected` is called during it.
        self._dialled.add(peer)
        try:
            with trio.fail_after(DIAL_SECONDS):
                await self._running().dial(Multiaddr(address), ID.from_base58(peer))
        except Exception as failure:
            raise ConnectionError(describe_dial_failure(failure)) from failure
        return str(peer)

    async def _publish(self, topic: str, payload: bytes) -> None:
        await self._running().gossip.publish(topic, payload)

    async def _report(self, peer: str, action: PeerAction) -> None:
        self._counts["misbehaviours"] += 1
        self.report_peer(peer, action)

    async def _open(
        self, peer: str, protocol: str, request: bytes, half_close: bool
    ) -> Libp2pStream:
        """Open a stream, shielded: an interrupted open would leak it."""
        self._idle_tracker.touch(peer)  # this node has use for it
        with trio.CancelScope(shield=True):
            stream = await self._bounded(OPEN_SECONDS, self._open_at_once, peer, protocol)
        opened = Libp2pStream(self._bridge, stream, self._quotas)
        if request:
            await opened.send(request, half_close=half_close)
        return opened

    async def _open_at_once(self, peer: str, protocol: str) -> INetStream:
        return await self._running().open(peer, protocol, at_once=True)

    async def _serve(self, inbound: INetStream) -> None:
        listener, stream = self._listener, Libp2pStream(self._bridge, inbound, self._quotas)
        protocol = inbound.get_protocol()
        if listener is None or protocol is None:
            await stream.reset_in_trio()
            return
        stream.read_ahead()
        try:
            with self._idle_tracker.request(stream.peer):
                await self._bridge.run_in_asyncio(listener.serve, str(protocol), stream)
            await stream.close_gracefully()
        # Not only `Exception`: a cancelled handler must reset its stream too, then pass it on.
        except BaseException as failure:
            if isinstance(failure, Exception):
                _log.warning("handler of %s for %s failed: %r", protocol, stream.peer, failure)
            await stream.reset_in_trio()
            if not isinstance(failure, Exception):
                raise

    # The callbacks of the host, on the trio side.

    def validate(self, topic: str, payload: bytes) -> tuple[ValidationResult, Message | None]:
        """Let the listener validate; without one, or if it raises, ignore the message."""
        try:
            if self._listener is not None:
                return self._listener.validate(topic, payload)
        except Exception:
            _log.exception("the gossip validator failed")
        return ValidationResult.IGNORE, None

    def on_accepted(self, peer: str, message: Message) -> None:
        """Pass an accepted message to the asyncio loop; drop it if too many wait."""
        # What is dropped comes again: feeds have it too.
        self._idle_tracker.touch(peer)
        if self._posted - self._delivered >= MAX_UNDELIVERED:
            self._counts["gossip-dropped"] += 1
            return
        self._posted += 1
        self._bridge.post(self._on_gossip, peer, message)

    def report_peer(self, peer: str, action: PeerAction = PeerAction.INVALID_GOSSIP) -> bool:
        """Report a peer; disconnect it if that bans it. Return whether it is banned now."""
        was_banned = self._peer_scores.is_banned(peer)
        banned = self._peer_scores.report(peer, action)
        if banned and not was_banned:
            self._counts["bans"] += 1
            _log.warning("peer %s banned, last for %s", peer, action.value)
        # Not awaited: the caller may be the very task that reads this peer's stream.
        if banned and self._host is not None:
            self._bridge.start_soon(self._host.disconnect, peer)
        return banned

    def is_banned(self, peer: str) -> bool:
        """Return whether `peer` is banned now."""
        return self._peer_scores.is_banned(peer)

    def connected(self, peer: str, rate_limit_key: str) -> None:
        """Handle a new connection of a peer."""
        if peer not in self._dialled:
            self._idle_tracker.add(peer)
        self._bridge.post(self._add_peer, peer, rate_limit_key)

    def disconnected(self, peer: str) -> None:
        """Handle the end of a peer's last connection."""
        self._idle_tracker.remove(peer)
        self._bridge.post(self._remove_peer, peer)

    # What follows runs on the asyncio loop.

    def _on_started(self, started: "asyncio.Future[None]", addresses: tuple[str, ...]) -> None:
        self._addresses = addresses
        if not started.done():
            started.set_result(None)

    def _on_gossip(self, peer: str, message: Message) -> None:
        self._delivered += 1
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
        started.set_exception(OSError(str(_root_failure(failure))))


def _root_failure(failure: BaseException) -> BaseException:
    """Return the first exception in nested nurseries."""
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    return failure
