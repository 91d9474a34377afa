"""A node follows a few members that nobody can foresee, and connects to few more (7.9)."""

import asyncio
import json
import random
from collections import Counter
from typing import Any

import pytest

from node.sync.feeds.feed_sync import UPDATE_SECONDS
from node.sync.feeds.selection import DRAW_SECONDS, MESH_MEMBERS, Selection
from protocol.consensus.committee import committees
from protocol.consensus.effects import State
from protocol.network import Network
from protocol.wire.encoding import canonical
from tests.simulation import virtual_loop
from tests.simulation.network import Conditions, SimulatedNetwork, SimulatedNode, run_network
from tests.support import fixtures
from tests.support.journals import accepted
from tests.support.memory_transport.network import Link

MEMBERS, FOLLOW = 9, 2
READER = 8
ME = fixtures.peer(0)
OTHERS = [fixtures.peer(index) for index in range(1, MEMBERS)]


def selection(seed: int = 1, follow: int = FOLLOW) -> Selection:
    network = fixtures.network(MEMBERS, follow=follow)
    return Selection(network, ME, random.Random(seed))


# The choice


def test_as_many_members_are_followed_as_the_document_says() -> None:
    chosen = selection().followed([ME, *OTHERS, fixtures.peer(1001)])
    assert len(chosen) == FOLLOW
    assert set(chosen) < set(OTHERS)


@pytest.mark.parametrize("follow", [MEMBERS - 1, MEMBERS, 4096])
def test_all_are_followed_if_there_are_no_more(follow: int) -> None:
    choice = selection(follow=follow)
    assert choice.has_all
    assert choice.followed(OTHERS) == OTHERS
    assert choice.near(OTHERS) == set(OTHERS)


def test_a_member_that_is_not_connected_leaves_its_place() -> None:
    choice = selection()
    first, second = choice.followed(OTHERS)
    rest = [peer for peer in OTHERS if peer != first]
    assert choice.followed(rest)[0] == second
    assert len(choice.followed(rest)) == FOLLOW
    assert choice.followed([second]) == [second]


def test_draws_are_random_and_each_member_is_as_likely() -> None:
    choice, drawn = selection(), Counter[str]()
    for _ in range(2000):
        choice.draw()
        drawn.update(choice.followed(OTHERS))
    assert drawn.keys() == set(OTHERS)
    expected = 2000 * FOLLOW / len(OTHERS)
    assert all(0.8 * expected < count < 1.2 * expected for count in drawn.values())


def test_a_node_connects_to_few_members_beside_those_that_it_follows() -> None:
    network = fixtures.network(60, follow=FOLLOW)
    choice = Selection(network, ME, random.Random(3))
    others = [peer for peer in network.roster if peer != ME]
    near = choice.near(())
    assert len(near) == FOLLOW + MESH_MEMBERS
    assert set(choice.followed(others)) < near
    silent = choice.followed(others)
    without = choice.near(silent) - set(silent)
    assert len(without) == FOLLOW + MESH_MEMBERS, "who does not answer leaves its place"


# Nodes that follow


def network_of(members: int, follow: int) -> Network:
    return Network.parse(canonical(fixtures.network_document(members, follow=follow)))


def followed(world: SimulatedNetwork, index: int) -> set[str]:
    node = world.nodes[index].node
    assert node is not None
    return set(node._feeds._followers)


def test_what_one_node_has_reaches_all_by_few_feeds() -> None:
    """Without gossip, nine nodes that follow two others, and the committee of the open task."""

    async def main() -> None:
        weather = Conditions(Link(loss=1.0))
        network = network_of(MEMBERS, FOLLOW)
        async with run_network(2, network, weather) as world, world.client([0]) as client:
            task = await client.submit("text-to-music", fixtures.args())
            await asyncio.sleep(240)
            assert {node.state(task.id) for node in world.nodes} == {State.AGREED}
            feeds = [set(accepted(node.journal)) for node in world.nodes]
            assert all(feed == feeds[0] for feed in feeds)

    virtual_loop.run(main)


def test_a_node_follows_the_drawn_members_and_the_committee_of_an_open_task() -> None:
    async def main() -> None:
        network = network_of(MEMBERS, FOLLOW)
        async with run_network(3, network) as world, world.client([0]) as client:
            await asyncio.sleep(30)
            quiet = followed(world, 0)
            assert len(quiet) == FOLLOW + 1, "the client is outside the roster"
            task = await client.submit("text-to-music", fixtures.args())
            await asyncio.sleep(UPDATE_SECONDS + 0.5)
            mine = fixtures.task_of(network, client_task(world, task.id))
            voters = set(committees(network, mine)[0]) - {world.nodes[0].peer}
            assert followed(world, 0) == quiet | voters
            await asyncio.sleep(120)
            assert followed(world, 0) == quiet, "the task has ended"

    virtual_loop.run(main)


def client_task(world: SimulatedNetwork, task: str) -> Any:
    return json.loads(world.nodes[0].journal.entries(task)[0].envelope)


def test_other_members_are_drawn_every_hour() -> None:
    async def main() -> None:
        async with run_network(4, network_of(MEMBERS, FOLLOW)) as world:
            drawn = []
            for _ in range(3):
                await asyncio.sleep(DRAW_SECONDS)
                drawn.append(frozenset(followed(world, 0)))
            assert {len(chosen) for chosen in drawn} == {FOLLOW}
            assert len(set(drawn)) > 1

    virtual_loop.run(main)


def hide_all(node: SimulatedNode) -> None:
    """Let a node's feed look empty."""
    assert node.node is not None
    page = {"feed": node.journal.feed_id, "cursor": 0, "ids": []}
    node.node._requests.feeds._page = lambda request: dict(page)  # type: ignore[method-assign]


def test_members_that_hide_all_hold_a_node_back_until_it_draws_others() -> None:
    """The two that it follows are faulty: it lacks a task for an hour, and no longer."""

    async def main() -> None:
        document = fixtures.network_document(MEMBERS, follow=FOLLOW, max_deadline_seconds=86_400)
        network = Network.parse(canonical(document))
        async with run_network(6, network) as world:
            await asyncio.sleep(60)
            reader = world.nodes[READER]
            for node in world.nodes:  # it gets no gossip
                world.medium.set_link(node.peer, reader.peer, Link(loss=1.0))
            world.medium.set_link(fixtures.peer(1000), reader.peer, Link(loss=1.0))
            faulty = followed(world, READER)
            for node in world.nodes:
                if node.peer in faulty:
                    hide_all(node)
            async with world.client([0]) as client:
                task = await client.submit("text-to-music", fixtures.args(), deadline=14_400)
                await asyncio.sleep(600)
            assert world.nodes[0].state(task.id) is State.AGREED
            assert reader.state(task.id) is None
            await asyncio.sleep(2 * DRAW_SECONDS)
            assert followed(world, READER) != faulty
            assert reader.state(task.id) is State.AGREED

    virtual_loop.run(main)
