"""A member is killed during its execution and restarted."""

from collections.abc import Iterator

import pytest

from node.client.client import Client
from node.client.submission import Submission
from protocol.consensus.committee import committees
from protocol.consensus.effects import State
from protocol.network import NetworkParameters
from scripts.testnet_tool.nodes import LocalNode
from tests.integration.conftest import Running, running_light, task

# Seconds of an execution: enough time to see it and kill the node.
EXECUTION = "--seconds=4"


@pytest.fixture(scope="module")
def committee_of_three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    root = tmp_path_factory.mktemp("crash-3")
    with running_light(root, 3, NetworkParameters(commit_grace_seconds=1), EXECUTION) as network:
        yield network


@pytest.fixture(scope="module")
def committee_of_two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    root = tmp_path_factory.mktemp("crash-2")
    parameters = NetworkParameters(committee_size=2, commit_grace_seconds=1, attempt_seconds=20)
    with running_light(root, 3, parameters, EXECUTION) as network:
        yield network


async def _submit_and_kill(client: Client, network: Running) -> tuple[Submission, LocalNode]:
    """Kill a member of the first committee once it has begun to generate."""
    submission = await client.submit("text-to-music", task())  # type: ignore[arg-type]
    async for status in submission.tracker.watch():
        if status.state is State.EXECUTING and status.progress > 0:
            [victim] = [node for node in network.nodes if node.peer == status.peer]
            network.daemons.kill(victim)
            return submission, victim
    raise AssertionError("the task ended before any node reported its execution")


async def _restart_and_query(network: Running, victim: LocalNode, submission: Submission) -> None:
    """Restart the killed node and request the certificate from it alone."""
    network.daemons.start(victim)
    network.daemons.wait_connected()
    async with Client.connect(network.network, [victim.address]) as client:
        certificate = await client.follow(submission.id).tracker.certificate()
        assert certificate.task.id == submission.id
        assert victim.peer not in certificate.signers


async def test_others_agree_and_killed_node_catches_up(
    committee_of_three: Running,
) -> None:
    network = committee_of_three
    async with Client.connect(network.network, network.daemons.addresses) as client:
        submission, victim = await _submit_and_kill(client, network)
        certificate = await submission.tracker.certificate()
    assert certificate.attempt == 0
    assert len(certificate.signers) == 2
    await _restart_and_query(network, victim, submission)


async def test_next_attempt_agrees_after_quorum_loss(
    committee_of_two: Running,
) -> None:
    network = committee_of_two
    async with Client.connect(network.network, network.daemons.addresses) as client:
        submission, victim = await _submit_and_kill(client, network)
        certificate = await submission.tracker.certificate()
    assert certificate.attempt == 1
    first = committees(network.network, certificate.task)[0]
    assert victim.peer in first
    assert len(certificate.signers) == 2
    await _restart_and_query(network, victim, submission)
