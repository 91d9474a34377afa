"""What keeps one bad peer from harming a py-libp2p 0.8.1 host; each guard names what it is against.

Every class here narrows one of libp2p's own. The regression tests are in
`tests/node/transport/libp2p/test_swarm.py`, one for each guard.
"""

import logging
from typing import Any
from weakref import WeakSet

import trio
from libp2p.abc import INetStream, ISecureConn
from libp2p.custom_types import TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.io.abc import ReadWriteCloser
from libp2p.network.auto_connector import AutoConnector
from libp2p.network.config import ConnectionConfig, RetryConfig
from libp2p.network.connection.exceptions import RawConnError
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.stream_muxer.muxer_multistream import MuxerMultistream
from libp2p.stream_muxer.yamux import yamux
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID, Yamux
from libp2p.transport.tcp.tcp import TCP
from multiaddr import Multiaddr

from node.admission.rate_limits import TokenBuckets
from node.config.limits import Limits
from node.transport.libp2p.quotas import MeteredSession, Quotas, rate_limit_key
from node.transport.libp2p.slots import Tally, is_loopback, rate_limit_address

YAMUX = TProtocol(PROTOCOL_ID)
MINUTE = 60.0  # seconds
NEGOTIATION_SECONDS = 10.0  # two round trips on a loaded peer; less than the 15 s of an `open`
STALLED_SECONDS = 10.0  # a frame that takes longer to write means a dead or hostile reader
WINDOW_BYTES = 1024 * 1024  # per stream, the most that Yamux grants: 20 MB/s at 50 ms round trip
UNREAD_BYTES = 2 * WINDOW_BYTES  # per stream; libp2p's windows are not exact
PING_EVERY = 10.0  # seconds; a hung peer is gone after this and `PING_SECONDS`
PING_SECONDS = 5.0  # for one answer; 0.04 s measured at a busy peer, so that five mean a hung one

_log = logging.getLogger(__name__)


def connection_config(limits: Limits) -> ConnectionConfig:
    """Return the limits of a host.

    A hung peer (stopped, not dead) is noticed only by pings, which libp2p does not send by default.
    """
    return ConnectionConfig(
        max_connections=limits.max_connections,
        max_connections_per_peer=limits.peer_connections,
        min_connections=0,
        low_watermark=0,
        high_watermark=limits.max_connections,
        inbound_upgrade_timeout=limits.upgrade_seconds,
        inbound_stream_protocol_negotiation_timeout=NEGOTIATION_SECONDS,
        outbound_stream_protocol_negotiation_timeout=NEGOTIATION_SECONDS,
        enable_health_monitoring=True,
        health_initial_delay=PING_EVERY / 2,
        health_warmup_window=PING_EVERY / 2,
        health_check_interval=PING_EVERY,
        ping_timeout=PING_SECONDS,
        abort_connection_on_ping_failure=True,
    )


class Overrun(trio.TooSlowError):
    """More waits unread than was granted; of all that a read may raise, Yamux closes for this."""


class BoundedBuffer(bytearray):
    """Against peers that ignore the receive window: libp2p only warns, and buffers on."""

    def extend(self, more: Any) -> None:
        """Append, or raise `Overrun`."""
        if len(self) + len(more) > UNREAD_BYTES:
            raise Overrun(f"over {UNREAD_BYTES} bytes wait unread")
        super().extend(more)


class _Buffers(dict[int, bytearray]):
    def __setitem__(self, stream: int, buffer: bytearray) -> None:
        super().__setitem__(stream, BoundedBuffer(buffer))


class GuardedYamux(Yamux):  # type: ignore[misc]  # libp2p is untyped here
    """A muxer with bounded buffers, whose frames are written whole or end the connection."""

    def __init__(self, quotas: Quotas, conn: ISecureConn, peer: ID) -> None:
        super().__init__(conn, peer, is_initiator=conn.is_initiator)
        self.stream_buffers = _Buffers()
        self._quotas = quotas
        self._scope = trio.CancelScope()
        self.rate_limit_key = rate_limit_key(self)
        self.secured_conn = MeteredSession(conn, self._pay)
        quotas.unread.add(self)

    async def start(self) -> None:
        """Run the muxer; an exception ends this connection instead of the host."""
        try:
            with self._scope:
                await super().start()
            if self._scope.cancelled_caught:
                await self._cleanup_on_error()
        except Exception as failure:
            _log.warning("muxer of %s failed: %r", self.peer_id, failure)
            await self._cleanup_on_error()
        finally:
            self._wake_readers()

    def _wake_readers(self) -> None:
        """Against a host that stops, whose muxers libp2p cancels without a word to their streams.

        What is being opened is shielded, and would wait out the negotiation.
        """
        for identity, stream in self.streams.items():
            stream.closed = stream.recv_closed = stream.reset_received = True
            self.stream_events[identity].set()

    async def _pay(self, count: float) -> None:
        self._quotas.unread.came(int(count))
        await self._quotas.pay(self._quotas.bytes, self.rate_limit_key, count, "reads-slowed")

    def unread(self) -> int:
        """Return how many bytes wait unread."""
        return sum(map(len, self.stream_buffers.values()))

    def close_soon(self) -> None:
        """End the connection, soon."""
        self._scope.cancel()

    async def _write_frame(self, frame: bytes) -> None:
        """Write one frame, shielded: half a frame would garble all streams of the connection."""
        with trio.CancelScope(shield=True) as scope:
            scope.deadline = trio.current_time() + STALLED_SECONDS
            await super()._write_frame(frame)
        if scope.cancelled_caught:
            self.event_shutting_down.set()
            await self.secured_conn.close()
            raise RawConnError("the peer does not read")


