"""GossipSub 1.1 without message signatures (StrictNoSign) and with content ids, on py-libp2p 0.8.1.

libp2p's own is not enough, as of 0.8.1:
- With `strict_signing=False` it still sends `from` and `seqno`, which StrictNoSign peers reject. It
  also accepts messages that carry them.
- It sends each message in an RPC of its own.
- Its message cache and its equivocation check identify a message by these two fields only. Without
  them all messages are one.
- It replays recent messages beside the send queue, where frames can interleave.
- One undecodable RPC ends the host.
- Topic validators return only yes or no, and a no is cached for 300 s.

A message passes these steps, and any of them may end it.

| step               | ends it                           | effect                                 |
| ------------------ | --------------------------------- | -------------------------------------- |
| form               | a field besides data and topic    | the peer is reported                   |
| topic, seen cache  | an unknown topic, or a repetition | -                                      |
| rate of tasks      | over the rate                     | not seen: another peer may forward it  |
| validation         | IGNORE or REJECT                  | REJECT: the peer is reported           |
| delivery           | -                                 | given to the listener and to the mesh  |
"""

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import trio
from libp2p.abc import IHost, INetStream
from libp2p.custom_types import TProtocol
from libp2p.peer.id import ID
from libp2p.pubsub.gossipsub import GossipSub
from libp2p.pubsub.mcache import CacheEntry, MessageCache
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import Pubsub
from libp2p.pubsub.rpc_queue import PriorityQueue
from libp2p.pubsub.utils import safe_bytes_from_hex

from node.admission.rate_limits import ConcurrencyLimit
from node.transport.interface import (
    MESSAGES_REPEATED,
    SEEN_SECONDS,
    ValidationResult,
    is_task_topic,
    message_id,
)
from node.transport.libp2p.net_stream import GuardedNetStream
from node.transport.libp2p.quotas import Quotas, rate_limit_key
from protocol.wire.messages import Message
from schemas.errors import HeliumError

PROTOCOL = TProtocol("/meshsub/1.1.0")
# RPCs that wait for one peer: libp2p's own limit, 32, drops most of a burst.
QUEUE_RPCS = 4096
# Bytes that wait for one peer: 32 of the largest messages, for each peer has copies of its own.
QUEUE_BYTES = 2 * 1024 * 1024
# Subscriptions in one RPC. A network has two topics.
RPC_SUBSCRIPTIONS = 100
# Of messages that are sent in one RPC because they wait together: it fits Yamux's window, so that
# a slow reader does not hold up the writer within it.
BATCH_BYTES = 128 * 1024
# Messages in one RPC: ten seconds' worth.
RPC_MESSAGES = 1000
# Ids in the IHAVE and IWANT of one RPC; other implementations have the same limit.
RPC_IDS = 5000
# Control messages in one RPC. A peer needs a few for each topic.
RPC_CONTROLS = 1000
# Ids that cost as much as one message: an id is looked up, a message is validated.
IDS_PER_MESSAGE = 100
# Of one RPC. 1 MiB is the usual limit of GossipSub implementations.
RPC_BYTES = 1_048_576
# About 10 MB. At 500 messages a second this bound and `SEEN_SECONDS` are met together.
SEEN_IDS = 65_536
# Inbound. A peer needs one, and for a moment a second one when it reconnects.
STREAMS_PER_PEER = 4

_log = logging.getLogger(__name__)


