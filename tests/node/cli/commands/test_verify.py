import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from protocol.consensus.certificate import verify_bytes
from protocol.errors import Rejected
from protocol.wire.encoding import parse
from tests.node.cli.certified import RATE, Made, make, wav
from tests.node.cli.conftest import Files, Helium


def test_a_certificate_and_its_audio_pass(helium: Helium, files: Files, made: Made) -> None:
    done = helium(
        "verify", files.certificate, "--network", files.network, "--audio", files.audio, "--json"
    )
    assert done.exit_code == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["valid"] is True
    assert document["task"] == made.certificate.task.id
    assert document["signers"] == list(made.certificate.signers)
    assert document["audio"] == {"path": str(files.audio), "output": 0}


def test_lines_for_people_name_every_signer(helium: Helium, files: Files, made: Made) -> None:
    done = helium("verify", files.certificate, "--network", files.network)
    assert done.exit_code == 0
    assert all(signer in done.stdout for signer in made.certificate.signers)


def test_the_network_may_come_from_the_environment(
    helium: Helium, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HELIUM_NETWORK", str(files.network))
    assert helium("verify", files.certificate).exit_code == 0


def test_standard_input_is_read(helium: Helium, files: Files) -> None:
    text = files.certificate.read_text()
    assert helium("verify", "-", "--network", files.network, stdin=text).exit_code == 0


def test_an_agreed_error_verifies_too(helium: Helium, files: Files) -> None:
    files.certificate.write_bytes(make({"error": "non-finite-output"}).certificate.encode())
    done = helium("verify", files.certificate, "--network", files.network)
    assert done.exit_code == 0
    assert "error non-finite-output" in done.stdout


def test_no_byte_can_change_unnoticed(made: Made) -> None:
    """Every position, with its neighbour in the alphabet, the other case and any other byte."""
    exact = made.certificate.encode()
    dice = random.Random(1)
    for position, byte in enumerate(exact):
        for other in {byte ^ 1, byte ^ 32, dice.randrange(256)} - {byte}:
            altered = bytearray(exact)
            altered[position] = other
            with pytest.raises(Rejected) as raised:
                verify_bytes(bytes(altered), made.network)
            assert len(str(raised.value)) > 10


def test_another_spelling_of_the_same_number_is_noticed(made: Made) -> None:
    exact = made.certificate.encode()
    altered = exact.replace(b"0.30000000000000004", b"0.30000000000000003")
    assert altered != exact
    assert parse(altered, len(altered)) == made.certificate.document
    with pytest.raises(Rejected, match="from byte"):
        verify_bytes(altered, made.network)


@pytest.mark.parametrize("end", [b" ", b"\n\n", b"\r"])
def test_an_added_byte_is_noticed(made: Made, end: bytes) -> None:
    exact = made.certificate.encode()
    assert verify_bytes(exact + b"\n", made.network) == made.certificate  # as editors leave it
    with pytest.raises(Rejected, match=f"byte {len(exact)}"):
        verify_bytes(exact + end, made.network)
    with pytest.raises(Rejected):
        verify_bytes(exact[:-1], made.network)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.999])
def test_a_fresh_process_says_no_with_code_6(files: Files, share: float) -> None:
    altered = bytearray(files.certificate.read_bytes())
    altered[int(share * len(altered))] ^= 1
    files.certificate.write_bytes(altered)
    done = _verify_in_a_process(files)
    assert done.returncode == 6
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"helium: {files.certificate}: ")


def test_a_fresh_process_says_yes(files: Files) -> None:
    done = _verify_in_a_process(files)
    assert (done.returncode, done.stderr) == (0, "")


def _verify_in_a_process(files: Files) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "node.cli", "verify"]
    arguments = [str(files.certificate), "--network", str(files.network)]
    root = Path(__file__).resolve().parents[4]
    return subprocess.run(
        [*command, *arguments], capture_output=True, text=True, cwd=root, check=False
    )


def test_another_network_is_named(helium: Helium, files: Files, made: Made) -> None:
    document = json.loads(files.network.read_text())
    document["name"] = "another"
    files.network.write_text(json.dumps(document))
    done = helium("verify", files.certificate, "--network", files.network)
    assert done.exit_code == 6
    assert made.network.id in done.stderr


def test_other_samples_and_another_rate_fail(helium: Helium, files: Files) -> None:
    other = np.zeros((100, 1), dtype=np.float32)
    for content, reason in ((wav(other, RATE), "another hash"), (wav(other, 8000), "8000 Hz")):
        files.audio.write_bytes(content)
        done = helium(
            "verify", files.certificate, "--network", files.network, "--audio", files.audio
        )
        assert done.exit_code == 6
        assert reason in done.stderr


def test_no_audio_file_at_all_fails(helium: Helium, files: Files) -> None:
    files.audio.write_bytes(b"no audio")
    done = helium("verify", files.certificate, "--network", files.network, "--audio", files.audio)
    assert done.exit_code == 6
    assert "cannot be read as audio" in done.stderr


@pytest.mark.parametrize("name", ["none.wav", "c.json/none.wav"])
def test_missing_audio_is_wrong_usage(name: str, helium: Helium, files: Files) -> None:
    done = helium("verify", files.certificate, "--network", files.network, "--audio", name)
    assert done.exit_code == 2
    assert f"{name}: cannot be read: No" in done.stderr
    assert done.stderr.count("\n") == 1


def test_missing_files_are_wrong_usage(helium: Helium, files: Files) -> None:
    for arguments in (["none", "--network", files.network], [files.certificate]):
        done = helium("verify", *arguments)
        assert done.exit_code == 2
        assert "cannot be read: No such file or directory" in done.stderr
