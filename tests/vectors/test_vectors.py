import contextlib
import hashlib
import json
import re
import shutil
import sqlite3
from base64 import urlsafe_b64decode
from collections.abc import Iterator
from pathlib import Path
from random import randbytes
from typing import Any

import base58
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from node.consensus.coordinator import Coordinator
from node.consensus.validator import _UNTIMELY
from node.storage.database import Database
from node.storage.journal import Journal
from node.storage.ledger import Ledger
from node.transport.interface import is_task_topic, message_id
from protocol.errors import Rejection
from protocol.network import Network
from protocol.wire import codec
from scripts import vectors
from tests.support import fixtures
from tests.support.clock import ManualClock
from tests.vectors import edwards, files, signatures

ROOT = Path(__file__).parents[2]
PROTOCOL = ROOT / "protocol" / "README.md"
README = files.FOLDER / "README.md"

# Reasons of answers that no document has (section 9).
ANSWERS = {"store", "internal", "unknown-blob", "busy", "over-quota", "requester-not-served"}
NAMES = sorted(path.name for path in files.FOLDER.glob("*.json"))


def stored(name: str) -> Any:
    return json.loads((files.FOLDER / name).read_text(encoding="ascii"))


def test_stored_vectors_match_the_code() -> None:
    assert files.differing() == []