def rpc_message_id(message: rpc_pb2.Message) -> bytes:
    """Return the id of a message that has exactly one topic."""
    return message_id(message.topicIDs[0], message.data)


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics that a peer joins, and those of `fanout`: it publishes there without joining."""

    joined: Sequence[str]
    fanout: Sequence[str] = ()


class SeenCache:
    """The ids of the messages of the last two minutes, in place of libp2p's unbounded cache.

    `now` is a monotonic clock in seconds.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._expiry: dict[bytes, float] = {}  # the oldest first, as all live equally long

    def add(self, identity: bytes) -> bool:
        """Remember an id and return whether it is new."""
        now = self._now()
        while self._expiry and (
            next(iter(self._expiry.values())) <= now or len(self._expiry) >= SEEN_IDS
        ):
            del self._expiry[next(iter(self._expiry))]
        if identity in self._expiry:
            return False
        self._expiry[identity] = now + SEEN_SECONDS
        return True

    def has(self, identity: bytes) -> bool:
        """Return whether an id was seen in the last two minutes."""
        return self._expiry.get(identity, 0.0) > self._now()

    def stop(self) -> None:
        """Do nothing: libp2p stops its own cache's thread by this name."""


class ContentCache(MessageCache):  # type: ignore[misc]  # libp2p is untyped here
    """The messages of the last heartbeats by content id, for IHAVE and IWANT.

    libp2p's own knows messages by author and sequence number, which StrictNoSign leaves out.
    """

    def put(self, message: rpc_pb2.Message) -> None:
        """Keep a message that has exactly one topic."""
        identity = rpc_message_id(message)
        if identity not in self.msgs:
            self.msgs[identity] = message
            self.history[0].append(CacheEntry(identity, message.topicIDs))


class Router(GossipSub):  # type: ignore[misc]  # libp2p is untyped here
    """Decides which peer gets which message; keeps a mesh of 4 to 12 peers per topic."""

    def __init__(self) -> None:
        super().__init__(
            protocols=[PROTOCOL],
            # The values that GossipSub recommends. libp2p's heartbeat is 120 s by default.
            degree=6,
            degree_low=4,
            degree_high=12,
            heartbeat_interval=1,
            gossip_window=3,
            gossip_history=5,
            # These three are libp2p's own inventions. The second drops a node's own messages too.
            adaptive_gossip_enabled=False,
            spam_protection_enabled=False,
            eclipse_protection_enabled=False,
        )
        self.mcache = ContentCache(3, 5)
        self._last_mesh: dict[str, set[ID]] = {}  # at the last heartbeat, by topic

    async def publish(self, msg_forwarder: ID, pubsub_msg: rpc_pb2.Message) -> None:
        """Send an own message to all subscribers, and forward another's to the mesh."""
        self.mcache.put(pubsub_msg)
        rpc = rpc_pb2.RPC(publish=[pubsub_msg])
        for peer in self._targets(msg_forwarder, pubsub_msg):
            self.send_rpc(peer, rpc)

    async def send_recent_messages(self, peer_id: ID, topic: str) -> None:
        """Queue the messages of the last seconds for a new subscriber."""
        for identity in self.mcache.window(topic):
            message = self.mcache.get(identity)
            if message is not None:
                self.send_rpc(peer_id, rpc_pb2.RPC(publish=[message]))

    async def flush_pending_messages(self, peer_id: ID) -> None:
        """Do nothing: `send_recent_messages` sends a new subscriber what it has missed."""

    def gossip_heartbeat(self) -> defaultdict[ID, dict[str, list[bytes]]]:
        """Choose the peers outside the mesh that get an IHAVE; return its ids by peer and topic.

        libp2p's own skips peers in prune back-off. That back-off is for GRAFT alone (GossipSub
        1.1), and IHAVE is the only way that such a peer learns of messages. So is it for what came
        before a peer was in the mesh: one that is new there is told once more. A topic that is not
        joined has no mesh: a message on it is sent to all its subscribers.
        """
        ids_by_peer: defaultdict[ID, dict[str, list[bytes]]] = defaultdict(dict)
        for topic, peers in self.mesh.items():
            mesh = peers & self._last_mesh.get(topic, set())
            self._last_mesh[topic] = set(peers)
            recent = self.mcache.window(topic)
            subscribed = self.pubsub.peer_topics.get(topic, set())
            if recent and subscribed:
                count = self._get_adaptive_gossip_peers_count(topic, len(subscribed - mesh))
                for peer in self._get_in_topic_gossipsub_peers_from_minus(topic, count, mesh):
                    ids_by_peer[peer][topic] = recent
        return ids_by_peer

    async def handle_ihave(self, ihave_msg: rpc_pb2.ControlIHave, sender_peer_id: ID) -> None:
        """Ignore unknown topics, as with GRAFT."""
        if ihave_msg.topicID in self.mesh:
            await super().handle_ihave(ihave_msg, sender_peer_id)

    async def handle_iwant(self, iwant_msg: rpc_pb2.ControlIWant, sender_peer_id: ID) -> None:
        """Answer each id once, with at most half an RPC.

        libp2p's own answers an id as often as it is repeated: one RPC could request gigabytes.
        """
        if not self._check_iwant_rate_limit(sender_peer_id):
            return
        answer, room = rpc_pb2.RPC(), RPC_BYTES // 2
        for identity in dict.fromkeys(iwant_msg.messageIDs):
            message = self.mcache.get(safe_bytes_from_hex(identity))
            if message is not None and (room := room - message.ByteSize()) >= 0:
                answer.publish.append(message)
        if answer.publish:
            self.send_rpc(sender_peer_id, answer)

    async def handle_graft(self, graft_msg: rpc_pb2.ControlGraft, sender_peer_id: ID) -> None:
        """Ignore unknown topics: libp2p's own would keep each of them in memory."""
        if graft_msg.topicID in self.mesh:
            await super().handle_graft(graft_msg, sender_peer_id)

    async def handle_prune(self, prune_msg: rpc_pb2.ControlPrune, sender_peer_id: ID) -> None:
        """Leave a mesh, without dialling the peers that the sender suggests."""
        if prune_msg.topicID in self.mesh:
            del prune_msg.peers[:]
            await super().handle_prune(prune_msg, sender_peer_id)

    def _targets(self, forwarder: ID, message: rpc_pb2.Message) -> list[ID]:
        # Flood publishing (GossipSub 1.1): a mesh of hostile peers cannot hold an own message back.
        if forwarder == self.pubsub.my_id:
            return list(self.pubsub.peer_topics.get(message.topicIDs[0], ()))
        identity = rpc_message_id(message)
        return list(self._get_peers_to_send(message.topicIDs, forwarder, forwarder, identity))