class GuardedMuxers(MuxerMultistream):  # type: ignore[misc]
    """Makes `GuardedYamux` the muxer: libp2p's own builds its `Yamux` whatever it was given."""

    def __init__(self, quotas: Quotas) -> None:
        super().__init__({YAMUX: GuardedYamux})
        self._quotas = quotas
        yamux.MAX_WINDOW_SIZE = WINDOW_BYTES  # of a frame's body too; 16 MiB is libp2p's

    async def new_conn(self, conn: ISecureConn, peer_id: ID) -> GuardedYamux:
        """Negotiate Yamux and build a guarded one."""
        protocol, _ = await self._selector.select(conn, conn.is_initiator, self.negotiate_timeout)
        muxed = GuardedYamux(self._quotas, conn, peer_id)
        self._annotate_connection(muxed, conn, protocol)
        return muxed


class ClosingTCP(TCP):  # type: ignore[misc]
    """Against sockets that leak when a host stops while a connection is closing."""

    def __init__(self) -> None:
        super().__init__()
        self._dialled: WeakSet[RawConnection] = WeakSet()

    async def dial(self, maddr: Multiaddr) -> RawConnection:
        """Dial, and remember the connection for as long as anything else does."""
        connection = await super().dial(maddr)
        self._dialled.add(connection)
        return connection

    def close_sockets(self) -> None:
        """Close what was dialled; closing again what is closed does nothing."""
        for connection in self._dialled:
            connection.stream.stream.socket.close()


class _NoAutoConnector(AutoConnector):  # type: ignore[misc]
    """Against dialling whatever addresses peers have told: whom to dial is the node's decision."""

    async def maybe_connect(self) -> None:
        """Dial nobody."""


class GuardedSwarm(Swarm):  # type: ignore[misc]
    """A swarm that gives inbound slots back, and gives strangers only some of its connections."""

    def __init__(self, quotas: Quotas, *args: Any) -> None:
        limits = quotas.limits
        super().__init__(
            *args,
            retry_config=RetryConfig(max_retries=0),
            connection_config=connection_config(limits),
        )
        self.auto_connector = _NoAutoConnector(self)
        # libp2p's own: all connections
        self._inbound_limiter = trio.CapacityLimiter(limits.inbound_connections)
        self._limits, self._counts = limits, quotas.counts
        self._held, self._pending = Tally(), Tally()
        a_second = limits.address_handshakes / MINUTE
        self._handshakes = TokenBuckets(a_second, MINUTE, trio.current_time)

    async def _do_handle_inbound_connection(
        self, connection: ReadWriteCloser, maddr: Multiaddr, failure_event: object
    ) -> None:
        """Serve until the connection's end, which is at once for an origin that has enough.

        libp2p's own waits for the swarm's end, so that it accepts 250 connections in its life;
        300 idle sockets keep everyone out for the length of the upgrade timeout; and keys are free
        to make, so that one address could hold every connection with a peer id for each.
        """
        source = rate_limit_address((connection.get_remote_address() or ("", 0))[0])
        try:
            with self._held.one_more(source) as held:
                if await self._welcome(connection, source, held):
                    await self._serve_connection(connection, maddr, source)
                else:
                    self._counts["connections-refused"] += 1
        except Exception as failure:
            _log.debug("inbound connection from %s failed: %r", source, failure)
        finally:
            await connection.close()

    async def _welcome(self, connection: ReadWriteCloser, source: str, held: int) -> bool:
        near, limits = is_loopback(source), self._limits
        if held > (limits.local_connections if near else limits.address_connections):
            return False
        if not near and self._handshakes.try_take(source):
            return False
        remote = self._build_remote_multiaddr(connection)
        return remote is None or bool(await self.connection_gate.is_allowed(remote))

    async def _serve_connection(
        self, connection: ReadWriteCloser, maddr: Multiaddr, source: str
    ) -> None:
        with self._pending.one_more(source) as pending:
            if pending > self._limits.address_upgrades:
                self._counts["connections-refused"] += 1
                return
            raw = RawConnection(connection, False)
            muxed = await self.upgrade_inbound_raw_conn(raw, maddr)
        if len(self.get_connections(muxed.peer_id)) > self._limits.peer_connections:
            self._counts["connections-refused"] += 1
            await muxed.close()
        await muxed.event_closed.wait()


class GuardedHost(BasicHost):  # type: ignore[misc]
    """A host on which no inbound stream can end anything but itself."""

    def __init__(self, quotas: Quotas, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._quotas = quotas
        self._inbound = Tally()

    async def _swarm_stream_handler(self, stream: INetStream) -> None:
        """Negotiate and serve one inbound stream.

        Against: an exception in a handler, a multistream message that is not UTF-8, and everything
        else that raises between a stream's first byte and its end.
        """
        connection = stream.muxed_conn
        peer = str(connection.peer_id)
        with self._inbound.one_more(peer) as inbound:
            try:
                most = self._quotas.limits.peer_open_streams
                if inbound > most or self._quotas.streams.try_take(rate_limit_key(connection)):
                    self._quotas.counts["streams-refused"] += 1
                    await stream.reset()
                else:
                    await super()._swarm_stream_handler(stream)
            except Exception as failure:
                _log.debug("stream from %s failed: %r", peer, failure)
                await stream.reset()  # never raises in libp2p
