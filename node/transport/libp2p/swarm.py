"""A swarm and a host that one bad peer cannot harm, over py-libp2p 0.8.1.

Each class narrows one of libp2p's own; its docstring names what it guards against. The regression
tests are in `tests/node/transport/libp2p/test_swarm.py`, one for each guard. Why libp2p's own
resource manager does not do this: `docs/decisions/0002-resource-limits.md`.
"""

import contextlib
import logging
import socket
from collections.abc import Sequence
from typing import Any
from weakref import WeakSet

import trio
from libp2p.abc import INetStream
from libp2p.custom_types import TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.host.exceptions import StreamFailure
from libp2p.io.abc import ReadWriteCloser
from libp2p.network.auto_connector import AutoConnector
from libp2p.network.config import ConnectionConfig, RetryConfig
from libp2p.network.connection import swarm_connection
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.transport.exceptions import OpenConnectionError
from libp2p.transport.tcp.tcp import TCP
from multiaddr import Multiaddr

from node.admission.rate_limits import ConcurrencyLimit, TokenBuckets
from node.config.limits import Limits
from node.transport.libp2p import negotiation
from node.transport.libp2p.net_stream import GuardedNetStream
from node.transport.libp2p.quotas import Quotas, is_loopback, rate_limit_address, rate_limit_key

MINUTE = 60.0  # seconds
# A peer needs one connection, and a second one for a moment when both sides dial.
CONNECTIONS_PER_PEER = 4
# Per address; a handshake costs 5 ms before the peer's id is known. A minute's worth may come at
# once, as after a power cut.
HANDSHAKES_PER_MINUTE = 60.0
# Connections of one address that are being encrypted; one that stalls holds its slot only briefly.
UPGRADES_PER_ADDRESS = 16
# Encryption takes 0.25 s of work and some round trips; an idle socket may hold a slot this long.
UPGRADE_SECONDS = 4.0
# Two round trips to a peer under load. Less than the 15 s in which `open` must succeed.
NEGOTIATION_SECONDS = 10.0

# A silent connection is probed after 30 s and ends 30 s later; unanswered bytes end it after 60 s.
DEAD_PEER_OPTIONS = {
    "TCP_KEEPIDLE": 30,
    "TCP_KEEPINTVL": 10,
    "TCP_KEEPCNT": 3,
    "TCP_USER_TIMEOUT": 60_000,
}
# The protocols that name a host, and the addresses that each stands for.
NAME_FAMILIES = {
    "dns": trio.socket.AF_UNSPEC,
    "dns4": trio.socket.AF_INET,
    "dns6": trio.socket.AF_INET6,
}

_log = logging.getLogger(__name__)

# It logs by `logging.debug()`, which gives the root logger of the application a handler if it has
# none. A logger has the same methods, and leaves the root alone.
swarm_connection.logging = logging.getLogger(swarm_connection.__name__)
# It builds its own streams, and takes no other class.
swarm_connection.NetStream = GuardedNetStream


def connection_config(limits: Limits) -> ConnectionConfig:
    """Return the limits of a host.

    libp2p's health checks stay off: they end connections by /ipfs/ping, which a peer need not
    serve (specification 7.1). `node.transport.libp2p.muxing.yamux` notices a peer that hangs.
    """
    return ConnectionConfig(
        max_connections=limits.max_connections,
        max_connections_per_peer=CONNECTIONS_PER_PEER,
        min_connections=0,
        low_watermark=0,
        high_watermark=limits.max_connections,
        inbound_upgrade_timeout=UPGRADE_SECONDS,
        inbound_stream_protocol_negotiation_timeout=NEGOTIATION_SECONDS,
        outbound_stream_protocol_negotiation_timeout=NEGOTIATION_SECONDS,
    )


