"""One libp2p host, from listening to its last socket closed; used in the trio thread only."""

import contextlib
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

import trio
from libp2p.abc import INetConn, INetStream, INetwork, INotifee
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.keys import KeyPair
from libp2p.crypto.x25519 import create_new_key_pair as create_noise_key_pair
from libp2p.custom_types import StreamHandlerFn, TProtocol
from libp2p.peer.id import ID
from libp2p.peer.peerstore import PeerStore
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.tools.anyio_service import background_trio_service
from libp2p.transport.tcp.tcp import TCP
from libp2p.transport.upgrader import TransportUpgrader
from multiaddr import Multiaddr

from node.transport.interface import ValidationResult
from node.transport.libp2p.gossipsub import Gossip, Topics
from node.transport.libp2p.muxing.yamux import GuardedMuxers
from node.transport.libp2p.quotas import Quotas, rate_limit_key
from node.transport.libp2p.swarm import GuardedHost, GuardedSwarm, GuardedTCP
from protocol.wire.messages import Message

# Closing takes 0.2 s, and longer only for peers that do not read. Their sockets are closed anyway.
CLOSE_SECONDS = 5.0


class HostCallbacks(Protocol):
    """The callbacks of a host, called in the trio thread."""

    def validate(self, topic: str, payload: bytes) -> tuple[ValidationResult, Message | None]:
        """Parse and validate a forwarded message; never raises."""

    def on_accepted(self, peer: str, message: Message) -> None:
        """Receive an accepted message."""

    def report_peer(self, peer: str) -> bool:
        """Report invalid gossip of a peer; return whether the peer is banned now."""

    def is_banned(self, peer: str) -> bool:
        """Return whether a peer is banned now."""

    def connected(self, peer: str, rate_limit_key: str) -> None:
        """Handle a new connection; the same peer may have others."""

    def disconnected(self, peer: str) -> None:
        """Handle the end of a peer's last connection."""


