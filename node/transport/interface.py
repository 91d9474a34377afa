"""The port between a node and its network: gossip, streams and who is connected.

Two implementations: `node.transport.libp2p.transport` (specification 7.1, 7.2) and its twin for
tests, `tests.support.memory_transport.network`. Everything is used from one asyncio loop unless it
says otherwise. A peer is its libp2p peer id in base58 ("12D3KooW…"), an address a multiaddr that
ends in "/p2p/<peer>".

Three words say who is charged for what a peer costs. Peer ids are free to make, so limits per peer
id would not bind an attacker:

- `rate_limit_key`: what token buckets are kept by. The remote IP address (IPv6: the /64 network),
  or the peer id for connections on loopback.
- `slot_key`: what concurrent requests are counted by. The peer id of a member of the roster, as
  those ids are not free to make; else the `rate_limit_key`.
- `source`: who is charged for a task, with a share of the queue and of the open tasks. It is the
  `slot_key` of the peer that submitted or forwarded the task.
"""

import hashlib
from collections.abc import Sequence
from enum import Enum
from typing import Protocol

from node.admission.peer_score import PeerAction
from protocol.wire.messages import Message
from schemas.errors import HeliumError

# A repeated gossip message is dropped for this long; the usual value of GossipSub.
SEEN_SECONDS = 120.0
# What a transport counts of its traffic, by these names: bytes after the handshakes, and gossip
# messages that it dropped because it had seen them.
BYTES_IN, BYTES_OUT, MESSAGES_REPEATED = "bytes-in", "bytes-out", "messages-repeated"


def message_id(topic: str, payload: bytes) -> bytes:
    """Return a gossiped message's id, 20 bytes (specification 7.2)."""
    return hashlib.sha256(topic.encode() + b"\0" + payload).digest()[:20]


def topics(network: str) -> tuple[str, str]:
    """Return the gossip topics of a network: for tasks, for votes and withdrawals (7.2)."""
    return f"/helium/2/{network}/tasks", f"/helium/2/{network}/votes"


def is_task_topic(topic: str) -> bool:
    """Return whether the messages on a topic are tasks, which have a rate limit of their own."""
    return topic.endswith("/tasks")


class ValidationResult(Enum):
    """The result of validating a gossip message (GossipSub 1.1).

    `ACCEPT` delivers and forwards it, `IGNORE` drops it, and `REJECT` drops it and reports the peer
    that forwarded it.
    """

    ACCEPT = "accept"
    IGNORE = "ignore"
    REJECT = "reject"


class StreamClosed(HeliumError, ConnectionError):
    """The stream is closed: by the end of the data, a reset from either side, or a timeout."""


class Connection(Protocol):
    """A connection with a peer, as far as a node needs to know it."""

    @property
    def closed(self) -> bool:
        """Whether the connection has ended."""


class Stream(Protocol):
    """An ordered two-way stream of bytes to a peer, for one reader and one writer at a time."""

    @property
    def peer(self) -> str:
        """The peer id of the other side."""

    @property
    def rate_limit_key(self) -> str:
        """The key of the token buckets that the stream is charged to."""

    @property
    def connection(self) -> Connection:
        """The connection that carries the stream."""

    async def read_exactly(self, n: int) -> bytes:
        """Return exactly `n` bytes. Raises `StreamClosed`, and the bytes read by then are lost."""

    async def write(self, payload: bytes) -> None:
        """Send all of `payload`, waiting for a slow reader. Raises `StreamClosed`."""

    async def close_write(self) -> None:
        """Close the outbound direction; reading goes on. Raises `StreamClosed`."""

    async def close(self) -> None:
        """Close both directions; written bytes are still delivered. Never raises."""

    async def reset(self) -> None:
        """Abort both directions; the other side gets `StreamClosed`. Never raises."""

    async def wait_closed(self) -> None:
        """Wait until the other side has reset the stream or disconnected. Never raises.

        It does not return at a half-close: the other side may still be reading.
        """


class Listener(Protocol):
    """The callbacks of a transport; all but `validate` are called on the asyncio loop."""

    def validate(self, topic: str, payload: bytes) -> tuple[ValidationResult, Message | None]:
        """Parse and validate what a peer forwarded; return the message if it is accepted.

        Synchronous, thread-safe, quick, and never raises.
        """

    def on_gossip(self, peer: str, message: Message) -> None:
        """Handle an accepted message that `peer` forwarded; own messages do not come back."""

    async def serve(self, protocol: str, stream: Stream) -> None:
        """Serve one inbound stream. The transport closes it on return and resets it on errors."""

    def connected(self, peer: str) -> None:
        """Handle the first connection of a peer."""

    def disconnected(self, peer: str) -> None:
        """Handle the end of a peer's last connection."""


class Transport(Protocol):
    """The network as one node sees it, from `start` to `stop`."""

    @property
    def peer(self) -> str:
        """The peer id of this node."""

    @property
    def addresses(self) -> tuple[str, ...]:
        """The multiaddrs of this node, each with "/p2p/<peer>"; known after `start`."""

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

    async def stop(self) -> None:
        """Cancel all handlers, reset all streams and free the port."""

    async def dial(self, address: str) -> str:
        """Connect to a multiaddr with "/p2p/<peer>"; return the peer. Raises `ConnectionError`."""

    def peers(self) -> frozenset[str]:
        """Return the peers that are connected now."""

    def rate_limit_key(self, peer: str) -> str:
        """Return the key of the token buckets that a connected peer is charged to."""

    def report(self, peer: str, action: PeerAction) -> None:
        """Report a peer for what no honest peer does; rejected gossip is reported already.

        Too many reports ban the peer for a while and close its connections.
        """

    async def publish(self, topic: str, payload: bytes) -> None:
        """Gossip `payload`. Never raises.

        On a joined topic, a repetition within `SEEN_SECONDS` is dropped. On a topic of `fanout`, it
        is sent again, to the subscribers that are connected by then.
        """

    async def open(
        self, peer: str, protocol: str, request: bytes = b"", *, half_close: bool = False
    ) -> Stream:
        """Open a stream to a connected peer and send `request`, with a timeout.

        With `half_close`, the outbound direction is closed then. One call for all of it costs less
        than one for each. Raises `ConnectionError`; if the peer does not speak the protocol, the
        first read may raise it.
        """