class GuardedTCP(TCP):  # type: ignore[misc]  # libp2p is untyped here
    """Resolves names as the system does, and closes the sockets that a stopping host leaks.

    libp2p asks the name servers only, so that it knows neither localhost nor /etc/hosts.
    """

    def __init__(self) -> None:
        super().__init__()
        self._dialled: WeakSet[RawConnection] = WeakSet()

    async def dial(self, maddr: Multiaddr) -> RawConnection:
        """Dial, and remember the connection for as long as anything else refers to it."""
        *alternatives, last = await resolve(maddr)
        for address in alternatives:
            with contextlib.suppress(OpenConnectionError):
                return await self._dial_resolved_address(address)
        return await self._dial_resolved_address(last)

    async def _dial_resolved_address(self, maddr: Multiaddr) -> RawConnection:
        connection = await super().dial(maddr)
        end_when_dead(connection.stream.stream)
        self._dialled.add(connection)
        return connection

    def close_sockets(self) -> None:
        """Close the sockets of all dialled connections; those that are closed stay so."""
        for connection in self._dialled:
            connection.stream.stream.socket.close()


def end_when_dead(stream: trio.SocketStream) -> None:
    """End a connection whose peer does not answer any more, as after a loss of power.

    TCP alone may take a quarter of an hour. Until then the peer, once it is started again, is told
    that another instance of its key is connected (specification 7.4), and ends.
    """
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in DEAD_PEER_OPTIONS.items():
        if hasattr(socket, name):  # not every system has each of them
            stream.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


async def resolve(maddr: Multiaddr) -> list[Multiaddr]:
    """Return an address with its name replaced by each IP address; itself if it has no name.

    Raises OpenConnectionError for a name that the system's resolver does not know. `/dnsaddr` is
    left to libp2p.
    """
    _, protocol, name, rest = str(maddr).split("/", 3)
    if protocol not in NAME_FAMILIES:
        return [maddr]
    try:
        infos = await trio.socket.getaddrinfo(
            name, None, NAME_FAMILIES[protocol], trio.socket.SOCK_STREAM
        )
    except OSError as error:
        raise OpenConnectionError(f"{name} cannot be resolved: {error}") from error
    hosts = dict.fromkeys((family, str(host[0])) for family, _, _, _, host in infos)
    kinds = {trio.socket.AF_INET: "ip4", trio.socket.AF_INET6: "ip6"}
    return [Multiaddr(f"/{kinds[family]}/{host}/{rest}") for family, host in hosts]


class _NoAutoConnector(AutoConnector):  # type: ignore[misc]
    """Guards against dialling any address that a peer sends: the node decides whom to dial."""

    async def maybe_connect(self) -> None:
        """Dial nobody."""


class GuardedSwarm(Swarm):  # type: ignore[misc]
    """A swarm that releases inbound slots, and limits what one address may hold of them.

    An inbound connection passes these states. Each refusal closes it and is counted.

    | state       | next        | refused when                                               |
    | ----------- | ----------- | ---------------------------------------------------------- |
    | accepted    | admitted    | its address has all its connections or handshakes (a rate) |
    | admitted    | upgraded    | its address has all its pending upgrades, or takes too long |
    | upgraded    | open        | its peer has all its connections                           |
    | open        | closed      | -                                                          |
    """

    def __init__(self, quotas: Quotas, *args: Any) -> None:
        limits = quotas.limits
        super().__init__(
            *args,
            retry_config=RetryConfig(max_retries=0),  # the node's dialer has a back-off of its own
            connection_config=connection_config(limits),
        )
        self.auto_connector = _NoAutoConnector(self)
        # libp2p's own limiter would give all connections to strangers.
        self._inbound_limiter = trio.CapacityLimiter(limits.inbound_connections)
        self._counts = quotas.counts
        self._remote_connections = ConcurrencyLimit(limits.max_connections_per_address)
        self._loopback_connections = ConcurrencyLimit(limits.local_connections)
        self._pending_upgrades = ConcurrencyLimit(UPGRADES_PER_ADDRESS)
        rate = HANDSHAKES_PER_MINUTE / MINUTE
        self._handshakes = TokenBuckets(rate, MINUTE, trio.current_time)

    async def _do_handle_inbound_connection(
        self, connection: ReadWriteCloser, maddr: Multiaddr, failure_event: object
    ) -> None:
        """Serve a connection until it ends; a refused one ends at once.

        libp2p's own waits for the swarm's end, so that it accepts 250 connections in its life.
        300 idle sockets keep everyone out for the length of the upgrade timeout. And one address
        could hold every connection with a peer id for each, as keys are free to make.
        """
        address = rate_limit_address((connection.get_remote_address() or ("", 0))[0])
        loopback = is_loopback(address)
        limit = self._loopback_connections if loopback else self._remote_connections
        try:
            end_when_dead(connection.stream)
            with limit.slot(address) as held:
                if held and await self._is_admitted(connection, address, loopback):
                    await self._serve_connection(connection, maddr, address)
                else:
                    self._counts["connections-refused"] += 1
        except Exception as failure:
            _log.debug("inbound connection from %s failed: %r", address, failure)
        finally:
            await connection.close()

    async def _is_admitted(self, connection: ReadWriteCloser, address: str, loopback: bool) -> bool:
        if not loopback and self._handshakes.try_take(address):
            return False
        remote = self._build_remote_multiaddr(connection)
        return remote is None or bool(await self.connection_gate.is_allowed(remote))

    async def _serve_connection(
        self, connection: ReadWriteCloser, maddr: Multiaddr, address: str
    ) -> None:
        with self._pending_upgrades.slot(address) as held:
            if not held:
                self._counts["connections-refused"] += 1
                return
            muxed = await self.upgrade_inbound_raw_conn(RawConnection(connection, False), maddr)
        if len(self.get_connections(muxed.peer_id)) > CONNECTIONS_PER_PEER:
            self._counts["connections-refused"] += 1
            await muxed.close()
        await muxed.event_closed.wait()

    async def notify_opened_stream(self, stream: INetStream) -> None:
        """Notify nobody: libp2p starts a task for each part of a host, and none does anything."""

    async def notify_closed_stream(self, stream: INetStream) -> None:
        """Notify nobody, as above."""


