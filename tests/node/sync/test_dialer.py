import asyncio
import contextlib
import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager

import pytest

from node.sync.dialer import (
    CHECK_SECONDS,
    MAX_BACKOFF,
    MIN_BACKOFF,
    NEXT_ADDRESS_SECONDS,
    Wants,
    keep_connected,
    peer_in,
)
from tests.node.transport.recorder import Recorder
from tests.simulation import virtual_loop
from tests.support import fixtures
from tests.support.memory_transport.network import MemoryNetwork, MemoryTransport

ME, OTHER = fixtures.peer(0), fixtures.peer(1)


def address(peer: str) -> str:
    return f"/memory/0/p2p/{peer}"


class Dialling(MemoryTransport):
    """Keeps when it dialled whom. An address with "silent" in it never answers."""

    def __init__(self, network: MemoryNetwork, peer: str) -> None:
        super().__init__(network, peer)
        self.dialled: list[tuple[float, str]] = []

    async def dial(self, address: str) -> str:
        self.dialled.append((asyncio.get_running_loop().time(), address))
        if "silent" in address:
            await asyncio.sleep(15)
            raise ConnectionError("no answer")
        return await super().dial(address)


class Scene:
    """A node that keeps its links, and a medium in which others come and go."""

    def __init__(self) -> None:
        self.medium = MemoryNetwork(random.Random(1))
        self.mine = Dialling(self.medium, ME)

    async def appear(self, peer: str) -> None:
        await MemoryTransport(self.medium, peer).start(Recorder(), (), ())

    @asynccontextmanager
    async def keeping(
        self, addresses: Sequence[str], wants: Wants = lambda peers, unreachable: peers
    ) -> AsyncIterator[None]:
        await self.mine.start(Recorder(), (), ())
        keeping = keep_connected(self.mine, addresses, random.Random(2), wants=wants)
        task = asyncio.create_task(keeping)
        try:
            yield
            assert not task.done()
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


def play(scene: Callable[[Scene], Awaitable[None]]) -> None:
    async def main() -> None:
        await scene(Scene())

    virtual_loop.run(main)


def test_lost_connections_are_dialled_again() -> None:
    async def scene(scene: Scene) -> None:
        peers = [fixtures.peer(index) for index in (1, 2, 3)]
        for peer in peers:
            await scene.appear(peer)
        async with scene.keeping([address(peer) for peer in peers]):
            await asyncio.sleep(1)
            assert scene.mine.peers() == set(peers)
            scene.medium.disconnect(ME, OTHER)
            assert OTHER not in scene.mine.peers()
            await asyncio.sleep(CHECK_SECONDS + 0.1)
            assert scene.mine.peers() == set(peers)
            assert len(scene.mine.dialled) == 4, "those still there are left alone"

    play(scene)


def test_own_address_is_not_dialled() -> None:
    async def scene(scene: Scene) -> None:
        await scene.appear(OTHER)
        async with scene.keeping([address(ME), address(OTHER)]):
            await asyncio.sleep(10)
            assert {to for _, to in scene.mine.dialled} == {address(OTHER)}

    play(scene)


def test_absent_peer_is_dialled_with_exponential_backoff() -> None:
    async def scene(scene: Scene) -> None:
        async with scene.keeping([address(OTHER)]):
            await asyncio.sleep(120)
            times = [at for at, _ in scene.mine.dialled]
            pauses = [late - early for early, late in itertools.pairwise(times)]
            assert MIN_BACKOFF / 2 <= pauses[0] <= MIN_BACKOFF + 0.1
            assert max(pauses) > MAX_BACKOFF / 2
            assert all(pause <= MAX_BACKOFF + 0.1 for pause in pauses)
            assert len(set(pauses)) == len(pauses), "drawn, so that two do not dial in step"
            await scene.appear(OTHER)
            await asyncio.sleep(MAX_BACKOFF + 0.1)
            assert scene.mine.peers() == {OTHER}

    play(scene)


