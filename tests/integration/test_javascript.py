"""A client on js-libp2p, written from the protocol's text, against real nodes.

It shares no code with the product: its checks are those of `tests/vectors/verifier`.
"""

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from protocol.consensus import certificate
from protocol.consensus.committee import committees
from protocol.network import NetworkParameters
from protocol.wire.encoding import canonical
from tests.integration.conftest import SECONDS, Running, running_light, task
from tests.integration.light import CLASS

FOLDER = Path(__file__).parent / "javascript"
NODE = shutil.which("node")
# A waveform of eight chunks: more than the window of a Yamux stream, 256 KiB.
FRAMES = 500_000
# scripts/setup installs the client's packages if it finds npm.
MISSING = [name for name in ("node", "npm") if shutil.which(name) is None]

pytestmark = pytest.mark.skipif(
    bool(MISSING), reason=f"no {' and no '.join(MISSING)}: apt install nodejs npm (Debian)"
)


@dataclass(frozen=True, slots=True)
class Followed:
    """What the client reported of one task, and the certificate that it stored."""

    running: Running
    report: dict[str, Any]
    certificate: bytes


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Followed:
    root = tmp_path_factory.mktemp("javascript")
    parameters = NetworkParameters(commit_grace_seconds=0.5)
    stored = root / "certificate.json"
    # Four nodes and committees of three: one peer is no member.
    with running_light(root / "net", 4, parameters, f"--frames={FRAMES}") as running:
        peers = [part for address in running.daemons.addresses for part in ("--peer", address)]
        args = ("--class", CLASS, "--args", json.dumps(task()))
        code, report = client(running, "run", *peers, *args, "--certificate", stored)
    assert code == 0, report
    return Followed(running, report, stored.read_bytes())


def client(running: Running, command: str, *arguments: object) -> tuple[int, dict[str, Any]]:
    """Run the client; return its exit code and its report."""
    assert NODE
    assert (FOLDER / "node_modules").is_dir(), "scripts/setup --tests could not install packages"
    network = running.root / "network.json"
    done = subprocess.run(
        [NODE, str(FOLDER / "client.mjs"), command, "--network", network, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.stderr == ""
    report: dict[str, Any] = json.loads(done.stdout)
    return done.returncode, report


def test_task_is_followed_to_its_certificate(followed: Followed) -> None:
    report, network = followed.report, followed.running.network
    valid = certificate.verify_bytes(followed.certificate, network)
    assert report["task"] == valid.task.id
    assert valid.task.requester == report["me"]
    assert report["committee"] == list(committees(network, valid.task)[0])
    assert report["attempt"] == valid.attempt
    assert report["signers"] == list(valid.signers)
    assert report["followed"]["state"] == "agreed"
    assert report["followed"]["votes"].keys() >= {"commit", "reveal"}


def test_feed_request_waits_for_news(followed: Followed) -> None:
    end, awaited, *_ = followed.report["followed"]["pages"]
    # The second page was requested at the end of the feed, before the task was submitted.
    assert end == 0
    assert awaited >= 1


def test_outputs_are_those_of_the_certificate(followed: Followed) -> None:
    valid = certificate.verify_bytes(followed.certificate, followed.running.network)
    outcome: Any = valid.outcome
    [output], [fetched] = outcome["result"]["outputs"], followed.report["outputs"]
    assert (fetched["sha256"], fetched["size"]) == (output["sha256"], 4 * FRAMES)
    assert fetched["from"] in valid.signers


def test_peers_identify_and_greet_the_client(followed: Followed) -> None:
    peers = followed.report["peers"]
    assert [peer["peer"] for peer in peers] == [node.peer for node in followed.running.nodes]
    for peer in peers:
        assert set(peer["protocols"]) >= {"/ipfs/id/1.0.0", "/helium/2/hello", "/helium/2/feed"}
    assert set(followed.report["greeted"]) == {peer["peer"] for peer in peers}


def _alter_signature(envelope: dict[str, Any]) -> None:
    first, rest = envelope["signature"][0], envelope["signature"][1:]
    envelope["signature"] = ("A" if first != "A" else "B") + rest


FORGERIES: dict[str, tuple[Callable[[dict[str, Any]], object], str, str]] = {
    "vote": (lambda it: _alter_signature(it["votes"][0]), "4.7.3", "bad-signature"),
    "task": (lambda it: _alter_signature(it["task"]), "4.7.2", "bad-signature"),
    "attempt": (lambda it: it.update(attempt=1), "4.7.3", "wrong-task"),
    "order": (lambda it: it["votes"].reverse(), "4.7.5", "unsorted-votes"),
    "one vote": (lambda it: it.update(votes=it["votes"][:1]), "4.7.7", "too-few-votes"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_forged_certificate_is_refused_with_the_clause(
    followed: Followed, tmp_path: Path, name: str
) -> None:
    forge, clause, reason = FORGERIES[name]
    document = json.loads(followed.certificate)
    forge(document)
    forged = tmp_path / "forged.json"
    forged.write_bytes(canonical(document))
    code, report = client(followed.running, "verify", forged)
    assert code == 1
    assert (report["refused"]["clause"], report["refused"]["reason"]) == (clause, reason)


def test_stored_certificate_verifies(followed: Followed, tmp_path: Path) -> None:
    stored = tmp_path / "certificate.json"
    stored.write_bytes(followed.certificate)
    code, report = client(followed.running, "verify", stored)
    assert (code, report["signers"]) == (0, followed.report["signers"])
