"""Limits: what peers may cost this node. They are the table `[limits]` of the TOML file.

The defaults suit a member of a network of some hundred nodes. Limits that no operator has to tune
are constants in the modules that apply them. "Per address" means one IPv4 address or one IPv6 /64,
because peer ids cost nothing; on loopback, where all peers share the address, it means per peer.
"""

from dataclasses import dataclass

from node.config.setting import number, whole_number

# The largest value of a rate. It is in effect no limit.
_UNLIMITED = 1_000_000


@dataclass(frozen=True)
class Limits:
    """The limits that an operator can set."""

    max_connections: int = whole_number(
        300,
        4,
        100_000,
        "connections",
        "Connections at the same time. Together with open files they must stay below the "
        "process's limit of file descriptors, which is usually 1,024.",
        "max_connections",
    )
    max_connections_per_address: int = whole_number(
        32,
        1,
        100_000,
        "connections",
        "Connections from one address. The default leaves room for several nodes behind one "
        "router. Loopback may use half of max_connections.",
        "address_connections",
    )
    max_streams_per_peer: int = whole_number(
        64,
        1,
        100_000,
        "streams",
        "Streams that one peer may have open. Each can hold up to 2 MiB of unread data; an honest "
        "peer needs a few.",
        "peer_open_streams",
    )
    streams_per_second: float = number(
        100.0,
        1,
        _UNLIMITED,
        "per second",
        "New streams per address. Each costs about 2 ms. Bursts of ten seconds' worth are allowed.",
        "peer_streams",
    )
    messages_per_second: float = number(
        100.0,
        1,
        _UNLIMITED,
        "per second",
        "Gossip messages read per address. Each costs about 1 ms. Bursts of ten seconds' worth are "
        "allowed.",
        "peer_messages",
    )
    bytes_per_second: int = whole_number(
        32 * 1024 * 1024,
        65_536,
        999_999_999,
        "bytes per second",
        "Bytes read per address, and as many written to it. Each frame adds 32 KiB to the "
        "count. At the default either direction costs a sixth of a processor.",
        "peer_bytes",
    )
    submissions_per_minute: float = number(
        600.0,
        1,
        _UNLIMITED,
        "per minute",
        "Tasks submitted or gossiped per address. Each costs about 20 ms. Bursts of ten seconds' "
        "worth are allowed.",
        "peer_submissions",
    )
    max_open_tasks: int = whole_number(
        1000,
        2,
        1_000_000,
        "tasks",
        "Tasks that have not ended. Each takes up to 30 kB of memory with its votes. Roster "
        "members may fill the whole limit; any other address only half.",
        "max_open",
    )
    max_queued_tasks: int = whole_number(
        64,
        1,
        10_000,
        "tasks",
        "Tasks that wait for the executor; as many more may wait for their inputs. When the queue "
        "is full, the node picks the source whose queued tasks take most seconds. It abstains from "
        "that source's newest task as busy.",
        "max_queue",
    )
    ban_points: float = number(
        20.0,
        1,
        _UNLIMITED,
        "points",
        "Points at which a peer is banned. A message that no honest peer sends costs one point; a "
        "point is forgiven in ten seconds.",
        "ban_points",
    )
    ban_seconds: float = number(
        300.0,
        1,
        _UNLIMITED,
        "seconds",
        "Duration of a ban. A peer that has been repaired is accepted again afterwards.",
        "ban_seconds",
    )
    idle_seconds: float = number(
        600.0,
        1,
        _UNLIMITED,
        "seconds",
        "Time without a request after which an inbound peer is disconnected. A node "
        "that reads this node's feed always has a request here.",
        "idle_seconds",
    )

    @property
    def inbound_connections(self) -> int:
        """Three quarters of all connections, so that inbound peers never block dialling."""
        return max(1, self.max_connections * 3 // 4)

    @property
    def local_connections(self) -> int:
        """Half of all connections, for loopback, which all nodes of a testnet share."""
        return max(1, self.max_connections // 2)