def test_backoff_is_reset_after_a_connection() -> None:
    async def scene(scene: Scene) -> None:
        async with scene.keeping([address(OTHER)]):
            await asyncio.sleep(60)
            await scene.appear(OTHER)
            await asyncio.sleep(20)
            scene.medium.crash(OTHER)
            tried = len(scene.mine.dialled)
            await asyncio.sleep(CHECK_SECONDS + 3 * MIN_BACKOFF)
            assert len(scene.mine.dialled) >= tried + 2

    play(scene)


def test_absent_peer_does_not_delay_other_peers() -> None:
    async def scene(scene: Scene) -> None:
        await scene.appear(fixtures.peer(2))
        async with scene.keeping([address(OTHER), address(fixtures.peer(2))]):
            await asyncio.sleep(1)
            assert scene.mine.peers() == {fixtures.peer(2)}

    play(scene)


def test_a_silent_address_does_not_delay_the_next_one_of_its_peer() -> None:
    async def scene(scene: Scene) -> None:
        await scene.appear(OTHER)
        async with scene.keeping([f"/silent/0/p2p/{OTHER}", address(OTHER)]):
            await asyncio.sleep(NEXT_ADDRESS_SECONDS + 0.2)
            assert scene.mine.peers() == {OTHER}
            await asyncio.sleep(60)
            assert len(scene.mine.dialled) == 2

    play(scene)


def test_a_peer_with_two_addresses_is_dialled_once() -> None:
    async def scene(scene: Scene) -> None:
        await scene.appear(OTHER)
        async with scene.keeping([address(OTHER), f"/memory/1/p2p/{OTHER}", address(OTHER)]):
            await asyncio.sleep(30)
            assert scene.mine.peers() == {OTHER}
            assert len(scene.mine.dialled) == 1

    play(scene)


def test_peer_id_of_a_multiaddr() -> None:
    assert peer_in(f"/ip4/127.0.0.1/tcp/4001/p2p/{ME}") == ME
    assert peer_in(f"/dns4/node.example/tcp/1/p2p/{ME}/p2p/{OTHER}") == OTHER


@pytest.mark.parametrize(
    "text", ["", "nonsense", "/ip4/127.0.0.1/tcp/4001", "/p2p/x", "/tcp/1/p2p/", "/tcp/1/p2p/x/y"]
)
def test_multiaddr_without_peer_id_is_rejected(text: str) -> None:
    with pytest.raises(ValueError, match="must be a multiaddr that ends in /p2p/"):
        peer_in(text)


def test_only_wanted_peers_are_dialled() -> None:
    async def scene(scene: Scene) -> None:
        third = fixtures.peer(2)
        for peer in (OTHER, third):
            await scene.appear(peer)
        wanted = {OTHER}
        both = [address(OTHER), address(third)]
        async with scene.keeping(both, lambda peers, _: wanted & set(peers)):
            await asyncio.sleep(10)
            assert scene.mine.peers() == {OTHER}
            wanted.add(third)
            await asyncio.sleep(CHECK_SECONDS + 1)
            assert scene.mine.peers() == {OTHER, third}
            wanted.clear()
            scene.medium.disconnect(ME, OTHER)
            await asyncio.sleep(MAX_BACKOFF)
            assert scene.mine.peers() == {third}, "a connection that is there is left alone"

    play(scene)


def test_peers_that_do_not_answer_are_told_to_whoever_chooses() -> None:
    async def scene(scene: Scene) -> None:
        asked: list[frozenset[str]] = []

        def wants(peers: Sequence[str], unreachable: Collection[str]) -> Sequence[str]:
            asked.append(frozenset(unreachable))
            return peers

        async with scene.keeping([address(OTHER)], wants):
            await asyncio.sleep(5)
            assert asked[0] == frozenset()
            assert asked[-1] == {OTHER}
            await scene.appear(OTHER)
            await asyncio.sleep(MAX_BACKOFF + 2 * CHECK_SECONDS)
            scene.medium.disconnect(ME, OTHER)
            await asyncio.sleep(2 * CHECK_SECONDS)
            assert asked[-1] == frozenset()

    play(scene)
