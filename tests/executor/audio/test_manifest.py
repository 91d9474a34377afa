import hashlib
from pathlib import Path

import numpy as np
import pytest

import schemas
from executor.audio import manifest, midi, piano_synth

NOTES = (midi.canonical([(0, 1, 60, 77)]), midi.canonical([(0, 1, 62, 77), (1, 2, 64, 77)]))


def test_each_score_comes_before_its_waveform(tmp_path: Path) -> None:
    entries = manifest.write_outputs(manifest.cover_outputs(NOTES), tmp_path / "stem")
    schemas.check("outcome", {"result": {"outputs": entries}})
    assert [entry["media"] for entry in entries] == ["audio/midi", "audio/f32"] * 2
    assert [entry["notes"] for entry in entries[::2]] == [1, 2]
    files = [
        manifest.output_path(tmp_path / "stem", i, str(e["media"])) for i, e in enumerate(entries)
    ]
    assert sorted(tmp_path.iterdir()) == files
    assert [file.name for file in files] == ["stem-0.mid", "stem-1.f32", "stem-2.mid", "stem-3.f32"]
    for file, entry in zip(files, entries, strict=True):
        content = file.read_bytes()
        assert (entry["sha256"], entry["size"]) == (
            hashlib.sha256(content).hexdigest(),
            len(content),
        )
    assert files[0].read_bytes() == midi.encode(NOTES[0])
    assert files[1].read_bytes() == piano_synth.render(NOTES[0]).tobytes()


def test_a_waveform_of_several_channels_is_written_in_order(tmp_path: Path) -> None:
    frames = np.arange(6, dtype="<f4").reshape(3, 2)
    (entry,) = manifest.write_outputs([manifest.waveform_output(frames, 8_000)], tmp_path / "stem")
    assert (entry["frames"], entry["channels"], entry["sampling_rate"]) == (3, 2, 8_000)
    assert (tmp_path / "stem-0.f32").read_bytes() == frames.tobytes()


def test_an_empty_waveform_is_an_empty_file(tmp_path: Path) -> None:
    manifest.write_outputs(
        [manifest.waveform_output(np.zeros((0, 1), "<f4"), 8_000)], tmp_path / "stem"
    )
    assert (tmp_path / "stem-0.f32").read_bytes() == b""


def test_a_medium_that_is_none_has_no_place(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        manifest.output_path(tmp_path / "stem", 0, "text/plain")
