"""Songs to piano over real nodes: verified scores and audio, and the error of a failed task."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pretty_midi
import pytest
import soundfile

from tests.executor.songs import recorded
from tests.integration.conftest import Running
from tests.support.songs import wav

NAME = "helium/embedded-pop2piano"


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    return recorded(tmp_path_factory.mktemp("songs"))


def test_songs_become_verified_scores_and_audio(three: Running, songs: Mapping[str, Path]) -> None:
    flags = ["--model", NAME, "--seed", 1, "--composer", "composer2", "-o", "piano.wav"]
    audio = ["--audio", songs["mono"], "--audio", songs["stereo"]]
    result: Any = three.json("submit", *flags, *audio)
    assert result["state"] == "agreed"
    assert len(result["signers"]) >= 2
    assert result["midi"] == ["piano.mid", "piano-2.mid"]
    assert [song["path"] for song in result["audio"]] == ["piano.wav", "piano-2.wav"]
    for index, (score, song) in enumerate(zip(result["midi"], result["audio"], strict=True)):
        assert pretty_midi.PrettyMIDI(str(three.root / score)).instruments[0].notes
        sound, rate = soundfile.read(three.root / song["path"])
        assert (rate, len(sound)) == (44_100, song["frames"])
        assert 0.8 < np.abs(sound).max() <= 0.9
        for output, file in ((2 * index, score), (2 * index + 1, song["path"])):
            verified = three.json("verify", result["certificate"], "--audio", file)
            assert verified["audio"]["output"] == output


def test_failed_task_reports_the_members_reason(three: Running, songs: Mapping[str, Path]) -> None:
    song = three.root / "short.wav"
    song.write_bytes(wav(4_410))
    done = three.helium("submit", "--model", NAME, "--seed", 1, "--audio", song, "-o", "none.wav")
    assert done.returncode == 4
    assert "the members agree that the task fails, no-notes: " in done.stderr.splitlines()[-1]
    assert done.stderr.endswith("; choose another song, composer or seed, and submit it again\n")
    reason = "voted error no-notes: no beat was found"
    assert sum(reason in line for line in done.stdout.splitlines()) == 3
    task = done.stdout.split()[2].rstrip(":")
    status = three.helium("status", task)
    assert status.stdout.startswith(f"task {task}: certified: error no-notes\n")
    assert status.stdout.count(reason) == 3
    votes = three.json("status", task)["votes"]
    assert {vote["error"] for vote in votes} == {"no-notes"}
    assert not (three.root / "none.wav").exists()
