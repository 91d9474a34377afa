"""The vectors against an implementation in another language, written from the text alone.

`verifier` needs Node.js 20 and nothing else. It reads the vectors and the schemas, and shares no
code with the product.
"""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.vectors.test_vectors import NAMES, stored

NODE = shutil.which("node")
VERIFIER = Path(__file__).parent / "verifier" / "main.mjs"
LINE = re.compile(r"^([a-z]+\.json): (\d+) checks, (\d+) disagreements$", re.M)

pytestmark = pytest.mark.skipif(NODE is None, reason="no node: the Debian package nodejs has it")

# What another implementation computes for an entry, by file and list.
OUTPUTS: dict[str, dict[str, list[str]]] = {
    "canonical.json": {"accepted": ["canonical"], "refused": ["reason"]},
    "hashes.json": {"bytes": ["preimage", "hash"], "documents": ["hash"]},
    "identities.json": {
        "peers": ["public", "peer", "signature"],
        "refused_peers": ["reason"],
        "refused_signatures": ["reason"],
    },
    "signatures.json": {"keys": ["peer", "reason"], "signatures": ["reason"]},
    "envelopes.json": {
        "envelopes": ["body", "signed", "signature", "envelope", "id"],
        "withdrawals": ["reason"],
    },
    "networks.json": {"accepted": ["canonical", "id"], "refused": ["reason"]},
    "limits.json": {"tasks": ["reason"], "frames": ["frames"]},
    "committees.json": {"committees": ["operators", "ranking", "attempts"]},
    "commitments.json": {"commitments": ["digest", "preimage", "commitment"]},
    "certificates.json": {
        "valid": ["task", "attempt", "signers", "outcome"],
        "invalid": ["reason"],
    },
    "evidence.json": {
        "proven": ["kind", "signer", "task", "attempts"],
        "refused": ["reason"],
    },
    "manifests.json": {"fitting": ["reason"], "breaking": ["reason"]},
    "answers.json": {"answers": ["reason"]},
    "rounds.json": {"rounds": ["sent", "attempts", "executions", "states"]},
    "suspects.json": {"conduct": ["conduct"], "records": ["suspects"]},
    "clients.json": {"clients": ["states"]},
    "clocks.json": {"clocks": ["difference", "ready"]},
    "starts.json": {"starts": ["states"], "releases": ["sent"]},
    "gossip.json": {"messages": ["id", "verdict"]},
    "feeds.json": {"pages": ["verdict"], "envelopes": ["given", "gone", "left"]},
    "rejections.json": {"envelopes": ["reason"], "tasks": ["reason"], "times": ["reason"]},
    "waveforms.json": {
        "short": ["bytes", "output"],
        "long": ["output"],
        "refused": ["error"],
        "sequences": ["seeds"],
    },
    "work.json": {
        "digests": ["kept", "tokens", "work"],
        "blobs": ["steps", "columns", "tokens"],
        "malformed": ["reason"],
        "tasks": ["reason", "proves_work"],
        "fitting": ["reason"],
        "breaking": ["reason"],
        "valid": ["task", "attempt", "signers", "outcome"],
        "invalid": ["reason"],
    },
    "scores.json": {"scores": ["taken", "midi", "frames", "sha256"], "speakers": ["sha256"]},
}


def run(*arguments: Path) -> tuple[int, str]:
    assert NODE
    command = [NODE, str(VERIFIER), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.stderr == ""
    return done.returncode, done.stdout


def lists_of(document: dict[str, Any]) -> dict[str, list[Any]]:
    return {name: value for name, value in document.items() if isinstance(value, list)}


def test_every_vector_agrees_with_an_implementation_in_another_language() -> None:
    code, output = run()
    checks = {name: (int(count), int(faults)) for name, count, faults in LINE.findall(output)}
    expected = {name: sum(map(len, lists_of(stored(name)).values())) for name in NAMES}
    assert code == 0, output
    # As many checks as vectors: none is passed over.
    assert checks == {name: (count, 0) for name, count in expected.items()}


def test_every_changed_output_is_a_disagreement(tmp_path: Path) -> None:
    """Without it a check that compares nothing would agree with every vector."""
    assert sorted(OUTPUTS) == NAMES
    for name in NAMES:
        document = stored(name)
        lists = lists_of(document)
        assert OUTPUTS[name].keys() == lists.keys()
        for list_name, entries in lists.items():
            document[list_name] = [
                {**entry, member: changed(entry.get(member))}
                for member in OUTPUTS[name][list_name]
                for entry in entries[:3]
            ]
        (tmp_path / name).write_text(json.dumps(document), encoding="ascii")
    code, output = run(tmp_path)
    assert code == 1
    assert len(LINE.findall(output)) == len(NAMES)
    for name, checks, disagreements in LINE.findall(output):
        assert checks == disagreements, f"{name}\n{output}"


def changed(value: Any) -> Any:
    """Return another value of the same kind; a reason instead of none."""
    match value:
        case None:
            return "malformed"
        case str():
            return value[:-1] + ("1" if value[-1:] == "0" else "0")
        case int():
            return value + 1
        case list():
            return value[1:] if value else ["x"]
        case _:
            return {**value, "x": 1}
