"""What keeps one bad peer from harming a py-libp2p 0.8.1 host; each guard names what it is against.

Every class here narrows one of libp2p's own. The regression tests are in
`tests/node/transport/test_guards.py`, one for each guard.
"""

import logging
from collections import Counter
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
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID, Yamux
from libp2p.transport.tcp.tcp import TCP
from multiaddr import Multiaddr

YAMUX = TProtocol(PROTOCOL_ID)
MAX_CONNECTIONS = 300
PENDING_PER_ADDRESS = 16  # upgrades at a time from one IP address; the whole budget is 300
UPGRADE_SECONDS = 4.0
NEGOTIATION_SECONDS = 10.0
STALLED_SECONDS = 10.0  # a frame that takes longer to write means a dead or hostile reader
UNREAD_BYTES = 32 * 1024 * 1024  # per stream; twice the largest window that Yamux may grant
STREAMS_PER_PEER = 64  # inbound, served at the same time
PING_EVERY = 10.0  # seconds; a hung peer is gone after this and `PING_SECONDS`
PING_SECONDS = 5.0

_log = logging.getLogger(__name__)


def connection_config() -> ConnectionConfig:
    """Return the limits of a host.

    A hung peer (stopped, not dead) is noticed only by pings, which libp2p does not send by default.
    """
    return ConnectionConfig(
        max_connections=MAX_CONNECTIONS,
        min_connections=0,
        low_watermark=0,
        high_watermark=MAX_CONNECTIONS,
        inbound_upgrade_timeout=UPGRADE_SECONDS,
        inbound_stream_protocol_negotiation_timeout=NEGOTIATION_SECONDS,
        outbound_stream_protocol_negotiation_timeout=NEGOTIATION_SECONDS,
        enable_health_monitoring=True,
        health_initial_delay=PING_EVERY / 2,
        health_warmup_window=PING_EVERY / 2,
        health_check_interval=PING_EVERY,
        ping_timeout=PING_SECONDS,
        abort_connection_on_ping_failure=True,
    )


class BoundedBuffer(bytearray):
    """Against peers that ignore the receive window: libp2p only warns, and buffers on."""

    def extend(self, more: Any) -> None:
        """Append, or raise `BufferError`; the muxer then closes the stream for reading."""
        if len(self) + len(more) > UNREAD_BYTES:
            raise BufferError(f"over {UNREAD_BYTES} bytes wait unread")
        super().extend(more)


class _Buffers(dict[int, bytearray]):
    def __setitem__(self, stream: int, buffer: bytearray) -> None:
        super().__setitem__(stream, BoundedBuffer(buffer))


class GuardedYamux(Yamux):  # type: ignore[misc]  # libp2p is untyped here
    """A muxer with bounded buffers, whose frames are written whole or end the connection."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.stream_buffers = _Buffers()

    async def start(self) -> None:
        """Run the muxer; an exception ends this connection instead of the host."""
        try:
            await super().start()
        except Exception as failure:
            _log.warning("muxer of %s failed: %r", self.peer_id, failure)
            await self._cleanup_on_error()

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

    def __init__(self) -> None:
        super().__init__({YAMUX: GuardedYamux})

    async def new_conn(self, conn: ISecureConn, peer_id: ID) -> GuardedYamux:
        """Negotiate Yamux and build a guarded one."""
        protocol, _ = await self._selector.select(conn, conn.is_initiator, self.negotiate_timeout)
        muxed = GuardedYamux(conn, peer_id, is_initiator=conn.is_initiator)
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
    """A swarm that gives inbound slots back, and gives one address only some of them."""

    def __init__(self, *args: Any) -> None:
        super().__init__(
            *args,
            retry_config=RetryConfig(max_retries=0),
            connection_config=connection_config(),
        )
        self.auto_connector = _NoAutoConnector(self)
        self._pending: Counter[str] = Counter()

    async def _do_handle_inbound_connection(
        self, connection: ReadWriteCloser, maddr: Multiaddr, failure_event: object
    ) -> None:
        """Serve until the connection's end.

        libp2p's own waits for the swarm's end, so that it accepts 250 connections in its life; and
        300 idle sockets keep everyone out for the length of the upgrade timeout.
        """
        remote = self._build_remote_multiaddr(connection)
        host = (connection.get_remote_address() or ("", 0))[0]
        if self._pending[host] >= PENDING_PER_ADDRESS or (
            remote is not None and not await self.connection_gate.is_allowed(remote)
        ):
            await connection.close()
            return
        try:
            muxed = await self._upgrade(connection, maddr, host)
            await muxed.event_closed.wait()
        except Exception as failure:
            _log.debug("inbound connection from %s failed: %r", host, failure)
        finally:
            await connection.close()

    async def _upgrade(self, connection: ReadWriteCloser, maddr: Multiaddr, host: str) -> Any:
        self._pending[host] += 1
        try:
            return await self.upgrade_inbound_raw_conn(RawConnection(connection, False), maddr)
        finally:
            self._pending[host] -= 1
            if not self._pending[host]:
                del self._pending[host]


class GuardedHost(BasicHost):  # type: ignore[misc]
    """A host on which no inbound stream can end anything but itself."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._inbound: Counter[str] = Counter()

    async def _swarm_stream_handler(self, stream: INetStream) -> None:
        """Negotiate and serve one inbound stream.

        Against: an exception in a handler, a multistream message that is not UTF-8, and everything
        else that raises between a stream's first byte and its end.
        """
        peer = str(stream.muxed_conn.peer_id)
        self._inbound[peer] += 1
        try:
            if self._inbound[peer] > STREAMS_PER_PEER:
                await stream.reset()
            else:
                await super()._swarm_stream_handler(stream)
        except Exception as failure:
            _log.debug("stream from %s failed: %r", peer, failure)
            await stream.reset()  # never raises in libp2p
        finally:
            self._inbound[peer] -= 1
            if not self._inbound[peer]:
                del self._inbound[peer]
