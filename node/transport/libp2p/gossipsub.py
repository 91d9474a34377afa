"""GossipSub 1.1 without message signatures (StrictNoSign) and with content ids, on py-libp2p 0.8.1.

Why libp2p's own is not enough, as of 0.8.1: with `strict_signing=False` it still sends `from` and
`seqno`, which StrictNoSign peers reject, and accepts messages that carry them; its message cache
and its equivocation check know a message by these two fields only, so that without them all
messages are one; it replays recent messages beside the sending queue, where frames can interleave;
one undecodable RPC ends the host; topic validators know only yes and no, and cache a no for 300 s.
"""

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
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
from libp2p.utils.varint import read_varint_prefixed_bytes_limited

from node.admission.rate_limits import ConcurrencyLimit
from node.transport.interface import SEEN_SECONDS, ValidationResult, brings_work, message_id
from node.transport.libp2p.quotas import Quotas, rate_limit_key
from protocol.wire.messages import Message
from schemas.errors import HeliumError

PROTOCOL = TProtocol("/meshsub/1.1.0")
# RPCs that wait for one peer: libp2p's own limit, 32, drops most of a burst.
QUEUE_RPCS = 4096
# Bytes that wait for one peer: 32 of the largest messages, for each peer has copies of its own.
QUEUE_BYTES = 2 * 1024 * 1024
RPC_SUBSCRIPTIONS = 100  # in one RPC; there are two topics
RPC_MESSAGES = 1000  # in one RPC; ten seconds' worth
RPC_IDS = 5000  # in one RPC's control messages; the limit of other implementations too
IDS_PER_MESSAGE = 100  # of equal cost: looking an id up against judging a message
RPC_BYTES = 1_048_576  # one RPC; 1 MiB is the usual limit of GossipSub implementations
# About 10 MB. At 500 messages a second this bound and `SEEN_SECONDS` are met together.
SEEN_IDS = 65_536
STREAMS_PER_PEER = 4  # inbound; a peer needs one, and for a moment a second when it reconnects

_log = logging.getLogger(__name__)


