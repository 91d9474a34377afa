"""Input files of a task: uploaded by the requester, fetched by the members by hash."""

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import pytest

from node.client.nodes import submit_to_node
from node.rpc.client import RequestRefused, send_request
from node.rpc.codec import protocol_id
from node.sync.blob_download import rendezvous_order
from node.sync.task_tracker import NoAgreement
from node.transport.interface import Stream
from protocol.errors import Rejected, Rejection
from protocol.wire.messages import Abstention
from tests.node.transport.recorder import Recorder
from tests.simulation import virtual_loop
from tests.simulation.adversaries.adversary import Adversary, Environment
from tests.simulation.adversaries.host import AdversaryHost
from tests.simulation.doubles import SlowServingTransport, score_of
from tests.simulation.network import SimulatedNode, run_network
from tests.support import fixtures
from tests.support.memory_transport.network import MemoryTransport
from tests.support.songs import wav

SONGS = (wav(300_000), wav(700_000))
ARGS: dict[str, Any] = {"model": fixtures.PIANO, "composer": "composer1", "seed": 7}


def test_inputs_reach_every_member_and_scores_are_returned(tmp_path: Path) -> None:
    async def main() -> None:
        file = tmp_path / "song.wav"
        file.write_bytes(SONGS[0])
        async with (
            run_network(1, fixtures.piano_network()) as world,
            world.client() as client,
        ):
            task = await client.submit("pop2piano", ARGS, audio=[file, SONGS[1]])
            result = await task.result()
            assert result.scores == tuple(map(score_of, SONGS))
            written = result.write(tmp_path / "piano.wav")
            assert {path.suffix for path in written} == {".wav", ".mid"}
            scores = [path.read_bytes() for path in written if path.suffix == ".mid"]
            assert scores == list(result.scores)

    virtual_loop.run(main)


def test_members_fetch_inputs_from_a_node_outside_the_committee() -> None:
    async def main() -> None:
        async with run_network(2, fixtures.piano_network()) as world, world.client() as client:
            task = client.sign_task("pop2piano", fixtures.piano_args(*SONGS))
            first = world.nodes[0].coordinator
            assert first is not None
            outside = next(i for i in world.nodes if i.peer not in first.first_committee(task))
            await submit_to_node(client.transport, outside.peer, task, SONGS)
            certificate = await client.follow(task.id).tracker.certificate()
            assert outside.peer not in certificate.signers

    virtual_loop.run(main)


class SlowServingNode(SimulatedNode):
    """An honest member that serves inputs very slowly."""

    def make_transport(self) -> SlowServingTransport:
        return SlowServingTransport(self._world.medium, self.peer)


def test_inputs_arrive_in_time_although_the_first_peers_serve_slowly() -> None:
    async def main() -> None:
        net, song = fixtures.piano_network(7, committee_size=7), (b"fLaC" + bytes(700_000)) * 5
        name = hashlib.sha256(song).hexdigest()
        numbers = {fixtures.peer(index): index for index in range(7)}
        first = fixtures.peer(0)  # and others may ask in another order
        order = [numbers[peer] for peer in rendezvous_order({*numbers} - {first}, first, name)]
        labels = ["absent" if index in order[:3] else "honest" for index in range(7)]
        async with run_network(6, net, labels=labels) as world:
            for index in order[:3]:
                world.nodes.append(SlowServingNode(world, index, "honest"))
                await world.nodes[-1].start()
            await asyncio.sleep(1)
            indices = [*order[:3], order[5]]
            async with world.client(indices) as client:
                task = client.sign_task("pop2piano", fixtures.piano_args(song))
                for index in indices:
                    await submit_to_node(client.transport, fixtures.peer(index), task, [song])
                certificate = await client.follow(task.id).tracker.certificate()
                assert asyncio.get_running_loop().time() < 60
                assert certificate.outcome["result"]
            await asyncio.sleep(30)
            assert all(node.blobs.has(name) for node in world.nodes)

    virtual_loop.run(main)


