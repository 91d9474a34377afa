"""Audio files of strangers: what is heard, what is refused, and at what cost."""

import io
import json
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import pytest
import soundfile

from executor.audio import decode
from executor.audio.decode import MAX_SECONDS, RATE, decode_files
from executor.errors import TaskFailed
from tests.executor.songs import song, written

ROOT = Path(__file__).resolve().parents[3]
NOISE = np.random.default_rng(0).uniform(-0.5, 0.5, RATE)
WIDTHS = {
    "PCM_U8": 8,
    "PCM_S8": 8,
    "PCM_16": 16,
    "PCM_24": 24,
    "PCM_32": 31,
    "FLOAT": 31,
    "DOUBLE": 31,
}
HEARD = [
    *(("WAV", kind) for kind in WIDTHS if kind != "PCM_S8"),
    *(("WAVEX", kind) for kind in ("PCM_16", "PCM_24", "FLOAT")),
    *(("FLAC", kind) for kind in ("PCM_S8", "PCM_16", "PCM_24")),
]
OTHERS = [
    *(("WAV", kind) for kind in ("ULAW", "ALAW", "IMA_ADPCM", "MS_ADPCM", "GSM610", "G721_32")),
    ("WAVEX", "ULAW"),
    *((kind, "PCM_16") for kind in ("AIFF", "AU", "W64", "RF64", "CAF", "PAF", "VOC", "SVX")),
    *(("OGG", kind) for kind in ("VORBIS", "OPUS")),
    ("MP3", "MPEG_LAYER_III"),
]


def refused(*paths: Path, max_seconds: int = MAX_SECONDS) -> str:
    with pytest.raises(TaskFailed) as caught:
        decode_files(paths, max_seconds)
    assert caught.value.code == "input-undecodable"
    return caught.value.detail


@pytest.mark.parametrize(("form", "subtype"), HEARD)
def test_decoded_samples_equal_the_written_ones(form: str, subtype: str, tmp_path: Path) -> None:
    path = written(tmp_path / "song", NOISE, RATE, format=form, subtype=subtype)
    (decoded,) = decode_files([path])
    assert decoded.dtype == np.float32
    assert decoded.shape == (RATE,)
    assert np.abs(decoded - NOISE).max() < 1.01 * 2.0 ** (1 - WIDTHS[subtype]) + 2.0**-24


@pytest.mark.parametrize(("form", "subtype"), OTHERS)
def test_other_formats_are_refused(form: str, subtype: str, tmp_path: Path) -> None:
    rate = {"OPUS": 48_000, "G721_32": 8_000}.get(subtype, RATE)
    path = written(tmp_path / "song", NOISE, rate, format=form, subtype=subtype)
    assert "neither" in refused(path)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what librosa.load imports
