"""Decode input audio files to mono at 44.1 kHz: bounded, and the same samples everywhere.

Only WAV (PCM, float) and FLAC are accepted. WAV is read by `wav`; libsndfile sees a file only if it
begins as FLAC, so that its other parsers are never reached. What a file declares is checked before
a sample is decoded, and the decoded samples are counted, because a few hundred kilobytes of FLAC
can hold hours of silence. What was written to a pipe declares no length: it is read to its end.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol

from executor.audio import wav
from executor.audio.recognize import START_BYTES, content_name
from executor.audio.refusal import refuse
from executor.errors import TaskFailed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Mono = NDArray[np.float32]

# Hz; essentia's beat tracker assumes this rate.
RATE = 44_100
# Of all inputs of a task together. The waveforms of their covers, 44,100 samples of 4 bytes a
# second, then stay within a network's default `max_output_bytes`, 134,217,728 (section 3), with
# 160 s left for last notes.
MAX_SECONDS = 600
# Of one input: 256 MiB of mono.
MAX_FRAMES = 67_108_864
MAX_CHANNELS = 8
# Hz. A resampler's filter grows with the ratio of the rates: 99 bytes at 1 Hz took 27 s and 1 GB.
MIN_RATE, MAX_RATE = 4_000, 384_000
# Of a float sample. Full scale is 1.0; integers that were left unscaled still pass.
MAX_AMPLITUDE = 65_536.0
# Frames that are decoded at a time.
BLOCK_FRAMES = 65_536


@dataclass(frozen=True, slots=True)
class Recording:
    """A decoded file: `samples` are mono, `(frames,)`, at `rate` Hz; the rest is of the file."""

    samples: "Mono"
    rate: int
    channels: int
    form: str

    @property
    def milliseconds(self) -> int:
        """The length, rounded up to whole milliseconds."""
        return milliseconds_of(len(self.samples), self.rate)


class Source(Protocol):
    """An open file: what its header declares, and its samples. `frames` None is unknown."""

    @property
    def rate(self) -> int:
        """The sampling rate in Hz."""

    @property
    def channels(self) -> int:
        """The number of channels."""

    @property
    def frames(self) -> int | None:
        """The declared length."""

    def blocks(self, frames: int) -> "Iterator[NDArray[np.float32]]":
        """Yield the samples, at most so many frames at a time, `(frames, channels)`."""


def decode_files(paths: Sequence[Path], max_seconds: int = MAX_SECONDS) -> "list[Mono]":
    """Return the audio of each file, `(samples,)` at `RATE`, channels averaged.

    `max_seconds` bounds all files together, each rounded up to whole milliseconds. Raises
    `TaskFailed("input-undecodable")` for a file that is not in one of the formats above, or is
    longer or has more channels than allowed (specification 8.7).
    """
    waveforms: list[Mono] = []
    milliseconds = 1000 * max_seconds
    for path in paths:
        with path.open("rb") as file:
            recording = decode(file, milliseconds)
        milliseconds -= recording.milliseconds
        waveforms.append(resample(recording.samples, recording.rate))
    return waveforms


def resample(audio: "Mono", rate: int) -> "Mono":
    """Return the audio at `RATE`, as `librosa.load` gives it: by soxr, high quality."""
    if rate == RATE:
        return audio
    import numpy as np
    import soxr

    # As many samples as librosa gives; soxr may give fewer or more.
    result = np.zeros(math.ceil(len(audio) * (RATE / rate)), np.float32)
    resampled: Mono = soxr.resample(audio, rate, RATE, quality="soxr_hq")[: len(result)]
    result[: len(resampled)] = resampled
    return result


def milliseconds_of(frames: int, rate: int) -> int:
    """Return the length of audio, rounded up to whole milliseconds."""
    return -(-1000 * frames // rate)


def decode(file: IO[bytes], max_milliseconds: int = 1000 * MAX_SECONDS) -> Recording:
    """Return the audio of an open, seekable file, channels averaged.

    Raises `TaskFailed("input-undecodable")`, which says what the file is instead.
    """
    file.seek(0)
    start = file.read(START_BYTES)
    file.seek(0)
    if start[:4] == b"RIFF" and start[8:12] == b"WAVE":
        return mix_down(wav.read_header(file), "WAV", max_milliseconds)
    if start[:4] != b"fLaC":
        name = content_name(start)
        raise TaskFailed("input-undecodable", f"neither WAV (PCM, float) nor FLAC, but {name}")
    from executor.audio import flac  # libsndfile is needed by this format alone

    with flac.opened(file) as source:
        return mix_down(source, "FLAC", max_milliseconds)


def mix_down(source: Source, form: str, max_milliseconds: int) -> Recording:
    """Return an open file, its channels averaged: their sum in order, then one division."""
    import numpy as np

    rate, channels, frames = source.rate, source.channels, source.frames
    check_header(rate, channels, frames, max_milliseconds)
    most = most_frames(rate, max_milliseconds) if frames is None else frames
    # Memory that is not written to is not used.
    audio = np.empty(most, np.float32)
    done = 0
    for block in source.blocks(BLOCK_FRAMES):
        refuse(done + len(block) > most, f"longer than {_length(most, rate)}")
        # Not "any is greater": a comparison with NaN is false.
        refuse(not (np.abs(block) <= MAX_AMPLITUDE).all(), "samples that are no sound")
        total = block[:, 0].copy()
        for channel in range(1, channels):
            total += block[:, channel]
        audio[done : done + len(block)] = total / np.float32(channels)
        done += len(block)
    refuse(frames not in (None, done), f"{done} frames of {frames} declared: it is cut off")
    refuse(not done, "no samples")
    samples = audio if done == most else audio[:done].copy()
    return Recording(samples, rate, channels, form)


def check_header(rate: int, channels: int, frames: int | None, max_milliseconds: int) -> None:
    """Refuse what a header declares, before a sample is decoded; `frames` None is unknown."""
    refuse(
        not MIN_RATE <= rate <= MAX_RATE,
        f"{rate} Hz; the sampling rate must be {MIN_RATE} to {MAX_RATE} Hz",
    )
    refuse(not 1 <= channels <= MAX_CHANNELS, f"{channels} channels, at most {MAX_CHANNELS}")
    if frames is None:
        return
    refuse(frames == 0, "no samples")
    most = most_frames(rate, max_milliseconds)
    refuse(frames > most, f"{_length(frames, rate)}, at most {_length(most, rate)} are allowed")


def most_frames(rate: int, max_milliseconds: int) -> int:
    """Return how many frames an input may have: its length is rounded up to milliseconds."""
    return min(MAX_FRAMES, rate * max_milliseconds // 1000)


def _length(frames: int, rate: int) -> str:
    return f"{frames / rate:.1f} s ({frames} frames at {rate} Hz)"
