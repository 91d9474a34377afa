import os
import subprocess
import sys
from pathlib import Path

import pytest

from node.cli.exit_codes import Exit, Failure
from node.cli.session import map_exit_codes
from node.client.nodes import NoNodeReachable, TaskRejected
from node.client.result import AudioMismatch
from node.client.submission import GenerationFailed
from node.rpc.codec import ProtocolViolation
from node.sync.blob_download import BlobUnavailable, WrongBytes
from node.sync.task_tracker import NoAgreement, UnknownTask
from node.transport.interface import StreamClosed
from protocol.consensus.effects import State
from protocol.errors import Rejected, Rejection
from tests.node.cli.certified import Certified
from tests.node.cli.conftest import Files, Helium

PEER = "/ip4/127.0.0.1/tcp/9/p2p/12D3KooW" + "a" * 44


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NoNodeReachable("away"), Exit.NO_NODE),
        (BlobUnavailable("away"), Exit.NO_NODE),
        (ConnectionError("away"), Exit.NO_NODE),
        (Rejected(Rejection.OVER_LIMIT, "args.seed: away"), Exit.REJECTED),
        (TaskRejected("over-limit", "away"), Exit.REJECTED),
        (UnknownTask("away"), Exit.REJECTED),
        (NoAgreement(State.INCONCLUSIVE, ()), Exit.NO_AGREEMENT),
        (AudioMismatch("away"), Exit.UNVERIFIED),
        (ProtocolViolation("away"), Exit.UNVERIFIED),
        # Subclasses have the code of their base.
        (WrongBytes("away"), Exit.UNVERIFIED),
        (StreamClosed("away"), Exit.NO_NODE),
    ],
)
def test_every_exception_has_its_exit_code(error: Exception, code: Exit) -> None:
    with pytest.raises(Failure) as raised, map_exit_codes():
        raise error
    assert raised.value.exit_code == code
    assert ("inconclusive" if code is Exit.NO_AGREEMENT else "away") in raised.value.message


def test_other_exceptions_are_not_mapped() -> None:
    with pytest.raises(KeyError), map_exit_codes():
        raise KeyError("away")


def test_an_agreed_error_exits_as_rejected(certified: Certified) -> None:
    with pytest.raises(Failure, match="generation-rejected") as raised, map_exit_codes():
        raise GenerationFailed("generation-rejected", certified.certificate)
    assert raised.value.exit_code == Exit.REJECTED


@pytest.mark.parametrize("command", [("peers",), ("submit", "--seed", "1"), ("status", "0" * 64)])
def test_a_command_without_a_node_is_a_usage_error(
    command: tuple[str, ...], helium: Helium, files: Files
) -> None:
    done = helium(*command, "--network", files.network)
    assert done.exit_code == 2
    assert "HELIUM_PEERS" in done.stderr


def test_a_malformed_address_is_named(helium: Helium, files: Files) -> None:
    done = helium("peers", "--network", files.network, "--peer", "localhost:4001")
    assert done.exit_code == 2
    assert "peers (from --peers): 'localhost:4001' is not of the form" in done.stderr


def test_a_missing_network_document_is_named(helium: Helium) -> None:
    done = helium("peers", "--peer", PEER)
    assert done.exit_code == 2
    assert "network.json: cannot be read" in done.stderr
    assert "--network or HELIUM_NETWORK" in done.stderr


def test_a_file_of_another_kind_is_no_network_document(helium: Helium) -> None:
    Path("song.wav").write_bytes(b"RIFF\xff\xff\0\0WAVE")
    for command in (["network", "show", "song.wav"], ["peers", "--network", "song.wav"]):
        done = helium(*command, *(["--peer", PEER] if command[0] == "peers" else []))
        assert done.exit_code == 2
        assert "song.wav: not UTF-8 at byte 4 (a network document is a JSON file" in done.stderr


def test_a_missing_task_is_reported_first(helium: Helium) -> None:
    done = helium("submit")
    assert done.exit_code == 2
    assert "name a FILE or give --model, --prompt and --seed" in done.stderr


@pytest.mark.parametrize("command", [("submit", "--seed", "1"), ("fetch", "0" * 64)])
@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("none/song.wav", "none/song.wav: cannot be written: No such file or directory"),
        ("c.json/song.wav", "c.json/song.wav: cannot be written: Not a directory"),
        ("/proc/song.wav", "/proc/song.wav: cannot be written: "),
        ("x" * 250, "cannot be written: File name too long"),
        (".", "is a directory"),
        ("songs/", "'songs/' names a folder, not a file"),
        ("song.mp3", "song.mp3: the audio is written as WAV (32-bit float), which can be verified"),
        ("piano.mid", "name a file that ends in .wav"),
        ("", "-o: must name a file"),
    ],
)
def test_the_output_is_checked_before_any_node_is_asked(
    command: tuple[str, ...], output: str, reason: str, helium: Helium, files: Files
) -> None:
    done = helium(*command, "--network", files.network, "--peer", PEER, "-o", output)
    assert done.exit_code == 2
    assert reason in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_output_is_not_checked_with_no_wait(helium: Helium, files: Files) -> None:
    done = helium("submit", "--seed", "1", "--no-wait", "-o", "none/song.wav")
    assert "HELIUM_PEERS" in done.stderr


WITH_SHORT_TIMEOUT = (
    "import sys, node.client.client; node.client.client.CONNECT_SECONDS = 1.5;"
    "from node.cli.main import main; sys.argv[0] = 'helium'; main()"
)


def test_an_unreachable_peer_is_one_line_of_a_real_process(
    files: Files, certified: Certified
) -> None:
    address = f"/ip4/127.0.0.1/tcp/1/p2p/{certified.certificate.signers[0]}"
    command = [sys.executable, "-c", WITH_SHORT_TIMEOUT, "peers", "--network", str(files.network)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HELIUM_")}
    done = subprocess.run(
        [*command, "--peer", address],
        capture_output=True,
        text=True,
        cwd=Path(__file__).resolve().parents[3],
        env=environment,
        check=False,
    )
    assert done.returncode == 3
    assert done.stderr == f"helium: no node can be reached: {address}: connection refused\n"


@pytest.mark.parametrize("task", ["x", "0" * 7, "0" * 65, "G" * 64])
def test_a_malformed_task_id_is_a_usage_error(task: str, helium: Helium, files: Files) -> None:
    done = helium("status", task, "--network", files.network, "--peer", PEER)
    assert done.exit_code == 2
    assert "64 lowercase hex" in done.stderr


def test_a_malformed_task_file_is_reported_before_any_node_is_asked(
    helium: Helium, files: Files
) -> None:
    Path("task.json").write_text('{"seed": 1, "seed": 1}')
    done = helium("submit", "task.json", "--network", files.network, "--peer", PEER)
    assert done.exit_code == 2
    assert "task.json: duplicate member 'seed'" in done.stderr
