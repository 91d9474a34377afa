"""What the router does beyond libp2p's own, over real sockets."""

from libp2p.peer.id import ID

from node.transport.host import Host
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
    await middle._bridge.call(prune, host, peer)
    await origin.publish(TASKS, b"forwarded to the mesh alone")
    await recorders[2].until(lambda: b"forwarded to the mesh alone" in recorders[2].payloads)
    assert (middle.peer, TASKS, b"forwarded to the mesh alone") in recorders[2].gossip
    assert await middle._bridge.call(pruned_now, host, peer)
