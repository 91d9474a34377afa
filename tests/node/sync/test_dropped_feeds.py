"""Whole nodes, some of which have dropped old tasks: feeds stay readable, in both directions."""

import asyncio
from collections.abc import Mapping
from typing import Any

from node.rpc.codec import protocol_id
from node.transport.interface import Stream
from protocol.consensus.effects import State
from tests.simulation import virtual_loop
from tests.simulation.network import SimulatedNetwork, SimulatedNode, run_network
from tests.support import fixtures
from tests.support.journals import accepted

MEMBERS = 4


async def agree(world: SimulatedNetwork, seed: int) -> str:
    """Let a task be certified at all nodes; return its id."""
    async with world.client([0]) as client:
        task = await client.submit("text-to-music", fixtures.args(seed=seed))
        await asyncio.sleep(60)
    assert {node.state(task.id) for node in world.nodes} == {State.AGREED}
    return task.id


def drop(world: SimulatedNetwork, *indices: int) -> None:
    for index in indices:
        coordinator = world.nodes[index].coordinator
        assert coordinator is not None
        assert coordinator.drop_ended(float("inf"), 50) > 0


def drop_before_answer(world: SimulatedNetwork, node: SimulatedNode, asked: list[int]) -> None:
    """Let the first three nodes drop all when the first of them is asked for envelopes."""
    assert node.node is not None
    handlers = node.node._requests._dispatcher._handlers
    answer = handlers[protocol_id("envelopes")]

    async def drop_first(request: Mapping[str, Any], stream: Stream) -> None:
        if not asked:
            drop(world, 0, 1, 2)
        asked.append(len(request["ids"]))
        await answer(request, stream)

    handlers[protocol_id("envelopes")] = drop_first


def test_old_cursors_and_new_ones_of_both_kinds_of_nodes() -> None:
    """Two nodes drop a task and two keep it; then each of them reads all feeds from the start."""

    async def main() -> None:
        async with run_network(11, fixtures.network(MEMBERS)) as world:
            old = await agree(world, 1)
            drop(world, 0, 1)
            second = await agree(world, 2)  # their followers have cursors behind what was dropped
            for index in (0, 2):
                node = world.nodes[index]
                await node.crash()
                node.journal._db.execute("DELETE FROM cursors")
                await node.start()
            await asyncio.sleep(120)
            third = await agree(world, 3)
            kept = [node.journal.has_envelopes(old) for node in world.nodes]
            assert kept == [False, False, True, True]
            assert {node.state(old) for node in world.nodes} == {State.AGREED}
            for node in world.nodes:
                assert node.journal.has_envelopes(second)
                assert node.journal.has_envelopes(third)
                # All feeds were read to their ends.
                for other in world.nodes:
                    if other is not node:
                        assert node.ledger.cursor(other.peer) == (
                            other.journal.feed_id,
                            other.journal.last_cursor(),
                        )
            assert not any(node.ledger.evidence() for node in world.nodes)

    virtual_loop.run(main)


def test_ids_of_a_page_may_be_gone_when_they_are_asked_for() -> None:
    """A node lists a task, and drops it before a new node asks for the envelopes."""

    async def main() -> None:
        async with run_network(12, fixtures.network(MEMBERS)) as world:
            await agree(world, 1)
            reader, source = world.nodes[3], world.nodes[0]
            await reader.crash()
            reader.journal._db.executescript("DELETE FROM envelopes; DELETE FROM cursors;")
            reader.journal._db.executescript("DELETE FROM tasks; DELETE FROM certificates;")
            asked: list[int] = []
            for node in world.nodes[:3]:
                drop_before_answer(world, node, asked)
            await reader.start()
            await asyncio.sleep(60)
            assert asked
            assert accepted(reader.journal) == []
            assert reader.ledger.cursor(source.peer)[1] > 0, "the page is read"
            await agree(world, 2)

    virtual_loop.run(main)