def rpc_message_id(message: rpc_pb2.Message) -> bytes:
    """Return the id of a message that has exactly one topic."""
    return message_id(message.topicIDs[0], message.data)


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
    """Who gets what; a mesh of 4 to 12 peers, looked after every second."""

    def __init__(self) -> None:
        super().__init__(
            protocols=[PROTOCOL],
            degree=6,
            degree_low=4,
            degree_high=12,
            heartbeat_interval=1,
            gossip_window=3,
            gossip_history=5,
            adaptive_gossip_enabled=False,
            spam_protection_enabled=False,  # it drops a node's own messages too
            eclipse_protection_enabled=False,
        )
        self.mcache = ContentCache(3, 5)

    async def publish(self, msg_forwarder: ID, pubsub_msg: rpc_pb2.Message) -> None:
        """Send a message on: an own one to all subscribers, another's to the mesh."""
        self.mcache.put(pubsub_msg)
        rpc = rpc_pb2.RPC(publish=[pubsub_msg])
        for peer in self._targets(msg_forwarder, pubsub_msg):
            self.send_rpc(peer, rpc)

    async def send_recent_messages(self, peer_id: ID, topic: str) -> None:
        """Queue the last seconds' messages for a new subscriber."""
        for identity in self.mcache.window(topic):
            message = self.mcache.get(identity)
            if message is not None:
                self.send_rpc(peer_id, rpc_pb2.RPC(publish=[message]))

    async def flush_pending_messages(self, peer_id: ID) -> None:
        """Nothing is held back: a new subscriber gets the recent messages."""

    def gossip_heartbeat(self) -> defaultdict[ID, dict[str, list[bytes]]]:
        """Choose who outside the mesh is told which messages there are: topics' ids per peer.

        libp2p's own passes over peers in prune back-off, but that is for GRAFT alone (GossipSub
        1.1), and IHAVE is all that they have left. There is no fanout here: every topic is joined.
        """
        told: defaultdict[ID, dict[str, list[bytes]]] = defaultdict(dict)
        for topic, mesh in self.mesh.items():
            recent = self.mcache.window(topic)
            subscribed = self.pubsub.peer_topics.get(topic, set())
            if recent and subscribed:
                count = self._get_adaptive_gossip_peers_count(topic, len(subscribed - mesh))
                for peer in self._get_in_topic_gossipsub_peers_from_minus(topic, count, mesh):
                    told[peer][topic] = recent
        return told

    async def handle_ihave(self, ihave_msg: rpc_pb2.ControlIHave, sender_peer_id: ID) -> None:
        """Ignore topics that are not ours, as with GRAFT."""
        if ihave_msg.topicID in self.mesh:
            await super().handle_ihave(ihave_msg, sender_peer_id)

    async def handle_iwant(self, iwant_msg: rpc_pb2.ControlIWant, sender_peer_id: ID) -> None:
        """Answer each id once, with half an RPC at most.

        libp2p's own answers an id as often as it is repeated: gigabytes for a request of one RPC.
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
        """Ignore topics that are not ours, or each unknown one leaves a trace in memory."""
        if graft_msg.topicID in self.mesh:
            await super().handle_graft(graft_msg, sender_peer_id)

    async def handle_prune(self, prune_msg: rpc_pb2.ControlPrune, sender_peer_id: ID) -> None:
        """Leave a mesh; without dialling the peers that the sender would like us to dial."""
        if prune_msg.topicID in self.mesh:
            del prune_msg.peers[:]
            await super().handle_prune(prune_msg, sender_peer_id)

    def _targets(self, forwarder: ID, message: rpc_pb2.Message) -> list[ID]:
        if forwarder == self.pubsub.my_id:
            return list(self.pubsub.peer_topics.get(message.topicIDs[0], ()))
        identity = rpc_message_id(message)
        return list(self._get_peers_to_send(message.topicIDs, forwarder, forwarder, identity))


class Gossip(Pubsub):  # type: ignore[misc]
    """What arrives and leaves; its three callbacks are called in the trio thread."""

    def __init__(
        self,
        host: IHost,
        topics: Sequence[str],
        quotas: Quotas,
        validate: Callable[[str, bytes], tuple[ValidationResult, Message | None]],
        on_accepted: Callable[[str, Message], None],
        report_peer: Callable[[str], bool],
    ) -> None:
        """`report_peer` says whether it was once too often."""
        super().__init__(
            host,
            Router(),
            strict_signing=False,
            msg_id_constructor=rpc_message_id,
            max_subscriptions_per_rpc=RPC_SUBSCRIPTIONS,
            max_inbound_rpc_size=RPC_BYTES,
            allowed_topics=frozenset(topics),
        )
        self.seen_messages.stop()  # or its thread outlives the host
        self.seen_messages: SeenCache = SeenCache(trio.current_time)
        self._topics = frozenset(topics)
        self._quotas = quotas
        self._validate, self._on_accepted = validate, on_accepted
        self._report_peer = report_peer
        self._streams = ConcurrencyLimit(STREAMS_PER_PEER)

    async def publish(self, topic_id: str, data: bytes) -> None:
        """Gossip with data and topic alone: no author, sequence number, signature or key."""
        await self.push_msg(self.my_id, rpc_pb2.Message(data=data, topicIDs=[topic_id]))

    async def push_msg(
        self, msg_forwarder: ID, msg: rpc_pb2.Message, rate_limit_key: str | None = None
    ) -> None:
        """Take one message through the rules: form, seen before, rate of tasks, verdict."""
        own = msg_forwarder == self.my_id
        if not own and not well_formed(msg):
            self._offend(msg_forwarder)
            return
        topic = msg.topicIDs[0]
        identity = rpc_message_id(msg)
        if topic not in self._topics or self.seen_messages.has(identity):
            return
        if rate_limit_key and brings_work(topic) and self._quotas.tasks.try_take(rate_limit_key):
            self._quotas.counts["tasks-dropped"] += 1  # unseen: another peer may bring it
            return
        self.seen_messages.add(identity)
        if not own:
            result, message = self._validate(topic, msg.data)
            if result is ValidationResult.REJECT:
                self._offend(msg_forwarder)
            if message is None:
                return
            self._on_accepted(str(msg_forwarder), message)
        await self.router.publish(msg_forwarder, msg)

    async def continuously_read_stream(self, stream: INetStream) -> None:
        """Read RPCs one after another, each handled before the next is read.

        An undecodable one ends the stream and is an offence. libp2p's own loop starts a task for
        every message, raises at 1,000 of them, and lets protobuf's exceptions through.
        """
        peer = stream.muxed_conn.peer_id
        with self._streams.slot(str(peer)) as held:
            try:
                while held:
                    raw = await read_varint_prefixed_bytes_limited(stream, RPC_BYTES)
                    await self._handle(peer, raw, rate_limit_key(stream.muxed_conn))
            except PeerBanned:
                _log.debug("no more is read from %s", peer)
            except (ValueError, TypeError, AttributeError) as offence:  # protobuf's are ValueErrors
                _log.debug("bad RPC from %s: %r", peer, offence)
                self._report_peer(str(peer))
            except Exception as failure:
                _log.debug("gossip stream from %s ended: %r", peer, failure)
        await stream.reset()

    async def _handle(self, peer: ID, raw: bytes, rate_limit_key: str) -> None:
        rpc = parse(raw)
        keep_to_1_1(rpc)
        await self._throttle(
            rate_limit_key, 1 + len(rpc.subscriptions) + control_ids(rpc) / IDS_PER_MESSAGE
        )
        for subscription in rpc.subscriptions:
            self.handle_subscription(peer, subscription)
        for message in rpc.publish:
            await self._throttle(rate_limit_key, 1)
            await self.push_msg(peer, message, rate_limit_key)
        if rpc.HasField("control"):
            await self.router.handle_rpc(rpc, peer)

    async def _throttle(self, rate_limit_key: str, amount: float) -> None:
        """Wait for the peer's turn, and let the others have theirs."""
        await self._quotas.throttle(self._quotas.messages, rate_limit_key, amount, "gossip-slowed")
        await trio.lowlevel.checkpoint()

    def _offend(self, peer: ID) -> None:
        self._quotas.counts["messages-rejected"] += 1
        if self._report_peer(str(peer)) and peer != self.my_id:
            raise PeerBanned

    async def _handle_new_peer(self, peer_id: ID) -> None:
        await super()._handle_new_peer(peer_id)
        queue = self.peer_queues.get(peer_id)
        if queue is not None:
            queue._queue = BoundedQueue(self._quotas.counts)

    async def write_msg(self, stream: INetStream, rpc_msg: rpc_pb2.RPC) -> bool:
        """Send an RPC; whoever leaves the window shut for 5 s is cut off, and may come again."""
        sent: bool = await super().write_msg(stream, rpc_msg)
        if not sent and stream.muxed_stream.send_window <= 0:
            self._quotas.counts["readers-cut"] += 1
            await stream.muxed_conn.close()
        return sent


