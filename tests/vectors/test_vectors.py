import hashlib
import json
import runpy
import shutil
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol.errors import Rejection
from tests.vectors import files

SCRIPT = Path(__file__).parents[2] / "scripts" / "vectors"
NAMES = sorted(path.name for path in files.FOLDER.glob("*.json"))


def stored(name: str) -> Any:
    return json.loads((files.FOLDER / name).read_text(encoding="ascii"))


def run(*arguments: str) -> int:
    code: int = runpy.run_path(str(SCRIPT))["main"](list(arguments))
    return code


def test_stored_vectors_match_the_code() -> None:
    assert files.differing() == []


def test_every_vector_document_has_a_file() -> None:
    assert sorted(files.documents()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_file_begins_with_its_description(name: str) -> None:
    assert next(iter(stored(name))) == "description"
    assert f"`{name}`" in (files.FOLDER / "README.md").read_text(encoding="utf-8")


# The script


def test_script_output_passes_its_own_check(tmp_path: Path) -> None:
    assert run("--folder", str(tmp_path)) == 0
    assert run("--check", "--folder", str(tmp_path)) == 0
    for name in NAMES:
        assert (tmp_path / name).read_bytes() == (files.FOLDER / name).read_bytes()


def test_script_names_differing_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "vectors"
    shutil.copytree(files.FOLDER, folder)
    changed = folder / "hashes.json"
    changed.write_text(changed.read_text().replace('"weights"', '"weight"', 1))
    (folder / "evidence.json").unlink()
    (folder / "more.json").write_text("{}")
    assert run("--check", "--folder", str(folder)) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [Path(line.split()[0]).name for line in lines] == [
        "evidence.json",
        "hashes.json",
        "more.json",
    ]


# The vectors against the standard library alone


def test_hashes_match_their_preimages() -> None:
    entries = stored("hashes.json")["bytes"]
    for entry in entries:
        preimage = bytes.fromhex(entry["preimage"])
        assert preimage == f"helium/2/{entry['tag']}\0".encode() + bytes.fromhex(entry["payload"])
        assert hashlib.sha256(preimage).hexdigest() == entry["hash"]
    assert len(entries) == 14


def test_commitments_match_their_preimages() -> None:
    for entry in stored("commitments.json")["commitments"]:
        preimage = b"helium/2/commitment\0" + bytes.fromhex(entry["preimage"])
        assert hashlib.sha256(preimage).hexdigest() == entry["commitment"]
        text = json.dumps(entry["outcome"], sort_keys=True, separators=(",", ":"))
        digest = hashlib.sha256(b"helium/2/outcome\0" + text.encode()).hexdigest()
        assert digest == entry["digest"]
        assert entry["preimage"].endswith(digest + entry["salt"])


def test_envelopes_are_signed_and_task_ids_match() -> None:
    for entry in stored("envelopes.json")["envelopes"]:
        key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(entry["secret"]))
        signed = bytes.fromhex(entry["signed"])
        assert key.sign(signed).hex() == entry["signature"]
        body = signed.removeprefix(b"helium/2/envelope\0")
        assert json.loads(body) == entry["body"] == json.loads(entry["envelope"])["body"]
        if "task" in entry:
            assert hashlib.sha256(b"helium/2/task\0" + body).hexdigest() == entry["task"]


def test_waveforms_match_their_hashes() -> None:
    for entry in stored("waveforms.json")["short"]:
        payload = bytes.fromhex(entry["bytes"])
        assert hashlib.sha256(payload).hexdigest() == entry["output"]["sha256"]
        assert len(payload) == entry["output"]["size"]
        assert (len(entry["output"]["chunks"]) == 1) is bool(payload)


def test_every_rejection_reason_has_a_vector() -> None:
    """Except the reason that depends on a node's state."""
    tested_reasons = {
        entry["reason"]
        for name in NAMES
        for part in stored(name).values()
        if isinstance(part, list)
        for entry in part
        if isinstance(entry, dict) and entry.get("reason")
    }
    assert {str(r) for r in Rejection} - tested_reasons == {"unknown-task"}