class Gossip(Pubsub):  # type: ignore[misc]
    """Receives and publishes messages; its three callbacks are called in the trio thread."""

    def __init__(
        self,
        host: IHost,
        topics: Topics,
        quotas: Quotas,
        validate: Callable[[str, bytes], tuple[ValidationResult, Message | None]],
        on_accepted: Callable[[str, Message], None],
        report_peer: Callable[[str], bool],
    ) -> None:
        """`report_peer` returns whether the peer is banned now."""
        super().__init__(
            host,
            Router(),
            strict_signing=False,
            msg_id_constructor=rpc_message_id,
            max_subscriptions_per_rpc=RPC_SUBSCRIPTIONS,
            max_inbound_rpc_size=RPC_BYTES,
            allowed_topics=frozenset((*topics.joined, *topics.fanout)),
        )
        self.seen_messages.stop()  # libp2p's own has a thread, which would outlive the host
        self.seen_messages: SeenCache = SeenCache(trio.current_time)
        self._topics = topics
        self._quotas = quotas
        self._validate, self._on_accepted = validate, on_accepted
        self._report_peer = report_peer
        self._streams = ConcurrencyLimit(STREAMS_PER_PEER)

    async def publish(self, topic_id: str, data: bytes) -> None:
        """Publish data and topic only: no author, sequence number, signature or key."""
        await self.push_msg(self.my_id, rpc_pb2.Message(data=data, topicIDs=[topic_id]))

    async def push_msg(
        self, msg_forwarder: ID, msg: rpc_pb2.Message, rate_limit_key: str | None = None
    ) -> None:
        """Check, deliver and forward one message, by the table at the head of the module."""
        is_own = msg_forwarder == self.my_id
        if not is_own and not well_formed(msg):
            self._report(msg_forwarder)
            return
        topic = msg.topicIDs[0]
        identity = rpc_message_id(msg)
        if is_own and topic in self._topics.fanout:
            # Nothing comes back on such a topic, so a repetition is wanted: some subscribers may
            # have connected since.
            await self.router.publish(msg_forwarder, msg)
            return
        if topic not in self._topics.joined:
            return
        if self.seen_messages.has(identity):
            self._quotas.traffic[MESSAGES_REPEATED] += not is_own
            return
        if rate_limit_key and is_task_topic(topic) and self._quotas.tasks.try_take(rate_limit_key):
            # It is not marked as seen, as another peer may forward it.
            self._quotas.counts["tasks-dropped"] += 1
            return
        # Before the validation: an invalid message then costs one, whoever else forwards it. A
        # message that is ignored now, and matters later, is in the feeds.
        self.seen_messages.add(identity)
        if not is_own:
            result, message = self._validate(topic, msg.data)
            if result is ValidationResult.REJECT:
                self._report(msg_forwarder)
            if message is None:
                return
            self._on_accepted(str(msg_forwarder), message)
        await self.router.publish(msg_forwarder, msg)

    async def continuously_read_stream(self, stream: GuardedNetStream) -> None:
        """Read RPCs, each handled before the next is read.

        An undecodable RPC ends the stream and is reported. libp2p's own loop starts a task for
        every message, raises at 1,000 of them, and lets protobuf's exceptions through.
        """
        peer = stream.muxed_conn.peer_id
        with self._streams.slot(str(peer)) as held:
            try:
                while held:
                    raw = await stream.read_message(RPC_BYTES)
                    await self._handle(peer, raw, rate_limit_key(stream.muxed_conn))
            except PeerBanned:
                _log.debug("gossip stream of banned peer %s closed", peer)
            except (ValueError, TypeError, AttributeError) as failure:  # protobuf's are ValueErrors
                _log.debug("invalid RPC from %s: %r", peer, failure)
                self._report_peer(str(peer))
            except Exception as failure:
                _log.debug("gossip stream from %s ended: %r", peer, failure)
        await stream.reset()

    async def _handle(self, peer: ID, raw: bytes, rate_limit_key: str) -> None:
        rpc = parse(raw)
        restrict_to_1_1(rpc)
        controls = control_ids(rpc) + control_messages(rpc)
        await self._throttle(
            rate_limit_key, 1 + len(rpc.subscriptions) + controls / IDS_PER_MESSAGE
        )
        for subscription in rpc.subscriptions:
            self.handle_subscription(peer, subscription)
        for message in rpc.publish:
            await self._throttle(rate_limit_key, 1)
            await self.push_msg(peer, message, rate_limit_key)
        if rpc.HasField("control"):
            await self.router.handle_rpc(rpc, peer)

    async def _throttle(self, rate_limit_key: str, amount: float) -> None:
        """Wait for tokens of the peer, and in any case let other tasks run."""
        await self._quotas.throttle(self._quotas.messages, rate_limit_key, amount, "gossip-slowed")
        await trio.lowlevel.checkpoint()

    def _report(self, peer: ID) -> None:
        self._quotas.counts["messages-rejected"] += 1
        if self._report_peer(str(peer)):
            raise PeerBanned

    async def _handle_new_peer(self, peer_id: ID) -> None:
        await super()._handle_new_peer(peer_id)
        queue = self.peer_queues.get(peer_id)
        # libp2p builds the queue itself, and takes neither another one nor its size. A peer that
        # has subscribed already has recent messages in it.
        if queue is not None and not isinstance(queue._queue, BoundedQueue):
            bounded, unbounded = BoundedQueue(self._quotas.counts), queue._queue
            while (rpc := unbounded.pop()) is not None:
                bounded.push(rpc)
            queue._queue = bounded

    async def write_msg(self, stream: INetStream, rpc_msg: rpc_pb2.RPC) -> bool:
        """Send an RPC; disconnect a peer that leaves its window closed for 5 s."""
        sent: bool = await super().write_msg(stream, rpc_msg)
        if not sent and stream.muxed_stream.send_window <= 0:
            self._quotas.counts["readers-cut"] += 1
            await stream.muxed_conn.close()
        return sent


