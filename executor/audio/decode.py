"""Decode input audio files to mono at 44.1 kHz: bounded, and the same samples everywhere.

Only WAV (PCM, float) and FLAC are accepted. The first bytes are checked before libsndfile sees the
file, so that its other parsers are never reached. What a file declares is checked before a sample
is decoded, and the decoded samples are counted, because a few hundred kilobytes of FLAC can hold
hours of silence.
"""

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

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
# Hz; the range of a waveform's sampling rate in an outcome.
MIN_RATE, MAX_RATE = 1, 384_000
# Of a float sample. Full scale is 1.0; integers that were left unscaled still pass.
MAX_AMPLITUDE = 65_536.0
# Frames that are decoded at a time.
BLOCK_FRAMES = 65_536
# Chunks of a WAV that are searched for its format, which usually is the first.
MAX_CHUNKS = 64

SUBTYPES = ("PCM_U8", "PCM_S8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")
# Format tags of a WAV: PCM, float, and the tag that says that either follows in an extension.
PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE


def decode_files(paths: Sequence[Path], max_seconds: int = MAX_SECONDS) -> "list[Mono]":
    """Return the audio of each file, `(samples,)` at `RATE`, channels averaged.

    `max_seconds` bounds all files together, each rounded up to whole milliseconds. Raises
    `TaskFailed("input-undecodable")` for a file that is not in one of the formats above, or is
    longer or has more channels than allowed (specification 8.7).
    """
    waveforms: list[Mono] = []
    milliseconds = 1000 * max_seconds
    for path in paths:
        audio, rate = decode_file(path, milliseconds)
        milliseconds -= milliseconds_of(len(audio), rate)
        waveforms.append(resample(audio, rate))
    return waveforms


def resample(audio: "Mono", rate: int) -> "Mono":
    """Return the audio at `RATE`, by the resampler of `librosa.load`: soxr, high quality."""
    if rate == RATE:
        return audio
    import librosa

    resampled: Mono = librosa.resample(audio, orig_sr=rate, target_sr=RATE, res_type="soxr_hq")
    return resampled


def milliseconds_of(frames: int, rate: int) -> int:
    """Return the length of audio, rounded up to whole milliseconds."""
    return -(-1000 * frames // rate)


def decode_file(path: Path, max_milliseconds: int = 1000 * MAX_SECONDS) -> "tuple[Mono, int]":
    """Return a file's audio, `(samples,)` with channels averaged, and its rate in Hz."""
    import soundfile

    with path.open("rb") as file:
        refuse(not has_known_format(file), "neither WAV (PCM, float) nor FLAC")
        file.seek(0)
        try:
            with soundfile.SoundFile(file) as sound:
                return mix_down(sound, max_milliseconds), int(sound.samplerate)
        except soundfile.SoundFileError as error:
            # The whole message has the file's name, which here is a copy under a random name.
            has_code = isinstance(error, soundfile.LibsndfileError)
            message = error.error_string if has_code else str(error)
            raise TaskFailed("input-undecodable", message) from error


def mix_down(sound: Any, max_milliseconds: int) -> "Mono":
    """Return the average of an open file's channels: their sum in order, then one division."""
    import numpy as np

    rate, channels, frames = int(sound.samplerate), int(sound.channels), int(sound.frames)
    refuse(sound.subtype not in SUBTYPES, f"{sound.subtype} is neither PCM nor float")
    refuse(not MIN_RATE <= rate <= MAX_RATE, f"{rate} Hz")
    refuse(not 1 <= channels <= MAX_CHANNELS, f"{channels} channels, at most {MAX_CHANNELS}")
    refuse(not 1 <= frames <= MAX_FRAMES, f"{frames} frames at {rate} Hz")
    refuse(milliseconds_of(frames, rate) > max_milliseconds, f"{frames} frames at {rate} Hz")
    audio = np.empty(frames, np.float32)
    done = 0
    while len(block := sound.read(BLOCK_FRAMES, dtype="float32", always_2d=True)):
        refuse(done + len(block) > frames, "more frames than declared")
        # Not "any is greater": a comparison with NaN is false.
        refuse(not (np.abs(block) <= MAX_AMPLITUDE).all(), "samples that are no sound")
        total = block[:, 0].copy()
        for channel in range(1, channels):
            total += block[:, channel]
        audio[done : done + len(block)] = total / np.float32(channels)
        done += len(block)
    refuse(done != frames, f"{done} frames of {frames} declared")
    return audio


def has_known_format(file: IO[bytes]) -> bool:
    """Return whether a file begins as FLAC, or as a WAV of PCM or float."""
    start = file.read(12)
    if start[:4] == b"fLaC":
        return True
    if start[:4] != b"RIFF" or start[8:] != b"WAVE":
        return False
    for _ in range(MAX_CHUNKS):
        header = file.read(8)
        if len(header) < 8:
            return False
        name, size = struct.unpack("<4sI", header)
        if name == b"fmt ":
            return is_pcm_or_float(file.read(min(size, 40)))
        file.seek(size + size % 2, 1)  # chunks are padded to even sizes
    return False


def is_pcm_or_float(format_chunk: bytes) -> bool:
    """Return whether the content of a WAV's format chunk means PCM or float."""
    tag = int.from_bytes(format_chunk[:2], "little")
    if tag == EXTENSIBLE:
        tag = int.from_bytes(format_chunk[24:26], "little")
    return tag in (PCM, FLOAT)


def refuse(condition: bool, detail: str) -> None:
    """Raise `TaskFailed("input-undecodable")` if the condition holds."""
    if condition:
        raise TaskFailed("input-undecodable", detail)
