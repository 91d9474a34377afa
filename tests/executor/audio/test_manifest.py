import hashlib

import numpy as np
import pytest

import schemas
from executor.audio import manifest, midi, piano_synth
from executor.audio.manifest import canonical_frames, waveform_output
from executor.errors import TaskFailed
from protocol.work import tokens_blob

NOTES = (midi.canonical([(0, 1, 60, 77)]), midi.canonical([(0, 1, 62, 77), (1, 2, 64, 77)]))


def test_mono_becomes_one_column() -> None:
    frames = canonical_frames(np.array([0.5, -0.25], dtype=np.float32))
    assert frames.tolist() == [[0.5], [-0.25]]
    assert frames.tobytes() == bytes.fromhex("0000003f 000080be")


def test_stereo_is_interleaved_by_frame() -> None:
    audio = np.array([[1.0, 2.0, 3.0], [-1.0, -2.0, -3.0]], dtype=np.float32)
    frames = canonical_frames(audio)
    assert frames.shape == (3, 2)
    assert frames.flags.c_contiguous
    assert np.frombuffer(frames.tobytes(), "<f4").tolist() == [1.0, -1.0, 2.0, -2.0, 3.0, -3.0]


def test_minus_zero_is_written_as_zero() -> None:
    assert canonical_frames(np.array([-0.0, 0.0], dtype=np.float32)).tobytes() == bytes(8)


def test_canonical_frames_does_not_change_its_argument() -> None:
    audio = np.array([-0.0], dtype=np.float32)
    canonical_frames(audio)
    assert np.signbit(audio[0])


def test_big_endian_and_wider_numbers_give_the_same_bytes() -> None:
    little = canonical_frames(np.array([0.1, 0.2], dtype="<f4")).tobytes()
    assert canonical_frames(np.array([0.1, 0.2], dtype=">f4")).tobytes() == little
    assert canonical_frames(np.array([0.1, 0.2], dtype="<f8")).tobytes() == little


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_a_sample_that_is_not_finite_fails_the_task(bad: float) -> None:
    with pytest.raises(TaskFailed) as caught:
        canonical_frames(np.array([0.0, bad]))
    assert caught.value.code == "non-finite-output"


@pytest.mark.parametrize("shape", [(), (1, 2, 3)])
def test_other_shapes_are_misuse(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="dimensions"):
        canonical_frames(np.zeros(shape))


def test_entry_of_a_short_waveform() -> None:
    frames = canonical_frames(np.zeros((2, 3), dtype=np.float32))
    zeros = hashlib.sha256(bytes(24)).hexdigest()
    assert waveform_output(frames, 32_000).entry == {
        "media": "audio/f32",
        "sampling_rate": 32_000,
        "frames": 3,
        "channels": 2,
        "sha256": zeros,
        "size": 24,
        "chunks": [zeros],
    }


@pytest.mark.parametrize(("frames", "chunks"), [(65_535, 1), (65_536, 1), (65_537, 2)])
def test_chunks_are_262144_bytes(frames: int, chunks: int) -> None:
    audio = np.arange(frames, dtype=np.float32)
    entry = waveform_output(canonical_frames(audio), 16_000).entry
    content = audio.tobytes()
    expected = [hashlib.sha256(content[:262_144]).hexdigest()]
    if chunks == 2:
        expected.append(hashlib.sha256(content[262_144:]).hexdigest())
    assert entry["chunks"] == expected


def test_each_score_comes_before_its_waveform() -> None:
    outputs = list(manifest.cover_outputs(NOTES))
    entries = [output.entry for output in outputs]
    schemas.check("outcome", {"result": {"outputs": entries}})
    assert [entry["media"] for entry in entries] == ["audio/midi", "audio/f32"] * 2
    assert [entry["notes"] for entry in entries[::2]] == [1, 2]
    for output in outputs:
        sha256 = hashlib.sha256(output.content).hexdigest()
        assert (output.entry["sha256"], output.entry["size"]) == (sha256, len(output.content))
    assert outputs[0].content == midi.encode(NOTES[0])
    assert outputs[1].content == piano_synth.render(NOTES[0]).tobytes()


def test_waveform_has_the_tokens_of_its_sequence() -> None:
    blob = tokens_blob(1, bytes(16))
    frames = canonical_frames(np.zeros(3, dtype=np.float32))
    output = waveform_output(frames, 32_000, blob)
    sha256 = hashlib.sha256(blob).hexdigest()
    assert output.entry["tokens"] == {"sha256": sha256, "size": 20}
    assert output.tokens == blob
    schemas.check("outcome", {"result": {"outputs": [output.entry]}, "work": sha256})
    assert waveform_output(frames, 32_000).tokens is None


def test_waveform_of_each_score_has_its_tokens() -> None:
    blobs = [tokens_blob(1, bytes((n, 0, 0, 0))) for n in range(len(NOTES))]
    outputs = list(manifest.cover_outputs(NOTES, blobs))
    assert [output.tokens for output in outputs] == [None, blobs[0], None, blobs[1]]
    assert ["tokens" in output.entry for output in outputs] == [False, True] * 2


def test_a_waveform_of_several_channels_is_written_in_order() -> None:
    frames = np.arange(6, dtype="<f4").reshape(3, 2)
    output = waveform_output(frames, 8_000)
    entry = output.entry
    assert (entry["frames"], entry["channels"], entry["sampling_rate"]) == (3, 2, 8_000)
    assert output.content == frames.tobytes()
    assert entry["sha256"] == hashlib.sha256(output.content).hexdigest()


def test_an_empty_waveform_has_no_bytes() -> None:
    assert waveform_output(np.zeros((0, 1), "<f4"), 8_000).content == b""
