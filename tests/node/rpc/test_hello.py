"""The answer to hello: whether another instance of the asker's key is connected (7.4)."""

import json

import pytest

import schemas
from node.rpc.hello import MAX_INSTANCES, Greeter, ServingStatus
from protocol.wire.encoding import canonical
from tests.support import fixtures
from tests.support.clock import ManualClock
from tests.support.memory_transport.pipes import MemoryConnection

NET = fixtures.network()
ASKER, OTHER = fixtures.peer(1), fixtures.peer(2)
FIRST, SECOND = "0f" * 16, "1e" * 16


class Scene:
    """A greeter, whose answers are read as they arrive."""

    def __init__(self) -> None:
        self.clock = ManualClock(fixtures.START)
        self.greeter = Greeter(
            NET, fixtures.peer(0), "ab" * 16, self.clock.now, lambda: ServingStatus({})
        )

    def duplicate(self, connection: MemoryConnection, instance: str, peer: str = ASKER) -> bool:
        request = fixtures.hello_request(NET.id) | {"instance": instance}
        schemas.check("hello-request", request)
        answer = json.loads(canonical(self.greeter.answer(peer, connection, request)))
        schemas.check("hello-answer", answer)
        return bool(answer["duplicate"])


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_one_instance_is_no_duplicate_of_itself(scene: Scene) -> None:
    for connection in (MemoryConnection(), MemoryConnection(closed=True), MemoryConnection()):
        assert not scene.duplicate(connection, FIRST)


def test_instances_of_two_peers_are_no_duplicates(scene: Scene) -> None:
    assert not scene.duplicate(MemoryConnection(), FIRST)
    assert not scene.duplicate(MemoryConnection(), SECOND, OTHER)


def test_a_connected_instance_is_a_duplicate_however_long_it_was_silent(scene: Scene) -> None:
    first, second = MemoryConnection(), MemoryConnection()
    assert not scene.duplicate(first, FIRST)
    scene.clock.time += 6000
    assert scene.duplicate(second, SECOND)
    assert scene.duplicate(first, FIRST), "each of the two is told"
    scene.clock.time += 6000
    first.closed = True
    assert not scene.duplicate(second, SECOND)


def test_a_restarted_node_is_no_duplicate(scene: Scene) -> None:
    assert not scene.duplicate(MemoryConnection(closed=True), FIRST)
    scene.clock.time += 0.1
    assert not scene.duplicate(MemoryConnection(), SECOND)


def test_a_reconnected_instance_counts_by_its_new_connection(scene: Scene) -> None:
    assert not scene.duplicate(MemoryConnection(closed=True), FIRST)
    assert not scene.duplicate(MemoryConnection(), FIRST)
    scene.clock.time += 120
    assert scene.duplicate(MemoryConnection(), SECOND)


def test_few_instances_of_a_peer_are_remembered(scene: Scene) -> None:
    for number in range(100):
        scene.duplicate(MemoryConnection(), f"{number:032x}")
    assert len(scene.greeter._instances[ASKER]) == MAX_INSTANCES
    assert scene.duplicate(MemoryConnection(), f"{200:032x}")
