"""Two liars of five are outvoted over real libp2p, and `helium explain` compares their samples."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from protocol.network import NetworkParameters
from protocol.wire.encoding import Document
from scripts.testnet_tool.nodes import Daemons, create_network
from tests.integration.conftest import Running, task

# The lies are a tenth quieter, and backwards: the level of the difference in dB against the sound.
LIES = ((-20.1, -19.9), (-10.0, 10.0))


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory, runtime: Document) -> Iterator[Running]:
    root = tmp_path_factory.mktemp("five")
    parameters = NetworkParameters(committee_size=5, committee_max=5, commit_grace_seconds=8)
    network, nodes = create_network(root, 5, runtime, parameters, liars=len(LIES))
    with Daemons(root / "network.json", nodes) as daemons:
        daemons.wait_ready()
        yield Running(network, daemons, root)


def test_each_lie_is_measured_and_every_node_counts_it(five: Running, tmp_path: Path) -> None:
    file = tmp_path / "task.json"
    file.write_text(json.dumps(task()))
    submitted = five.json("submit", file, "-o", tmp_path / "song.wav")
    assert submitted["state"] == "agreed"
    liars = [node.peer for node in five.nodes if node.lie is not None]

    explained: dict[str, Any] = five.json("explain", submitted["task"])
    assert explained["certified"] is True
    members = {member["peer"]: member for member in explained["members"]}
    assert set(members) == set(liars)
    for liar, (lowest, highest) in zip(liars, LIES, strict=True):
        member = members[liar]
        levels = {level["level"]: level["same"] for level in member["levels"]}
        assert levels == {"runtime": True, "weights": True, "tokens": True, "waveform": False}
        difference = member["waveforms"][0]["difference"]
        assert difference["differing"] > 0
        assert lowest < difference["relative_db"] < highest
        assert "waveform differs" in member["reason"]

    folder = five.nodes[0].home
    seen: dict[str, Any] = five.json("peers", "--data-dir", folder)
    for entry in seen["peers"]:
        lied = entry["peer"] in liars
        standing = entry["standing"]
        assert (standing["agreed"], standing["dissented"]) == ((0, 1) if lied else (1, 0))
    assert five.json("evidence", "list", "--data-dir", folder)["evidence"] == []
