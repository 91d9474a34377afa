import hashlib

from libp2p.pubsub.pb import rpc_pb2

from node.transport.interface import SEEN_SECONDS, message_id
from node.transport.libp2p import seen
from node.transport.libp2p.seen import ContentCache, SeenCache, rpc_message_id
from tests.node.admission.test_peer_score import Clock


def test_the_message_id_is_the_specifications() -> None:
    wanted = hashlib.sha256(b"/a/topic" + b"\0" + b"payload").digest()[:20]
    assert message_id("/a/topic", b"payload") == wanted
    message = rpc_pb2.Message(data=b"payload", topicIDs=["/a/topic"])
    assert rpc_message_id(message) == wanted


def test_an_id_is_new_once_in_two_minutes() -> None:
    clock = Clock()
    cache = SeenCache(clock)
    assert cache.add(b"id")
    clock.now += SEEN_SECONDS - 1
    assert cache.has(b"id")
    assert not cache.add(b"id")
    clock.now += 1
    assert not cache.has(b"id")
    assert cache.add(b"id")


def test_the_oldest_make_room() -> None:
    cache = SeenCache(Clock())
    for number in range(seen.SEEN_IDS + 1):
        cache.add(b"%d" % number)
    assert not cache.has(b"0")
    assert cache.has(b"1")


def test_messages_without_author_are_kept_apart_and_age() -> None:
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
