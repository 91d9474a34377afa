"""Evidence leaves a node as a file, and convinces a machine that never saw the network."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from node.storage.database import Database, open_database
from node.storage.ledger import Ledger
from node.storage.reader import DATABASE
from protocol.consensus.committee import committees
from protocol.consensus.evidence import Evidence
from protocol.wire.encoding import canonical
from tests.node.cli.conftest import Helium
from tests.support import fixtures

NET = fixtures.network()
TASK = fixtures.task(NET)
LIAR, OTHER = committees(NET, TASK)[0][:2]
LIE = fixtures.outcome("lie")


def commits(member: str) -> Evidence:
    return Evidence.from_votes(
        fixtures.commit(NET, TASK, member), fixtures.commit(NET, TASK, member, LIE)
    )


TWICE = commits(LIAR)
INCONSTANT = Evidence.from_votes(
    fixtures.reveal(NET, TASK, OTHER, {}), fixtures.reveal(NET, TASK, OTHER, {}, LIE, attempt=1)
)
UNOPENED = Evidence.from_votes(
    fixtures.commit(NET, TASK, OTHER), fixtures.reveal(NET, TASK, OTHER, {}, LIE)
)


@dataclass(frozen=True)
class Node:
    folder: Path
    network: Path
    database: Database

    @property
    def flags(self) -> tuple[object, ...]:
        return "--data-dir", self.folder, "--network", self.network


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """A node's data folder, with the node still running on it."""
    folder = tmp_path / "node"
    folder.mkdir()
    (tmp_path / "network.json").write_bytes(canonical(NET.document))
    database = open_database(folder / DATABASE, NET.id)
    ledger = Ledger(database)
    for proof in (TWICE, UNOPENED, INCONSTANT):
        ledger.put_evidence(proof)
    yield Node(folder, tmp_path / "network.json", database)
    database.close()


@pytest.mark.parametrize("runs", [True, False])
def test_list_shows_stored_evidence(helium: Helium, node: Node, runs: bool) -> None:
    if not runs:
        node.database.close()
    done = helium("evidence", "list", *node.flags, "--json")
    assert done.exit_code == 0, done.stderr
    listed = json.loads(done.stdout)
    assert listed["network"] == NET.id
    assert {entry["id"]: entry["messages"] for entry in listed["evidence"]} == {
        TWICE.id: ["commit", "commit"],
        UNOPENED.id: ["commit", "reveal"],
        INCONSTANT.id: ["reveal", "reveal"],
    }
    assert all(entry["task"] == TASK.id for entry in listed["evidence"])
    assert {entry["id"]: (entry["kind"], entry["attempts"]) for entry in listed["evidence"]} == {
        TWICE.id: ("equivocation", [0, 0]),
        UNOPENED.id: ("equivocation", [0, 0]),
        INCONSTANT.id: ("inconstancy", [0, 1]),
    }
    lines = dict(
        line.split("  ", 1) for line in helium("evidence", "list", *node.flags).stdout.splitlines()
    )
    assert lines.keys() == {e.id[:16] for e in (TWICE, UNOPENED, INCONSTANT)}
    assert lines[TWICE.id[:16]].startswith("equivocation  ")
    assert lines[TWICE.id[:16]].endswith(f"in attempt 0 of task {TASK.id[:16]}..")
    assert lines[INCONSTANT.id[:16]].startswith("inconstancy  ")
    assert "reveal and reveal in attempts 0 and 1 of task" in lines[INCONSTANT.id[:16]]


def test_list_without_evidence(helium: Helium, node: Node) -> None:
    node.database.connection.execute("DELETE FROM evidence")
    assert helium("evidence", "list", *node.flags).stdout == "no evidence\n"


@pytest.mark.parametrize("length", [8, 64])
def test_export_by_the_prefix_of_an_id(
    helium: Helium, node: Node, length: int, tmp_path: Path
) -> None:
    target = tmp_path / "proof.json"
    done = helium("evidence", "export", TWICE.id[:length], "-o", target, *node.flags)
    assert done.exit_code == 0, done.stderr
    assert target.read_bytes() == TWICE.encode()
    assert "two different commits" in done.stdout