class PeerBanned(HeliumError):
    """The peer has offended once too often; nothing more is taken from it."""


class BoundedQueue(PriorityQueue):  # type: ignore[misc]
    """RPCs that wait for one peer, bounded in number and bytes; what is too much is dropped."""

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
        """Return the next RPC, control first; None if there is none."""
        rpc: rpc_pb2.RPC | None = super().pop()
        if rpc is not None:
            self._bytes -= rpc.ByteSize()
        return rpc


def keep_to_1_1(rpc: Any) -> None:
    """Take out of an RPC what GossipSub 1.1 does not know; raise `ValueError` if it holds too much.

    What libp2p keeps for the sake of later versions, it keeps for every id that a peer makes up.
    """
    rpc.ClearField("senderRecord")  # nobody here dials the addresses that a peer tells
    for field in ("idontwant", "extensions", "observe", "unobserve"):
        if rpc.HasField("control"):
            rpc.control.ClearField(field)
    if (
        len(rpc.subscriptions) > RPC_SUBSCRIPTIONS
        or len(rpc.publish) > RPC_MESSAGES
        or control_ids(rpc) > RPC_IDS
    ):
        raise ValueError("an RPC with too many parts")


def control_ids(rpc: Any) -> int:
    """Return how many ids an RPC's control messages come to, each such message as one more."""
    control = rpc.control
    named = sum(len(part.messageIDs) + 1 for part in (*control.ihave, *control.iwant))
    return named + len(control.graft) + len(control.prune)


def parse(raw: bytes) -> Any:
    """Return the RPC in `raw`; raise `ValueError` if it is none."""
    rpc = rpc_pb2.RPC()
    try:
        rpc.ParseFromString(raw)
    except Exception as failure:  # protobuf's DecodeError is an Exception, not a ValueError
        raise ValueError("undecodable RPC") from failure
    return rpc


def well_formed(message: Any) -> bool:
    """Return whether a forwarded message keeps StrictNoSign: data and one topic, nothing else."""
    return len(message.topicIDs) == 1 and not any(
        message.HasField(field) for field in ("from_id", "seqno", "signature", "key")
    )
