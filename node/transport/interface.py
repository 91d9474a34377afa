"""The port between a node and its network: gossip, streams and who is connected.

Two implementations: `node.transport.libp2p.transport` (specification section 7) and its twin for
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

SEEN_SECONDS = 120.0  # for so long a repeat of a gossiped message is dropped


def message_id(topic: str, payload: bytes) -> bytes:
    """Return a gossiped message's id, 20 bytes (specification section 7)."""
    return hashlib.sha256(topic.encode() + b"\0" + payload).digest()[:20]


def brings_work(topic: str) -> bool:
    """Return whether messages on a topic are tasks, which cost more than reading them."""
    return topic.endswith("/tasks")


class ValidationResult(Enum):
    """What becomes of a gossiped message.

    Only `ACCEPT` delivers and forwards; `REJECT` also costs the peer that forwarded it.
    """

    ACCEPT = "accept"
    IGNORE = "ignore"
    REJECT = "reject"


class StreamClosed(HeliumError, ConnectionError):
    """The stream gave nothing more: end of data, a reset from either side, or a timeout."""


class Stream(Protocol):
    """One ordered two-way pipe of bytes to a peer, used by one reader and one writer at a time."""

    @property
    def peer(self) -> str:
        """The other side's peer id."""

    @property
    def rate_limit_key(self) -> str:
        """The key of the token buckets that the stream is charged to."""

    async def read_exactly(self, n: int) -> bytes:
        """Return exactly `n` bytes, or raise `StreamClosed`; what came of a short read is lost."""

    async def write(self, payload: bytes) -> None:
        """Hand over all of `payload`, waiting for a slow reader; raise `StreamClosed`."""

    async def close_write(self) -> None:
        """Say that nothing more will be written; reading goes on. Raise `StreamClosed`."""

    async def close(self) -> None:
        """Close both directions; what was written is still delivered. Never raises."""

    async def reset(self) -> None:
        """Abort both directions; the other side gets `StreamClosed`. Never raises."""

    async def wait_closed(self) -> None:
        """Wait until the other side has reset the stream, or is away. Never raises.

        A side that only writes no more is there: it may be reading.
        """


class Listener(Protocol):
    """What a node gives its transport; all but `validate` is called on the asyncio loop."""

    def validate(self, topic: str, payload: bytes) -> tuple[ValidationResult, Message | None]:
        """Parse and validate what a peer forwarded; return the message if it is accepted.

        Synchronous, thread-safe, quick, and never raises.
        """

    def on_gossip(self, peer: str, message: Message) -> None:
        """Take an accepted message, forwarded by `peer`; never called for own publications."""

    async def serve(self, protocol: str, stream: Stream) -> None:
        """Serve one inbound stream. On return it is closed, on an exception it is reset."""

    def connected(self, peer: str) -> None:
        """Learn that the first connection with `peer` is up."""

    def disconnected(self, peer: str) -> None:
        """Learn that the last connection with `peer` is gone."""


class Transport(Protocol):
    """A peer's presence in the network, from `start` to `stop`."""

    @property
    def peer(self) -> str:
        """The own peer id."""

    @property
    def addresses(self) -> tuple[str, ...]:
        """Own multiaddrs, each with "/p2p/<peer>"; known after `start`."""

    async def start(
        self, listener: Listener, topics: Sequence[str], protocols: Sequence[str]
    ) -> None:
        """Listen, join `topics`, serve `protocols`; raise `OSError` if the address is taken."""

    async def stop(self) -> None:
        """Leave: cancel what is being served, reset all streams, free the port."""

    async def dial(self, address: str) -> str:
        """Connect to a multiaddr with "/p2p/<peer>", return the peer; raise `ConnectionError`."""

    def peers(self) -> frozenset[str]:
        """Return who is connected now."""

    def rate_limit_key(self, peer: str) -> str:
        """Return the key of the token buckets that a connected peer is charged to."""

    def report(self, peer: str, action: PeerAction) -> None:
        """Report a peer for what no honest peer does; rejected gossip is reported already.

        Too many reports ban the peer for a while and close its connections.
        """

    async def publish(self, topic: str, payload: bytes) -> None:
        """Gossip `payload`, once: a repeat within two minutes is dropped. No peers is no error."""

    async def open(self, peer: str, protocol: str) -> Stream:
        """Open a stream to a connected peer; raise `ConnectionError`, bounded by a timeout."""
