"""`helium cancel`, by nodes that show the withdrawal or do not."""

from pathlib import Path

import pytest

from node.cli.commands.cancel import CERTIFIED, REQUEST, cancel_task
from node.cli.exit_codes import Exit, Failure
from node.cli.session import map_exit_codes
from node.client.client import Client
from node.client.withdrawal import WithdrawalNotShown
from protocol.wire.encoding import Document, canonical
from tests.node.cli.conftest import Helium
from tests.node.client.test_client import NET, TASK, Fake, Member, with_client
from tests.node.sync.test_task_tracker import certify
from tests.support import fixtures

PEER = "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWNaitGQ5QHE9P9ruJqLUAawAGg5fUU5e4yRCmvpQ2qMx2"


def test_the_nodes_that_show_the_withdrawal_are_named() -> None:
    async def test(client: Client) -> None:
        document, [line], note = await cancel_task(client, TASK.id)
        assert document == {
            "task": TASK.id,
            "requester": fixtures.peer(1000),
            "withdrawn": True,
            "nodes": sorted(fixtures.peer(index) for index in (1, 2)),
        }
        names = ", ".join(
            f"{NET.roster[peer].operator} ..{peer[-6:]}"
            for peer in sorted(fixtures.peer(index) for index in (1, 2))
        )
        assert line == f"withdrawn  task {TASK.id}: shown by 2 nodes: {names}"
        assert note == REQUEST

    with_client(Fake(), Member(), Member(), test=test)


def test_a_withdrawal_that_one_node_shows_says_so() -> None:
    async def test(client: Client) -> None:
        _, [line], _ = await cancel_task(client, TASK.id)
        assert "shown by 1 node: " in line

    with_client(Member(), test=test)


def test_a_withdrawal_of_a_certified_task_says_that_it_changes_nothing() -> None:
    outcome: Document = {"error": "non-finite-output"}
    certificate = certify(NET, TASK, outcome)
    member = Member(state="agreed-error", certificate=certificate.document)

    async def test(client: Client) -> None:
        *_, note = await cancel_task(client, TASK.id)
        assert note == CERTIFIED

    with_client(member, test=test)


def test_a_withdrawal_that_too_few_nodes_show_exits_with_3() -> None:
    with (
        pytest.raises(Failure, match="none of the 2 nodes") as failed,
        map_exit_codes(),
    ):
        raise WithdrawalNotShown("none of the 2 nodes that answer shows the withdrawal")
    assert failed.value.exit_code == Exit.NO_NODE


def test_the_key_is_required(helium: Helium, tmp_path: Path) -> None:
    done = helium("cancel", TASK.id, "--peer", PEER)
    assert done.exit_code == Exit.USAGE
    assert "--key: name the key that signed the task" in done.stderr


def test_the_environment_names_the_requesters_key(
    helium: Helium, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HELIUM_REQUESTER_KEY", "absent.pem")
    Path("network.json").write_bytes(canonical(NET.document))
    done = helium("cancel", TASK.id, "--peer", PEER, "--network", "network.json")
    assert done.exit_code == Exit.USAGE
    assert "absent.pem" in done.stderr


@pytest.mark.parametrize("task", ["x", TASK.id[:7], TASK.id.upper()])
def test_what_is_no_task_id_is_a_usage_error(task: str, helium: Helium) -> None:
    done = helium("cancel", task, "--peer", PEER, "--key", "k.pem")
    assert done.exit_code == Exit.USAGE
    assert "must be a task id: 64" in done.stderr
