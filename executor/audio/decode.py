"""From a stranger's audio file to mono at 44.1 kHz: bounded, and the same samples everywhere.

WAV (PCM, float) and FLAC, nothing else: the first bytes are looked at before libsndfile sees the
file, so that none of its other parsers is ever reached. What a file declares is checked before a
sample is decoded, and what comes out is counted while it does: a few hundred kilobytes of FLAC can
hold hours of silence.
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

RATE = 44_100  # Hz; essentia's beat tracker takes what it hears for audio at this rate
# Of all inputs of a task together: their waveforms, 44,100 samples of 4 bytes a second, then stay
# within `max_output_bytes` of a network, 134,217,728 (section 3), with 160 s left for last notes.
SECONDS = 600
FRAMES = 67_108_864  # of one input: 256 MiB of mono
CHANNELS = 8
RATES = (1, 384_000)  # Hz, the range of a waveform's sampling rate in an outcome
LOUDEST = 65_536.0  # in a float file; 1.0 is full scale, and integers left unscaled still pass
BLOCK = 65_536  # frames decoded at a time
CHUNKS = 64  # looked through for a WAV's format, which is mostly the first

SUBTYPES = ("PCM_U8", "PCM_S8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")
# Formats of a WAV, as the format chunk tags them: PCM, float, and either by the name that follows.
PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE


def decode_files(paths: Sequence[Path]) -> "list[Mono]":
    """The audio of each file, `(samples,)` at `RATE`, channels averaged.

    Raises `TaskFailed("input-undecodable")` for a file that is no audio of the formats above, or is
    longer or wider than allowed.
    """
    heard: list[Mono] = []
    seconds = 0.0
    for path in paths:
        audio, rate = decoded(path, SECONDS - seconds)
        seconds += len(audio) / rate
        heard.append(resampled(audio, rate))
    return heard


def resampled(audio: "Mono", rate: int) -> "Mono":
    """At `RATE`, by the resampler of `librosa.load`: soxr, high quality."""
    if rate == RATE:
        return audio
    import librosa

    made: Mono = librosa.resample(audio, orig_sr=rate, target_sr=RATE, res_type="soxr_hq")
    return made


def decoded(path: Path, seconds: float = SECONDS) -> "tuple[Mono, int]":
    """A file's audio with its channels averaged, at most `seconds` of it, and its rate in Hz."""
    import soundfile

    with path.open("rb") as file:
        refuse(not admitted(file), "neither WAV (PCM, float) nor FLAC")
        file.seek(0)
        try:
            with soundfile.SoundFile(file) as sound:
                return mixed(sound, seconds), int(sound.samplerate)
        except soundfile.SoundFileError as error:
            # All of the message would name the file, which here is a copy under a random name.
            named = isinstance(error, soundfile.LibsndfileError)
            raise TaskFailed(
                "input-undecodable", error.error_string if named else str(error)
            ) from error


def mixed(sound: Any, seconds: float) -> "Mono":
    """The average of an open file's channels: their sum in order, divided by their number."""
    import numpy as np

    rate, channels, frames = int(sound.samplerate), int(sound.channels), int(sound.frames)
    refuse(sound.subtype not in SUBTYPES, f"{sound.subtype} is neither PCM nor float")
    refuse(not RATES[0] <= rate <= RATES[1], f"{rate} Hz")
    refuse(not 1 <= channels <= CHANNELS, f"{channels} channels, at most {CHANNELS} are heard")
    refuse(not 1 <= frames <= min(FRAMES, seconds * rate), f"{frames} frames at {rate} Hz")
    audio = np.empty(frames, np.float32)
    done = 0
    while len(block := sound.read(BLOCK, dtype="float32", always_2d=True)):
        refuse(done + len(block) > frames, "more frames than declared")
        refuse(not (np.abs(block) <= LOUDEST).all(), "samples that are no sound")
        total = block[:, 0].copy()
        for channel in range(1, channels):
            total += block[:, channel]
        audio[done : done + len(block)] = total / np.float32(channels)
        done += len(block)
    refuse(done != frames, f"{done} frames of {frames} declared")
    return audio


def admitted(file: IO[bytes]) -> bool:
    """Whether a file begins as FLAC, or as a WAV of PCM or float."""
    start = file.read(12)
    if start[:4] == b"fLaC":
        return True
    if start[:4] != b"RIFF" or start[8:] != b"WAVE":
        return False
    for _ in range(CHUNKS):
        head = file.read(8)
        if len(head) < 8:
            return False
        name, size = struct.unpack("<4sI", head)
        if name == b"fmt ":
            return plain(file.read(min(size, 40)))
        file.seek(size + size % 2, 1)
    return False


def plain(form: bytes) -> bool:
    """Whether a WAV's format chunk says PCM or float."""
    tag = int.from_bytes(form[:2], "little")
    if tag == EXTENSIBLE:
        tag = int.from_bytes(form[24:26], "little")
    return tag in (PCM, FLOAT)


def refuse(wrong: bool, why: str) -> None:
    """Raise `TaskFailed("input-undecodable")` if `wrong`."""
    if wrong:
        raise TaskFailed("input-undecodable", why)
