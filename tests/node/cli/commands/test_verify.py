import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from protocol.consensus.certificate import verify_bytes
from protocol.errors import Rejected
from protocol.wire.encoding import canonical, parse
from tests.node.cli.certified import RATE, TOKENS, WORK, Certified, make, wav
from tests.node.cli.conftest import Files, Helium


def test_a_valid_certificate_and_its_audio(
    helium: Helium, files: Files, certified: Certified
) -> None:
    done = helium(
        "verify", files.certificate, "--network", files.network, "--audio", files.audio, "--json"
    )
    assert done.exit_code == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["valid"] is True
    assert document["task"] == certified.certificate.task.id
    assert document["requester"] == certified.certificate.task.requester
    assert document["signers"] == list(certified.certificate.signers)
    assert document["operators"] == 3
    assert document["audio"] == {"path": str(files.audio), "output": 0}


def test_lines_name_every_signer(helium: Helium, files: Files, certified: Certified) -> None:
    done = helium("verify", files.certificate, "--network", files.network)
    assert done.exit_code == 0
    assert all(signer in done.stdout for signer in certified.certificate.signers)
    assert f"requester  {certified.certificate.task.requester}\n" in done.stdout


def test_members_of_one_operator_count_once(helium: Helium, files: Files) -> None:
    """In a class with one operator its members fill the committee, and count as one party."""
    alone = make(operators=["alice"] * 4)
    files.network.write_bytes(canonical(alone.network.document))
    files.certificate.write_bytes(alone.certificate.encode())
    done = helium("verify", files.certificate, "--network", files.network)
    assert "attempt    0: 3 of 3 members agree, 2 are needed\noperators  1: alice\n" in done.stdout
    done = helium("verify", files.certificate, "--network", files.network, "--json")
    assert json.loads(done.stdout)["operators"] == 1


def test_the_environment_names_the_network(
    helium: Helium, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HELIUM_NETWORK", str(files.network))
    assert helium("verify", files.certificate).exit_code == 0


def test_standard_input_is_read(helium: Helium, files: Files) -> None:
    text = files.certificate.read_text()
    assert helium("verify", "-", "--network", files.network, stdin=text).exit_code == 0


def test_an_agreed_error_is_valid(helium: Helium, files: Files) -> None:
    files.certificate.write_bytes(make({"error": "non-finite-output"}).certificate.encode())
    done = helium("verify", files.certificate, "--network", files.network)
    assert done.exit_code == 0
    assert "error non-finite-output" in done.stdout


def test_work_and_tokens_are_shown(helium: Helium, files: Files) -> None:
    proven = make(proves_work=True)
    files.network.write_bytes(canonical(proven.network.document))
    files.certificate.write_bytes(proven.certificate.encode())
    arguments = ("verify", files.certificate, "--network", files.network, "--audio", files.audio)
    done = helium(*arguments)
    assert done.exit_code == 0, done.stderr
    assert f"\nwork       {WORK}\n" in done.stdout
    assert f"\ntokens     {TOKENS['sha256']} of output 0, 12 bytes\n" in done.stdout
    document = json.loads(helium(*arguments, "--json").stdout)
    assert document["work"] == WORK
    assert document["tokens"] == [{"output": 0, **TOKENS}]
    assert document["audio"]["output"] == 0


def test_a_certificate_without_work_shows_none(helium: Helium, files: Files) -> None:
    arguments = ("verify", files.certificate, "--network", files.network)
    assert "\nwork " not in helium(*arguments).stdout
    document = json.loads(helium(*arguments, "--json").stdout)
    assert (document["work"], document["tokens"]) == (None, [])


def test_another_spelling_of_the_same_number_is_rejected(certified: Certified) -> None:
    exact = certified.certificate.encode()
    altered = exact.replace(b"0.30000000000000004", b"0.30000000000000003")
    assert altered != exact
    assert parse(altered, len(altered)) == certified.certificate.document
    with pytest.raises(Rejected, match="from byte"):
        verify_bytes(altered, certified.network)


@pytest.mark.parametrize("end", [b" ", b"\n\n", b"\r"])
def test_an_added_or_missing_byte_is_rejected(certified: Certified, end: bytes) -> None:
    exact = certified.certificate.encode()
    assert (
        verify_bytes(exact + b"\n", certified.network) == certified.certificate
    )  # editors add a newline
    with pytest.raises(Rejected, match=f"byte {len(exact)}"):
        verify_bytes(exact + end, certified.network)
    with pytest.raises(Rejected):
        verify_bytes(exact[:-1], certified.network)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.999])
