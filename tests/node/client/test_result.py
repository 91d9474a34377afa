"""Certified bytes as arrays and files, sample for sample."""

import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pretty_midi
import pytest
import soundfile
from numpy.typing import NDArray

import node.client
from executor.audio import midi
from node.client.result import AudioMismatch, Result, Waveform, check_file, numbered, waveform_of
from protocol.consensus.certificate import assemble
from protocol.consensus.committee import committees
from tests.support import fixtures

NET = fixtures.network()
AWKWARD = [0.1, -1.0, 1.0, 0.0, 1e-40, -1e-40, 3.5, -7.25, 3.4e38, 1 / 3]  # denormal, above 1


def samples(channels: int, frames: int = 500) -> NDArray[np.float32]:
    noise = np.random.default_rng(channels).uniform(-1, 1, (frames, channels))
    noise.reshape(-1)[: len(AWKWARD)] = AWKWARD
    return noise.astype("<f4")


def entry(audio: NDArray[np.float32], rate: int = 32_000) -> dict[str, Any]:
    payload = audio.tobytes()
    sha256 = hashlib.sha256(payload).hexdigest()
    return {
        "media": "audio/f32",
        "sampling_rate": rate,
        "frames": audio.shape[0],
        "channels": audio.shape[1],
        "sha256": sha256,
        "size": len(payload),
        "chunks": [sha256],
    }


def outcome_of(*audios: NDArray[np.float32]) -> dict[str, Any]:
    return {"result": {"outputs": [entry(audio) for audio in audios]}}


def result_of(*audios: NDArray[np.float32]) -> Result:
    outcome, task = outcome_of(*audios), fixtures.task(NET)
    committee = committees(NET, task)[0]
    commits = {member: fixtures.commitment_of(task, member, outcome) for member in committee}
    reveals = [fixtures.reveal(NET, task, member, commits, outcome) for member in committee]
    waveforms = tuple(Waveform(audio.astype(np.float32), 32_000) for audio in audios)
    return Result(waveforms, assemble(task, 0, reveals, NET))


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_bytes_become_frames_of_channels(channels: int) -> None:
    audio = samples(channels)
    waveform = waveform_of(audio.tobytes(), entry(audio))
    assert waveform.audio.shape == (500, channels)
    assert waveform.audio.dtype == np.float32
    assert waveform.audio.tobytes() == audio.tobytes()
    assert waveform.sampling_rate == 32_000
    assert waveform.seconds == 500 / 32_000


def test_stereo_is_interleaved() -> None:
    payload = np.array([1, 10, 2, 20, 3, 30], "<f4").tobytes()
    wave = waveform_of(
        payload, {"media": "audio/f32", "frames": 3, "channels": 2, "sampling_rate": 1}
    )
    assert wave.audio.tolist() == [[1, 10], [2, 20], [3, 30]]


@pytest.mark.parametrize("change", [-4, -1, 1, 4])
def test_bytes_of_another_length_are_rejected(change: int) -> None:
    audio = samples(2)
    payload = (audio.tobytes() + bytes(8))[: audio.nbytes + change]
    with pytest.raises(AudioMismatch, match="are not 500 frames of 2 channels"):
        waveform_of(payload, entry(audio))


@pytest.mark.parametrize("channels", [1, 2])
def test_a_written_file_has_the_exact_samples(tmp_path: Path, channels: int) -> None:
    audio = samples(channels)
    path = tmp_path / "song.wav"
    assert result_of(audio).write(path) == [path]
    content, rate = soundfile.read(str(path), dtype="float32", always_2d=True)
    assert rate == 32_000
    assert content.tobytes() == audio.tobytes()
    assert soundfile.info(str(path)).subtype == "FLOAT"
    assert check_file(path, outcome_of(audio)) == 0
    assert list(tmp_path.iterdir()) == [path], "no temporary file stays"


def test_each_sequence_has_a_file(tmp_path: Path) -> None:
    audios = samples(1), samples(2), samples(1, 400)
    result = result_of(*audios)
    paths = result.write(tmp_path / "song.wav")
    assert [path.name for path in paths] == ["song.wav", "song-2.wav", "song-3.wav"]
    for index, path in enumerate(paths):
        assert check_file(path, outcome_of(*audios)) == index
    assert result.audio.tobytes() == audios[0].tobytes()
    assert result.sampling_rate == 32_000


def test_a_failed_write_keeps_the_existing_file(tmp_path: Path) -> None:
    path = tmp_path / "song.wav"
    path.write_text("old")
    with pytest.raises((OSError, soundfile.LibsndfileError), match="missing"):
        result_of(samples(1)).write(tmp_path / "missing" / "song.wav")
    assert path.read_text() == "old"
    result_of(samples(1)).write(path)
    assert check_file(path, outcome_of(samples(1))) == 0


def test_numbered_keeps_the_suffix() -> None:
    names = [numbered(Path("a/song.final.wav"), index).as_posix() for index in range(2)]
    assert names == ["a/song.final.wav", "a/song.final-2.wav"]