class Host:
    """A libp2p host with gossip. `running` may be entered only once."""

    def __init__(
        self, key: KeyPair, announce: Sequence[str], callbacks: HostCallbacks, quotas: Quotas
    ) -> None:
        self._callbacks, self._quotas = callbacks, quotas
        self._announce = announce
        self._tcp = GuardedTCP()
        self.swarm = _swarm(key, self._tcp, quotas)
        self._host = GuardedHost(
            quotas,
            self.swarm,
            announce_addrs=[Multiaddr(address) for address in announce] or None,
            disable_identify_address_discovery=True,
        )
        self.swarm.register_notifee(_Connections(self._host, callbacks))
        self.bound = Multiaddr("/ip4/127.0.0.1/tcp/0")
        """The listen address with the real port; known once the host runs."""

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses to dial this host at, each with "/p2p/<peer>"."""
        suffix = f"/p2p/{self._host.get_id()}"
        bases = self._announce or [str(address) for address in self._host.get_transport_addrs()]
        return tuple(base.removesuffix(suffix) + suffix for base in bases)

    @asynccontextmanager
    async def running(self, listen: Multiaddr, topics: Topics) -> AsyncIterator[None]:
        """Listen, gossip and serve; raise `OSError` if the address is not available."""
        try:
            async with self._listening(listen, topics):
                yield
        finally:
            self._tcp.close_sockets()

    @asynccontextmanager
    async def _listening(self, listen: Multiaddr, topics: Topics) -> AsyncIterator[None]:
        async with self._host.run(listen_addrs=[listen]):
            try:
                bound = self._host.get_transport_addrs()
                if not bound:  # libp2p raises no exception
                    raise OSError(f"cannot listen on {listen}")
                self.bound = bound[0]
                async with self._gossiping(topics):
                    yield
            finally:  # without `close` sockets would leak
                with trio.move_on_after(CLOSE_SECONDS) as scope:
                    scope.shield = True
                    await self._host.close()

    def serve(self, protocol: str, handler: StreamHandlerFn) -> None:
        """Pass the inbound streams of `protocol` to `handler`."""
        self._host.set_stream_handler(TProtocol(protocol), handler)

    async def dial(self, address: Multiaddr, peer: ID) -> None:
        """Connect to a peer at this address only; raises whatever libp2p raises.

        Several dials to one peer do not wait for each other. libp2p's own `connect` takes one of a
        peer's addresses, lets further dials wait for that one, and after a failure refuses to dial
        the peer for 60 s.
        """
        if not self.connections(str(peer)):
            base = address.decapsulate(Multiaddr(f"/p2p/{peer}"))
            await self.swarm.dial_addr(base, peer)

    async def open(self, peer: str, protocol: str, *, at_once: bool = False) -> INetStream:
        """Open a stream to a connected peer; raises whatever libp2p raises.

        With `at_once`, it does not wait for a peer that has said that it speaks the protocol.
        """
        identity = ID.from_base58(peer)
        if not self.connections(peer):  # libp2p would dial it
            raise ConnectionError(f"{peer} is not connected")
        if at_once:
            return await self._host.new_stream_at_once(identity, TProtocol(protocol))
        return await self._host.new_stream(identity, [TProtocol(protocol)])

    def connections(self, peer: str) -> list[INetConn]:
        """Return the connections with a peer."""
        return list(self.swarm.get_connections(ID.from_base58(peer)))

    async def disconnect(self, peer: str) -> None:
        """Close all connections with a peer; never raises."""
        with contextlib.suppress(Exception):
            await self.swarm.close_peer(ID.from_base58(peer))

    @asynccontextmanager
    async def _gossiping(self, topics: Topics) -> AsyncIterator[None]:
        callbacks = self._callbacks
        self.gossip = Gossip(
            self._host,
            topics,
            self._quotas,
            callbacks.validate,
            callbacks.on_accepted,
            callbacks.report_peer,
        )
        async with (
            background_trio_service(self.gossip),
            background_trio_service(self.gossip.router),
        ):
            await self.gossip.wait_until_ready()
            for topic in topics.joined:
                await self.gossip.subscribe(topic)
            yield


class _Connections(INotifee):  # type: ignore[misc]  # libp2p is untyped here
    """Reports connections, and closes those of banned peers."""

    def __init__(self, host: GuardedHost, callbacks: HostCallbacks) -> None:
        self._host = host
        self._callbacks = callbacks

    async def connected(self, network: INetwork, conn: INetConn) -> None:
        peer = str(conn.muxed_conn.peer_id)
        if self._callbacks.is_banned(peer):
            await conn.close()
        else:
            self._callbacks.connected(peer, rate_limit_key(conn.muxed_conn))

    async def disconnected(self, network: INetwork, conn: INetConn) -> None:
        remaining = self._host.get_network().get_connections(conn.muxed_conn.peer_id)
        # libp2p lists a connection for a moment after it was closed.
        if all(connection.is_closed for connection in remaining):
            self._callbacks.disconnected(str(conn.muxed_conn.peer_id))

    async def opened_stream(self, network: INetwork, stream: INetStream) -> None:
        pass

    async def closed_stream(self, network: INetwork, stream: INetStream) -> None:
        pass

    async def listen(self, network: INetwork, multiaddr: Multiaddr) -> None:
        pass

    async def listen_close(self, network: INetwork, multiaddr: Multiaddr) -> None:
        pass


def key_pair(seed: bytes) -> tuple[KeyPair, str]:
    """Return libp2p's key pair for an Ed25519 private key of 32 bytes, and its peer id."""
    if len(seed) != 32:
        raise ValueError("an Ed25519 private key has 32 bytes")
    key = create_new_key_pair(seed=seed)
    peer = str(ID.from_pubkey(key.public_key))
    if not peer.startswith("12D3KooW"):
        raise ValueError(f"{peer} is not the identity multihash of an Ed25519 public key")
    return key, peer


def port_taken(listen: Multiaddr) -> bool:
    """Return whether the port is in use: libp2p would share it with another program, silently."""
    port = int(listen.value_for_protocol("tcp") or 0)
    family, name = (socket.AF_INET6, "ip6") if "/ip6/" in str(listen) else (socket.AF_INET, "ip4")
    if not port or f"/{name}/" not in str(listen):
        return False
    with socket.socket(family) as probe:
        # As trio's listeners do: else a port that was in use a minute ago would look taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((listen.value_for_protocol(name), port))
        except OSError:
            return True
    return False


def _swarm(key: KeyPair, tcp: TCP, quotas: Quotas) -> GuardedSwarm:
    """Build a swarm with TCP, Noise and Yamux only; libp2p's default accepts plaintext too."""
    peer = ID.from_pubkey(key.public_key)
    store = PeerStore()
    store.add_key_pair(peer, key)
    # Noise has an X25519 key of its own, which the node's Ed25519 key signs in each handshake.
    noise = NoiseTransport(key, noise_privkey=create_noise_key_pair().private_key)
    upgrader = TransportUpgrader({NOISE: noise}, {})
    upgrader.muxer_multistream = GuardedMuxers(quotas)
    return GuardedSwarm(quotas, peer, store, upgrader, [tcp])