def test_export_all_into_a_folder(helium: Helium, node: Node, tmp_path: Path) -> None:
    done = helium("evidence", "export", "--all", "-o", tmp_path / "new", *node.flags, "--json")
    assert done.exit_code == 0, done.stderr
    files = [Path(entry["file"]) for entry in json.loads(done.stdout)["evidence"]]
    assert sorted(files) == sorted((tmp_path / "new").iterdir())
    assert {file.read_bytes() for file in files} == {
        proof.encode() for proof in (TWICE, UNOPENED, INCONSTANT)
    }
    for file in files:
        assert helium("evidence", "verify", file, "--network", node.network).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((), "give an ID"),
        (("abcd", "--all"), "give an ID"),
        (("xyz!",), "must be the first 4 to 64 hex"),
        (("abc",), "must be the first 4 to 64 hex"),
        (("0" * 64,), "none of the 3"),
    ],
)
def test_a_prefix_that_matches_no_evidence_is_a_usage_error(
    helium: Helium, node: Node, arguments: tuple[str, ...], reason: str, tmp_path: Path
) -> None:
    done = helium("evidence", "export", *arguments, "-o", tmp_path / "x", *node.flags)
    assert done.exit_code == 2
    assert reason in done.stderr
    assert not (tmp_path / "x").exists()


def test_a_folder_without_a_database_is_a_usage_error(helium: Helium, node: Node) -> None:
    done = helium("evidence", "list", "--data-dir", "none", "--network", node.network)
    assert done.exit_code == 2
    assert "HELIUM_DATA_DIR" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_environment_names_the_data_folder(
    helium: Helium, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HELIUM_DATA_DIR", str(node.folder))
    monkeypatch.setenv("HELIUM_NETWORK", str(node.network))
    assert len(helium("evidence", "list").stdout.splitlines()) == 3


@pytest.mark.parametrize(
    ("proof", "what"),
    [
        (TWICE, "two different commits"),
        (UNOPENED, "a commit, and a reveal that does not open it"),
        (INCONSTANT, "two different outcomes, in attempts 0 and 1"),
    ],
)
def test_verify_says_what_the_evidence_proves(
    helium: Helium, node: Node, proof: Evidence, what: str
) -> None:
    text = proof.encode().decode()
    done = helium("evidence", "verify", "-", "--network", node.network, stdin=text)
    assert done.exit_code == 0, done.stderr
    assert proof.signer in done.stdout
    assert what in done.stdout
    assert "does not show which" in done.stdout


def test_verify_prints_json(helium: Helium, node: Node) -> None:
    text = TWICE.encode().decode()
    done = helium("evidence", "verify", "-", "--network", node.network, "--json", stdin=text)
    assert json.loads(done.stdout) == {
        "valid": True,
        "network": NET.id,
        "id": TWICE.id,
        "kind": "equivocation",
        "signer": LIAR,
        "task": TASK.id,
        "attempts": [0, 0],
        "messages": ["commit", "commit"],
    }


@pytest.mark.parametrize(
    ("altered", "reason"),
    [
        (TWICE.encode().replace(b'"attempt":0', b'"attempt":1', 1), "bad-signature"),
        (TWICE.encode() + b" ", "not-canonical"),
        (TWICE.encode()[:-1], "malformed"),
        (b"", "malformed"),
        (b"[" * 100, "too-deep"),
    ],
)
def test_invalid_evidence_exits_with_code_6(
    helium: Helium, node: Node, altered: bytes, reason: str, tmp_path: Path
) -> None:
    file = tmp_path / "altered.json"
    file.write_bytes(altered)
    done = helium("evidence", "verify", file, "--network", node.network)
    assert done.exit_code == 6
    assert reason in done.stderr
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1


def test_a_missing_file_is_a_usage_error(helium: Helium, node: Node) -> None:
    assert helium("evidence", "verify", "none", "--network", node.network).exit_code == 2


def test_verify_needs_neither_torch_nor_libp2p_nor_a_data_folder(
    node: Node, tmp_path: Path
) -> None:
    proof = tmp_path / "proof.json"
    proof.write_bytes(TWICE.encode())
    code = (
        "import sys; from node.cli.main import cli; cli(sys.argv[1:], standalone_mode=False);"
        "sys.exit(sum(m in sys.modules for m in ('torch', 'libp2p', 'transformers', 'numpy')))"
    )
    arguments = ["evidence", "verify", str(proof), "--network", str(node.network)]
    kept = {name: text for name, text in os.environ.items() if not name.startswith("HELIUM_")}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        check=False,
        env={**kept, "HOME": str(tmp_path / "nobody")},
    )
    assert done.returncode == 0, done.stderr
    assert b"valid" in done.stdout