def test_negative_zero_verifies_as_zero(tmp_path: Path) -> None:
    """Files may hold -0.0 where the specification's bytes hold 0.0 (section 8)."""
    audio = np.array([[0.0], [0.5], [0.0]], "<f4")
    path = tmp_path / "song.wav"
    soundfile.write(str(path), np.array([[-0.0], [0.5], [-0.0]], "<f4"), 32_000, subtype="FLOAT")
    assert check_file(path, outcome_of(audio)) == 0


def test_one_changed_sample_matches_no_output(tmp_path: Path) -> None:
    audio = samples(1)
    altered = audio.copy()
    altered[250, 0] = np.nextafter(altered[250, 0], np.float32(2))
    path = tmp_path / "song.wav"
    soundfile.write(str(path), altered, 32_000, subtype="FLOAT")
    with pytest.raises(AudioMismatch, match="none of the 1 outputs: its samples have another hash"):
        check_file(path, outcome_of(audio))


@pytest.mark.parametrize(
    ("audio", "rate", "subtype", "words"),
    [
        (samples(1), 44_100, "FLOAT", "44100 Hz, not 32000"),
        (samples(1, 499), 32_000, "FLOAT", "499 frames of 1 channels, not 500 frames of 1"),
        (samples(2), 32_000, "FLOAT", "500 frames of 2 channels, not 500 frames of 1"),
        (samples(1), 32_000, "PCM_16", "its samples have another hash"),
    ],
    ids=["rate", "frames", "channels", "precision"],
)
def test_a_mismatch_names_the_difference(
    tmp_path: Path, audio: NDArray[np.float32], rate: int, subtype: str, words: str
) -> None:
    path = tmp_path / "song.wav"
    soundfile.write(str(path), audio, rate, subtype=subtype)
    with pytest.raises(AudioMismatch, match=words):
        check_file(path, outcome_of(samples(1)))


@pytest.mark.parametrize("content", [None, b"", b"RIFF", b"this is no audio" * 100])
def test_a_file_that_is_not_audio_is_rejected(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "song.wav"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(AudioMismatch, match="cannot be read as audio"):
        check_file(path, outcome_of(samples(1)))


def test_an_agreed_error_matches_no_audio(tmp_path: Path) -> None:
    with pytest.raises(AudioMismatch, match="covers no audio"):
        check_file(tmp_path / "song.wav", {"error": "no-notes"})


def test_equal_bytes_in_another_shape_do_not_match(tmp_path: Path) -> None:
    """8 frames of one channel and 4 of two have the same bytes, and the same hash."""
    audio = np.arange(8, dtype=np.float32).reshape(8, 1)
    outcome: Any = {"result": {"outputs": [entry(audio, 16_000)]}}
    path = tmp_path / "a.wav"
    Waveform(audio.reshape(4, 2), 16_000).write(path)
    with pytest.raises(AudioMismatch, match="4 frames of 2 channels, not 8 frames of 1"):
        check_file(path, outcome)
    Waveform(audio, 16_000).write(path)
    assert check_file(path, outcome) == 0


def test_a_score_is_not_a_waveform(tmp_path: Path) -> None:
    output: Any = {"media": "audio/midi", "sha256": "0" * 64, "size": 4, "notes": 1}
    with pytest.raises(AudioMismatch, match="audio/midi"):
        waveform_of(b"MThd", output)
    path = tmp_path / "a.wav"
    Waveform(np.zeros((4, 1), np.float32), 16_000).write(path)
    with pytest.raises(AudioMismatch, match="audio/midi"):
        check_file(path, {"result": {"outputs": [output]}})


def test_scores_are_pretty_midi_objects(tmp_path: Path) -> None:
    """As the reference document has them: `result.midi[i].write(path)`."""
    scores = [midi.canonical([(0, 1, 60, 77)]), midi.canonical([(0.5, 1.5, 64, 77), (1, 2, 67, 9)])]
    audio = result_of(samples(1), samples(1))
    result = Result(audio.waveforms, audio.certificate, tuple(map(midi.encode, scores)))
    assert [type(score) for score in result.midi] == [pretty_midi.PrettyMIDI] * 2
    for score, notes in zip(result.midi, scores, strict=True):
        score.write(str(tmp_path / "midi_output.mid"))
        read = pretty_midi.PrettyMIDI(str(tmp_path / "midi_output.mid")).instruments[0].notes
        assert midi.canonical((n.start, n.end, n.pitch, n.velocity) for n in read) == notes
    result = replace(result, tokens=(b"one", b"two"))
    names = ["song.wav", "song-2.wav", "song.mid", "song-2.mid"]
    names += ["song.wav.tokens", "song-2.wav.tokens"]
    written = result.write(tmp_path / "song.wav")
    assert [path.name for path in written] == names
    assert [path.read_bytes() for path in written[2:]] == [*result.scores, *result.tokens]


def test_the_package_gives_its_public_names_and_imports_no_transport_for_a_result() -> None:
    code = (
        "import sys, node.client as c;"
        "c.AudioMismatch, c.Waveform;"
        "assert not {'libp2p', 'node.client.client'} & {*sys.modules};"
        "assert {*c._MODULES} == {*c.__all__};"
        "assert all(getattr(c, name).__name__ == name for name in c.__all__)"
    )
    subprocess.run([sys.executable, "-P", "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'Cleint'"):
        node.client.__getattr__("Cleint")