class PeerBanned(HeliumError):
    """The peer was reported too often; nothing more is read from it."""


class BoundedQueue(PriorityQueue):  # type: ignore[misc]
    """The send queue of one peer, bounded in number and bytes; what exceeds it is dropped."""

    def __init__(self, counts: Counter[str], max_rpcs: int = QUEUE_RPCS) -> None:
        super().__init__(max_rpcs)
        self._counts, self._bytes = counts, 0

    def push(self, rpc: rpc_pb2.RPC, priority: bool = False) -> bool:
        """Queue an RPC, or count it as dropped and return False."""
        size = rpc.ByteSize()
        if self._bytes + size > QUEUE_BYTES or not super().push(rpc, priority):
            self._counts["gossip-unsent"] += 1
            return False
        self._bytes += size
        return True

    def pop(self) -> rpc_pb2.RPC | None:
        """Return the next RPC, control first, with the messages behind it; None if there is none.

        Messages that wait for the peer are due. One RPC with all of them costs both sides one
        frame.
        """
        rpc: rpc_pb2.RPC | None = super().pop()
        if rpc is None:
            return None
        size = rpc.ByteSize()
        self._bytes -= size
        while self._non_priority and is_messages(rpc):
            following = self._non_priority[0]
            size += following.ByteSize()
            number = len(rpc.publish) + len(following.publish)
            if not is_messages(following) or size > BATCH_BYTES or number > RPC_MESSAGES:
                break
            self._bytes -= self._non_priority.popleft().ByteSize()
            rpc.publish.extend(following.publish)
        return rpc


