"""A member is killed in the middle of its execution, and comes back."""

from collections.abc import Iterator

import pytest

from node.client.client import Client, Submission
from protocol.consensus.committee import committees
from protocol.consensus.effects import State
from protocol.network import NetworkParameters
from protocol.wire.encoding import Document
from scripts.testnet_tool.nodes import LocalNode
from tests.integration.conftest import Running, running, task

LONG = 800  # tokens: some seconds, in which there is time to kill a node


@pytest.fixture(scope="module")
def three_of_four(runtime: Document, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    root = tmp_path_factory.mktemp("crash-3")
    with running(root, 4, runtime, NetworkParameters(commit_grace_seconds=1)) as found:
        yield found


@pytest.fixture(scope="module")
def two_of_four(runtime: Document, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    root = tmp_path_factory.mktemp("crash-2")
    parameters = NetworkParameters(committee_size=2, commit_grace_seconds=1, attempt_seconds=25)
    with running(root, 4, runtime, parameters) as found:
        yield found


async def _submit_and_kill(client: Client, found: Running) -> tuple[Submission, LocalNode]:
    """Kill a member of the first committee once it has begun to generate."""
    submission = await client.submit("text-to-music", task(max_new_tokens=LONG))  # type: ignore[arg-type]
    async for sighting in submission.tracker.watch():
        if sighting.state is State.EXECUTING and sighting.progress > 0:
            [victim] = [node for node in found.nodes if node.peer == sighting.peer]
            found.daemons.kill(victim)
            return submission, victim
    raise AssertionError("the task ended before anyone was seen to execute it")


async def _restart_and_ask(found: Running, victim: LocalNode, submission: Submission) -> None:
    """Ask the killed node, and nobody else, for the certificate."""
    found.daemons.start(victim)
    found.daemons.wait_connected()
    async with Client.connect(found.network, [victim.address]) as client:
        certificate = await client.follow(submission.id).tracker.certificate()
        assert certificate.task.id == submission.id
        assert victim.peer not in certificate.signers


async def test_the_others_agree_and_the_killed_node_catches_up(three_of_four: Running) -> None:
    found = three_of_four
    async with Client.connect(found.network, found.daemons.addresses) as client:
        submission, victim = await _submit_and_kill(client, found)
        certificate = await submission.tracker.certificate()
    assert certificate.attempt == 0
    assert len(certificate.signers) == 2
    await _restart_and_ask(found, victim, submission)


async def test_where_the_quorum_is_lost_the_next_attempt_agrees(two_of_four: Running) -> None:
    found = two_of_four
    async with Client.connect(found.network, found.daemons.addresses) as client:
        submission, victim = await _submit_and_kill(client, found)
        certificate = await submission.tracker.certificate()
    assert certificate.attempt == 1
    first = committees(found.network, certificate.task)[0]
    assert victim.peer in first
    assert len(certificate.signers) == 3
    await _restart_and_ask(found, victim, submission)
