"""Which messages were seen, and which can still be handed out: what replaces libp2p's two caches.

libp2p's own message cache knows messages by author and sequence number, which StrictNoSign messages
do not have; its seen-cache has no bound, and a thread.
"""

from collections.abc import Callable

from libp2p.pubsub.mcache import CacheEntry, MessageCache
from libp2p.pubsub.pb import rpc_pb2

from node.transport.interface import SEEN_SECONDS, message_id

SEEN_IDS = 65_536  # about 10 MB; at 500 messages a second the bound and the time are the same


def rpc_message_id(message: rpc_pb2.Message) -> bytes:
    """Return the id of a message that has exactly one topic."""
    return message_id(message.topicIDs[0], message.data)


class SeenCache:
    """Message ids of the last two minutes; `now` is a monotonic clock in seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._until: dict[bytes, float] = {}

    def add(self, identity: bytes) -> bool:
        """Remember an id and return whether it is new."""
        now = self._now()
        while self._until and (
            next(iter(self._until.values())) <= now or len(self._until) >= SEEN_IDS
        ):
            del self._until[next(iter(self._until))]
        if identity in self._until:
            return False
        self._until[identity] = now + SEEN_SECONDS
        return True

    def has(self, identity: bytes) -> bool:
        """Return whether an id was seen in the last two minutes."""
        return self._until.get(identity, 0.0) > self._now()

    def stop(self) -> None:
        """There is no thread to stop."""


class ContentCache(MessageCache):  # type: ignore[misc]  # libp2p is untyped here
    """The last heartbeats' messages by content id, for IHAVE and IWANT."""

    def put(self, message: rpc_pb2.Message) -> None:
        """Keep a message that has exactly one topic."""
        identity = rpc_message_id(message)
        if identity not in self.msgs:
            self.msgs[identity] = message
            self.history[0].append(CacheEntry(identity, message.topicIDs))