class GuardedHost(BasicHost):  # type: ignore[misc]
    """A host on which an inbound stream can end nothing but itself."""

    def __init__(self, quotas: Quotas, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._quotas = quotas
        self._open_streams = ConcurrencyLimit(quotas.limits.max_streams_per_peer)

    async def new_stream(self, peer_id: ID, protocol_ids: Sequence[TProtocol]) -> INetStream:
        """Open a stream with the first of the protocols that the peer speaks.

        Raises StreamFailure and what a swarm raises.
        """
        stream = await self._network.new_stream(peer_id)
        try:
            with trio.fail_after(NEGOTIATION_SECONDS):
                stream.set_protocol(await negotiation.select(stream, protocol_ids))
        except BaseException as failure:
            with trio.CancelScope(shield=True):
                await stream.reset()
            if not isinstance(failure, Exception):
                raise
            raise StreamFailure(f"no protocol of a stream to {peer_id}: {failure!r}") from failure
        return stream

    async def new_stream_at_once(self, peer_id: ID, protocol: TProtocol) -> INetStream:
        """Open a stream without waiting for the peer, if it has said that it speaks the protocol.

        Raises as `new_stream` does.
        """
        if not self.peerstore.supports_protocols(peer_id, [protocol]):
            return await self.new_stream(peer_id, [protocol])
        stream = await self._network.new_stream(peer_id)
        negotiation.assume(stream, protocol)
        stream.set_protocol(protocol)
        return stream

    async def _swarm_stream_handler(self, stream: INetStream) -> None:
        """Negotiate and serve one inbound stream.

        Guards against an exception in a handler, a multistream message that is not UTF-8, and
        everything else that raises between a stream's first byte and its end.
        """
        connection = stream.muxed_conn
        with self._open_streams.slot(str(connection.peer_id)) as held:
            try:
                if not held or self._quotas.streams.try_take(rate_limit_key(connection)):
                    self._quotas.counts["streams-refused"] += 1
                    await stream.reset()
                else:
                    await self._serve(stream)
            except Exception as failure:
                _log.debug("stream from %s failed: %r", connection.peer_id, failure)
                await stream.reset()  # never raises in libp2p

    async def _serve(self, stream: INetStream) -> None:
        handlers = self.multiselect.handlers
        with trio.fail_after(NEGOTIATION_SECONDS):
            protocol = await negotiation.respond(stream, handlers)
        stream.set_protocol(protocol)
        handler = handlers[protocol]
        if handler is None:
            raise StreamFailure(f"no handler of {protocol}")
        await handler(stream)