def test_members_request_inputs_from_members_first() -> None:
    async def main() -> None:
        async def serve(protocol: str, stream: Stream) -> None:
            requests.append(protocol)

        requests: list[str] = []
        async with (
            run_network(7, fixtures.piano_network()) as world,
            world.client([0]) as client,
        ):
            first = min(fixtures.peer(index) for index in range(20, 60))
            assert first < min(world.network.roster)
            stranger = MemoryTransport(world.medium, first)
            await stranger.start(Recorder(serve), (), [protocol_id("blob")])
            for index in range(4):
                await stranger.dial(world.address(index))
            task = await client.submit("pop2piano", ARGS, audio=[SONGS[0]])
            assert await task.result()
            assert requests == []
            await stranger.stop()

    virtual_loop.run(main)


def test_missing_inputs_lead_to_abstention() -> None:
    async def main() -> None:
        net = fixtures.piano_network(5)
        async with run_network(3, net, labels=["honest"] * 4 + ["absent"]) as world:
            stranger = Adversary(Environment(net, world.medium, world.random), 4)
            await AdversaryHost(world.medium, stranger).start([world.address(i) for i in range(4)])
            body = fixtures.task(net, kind="pop2piano", requester=4).envelope.body
            stranger.send({**body, "args": fixtures.piano_args(*SONGS)})
            await asyncio.sleep(2)
            (task,) = {t for i in world.nodes for t in i.journal.open_tasks()}
            async with world.client([0, 1, 2, 3]) as client:
                with pytest.raises(NoAgreement) as ended:
                    await client.follow(task).tracker.certificate()
            reasons = {ballot.abstained for ballot in ended.value.votes}
            assert reasons == {str(Abstention.INPUT_MISSING)}

    virtual_loop.run(main)


def test_other_tasks_are_agreed_while_nobody_serves_an_input() -> None:
    async def main() -> None:
        net = fixtures.piano_network(5, committee_size=5)
        async with run_network(3, net, labels=["honest"] * 4 + ["absent"]) as world:
            stranger = Adversary(Environment(net, world.medium, world.random), 4)
            await AdversaryHost(world.medium, stranger).start([world.address(i) for i in range(4)])
            for nonce in range(8):
                task = fixtures.task(net, kind="pop2piano", requester=4, nonce=nonce)
                body = {**task.envelope.body, "args": fixtures.piano_args(bytes([nonce]))}
                stranger.send(body)
            await asyncio.sleep(2)
            assert len(world.nodes[0].journal.open_tasks()) == 8
            async with world.client([0, 1, 2, 3]) as client:
                began = asyncio.get_running_loop().time()
                song = await client.submit("pop2piano", ARGS, audio=[SONGS[0]])
                music = await client.submit("text-to-music", fixtures.args())
                assert await song.result()
                assert await music.result()
                assert asyncio.get_running_loop().time() - began < 20, "of one input's rounds"

    virtual_loop.run(main)


@pytest.mark.parametrize(
    ("sizes", "payloads", "detail"),
    [
        ([], (), "blobs: must be the sizes"),
        ([len(SONGS[0]) + 1], SONGS[:1], "blobs: must be the sizes"),
        ([len(SONGS[0])], (bytes(len(SONGS[0])),), "blobs: the hash"),
    ],
)
def test_uploads_that_differ_from_the_task_are_refused(
    sizes: list[int], payloads: tuple[bytes, ...], detail: str
) -> None:
    async def main() -> None:
        async with run_network(4, fixtures.piano_network()) as world, world.client() as client:
            task = client.sign_task("pop2piano", fixtures.piano_args(SONGS[0]))
            request: Any = {"task": task.envelope.document(), "blobs": list(sizes)}
            with pytest.raises(RequestRefused, match=detail):
                await send_request(
                    client.transport, world.nodes[0].peer, "submit", request, 30, payloads
                )
            assert world.nodes[0].state(task.id) is None

    virtual_loop.run(main)


def test_oversized_inputs_are_rejected_before_upload() -> None:
    async def main() -> None:
        net = fixtures.piano_network(max_input_bytes=1_000_000)
        async with run_network(5, net) as world, world.client() as client:
            with pytest.raises(Rejected) as refused:
                await client.submit("pop2piano", ARGS, audio=[SONGS[1], wav(700_001)])
            assert refused.value.reason == Rejection.OVER_LIMIT

    virtual_loop.run(main)
