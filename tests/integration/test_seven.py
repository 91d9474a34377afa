"""Seven honest nodes: only the committee executes."""

from collections.abc import Iterator

import pytest

from node.client.client import Client
from node.rpc.client import send_request
from protocol.consensus.committee import committees
from protocol.consensus.effects import State
from protocol.network import NetworkParameters
from scripts.testnet_tool.nodes import events
from tests.integration.conftest import Running, running_light, task


@pytest.fixture(scope="module")
def seven(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    root = tmp_path_factory.mktemp("seven")
    parameters = NetworkParameters(commit_grace_seconds=1)
    with running_light(root, 7, parameters, "--seconds=1") as network:
        yield network


async def test_only_the_committee_executes(seven: Running) -> None:
    executing = set()
    async with Client.connect(seven.network, seven.daemons.addresses) as client:
        submission = await client.submit("text-to-music", task())  # type: ignore[arg-type]
        async for status in submission.tracker.watch():
            if status.state is State.EXECUTING:
                executing.add(status.peer)
        certificate = await submission.tracker.certificate()
        committee = set(committees(seven.network, certificate.task)[0])
        for node in seven.nodes:
            alone = client.transport
            answer = await send_request(alone, node.peer, "task", {"task": submission.id})
            voters = {e["signer"] for e in answer["envelopes"] if e["body"]["type"] != "task"}
            assert voters <= committee
    assert len(committee) == 3
    assert executing <= committee
    assert _executed(seven, submission.id) == committee


async def test_node_outside_the_committee_serves_the_certificate(seven: Running) -> None:
    async with Client.connect(seven.network, seven.daemons.addresses) as client:
        submission = await client.submit("text-to-music", task(seed=1))  # type: ignore[arg-type]
        certificate = await submission.tracker.certificate()
    committee = committees(seven.network, certificate.task)[0]
    outside = next(node for node in seven.nodes if node.peer not in committee)
    async with Client.connect(seven.network, [outside.address]) as client:
        followed = await client.follow(submission.id).tracker.certificate()
        assert followed.outcome == certificate.outcome


def _executed(network: Running, task_id: str) -> set[str]:
    """Return the peers whose own log says that they executed the task."""
    return {
        node.peer
        for node in network.nodes
        for event in events(node)
        if event.get("task") == task_id and event.get("state") == "executing"
    }