@pytest.mark.parametrize("channels", range(1, 9))
def test_channels_are_averaged_as_librosa_does(channels: int, tmp_path: Path) -> None:
    draws = np.random.default_rng(channels).uniform(-1, 1, (RATE // 10, channels))
    path = written(tmp_path / "song", draws.astype(np.float32), RATE, format="WAV", subtype="FLOAT")
    expected, rate = librosa.load(path, sr=None)
    assert rate == RATE
    if channels < 8:
        assert (decode_files([path])[0] == expected).all()
    else:  # numpy adds up eight of them in pairs
        assert np.abs(decode_files([path])[0] - expected).max() < 2.0**-22


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("rate", [4_000, 4_001, 8_000, 22_050, 44_101, 48_000, 96_000, 384_000])
def test_any_rate_is_resampled_as_librosa_does(rate: int, tmp_path: Path) -> None:
    path = written(tmp_path / "song", NOISE[: 2 * rate], rate, format="WAV", subtype="FLOAT")
    (decoded,) = decode_files([path])
    expected, _ = librosa.load(path, sr=RATE)
    assert decoded.dtype == np.float32
    assert decoded.tobytes() == expected.tobytes()


def test_block_size_does_not_change_the_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "song.flac", np.stack([NOISE, -NOISE / 3], 1), RATE)
    (whole,) = decode_files([path])
    monkeypatch.setattr(decode, "BLOCK_FRAMES", 1_000)
    assert (decode_files([path])[0] == whole).all()


def test_a_file_of_no_frames_or_too_many_channels_is_refused(tmp_path: Path) -> None:
    empty = written(tmp_path / "empty.wav", np.zeros(0), RATE)
    assert refused(empty) == "no samples"
    wide = written(tmp_path / "wide.wav", np.zeros((5, 9)), RATE, format="WAVEX")
    assert refused(wide) == "9 channels, at most 8"


@pytest.mark.parametrize("sample", [np.nan, np.inf, -np.inf, 1e30, -65_537.0, 1e300])
def test_samples_that_are_no_sound_are_refused(sample: float, tmp_path: Path) -> None:
    sound = NOISE.copy()
    sound[-1] = sample
    path = written(tmp_path / "song.wav", sound, RATE, subtype="DOUBLE")
    assert refused(path) == "samples that are no sound"
    sound[-1] = -65_536.0
    assert decode_files([written(path, sound, RATE, subtype="FLOAT")])[0][-1] == -65_536


def test_all_inputs_together_are_bounded(tmp_path: Path) -> None:
    one = written(tmp_path / "one.flac", NOISE, RATE)
    two = written(tmp_path / "two.wav", np.concatenate([NOISE, NOISE])[::2], RATE // 2)
    assert [len(heard) for heard in decode_files([one, two, one], 4)] == [RATE, RATE * 2, RATE]
    # One frame more is a millisecond more: lengths are rounded up.
    longer = written(tmp_path / "longer.wav", np.append(NOISE, 0.0), RATE)
    assert refused(one, two, longer, max_seconds=4) == (
        "1.0 s (44101 frames at 44100 Hz), at most 1.0 s (44100 frames at 44100 Hz) are allowed"
    )


def declaring(flac: bytes, frames: int) -> bytes:
    """A FLAC whose STREAMINFO says so many frames: 36 bits from bit 108 of the block."""
    place = 4 + 4 + 13
    word = int.from_bytes(flac[place : place + 5], "big") & 0xF0_0000_0000 | frames
    return flac[:place] + word.to_bytes(5, "big") + flac[place + 5 :]


@pytest.fixture(scope="module")
def hour(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A FLAC of a few hundred kilobytes that holds an hour."""
    path = tmp_path_factory.mktemp("hour") / "hour.flac"
    soundfile.write(path, np.zeros(3600 * RATE, np.int16), RATE)
    content = path.read_bytes()
    assert len(content) < 600_000
    return content


# What it takes in a process of its own, in seconds and kilobytes, once the libraries are there.
# Not getrusage: its maximum is the parent's, where that was larger.
MEASURED = """
import json, sys, time
from pathlib import Path
import numpy, soundfile
from executor.audio import decode as listening
from executor.errors import TaskFailed
began = time.monotonic()
try:
    listening.decode_files([Path(sys.argv[1])])
    code = ""
except TaskFailed as failed:
    code = failed.code
seconds = time.monotonic() - began
status = dict(line.split(":") for line in open("/proc/self/status"))
print(json.dumps([code, seconds, int(status["VmHWM"].split()[0])]))
"""


# Without a declared length, as much is decoded as is allowed: half a second of an idle processor.
@pytest.mark.parametrize(
    ("frames", "limit"), [(3600 * RATE, 2), (0, 20), (2**36 - 1, 2), (600 * RATE + 1, 2)]
)
def test_an_hour_in_a_small_file_is_refused_cheaply(
    hour: bytes, frames: int, limit: int, tmp_path: Path
) -> None:
    path = tmp_path / "hour.flac"
    path.write_bytes(declaring(hour, frames))
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(path)], cwd=ROOT, check=True, capture_output=True
    )
    code, seconds, kilobytes = json.loads(done.stdout)
    assert code == "input-undecodable"
    assert seconds < limit
    assert kilobytes < 512 * 1024


def test_no_more_than_declared_is_decoded(hour: bytes, tmp_path: Path) -> None:
    path = tmp_path / "hour.flac"
    path.write_bytes(declaring(hour, 8 * RATE))
    assert len(decode_files([path])[0]) == 8 * RATE


def test_less_than_declared_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "song.flac", NOISE, RATE)
    path.write_bytes(declaring(path.read_bytes(), RATE + 1))
    assert refused(path)
    content = written(path, NOISE, RATE).read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert refused(path)


class Talkative:
    """What libsndfile is not known to do: give more than was declared."""

    rate, channels, frames = RATE, 1, 10

    def blocks(self, frames: int) -> Iterator[Any]:
        yield from [np.zeros((7, 1), np.float32)] * 2


def test_more_than_declared_is_refused() -> None:
    with pytest.raises(TaskFailed, match="longer than"):
        decode.mix_down(Talkative(), "FLAC", 600)


BEGINNINGS = [
    b"",
    b"fLaC",
    b"RIFF",
    b"RIFF\0\0\0\0WAVE",
    b"RIFF\0\0\0\0WAVEfmt ",
    b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0",
    b"RIFF\0\0\0\0WAVEfmt \0\0\0\0\x01\0",
    b"RIFF\0\0\0\0AVI fmt \x10\0\0\0\x01\0",
    b"RIFF\xff\xff\xff\xffWAVE" + b"JUNK\0\0\0\0" * 100_000,
    b"RIFF\xff\xff\xff\xffWAVE" + b"JUNK\xff\xff\xff\xff" * 9,
    b"ID3\x04\0\0\0\0\0\0fLaC",
]


@pytest.mark.parametrize("content", BEGINNINGS, ids=lambda content: repr(content[:24]))
def test_truncated_file_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "song"
    path.write_bytes(content)
    assert refused(path)


@pytest.mark.parametrize("rate", [1, 7, 3_999, 384_010, 655_350])
@pytest.mark.parametrize("form", ["WAV", "FLAC"])
def test_rates_outside_the_range_are_refused_by_the_header(
    form: str, rate: int, tmp_path: Path
) -> None:
    """99 bytes of FLAC at 1 Hz took 27 s and 1 GB in the resampler."""
    path = written(tmp_path / "song", np.zeros(600), rate, format=form)
    assert refused(path) == f"{rate} Hz; the sampling rate must be 4000 to 384000 Hz"


def flac_of_unknown_length(samples: np.ndarray[Any, Any]) -> bytes:
    """What a program writes to a pipe: no length, no sizes of frames, no MD5 sum."""
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format="FLAC")
    content = declaring(file.getvalue(), 0)
    return content[:12] + bytes(6) + content[18:26] + bytes(16) + content[42:]


def wav(
    samples: np.ndarray[Any, Any],
    *,
    size: int | None = None,
    before: bytes = b"",
    after: bytes = b"",
    riff: int = 0xFFFFFFFF,
    extended: bool = False,
) -> bytes:
    """A WAV of 16 bits; `size` is what its data chunk declares."""
    payload = (samples * 32_768).astype("<i2").tobytes()
    tag, extension = (0xFFFE, struct.pack("<HHI", 22, 16, 4)) if extended else (1, b"")
    extension += b"\1\0\0\0\0\0\x10\0\x80\0\0\xaa\0\x38\x9b\x71" if extended else b""
    form = struct.pack("<HHIIHH", tag, 1, RATE, 2 * RATE, 2, 16) + extension
    return (
        b"RIFF" + struct.pack("<I", riff) + b"WAVE" + before
        + b"fmt " + struct.pack("<I", len(form)) + form + after
        + b"data" + struct.pack("<I", len(payload) if size is None else size) + payload
    )  # fmt: skip


def chunk(name: bytes, content: bytes, padding: bytes = b"\0") -> bytes:
    return name + struct.pack("<I", len(content)) + content + padding * (len(content) % 2)


TUNE = np.round(NOISE * 32_000) / 32_768
PIPED = {
    "flac": flac_of_unknown_length(TUNE),
    "zero": wav(TUNE, size=0, riff=0),
    "ones": wav(TUNE, size=0xFFFFFFFF),
    "sox": wav(TUNE, size=0x7FFFF000, riff=0x7FFFF024),
    "list": wav(TUNE, size=0xFFFFFFFF, after=chunk(b"LIST", b"INFOISFT\x05\0\0\0Lavf\0")),
    "early": wav(TUNE, before=chunk(b"LIST", b"INFO") + chunk(b"bext", bytes(603))),
    "unpadded": wav(TUNE, after=chunk(b"LIST", b"odd", b"")),
    "unpadded-piped": wav(TUNE, size=0, after=chunk(b"id3 ", b"x" * 7, b"")),
    "extensible": wav(TUNE, extended=True, size=0),
    "odd-end": wav(TUNE, size=0) + b"\x7f",
    "behind": wav(TUNE) + chunk(b"LIST", b"INFO"),
}


@pytest.mark.parametrize("name", PIPED)
def test_files_from_pipes_and_odd_headers_are_read_to_their_end(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(PIPED[name])
    assert (decode_files([path])[0] == TUNE.astype(np.float32)).all()


def test_samples_before_the_format_are_read(tmp_path: Path) -> None:
    payload = (TUNE * 32_768).astype("<i2").tobytes()
    form = struct.pack("<HHIIHH", 1, 1, RATE, 2 * RATE, 2, 16)
    path = tmp_path / "song"
    path.write_bytes(b"RIFF\0\0\0\0WAVE" + chunk(b"data", payload) + chunk(b"fmt ", form))
    assert (decode_files([path])[0] == TUNE.astype(np.float32)).all()


def test_a_wav_that_is_cut_off_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "song"
    path.write_bytes(wav(TUNE)[:-1001])
    assert (decode_files([path])[0] == TUNE[:-501].astype(np.float32)).all()


def test_a_flac_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "song"
    for content in (PIPED["flac"], declaring(PIPED["flac"], RATE)):
        path.write_bytes(content[: len(content) // 2])
        assert refused(path).startswith("a FLAC that is damaged or cut off")


def test_a_wav_from_a_pipe_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "song"
    for name in ("zero", "flac"):
        path.write_bytes(PIPED[name])
        assert len(decode_files([path], 1)[0]) == RATE
        longer = np.append(TUNE, 0.0)
        path.write_bytes(flac_of_unknown_length(longer) if name == "flac" else wav(longer, size=0))
        assert "1.0 s (44100 frames at 44100 Hz)" in refused(path, max_seconds=1)


@pytest.mark.parametrize(
    ("format_chunk", "detail"),
    [
        (struct.pack("<HHIIHH", 0x55, 1, RATE, RATE, 1, 0), "a WAV of MP3, neither PCM nor float"),
        (struct.pack("<HHIIHH", 9, 1, RATE, RATE, 1, 8), "a WAV of format 0x9"),
        (struct.pack("<HHIIHH", 1, 1, RATE, RATE, 5, 40), "a WAV of 40 bits a sample"),
        (struct.pack("<HHIIHH", 3, 1, RATE, RATE, 2, 16), "a WAV of 16 bits a sample"),
        (struct.pack("<HHIIHH", 1, 0, RATE, RATE, 0, 16), "a WAV whose header contradicts itself"),
        (struct.pack("<HHIIHH", 1, 2, RATE, RATE, 2, 16), "a WAV whose header contradicts itself"),
        (b"\1\0\1\0", "a WAV whose format chunk is cut off"),
    ],
)
def test_a_wav_that_cannot_be_read_says_why(
    format_chunk: bytes, detail: str, tmp_path: Path
) -> None:
    path = tmp_path / "song"
    samples = chunk(b"data", bytes(400))
    path.write_bytes(b"RIFF\0\0\0\0WAVE" + chunk(b"fmt ", format_chunk) + samples)
    assert refused(path).startswith(detail)


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("form", ["WAV", "FLAC"])
def test_corrupt_files_are_decoded_or_refused(form: str, seed: int, tmp_path: Path) -> None:
    path = written(tmp_path / "song", song(0.5, RATE), RATE, format=form, subtype="PCM_16")
    content = bytearray(path.read_bytes())
    draws = np.random.default_rng(seed)
    for place in draws.integers(0, min(200, len(content)), draws.integers(1, 6)):
        content[place] = draws.integers(0, 256)
    path.write_bytes(content)
    try:
        (decoded,) = decode_files([path])
    except TaskFailed as failed:
        assert failed.code == "input-undecodable"  # noqa: PT017 either is fine, another is not
    else:
        assert np.isfinite(decoded).all()
