"""What the router does beyond libp2p's own, over real sockets."""

import hashlib
from collections import Counter
from typing import Any

import pytest
from libp2p.peer.id import ID
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import Pubsub
from libp2p.pubsub.rpc_queue import RpcQueue

from node.transport.interface import MESSAGES_REPEATED, SEEN_SECONDS, message_id
from node.transport.libp2p.gossipsub import (
    BATCH_BYTES,
    PROTOCOL,
    QUEUE_BYTES,
    RPC_CONTROLS,
    RPC_IDS,
    RPC_MESSAGES,
    RPC_SUBSCRIPTIONS,
    SEEN_IDS,
    BoundedQueue,
    ContentCache,
    SeenCache,
    restrict_to_1_1,
    rpc_message_id,
)
from node.transport.libp2p.host import Host
from tests.node.admission.clock import Clock
from tests.node.transport.conftest import TOPICS, Start
from tests.node.transport.recorder import Recorder

TASKS = TOPICS[0]


async def test_a_peer_in_prune_back_off_still_learns_of_messages_by_ihave(start: Start) -> None:
    recorders = [Recorder() for _ in range(3)]
    origin, middle, pruned = [await start(recorder) for recorder in recorders]
    await origin.dial(middle.addresses[0])
    await middle.dial(pruned.addresses[0])
    # Once both have these, each knows what the next has joined, and nothing is replayed later.
    await origin.publish(TASKS, b"first of the origin")
    await recorders[1].until(lambda: b"first of the origin" in recorders[1].payloads)
    await middle.publish(TASKS, b"first of the middle")
    await recorders[2].until(lambda: b"first of the middle" in recorders[2].payloads)
    host = middle._host
    assert host is not None

    async def prune(host: Host, peer: ID) -> None:
        host.gossip.router.mesh[TASKS].discard(peer)
        host.gossip.router._add_back_off(peer, TASKS, False)
        await host.gossip.router.emit_prune(TASKS, peer, False, False)

    async def pruned_now(host: Host, peer: ID) -> bool:
        router = host.gossip.router
        return peer not in router.mesh[TASKS] and router._check_back_off(peer, TASKS)

    peer = ID.from_base58(pruned.peer)
    await middle._bridge.run_in_trio(prune, host, peer)
    await origin.publish(TASKS, b"forwarded to the mesh alone")
    await recorders[2].until(lambda: b"forwarded to the mesh alone" in recorders[2].payloads)
    assert (middle.peer, TASKS, b"forwarded to the mesh alone") in recorders[2].gossip
    assert await middle._bridge.run_in_trio(pruned_now, host, peer)


async def test_a_peer_that_is_new_in_the_mesh_learns_of_earlier_messages_by_ihave(
    start: Start,
) -> None:
    """They were forwarded to the mesh as it was, and replayed to nobody."""
    transport, peer = await start(Recorder()), ID(b"another")
    host = transport._host
    assert host is not None

    async def told(host: Host, beats: list[bool]) -> list[bool]:
        """Whether the peer is told at each heartbeat, by whether it is in the mesh then."""
        router, answers = host.gossip.router, []
        router.mcache.put(rpc_pb2.Message(data=b"earlier", topicIDs=[TASKS]))
        router.peer_protocol[peer] = PROTOCOL
        host.gossip.peer_topics[TASKS] = {peer}
        for in_mesh in beats:
            router.mesh[TASKS] = {peer} if in_mesh else set()
            answers.append(peer in router.gossip_heartbeat())
        return answers

    beats = [False, True, True, False, True]
    answers = await transport._bridge.run_in_trio(told, host, beats)
    assert answers == [True, True, False, True, True]


async def test_a_repeated_id_in_iwant_is_answered_once(start: Start) -> None:
    recorder = Recorder()
    near, far = await start(recorder), await start(Recorder())
    await near.dial(far.addresses[0])
    await far.publish(TASKS, b"the answer")
    await recorder.until(lambda: b"the answer" in recorder.payloads)
    host = far._host
    assert host is not None
    sent: list[Any] = []

    async def ask(host: Host, peer: ID) -> None:
        router = host.gossip.router
        router.send_rpc = lambda peer, rpc: sent.append(rpc)
        [identity] = router.mcache.window(TASKS)
        repeated = rpc_pb2.ControlIWant(messageIDs=[identity] * 1000 + [b"unknown"])
        await router.handle_iwant(repeated, peer)
        await router.handle_iwant(rpc_pb2.ControlIWant(messageIDs=[b"unknown"]), peer)

    await far._bridge.run_in_trio(ask, host, ID.from_base58(near.peer))
    assert [[message.data for message in rpc.publish] for rpc in sent] == [[b"the answer"]]