def test_an_altered_byte_fails_with_code_6(helium: Helium, files: Files, share: float) -> None:
    """The protocol's tests alter every byte; here it is the exit code and the line."""
    _alter(files, share)
    done = helium("verify", files.certificate, "--network", files.network)
    assert (done.exit_code, done.stdout) == (6, "")
    [line] = done.stderr.splitlines()
    assert line.startswith(f"helium: {files.certificate}: ")


@pytest.mark.parametrize("valid", [True, False])
def test_a_real_process_exits_with_the_verdict(files: Files, valid: bool) -> None:
    if not valid:
        _alter(files, 0.5)
    command = [sys.executable, "-m", "node.cli", "verify"]
    arguments = [str(files.certificate), "--network", str(files.network)]
    root = Path(__file__).resolve().parents[4]
    done = subprocess.run(
        [*command, *arguments], capture_output=True, text=True, cwd=root, check=False
    )
    assert done.returncode == (0 if valid else 6)
    assert bool(done.stdout) == valid
    assert done.stderr.count("\n") == (0 if valid else 1)


def _alter(files: Files, share: float) -> None:
    """Change the byte at this share of the certificate's length."""
    altered = bytearray(files.certificate.read_bytes())
    altered[int(share * len(altered))] ^= 1
    files.certificate.write_bytes(altered)


def test_a_certificate_of_another_network_fails(
    helium: Helium, files: Files, certified: Certified
) -> None:
    document = json.loads(files.network.read_text())
    document["name"] = "another"
    files.network.write_text(json.dumps(document))
    done = helium("verify", files.certificate, "--network", files.network)
    assert done.exit_code == 6
    assert certified.network.id in done.stderr


def test_other_samples_or_another_rate_fail(helium: Helium, files: Files) -> None:
    silence = np.zeros((100, 1), dtype=np.float32)
    for content, reason in ((wav(silence, RATE), "another hash"), (wav(silence, 8000), "8000 Hz")):
        files.audio.write_bytes(content)
        done = helium(
            "verify", files.certificate, "--network", files.network, "--audio", files.audio
        )
        assert done.exit_code == 6
        assert reason in done.stderr


def test_a_file_that_is_not_audio_fails(helium: Helium, files: Files) -> None:
    files.audio.write_bytes(b"no audio")
    done = helium("verify", files.certificate, "--network", files.network, "--audio", files.audio)
    assert done.exit_code == 6
    assert "cannot be read as audio: it is text" in done.stderr


def test_a_lossy_file_fails_before_it_is_decoded(
    helium: Helium, files: Files, capfd: pytest.CaptureFixture[str]
) -> None:
    """libsndfile's MP3 decoder prints on the process's standard error."""
    files.audio.write_bytes(b"ID3\x04" + bytes(100))
    done = helium("verify", files.certificate, "--network", files.network, "--audio", files.audio)
    assert done.exit_code == 6
    assert "is MP3 (or another file behind an ID3 tag): only the WAV or MIDI file" in done.stderr
    assert capfd.readouterr().err == ""


def test_a_file_that_is_no_certificate_fails_with_a_hint(helium: Helium, files: Files) -> None:
    done = helium("verify", files.audio, "--network", files.network)
    assert done.exit_code == 6
    assert "malformed: not UTF-8 at byte" in done.stderr
    assert "a certificate is a JSON file, such as song.wav.certificate.json" in done.stderr


@pytest.mark.parametrize("name", ["none.wav", "c.json/none.wav"])
def test_missing_audio_is_a_usage_error(name: str, helium: Helium, files: Files) -> None:
    done = helium("verify", files.certificate, "--network", files.network, "--audio", name)
    assert done.exit_code == 2
    assert f"{name}: cannot be read: No" in done.stderr
    assert done.stderr.count("\n") == 1


def test_missing_files_are_usage_errors(helium: Helium, files: Files) -> None:
    for arguments in (["none", "--network", files.network], [files.certificate]):
        done = helium("verify", *arguments)
        assert done.exit_code == 2
        assert "cannot be read: No such file or directory" in done.stderr


def test_names_of_files_need_not_be_utf_8(helium: Helium, files: Files) -> None:
    audio = files.audio.rename(files.audio.with_name("a\udcff.wav"))
    flags = ("--network", files.network, "--audio", audio)
    done = helium("verify", files.certificate, *flags, "--json")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["audio"]["path"] == str(audio)
    assert "a\\udcff.wav is output 0" in helium("verify", files.certificate, *flags).stdout
