"""What one peer may cost this node: rates, sizes and counts."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """The settings that bound what peers cost a node; reasons in `node.config.bounds`."""

    max_connections: int = 300
    address_connections: int = 32
    address_handshakes: float = 60  # a minute
    peer_connections: int = 4
    peer_messages: float = 100  # a second
    peer_bytes: float = 32 * 1024 * 1024  # a second
    peer_streams: float = 100  # a second
    peer_open_streams: int = 64
    peer_submissions: float = 600  # a minute
    max_open: int = 1000
    peer_queue: int = 4096
    peer_queue_bytes: int = 2 * 1024 * 1024
    address_upgrades: int = 16
    upgrade_seconds: float = 4
    ban_points: float = 20
    ban_seconds: float = 300
    forgiven_points: float = 0.1  # a second
    idle_seconds: float = 600
    reader_bytes: float = 8192  # a second
    peer_watches: int = 48
    max_watches: int = 1024
    peer_reads: int = 8
    max_reads: int = 64
    peer_uploads: int = 4
    max_uploads: int = 32
    peer_feeds: int = 2
    max_feeds: int = 32

    @property
    def inbound_connections(self) -> int:
        """Three quarters of all, so that strangers never take what dialling needs."""
        return max(1, self.max_connections * 3 // 4)

    @property
    def local_connections(self) -> int:
        """Half of all from loopback, which all peers and clients of a testnet share."""
        return max(1, self.max_connections // 2)