async def test_repeated_messages_are_counted_but_not_this_nodes_own(start: Start) -> None:
    recorder = Recorder()
    transport = await start(recorder)
    host = transport._host
    assert host is not None

    async def push(host: Host, peer: ID, times: int) -> None:
        for _ in range(times):
            await host.gossip.push_msg(peer, rpc_pb2.Message(data=b"again", topicIDs=[TASKS]))

    await transport._bridge.run_in_trio(push, host, ID(b"another"), 3)
    await transport._bridge.run_in_trio(push, host, ID.from_base58(transport.peer), 2)
    assert recorder.judged == [b"again"]
    assert transport._quotas.traffic[MESSAGES_REPEATED] == 2


def test_the_send_queue_is_bounded_in_bytes() -> None:
    counts: Counter[str] = Counter()
    queue = BoundedQueue(counts)
    large = rpc_pb2.RPC(publish=[rpc_pb2.Message(data=bytes(QUEUE_BYTES // 3))])
    assert [queue.push(large) for _ in range(3)] == [True, True, False]
    assert counts == {"gossip-unsent": 1}
    assert queue.pop() is large
    assert queue.push(large)
    assert [queue.pop() is None for _ in range(3)] == [False, False, True]


def test_the_send_queue_is_bounded_in_number() -> None:
    counts: Counter[str] = Counter()
    queue = BoundedQueue(counts, max_rpcs=2)
    assert [queue.push(rpc_pb2.RPC()) for _ in range(3)] == [True, True, False]
    assert counts == {"gossip-unsent": 1}


def message_rpc(data: bytes) -> Any:
    return rpc_pb2.RPC(publish=[rpc_pb2.Message(data=data, topicIDs=["t"])])


def test_messages_that_wait_are_sent_in_one_rpc() -> None:
    queue = BoundedQueue(Counter())
    control = rpc_pb2.RPC(control=rpc_pb2.ControlMessage(graft=[rpc_pb2.ControlGraft()]))
    subscription = rpc_pb2.RPC(subscriptions=[rpc_pb2.RPC.SubOpts(topicid="t")])
    for rpc in (message_rpc(b"1"), message_rpc(b"2"), subscription, message_rpc(b"3")):
        assert queue.push(rpc)
    assert queue.push(control, priority=True)
    assert queue.push(message_rpc(b"4"))
    popped = [queue.pop() for _ in range(5)]
    assert popped[0] == control
    assert [[m.data for m in rpc.publish] for rpc in popped if rpc is not None] == [
        [],
        [b"1", b"2"],
        [],
        [b"3", b"4"],
    ]
    assert popped[4] is None
    assert queue._bytes == 0


def number_of(rpc: Any) -> int:
    return len(rpc.publish)


def test_an_rpc_of_waiting_messages_is_bounded() -> None:
    queue = BoundedQueue(Counter())
    for _ in range(5):
        queue.push(message_rpc(bytes(BATCH_BYTES // 2 - 100)))
    assert [number_of(queue.pop()) for _ in range(3)] == [2, 2, 1]
    for number in range(RPC_MESSAGES + 5):
        queue.push(message_rpc(b"%d" % number))
    assert [number_of(queue.pop()) for _ in range(2)] == [RPC_MESSAGES, 5]
    assert queue._bytes == 0


async def test_a_burst_of_messages_reaches_a_peer_in_fewer_rpcs(start: Start) -> None:
    recorder = Recorder()
    near, far = await start(recorder), await start(Recorder())
    await near.dial(far.addresses[0])
    await far.publish(TASKS, b"first")
    await recorder.until(lambda: b"first" in recorder.payloads)
    host, written = far._host, list[int]()
    assert host is not None

    async def burst(host: Any) -> None:
        write = host.gossip.write_msg

        async def counting(stream: Any, rpc: Any) -> bool:
            written.append(len(rpc.publish))
            return bool(await write(stream, rpc))

        host.gossip.write_msg = counting
        for number in range(50):
            message = rpc_pb2.Message(data=b"burst %d" % number, topicIDs=[TASKS])
            await host.gossip.router.publish(host.gossip.my_id, message)

    await far._bridge.run_in_trio(burst, host)
    expected = {b"burst %d" % number for number in range(50)}
    await recorder.until(lambda: expected <= set(recorder.payloads))
    assert sum(written) == 50
    assert len(written) < 25


@pytest.mark.parametrize(
    "rpc",
    [
        rpc_pb2.RPC(publish=[rpc_pb2.Message()] * (RPC_MESSAGES + 1)),
        rpc_pb2.RPC(subscriptions=[rpc_pb2.RPC.SubOpts()] * (RPC_SUBSCRIPTIONS + 1)),
        rpc_pb2.RPC(
            control=rpc_pb2.ControlMessage(
                iwant=[rpc_pb2.ControlIWant(messageIDs=[b"id"] * (RPC_IDS + 1))]
            )
        ),
        rpc_pb2.RPC(
            control=rpc_pb2.ControlMessage(
                ihave=[rpc_pb2.ControlIHave(messageIDs=[b"id"])],
                iwant=[rpc_pb2.ControlIWant(messageIDs=[b"id"] * RPC_IDS)],
            )
        ),
        rpc_pb2.RPC(
            control=rpc_pb2.ControlMessage(
                ihave=[rpc_pb2.ControlIHave()],
                iwant=[rpc_pb2.ControlIWant()],
                graft=[rpc_pb2.ControlGraft()] * (RPC_CONTROLS - 2),
                prune=[rpc_pb2.ControlPrune()],
            )
        ),
    ],
    ids=["messages", "subscriptions", "ids", "ids-of-both-kinds", "control-messages"],
)
def test_an_rpc_with_too_many_parts_is_rejected(rpc: Any) -> None:
    with pytest.raises(ValueError, match="too many parts"):
        restrict_to_1_1(rpc)


def test_an_rpc_may_have_as_many_parts_as_the_limits() -> None:
    control = rpc_pb2.ControlMessage(
        ihave=[rpc_pb2.ControlIHave(messageIDs=[b"id"] * (RPC_IDS - 1))],
        iwant=[rpc_pb2.ControlIWant(messageIDs=[b"id"])],
        graft=[rpc_pb2.ControlGraft()] * (RPC_CONTROLS - 3),
        prune=[rpc_pb2.ControlPrune()],
    )
    restrict_to_1_1(
        rpc_pb2.RPC(
            publish=[rpc_pb2.Message()] * RPC_MESSAGES,
            subscriptions=[rpc_pb2.RPC.SubOpts()] * RPC_SUBSCRIPTIONS,
            control=control,
        )
    )


def test_fields_of_later_versions_are_removed() -> None:
    rpc: Any = rpc_pb2.RPC(senderRecord=b"x")
    rpc.control.idontwant.append(rpc_pb2.ControlIDontWant(messageIDs=[b"a"] * 9000))
    restrict_to_1_1(rpc)
    assert not rpc.senderRecord
    assert not rpc.control.idontwant


# Caches


def test_the_message_id_is_the_one_of_the_specification() -> None:
    expected = hashlib.sha256(b"/a/topic" + b"\0" + b"payload").digest()[:20]
    assert message_id("/a/topic", b"payload") == expected
    message = rpc_pb2.Message(data=b"payload", topicIDs=["/a/topic"])
    assert rpc_message_id(message) == expected


def test_a_seen_id_expires_after_two_minutes() -> None:
    clock = Clock()
    cache = SeenCache(clock)
    assert cache.add(b"id")
    clock.now += SEEN_SECONDS - 1
    assert cache.has(b"id")
    assert not cache.add(b"id")
    clock.now += 1
    assert not cache.has(b"id")
    assert cache.add(b"id")


def test_the_seen_cache_evicts_the_oldest_id() -> None:
    cache = SeenCache(Clock())
    for number in range(SEEN_IDS + 1):
        cache.add(b"%d" % number)
    assert not cache.has(b"0")
    assert cache.has(b"1")


def test_the_message_cache_keeps_messages_without_author_apart_and_ages_them() -> None:
    cache = ContentCache(2, 3)
    messages = [rpc_pb2.Message(data=b"%d" % n, topicIDs=["t"]) for n in range(2)]
    for message in messages * 2:
        cache.put(message)
    ids = [rpc_message_id(message) for message in messages]
    assert cache.window("t") == ids
    assert [cache.get(identity) for identity in ids] == messages
    for _ in range(2):
        cache.shift()
    assert cache.window("t") == []
    assert cache.get(ids[0]) == messages[0]
    cache.shift()
    assert cache.get(ids[0]) is None


@pytest.mark.parametrize("known", [False, True], ids=["a new peer", "a known peer"])
async def test_what_waits_for_a_peer_already_is_sent(
    start: Start, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    """libp2p queues recent messages for a peer whose subscriptions came before its stream."""
    host = (await start(Recorder()))._host
    assert host is not None
    gossip, peer = host.gossip, ID(b"peer")
    waiting = rpc_pb2.RPC(publish=[rpc_pb2.Message(data=b"recent", topicIDs=[TASKS])])

    async def queue(self: Pubsub, peer_id: ID) -> None:
        if not known or peer_id not in self.peer_queues:
            self.peer_queues[peer_id] = RpcQueue()
            self.peer_queues[peer_id]._queue.push(waiting)

    monkeypatch.setattr(Pubsub, "_handle_new_peer", queue)
    for _ in range(2):
        await gossip._handle_new_peer(peer)
    bounded = gossip.peer_queues[peer]._queue
    assert isinstance(bounded, BoundedQueue)
    assert bounded.pop() == waiting
    assert bounded.pop() is None
