from pathlib import Path

import pytest

from node.audio import AudioMismatch
from node.cli.exits import Exit, Failure
from node.cli.talking import exit_codes
from node.client import GenerationFailed, NoAgreement, NoNode, TaskRejected
from node.fetching import Unavailable
from node.requests import Misbehaved
from node.tracking import UnknownTask
from protocol.effects import State
from protocol.errors import Rejected, Rejection
from tests.node.cli.certified import Made
from tests.node.cli.conftest import Files, Helium

PEER = "/ip4/127.0.0.1/tcp/9/p2p/12D3KooW" + "a" * 44


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NoNode("away"), Exit.NO_NODE),
        (Unavailable("away"), Exit.NO_NODE),
        (ConnectionError("away"), Exit.NO_NODE),
        (Rejected(Rejection.OVER_LIMIT, "args.seed: away"), Exit.REJECTED),
        (TaskRejected("over-limit", "away"), Exit.REJECTED),
        (UnknownTask("away"), Exit.REJECTED),
        (NoAgreement(State.INCONCLUSIVE, ()), Exit.NO_AGREEMENT),
        (AudioMismatch("away"), Exit.UNVERIFIED),
        (Misbehaved("away"), Exit.UNVERIFIED),
    ],
)
def test_every_failure_has_its_code(error: Exception, code: Exit) -> None:
    with pytest.raises(Failure) as raised, exit_codes():
        raise error
    assert raised.value.exit_code == code
    assert ("inconclusive" if code is Exit.NO_AGREEMENT else "away") in raised.value.message


def test_an_agreed_error_is_a_rejection(made: Made) -> None:
    with pytest.raises(Failure, match="generation-rejected") as raised, exit_codes():
        raise GenerationFailed("generation-rejected", made.certificate)
    assert raised.value.exit_code == Exit.REJECTED


@pytest.mark.parametrize("command", [("peers",), ("submit",), ("status", "0" * 64)])
def test_a_command_without_a_node_to_ask_is_wrong_usage(
    command: tuple[str, ...], helium: Helium, files: Files
) -> None:
    done = helium(*command, "--network", files.network)
    assert done.exit_code == 2
    assert "HELIUM_PEERS" in done.stderr


def test_a_bad_address_is_named(helium: Helium, files: Files) -> None:
    done = helium("peers", "--network", files.network, "--peer", "localhost:4001")
    assert done.exit_code == 2
    assert "peers (from --peers): ('localhost:4001',) is not of the form" in done.stderr


def test_a_missing_network_document_is_named(helium: Helium) -> None:
    done = helium("peers", "--peer", PEER)
    assert done.exit_code == 2
    assert "network.json: cannot be read" in done.stderr


@pytest.mark.parametrize("task", ["x", "0" * 63, "G" * 64])
def test_a_task_id_is_checked_first(task: str, helium: Helium, files: Files) -> None:
    done = helium("status", task, "--network", files.network, "--peer", PEER)
    assert done.exit_code == 2
    assert "64 lowercase hex" in done.stderr


def test_a_bad_task_file_is_named_before_anyone_is_asked(helium: Helium, files: Files) -> None:
    Path("task.json").write_text('{"seed": 1, "seed": 1}')
    done = helium("submit", "task.json", "--network", files.network, "--peer", PEER)
    assert done.exit_code == 2
    assert "task.json: duplicate member 'seed'" in done.stderr