def restrict_to_1_1(rpc: Any) -> None:
    """Remove what GossipSub 1.1 does not have; raise `ValueError` if there are too many parts.

    libp2p stores the fields of later versions for every id that a peer makes up.
    """
    rpc.ClearField("senderRecord")  # addresses, which nobody here dials
    for field in ("idontwant", "extensions", "observe", "unobserve"):
        if rpc.HasField("control"):
            rpc.control.ClearField(field)
    if (
        len(rpc.subscriptions) > RPC_SUBSCRIPTIONS
        or len(rpc.publish) > RPC_MESSAGES
        or control_ids(rpc) > RPC_IDS
        or control_messages(rpc) > RPC_CONTROLS
    ):
        raise ValueError("an RPC with too many parts")


def is_messages(rpc: Any) -> bool:
    """Return whether an RPC has messages and nothing else."""
    return bool(rpc.publish) and not rpc.subscriptions and not rpc.HasField("control")


def control_ids(rpc: Any) -> int:
    """Return the number of message ids in an RPC's IHAVE and IWANT."""
    return sum(len(part.messageIDs) for part in (*rpc.control.ihave, *rpc.control.iwant))


def control_messages(rpc: Any) -> int:
    """Return the number of control messages in an RPC."""
    control = rpc.control
    return sum(map(len, (control.ihave, control.iwant, control.graft, control.prune)))


def parse(raw: bytes) -> Any:
    """Decode an RPC; raise `ValueError` if it cannot be decoded."""
    rpc = rpc_pb2.RPC()
    try:
        rpc.ParseFromString(raw)
    except Exception as failure:  # protobuf's DecodeError is an Exception, not a ValueError
        raise ValueError("undecodable RPC") from failure
    return rpc


def well_formed(message: Any) -> bool:
    """Return whether a message is StrictNoSign: data and one topic, nothing else."""
    return len(message.topicIDs) == 1 and not any(
        message.HasField(field) for field in ("from_id", "seqno", "signature", "key")
    )
