"""The folder of `scripts/testnet`: locked, replaced, resumed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from node.cli.exit_codes import Exit
from protocol.network import Network, NetworkParameters
from scripts.testnet_tool import __main__ as testnet_command
from scripts.testnet_tool import folder
from scripts.testnet_tool.nodes import Daemons, LocalNode, NodeDown, create_network, is_ready
from tests.support import fixtures

CLASSES = fixtures.network_document()["classes"]


def create(root: Path, liars: int = 0) -> tuple[Network, list[LocalNode]]:
    network, nodes = create_network(root, 3, CLASSES, NetworkParameters(), liars)
    folder.save(root, nodes)
    return network, nodes


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "a folder's name"


def test_folder_in_use_is_refused_until_it_is_free(root: Path) -> None:
    with folder.locked(root):
        with pytest.raises(folder.FolderInUse, match="another test network runs in"):
            folder.locked(root).__enter__()
        with folder.locked_free(root) as second, folder.locked_free(root) as third:
            assert [second.name, third.name] == [f"{root.name}-2", f"{root.name}-3"]
    with folder.locked_free(root) as free:
        assert free == root


def test_lock_ends_with_its_process(root: Path) -> None:
    """A process that is killed cannot take the lock off."""
    code = (
        "import os, sys; from pathlib import Path; from scripts.testnet_tool import folder\n"
        "with folder.locked(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(folder.FolderInUse):
            folder.locked(root).__enter__()
        holder.kill()
    with folder.locked(root):
        pass


def test_folder_with_other_files_is_refused(root: Path) -> None:
    root.mkdir()
    (root / "thesis.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="other files"):
        folder.locked(root).__enter__()


def test_replaced_network_keeps_its_document_and_files_of_others(root: Path) -> None:
    with folder.locked(root):
        first, _ = create(root)
        (root / "my-song.wav").write_bytes(b"RIFF")
        folder.clear(root)
        second, nodes = create(root)
    assert first.id != second.id
    kept = Network.parse((root / "networks" / f"{first.id}.json").read_bytes())
    assert kept.id == first.id
    assert (root / "my-song.wav").exists()
    assert Network.parse((root / "network.json").read_bytes()).id == second.id
    assert {node.peer for node in nodes} == set(second.roster)


@pytest.mark.parametrize("content", [b"", b"{", b'{"version": 1}', b"\xff"])
def test_damaged_document_is_kept_too(root: Path, content: bytes) -> None:
    root.mkdir()
    for number in (1, 2):
        (root / "network.json").write_bytes(content)
        folder.clear(root)
        assert (root / "networks" / f"unreadable-{number}.json").read_bytes() == content


def test_resumed_network_has_the_same_nodes(root: Path) -> None:
    with folder.locked(root):
        network, nodes = create(root, liars=1)
    resumed, same = folder.load(root)
    assert (resumed.id, same) == (network.id, nodes)
    assert [node.lie for node in same] == [None, None, 1]


@pytest.mark.parametrize("name", ["network.json", "nodes.json", "node-2/key.pem"])
@pytest.mark.parametrize("content", [None, b"", b"[1]", b'{"a": 1}', b"\xff"])
def test_folder_that_cannot_go_on_is_not_resumed(
    root: Path, name: str, content: bytes | None
) -> None:
    create(root)
    (root / name).unlink()
    if content is not None:
        (root / name).write_bytes(content)
    with pytest.raises(folder.NotResumable, match="no test network to resume"):
        folder.load(root)


def test_environment_file_can_be_sourced(root: Path) -> None:
    _, nodes = create(root)
    command = (
        f'source "$1/{folder.ENVIRONMENT}"; printf "%s\\n%s" "$HELIUM_NETWORK" "$HELIUM_PEERS"'
    )
    done = subprocess.run(
        ["bash", "-c", command, "bash", str(root)], capture_output=True, text=True, check=True
    )
    network, peers = done.stdout.split("\n")
    assert network == str(root / "network.json")
    assert peers.split(",") == [node.address for node in nodes]


@pytest.mark.parametrize("option", ["--nodes", "--liars", "--committee"])
def test_resumed_network_takes_no_other_shape(option: str) -> None:
    result = CliRunner().invoke(testnet_command.testnet, ["--resume", option, "2"])
    assert result.exit_code == Exit.USAGE
    assert f"{option}: not with --resume" in result.output


def test_log_of_an_earlier_run_does_not_count(root: Path) -> None:
    """With --resume, the nodes took the lines of the last run for those of this one."""
    _, nodes = create(root)
    earlier = [{"event": "listening"}, {"event": "executor", "ready": True, "reasons": []}]
    nodes[0].log.write_text("".join(f"{json.dumps(event)}\n" for event in earlier))
    assert is_ready(nodes[0])
    with Daemons(root / "network.json", nodes[:1]):
        assert not is_ready(nodes[0])


@pytest.mark.parametrize(("count", "connections"), [(4, 3), (5, 4), (10, 9), (12, 9)])
def test_nodes_are_connected_with_as_many_as_they_keep(
    root: Path, monkeypatch: pytest.MonkeyPatch, count: int, connections: int
) -> None:
    """With the feeds of three others to read, those of twelve have six more for gossip."""
    monkeypatch.setattr(subprocess, "Popen", FakeProcess)
    _, nodes = create_network(root, count, CLASSES, NetworkParameters(follow=3))
    daemons = Daemons(root / "network.json", nodes)
    for number, node in enumerate(nodes):
        daemons.start(node)
        peers = [other.peer for other in nodes if other is not node]
        for peer in peers[: connections - (number == 2)]:
            with node.log.open("a") as log:
                print(json.dumps({"event": "connected", "peer": peer}), file=log)
    with pytest.raises(NodeDown, match="node-3 did not connect"):
        daemons.wait_connected(0.0)
    with nodes[2].log.open("a") as log:
        print(json.dumps({"event": "connected", "peer": nodes[-1].peer}), file=log)
    daemons.wait_connected(0.0)


class FakeProcess:
    """A daemon that runs and does nothing."""

    def __init__(self, *arguments: object, **options: object) -> None:
        del arguments, options

    def poll(self) -> None:
        """Return no code."""
