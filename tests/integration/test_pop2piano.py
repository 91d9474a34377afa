"""Songs to piano over real nodes: verified scores and audio, and the error of a failed task."""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pretty_midi
import pytest
import soundfile

from node.cli.commands.network.document import ModelSelection
from protocol.network import NetworkParameters
from protocol.wire.encoding import Document
from scripts.testnet_tool.nodes import Daemons, create_network
from tests.executor.pianos import NAME
from tests.executor.songs import recorded
from tests.integration.conftest import Running
from tests.support.tiny_models.built import built_models


@pytest.fixture(scope="module")
def two(runtime: Document, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Two nodes, so that both have to agree, each with the tiny Pop2Piano in its folder."""
    root, folder = tmp_path_factory.mktemp("two"), tmp_path_factory.mktemp("models")
    shutil.copytree(built_models(tmp_path_factory) / NAME, folder / NAME)
    listed = ModelSelection([NAME], [folder], [], None)
    parameters = NetworkParameters(committee_size=2, commit_grace_seconds=3)
    network, nodes = create_network(root, 2, runtime, parameters, models=listed)
    for node in nodes:
        shutil.copytree(folder, node.home / "models")
    with Daemons(root / "network.json", nodes) as daemons:
        daemons.wait_ready()
        yield Running(network, daemons, root)
        codes = daemons.stop()
    assert set(codes.values()) == {0}, codes


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    return recorded(tmp_path_factory.mktemp("songs"))


def test_songs_become_verified_scores_and_audio(two: Running, songs: Mapping[str, Path]) -> None:
    flags = ["--model", NAME, "--seed", 1, "--composer", "composer2", "-o", "piano.wav"]
    audio = ["--audio", songs["mono"], "--audio", songs["stereo"]]
    result: Any = two.json("submit", *flags, *audio)
    assert result["state"] == "agreed"
    assert len(result["signers"]) == 2
    assert result["midi"] == ["piano.mid", "piano-2.mid"]
    assert [song["path"] for song in result["audio"]] == ["piano.wav", "piano-2.wav"]
    for index, (score, song) in enumerate(zip(result["midi"], result["audio"], strict=True)):
        assert pretty_midi.PrettyMIDI(str(two.root / score)).instruments[0].notes
        sound, rate = soundfile.read(two.root / song["path"])
        assert (rate, len(sound)) == (44_100, song["frames"])
        assert 0.8 < np.abs(sound).max() <= 0.9
        for output, file in ((2 * index, score), (2 * index + 1, song["path"])):
            verified = two.json("verify", result["certificate"], "--audio", file)
            assert verified["audio"]["output"] == output


def test_failed_task_reports_the_members_reason(two: Running, songs: Mapping[str, Path]) -> None:
    flags = ["--model", NAME, "--seed", 1, "--audio", songs["mono"], "--composer", "Satie"]
    done = two.helium("submit", *flags, "-o", "none.wav")
    assert done.returncode == 4
    assert done.stderr.endswith("the members agree that the task fails: generation-rejected\n")
    reason = "voted error generation-rejected: 'Satie' is none of composer1, composer2, composer3"
    assert sum(line.endswith(reason) for line in done.stdout.splitlines()) == 2
    task = done.stdout.split()[2].rstrip(":")
    status = two.helium("status", task)
    assert status.stdout.startswith(f"task {task}: certified: error generation-rejected\n")
    assert status.stdout.count(reason) == 2
    votes = two.json("status", task)["votes"]
    assert {vote["error"] for vote in votes} == {"generation-rejected"}
    assert not (two.root / "none.wav").exists()
