import hashlib
from pathlib import Path

import numpy as np
import pytest

from executor.audio import fingerprint
from executor.errors import TaskFailed


def test_tagged_hash_is_the_specifications() -> None:
    expected = hashlib.sha256(b"helium/1/weights\x00{}").hexdigest()
    assert fingerprint.tagged("weights", b"{}") == expected


def test_mono_becomes_one_column() -> None:
    frames = fingerprint.waveform(np.array([0.5, -0.25], dtype=np.float32))
    assert frames.tolist() == [[0.5], [-0.25]]
    assert frames.tobytes() == bytes.fromhex("0000003f 000080be")


def test_stereo_is_interleaved_by_frame() -> None:
    audio = np.array([[1.0, 2.0, 3.0], [-1.0, -2.0, -3.0]], dtype=np.float32)
    frames = fingerprint.waveform(audio)
    assert frames.shape == (3, 2)
    assert frames.flags.c_contiguous
    assert np.frombuffer(frames.tobytes(), "<f4").tolist() == [1.0, -1.0, 2.0, -2.0, 3.0, -3.0]


def test_minus_zero_is_written_as_zero() -> None:
    assert fingerprint.waveform(np.array([-0.0, 0.0], dtype=np.float32)).tobytes() == bytes(8)


def test_the_callers_array_is_left_alone() -> None:
    audio = np.array([-0.0], dtype=np.float32)
    fingerprint.waveform(audio)
    assert np.signbit(audio[0])


def test_big_endian_and_wider_numbers_give_the_same_bytes() -> None:
    little = fingerprint.waveform(np.array([0.1, 0.2], dtype="<f4")).tobytes()
    assert fingerprint.waveform(np.array([0.1, 0.2], dtype=">f4")).tobytes() == little
    assert fingerprint.waveform(np.array([0.1, 0.2], dtype="<f8")).tobytes() == little


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_what_is_not_finite_is_an_outcome(bad: float) -> None:
    with pytest.raises(TaskFailed) as caught:
        fingerprint.waveform(np.array([0.0, bad]))
    assert caught.value.code == "non-finite-output"


@pytest.mark.parametrize("shape", [(), (1, 2, 3)])
def test_other_shapes_are_our_own_mistake(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="dimensions"):
        fingerprint.waveform(np.zeros(shape))


def test_manifest_of_a_short_waveform() -> None:
    frames = fingerprint.waveform(np.zeros((2, 3), dtype=np.float32))
    zeros = hashlib.sha256(bytes(24)).hexdigest()
    assert fingerprint.described(frames, 32_000) == {
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
    described = fingerprint.described(fingerprint.waveform(audio), 16_000)
    payload = audio.tobytes()
    expected = [hashlib.sha256(payload[:262_144]).hexdigest()]
    if chunks == 2:
        expected.append(hashlib.sha256(payload[262_144:]).hexdigest())
    assert described["chunks"] == expected


def test_the_file_has_the_manifests_hash(tmp_path: Path) -> None:
    frames = fingerprint.waveform(np.linspace(-1, 1, 1000, dtype=np.float32))
    fingerprint.write(frames, tmp_path / "out.f32")
    written = hashlib.sha256((tmp_path / "out.f32").read_bytes()).hexdigest()
    assert written == fingerprint.described(frames, 16_000)["sha256"]