def test_every_vector_document_has_a_file() -> None:
    assert sorted(files.documents()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_file_begins_with_its_description(name: str) -> None:
    assert next(iter(stored(name))) == "description"
    assert f"| `{name}` |" in README.read_text(encoding="utf-8")


# The script


def test_script_output_passes_its_own_check(tmp_path: Path) -> None:
    assert vectors.main(["--folder", str(tmp_path)]) == 0
    assert vectors.main(["--check", "--folder", str(tmp_path)]) == 0
    for name in NAMES:
        assert (tmp_path / name).read_bytes() == (files.FOLDER / name).read_bytes()


def test_script_names_differing_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "vectors"
    shutil.copytree(files.FOLDER, folder)
    changed = folder / "hashes.json"
    changed.write_text(changed.read_text().replace('"weights"', '"weight"', 1))
    (folder / "evidence.json").unlink()
    (folder / "more.json").write_text("{}")
    assert vectors.main(["--check", "--folder", str(folder)]) == 1
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
    tags = re.findall(r"`([a-z]+)`", _between("The tags are", "No hash is computed"))
    assert {entry["tag"] for entry in entries} == set(tags)


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
        preimage = b"helium/2/envelope\0" + entry["envelope"].encode()
        assert hashlib.sha256(preimage).hexdigest() == entry["id"]
        if "task" in entry:
            assert hashlib.sha256(b"helium/2/task\0" + body).hexdigest() == entry["task"]


def test_waveforms_match_their_hashes() -> None:
    for entry in stored("waveforms.json")["short"]:
        payload = bytes.fromhex(entry["bytes"])
        assert hashlib.sha256(payload).hexdigest() == entry["output"]["sha256"]
        assert len(payload) == entry["output"]["size"]
        assert len(entry["output"]["chunks"]) == 1


# Keys and signatures against the text's rule in whole numbers


def test_verdicts_on_keys_are_those_of_the_rule_and_of_the_product() -> None:
    for entry in stored("signatures.json")["keys"]:
        raw = bytes.fromhex(entry["public"])
        assert edwards.is_key(raw) is (entry["reason"] is None), entry["name"]
        assert signatures.verdict_on_key(entry["peer"]) == entry["reason"], entry["name"]


def test_verdicts_on_signatures_are_those_of_the_rule_and_of_the_product() -> None:
    for entry in stored("signatures.json")["signatures"]:
        message = bytes.fromhex(entry["message"])
        verdict = signatures.verdict_on_signature(entry["peer"], message, entry["signature"])
        assert verdict == entry["reason"], entry["name"]
        public, raw = base58.b58decode(entry["peer"])[6:], _decoded(entry["signature"])
        valid = raw is not None and edwards.is_key(public)
        assert (valid and edwards.is_signature(public, message, raw or b"")) is (
            entry["reason"] is None
        ), entry["name"]


def test_some_signatures_are_valid_for_a_cofactored_check_alone() -> None:
    """And some for a check of the equation alone: without them the vectors would prove little."""
    cofactored, plain = 0, 0
    for entry in stored("signatures.json")["signatures"]:
        public, raw = base58.b58decode(entry["peer"])[6:], _decoded(entry["signature"])
        if entry["reason"] is None or raw is None or edwards.decode(public) is None:
            continue
        message = bytes.fromhex(entry["message"])
        cofactored += edwards.cofactored_equation_holds(public, message, raw)
        plain += edwards.equation_holds(public, message, raw)
    # R in all 14 encodings of small order and with 7 components of it, 4 multiples of L in S, and
    # keys of 8 small and of 7 mixed orders.
    assert cofactored == 14 + 7 + 4 + 8 + 7
    # R the identity, 4 multiples of L in S, and the keys.
    assert plain == 1 + 4 + 8 + 7


def _decoded(signature: str) -> bytes | None:
    """Return the 64 bytes of a signature's one spelling, None for another text."""
    if not re.fullmatch("[A-Za-z0-9_-]{86}", signature):
        return None
    raw = urlsafe_b64decode(signature + "==")
    return raw if signatures.text_of(raw) == signature else None


# Reasons


def _reasons_by_file() -> dict[str, set[str]]:
    return {name: set(_reasons(stored(name))) for name in NAMES}


def _reasons(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from _reasons(item)
    elif isinstance(value, dict):
        # An abstention's body has a `reason` too; entries have a name beside it.
        if "name" in value and value.get("reason"):
            yield value["reason"]
        for item in value.values():
            yield from _reasons(item)


def test_every_rejection_reason_has_a_vector() -> None:
    """Except the reason that depends on a node's state."""
    tested_reasons = set().union(*_reasons_by_file().values())
    assert {str(r) for r in Rejection} - tested_reasons == {"unknown-task"}


def test_the_readme_names_every_file_of_every_reason() -> None:
    text = README.read_text(encoding="utf-8").split("## Reasons")[1].split("## ")[0]
    files_by_reason: dict[str, set[str]] = {}
    for row in text.splitlines():
        if not row.startswith("| `"):
            continue
        (reason, *names) = re.findall(r"`([^`]+)`", row)
        files_by_reason[reason] = set(names)
    expected: dict[str, set[str]] = {}
    for name, found in _reasons_by_file().items():
        for reason in found:
            expected.setdefault(reason, set()).add(name)
    assert files_by_reason == expected
    missing = {str(r) for r in Rejection} | ANSWERS
    sentence = text.split("have no vector")[1]
    assert set(re.findall(r"`([a-z-]+)`", sentence)) == missing - expected.keys()


def test_the_table_of_reasons_names_exactly_those_of_the_code() -> None:
    row = r"^\| `([a-z-]+)` \| (\d|–) \| (reject|ignore|–) \| (yes|–) \|"
    rows = re.findall(row, _between("## 9. Reasons", "## 10."), re.M)
    assert sorted(reason for reason, *_ in rows) == sorted({str(r) for r in Rejection} | ANSWERS)
    answers_only = {reason for reason, _, gossip, document in rows if gossip == document == "–"}
    assert answers_only == ANSWERS
    assert {reason for reason, _, gossip, _ in rows if gossip == "ignore"} == set(_UNTIMELY)


def test_verdicts_on_gossip_are_those_of_the_product() -> None:
    stored_gossip = stored("gossip.json")
    network = Network.of(stored_gossip["network"])
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as disk:
        database, clock = Database(disk, network.id), ManualClock(stored_gossip["now"] / 1000)
        journal, ledger = Journal(database), Ledger(database)
        coordinator = Coordinator(network, fixtures.key(1000), journal, ledger, clock, randbytes)
        coordinator.receive(codec.decode(stored_gossip["known"].encode(), network.id))
        for entry in stored_gossip["messages"]:
            data, topic = entry["text"].encode(), entry["topic"]
            assert message_id(topic, data).hex() == entry["id"], entry["name"]
            verdict, _ = coordinator.validator.validate(data, tasks=is_task_topic(topic))
            assert verdict.name.lower() == entry["verdict"], entry["name"]


def _between(start: str, end: str) -> str:
    text = PROTOCOL.read_text(encoding="utf-8")
    return text.split(start)[1].split(end)[0]
