"""What a requester gets: verified waveforms, as arrays and as files (the task's response)."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from node.outputs import outputs_of
from protocol.canonical import Document
from protocol.certificate import Certificate

WAVEFORM = "audio/f32"  # the media of a waveform in a manifest
_SAMPLE = np.dtype("<f4")  # specification 8: IEEE-754 binary32, little-endian


class AudioMismatch(Exception):
    """Audio is not what a certificate vouches for; the text says in what."""


@dataclass(frozen=True, slots=True)
class Waveform:
    """One generated sequence: `audio` of shape (audio_length, channels), float32, and its rate."""

    audio: NDArray[np.float32]
    sampling_rate: int

    @property
    def seconds(self) -> float:
        """The duration."""
        return len(self.audio) / self.sampling_rate

    def write(self, path: Path | str) -> None:
        """Write a 32-bit float WAV: the very samples, so that the file can be verified again."""
        soundfile.write(str(path), self.audio, self.sampling_rate, format="WAV", subtype="FLOAT")
        if soundfile.info(str(path)).frames != len(self.audio):
            raise OSError(f"{path} could not be written whole")


@dataclass(frozen=True, slots=True)
class Result:
    """A task's verified result. `audio` and `sampling_rate` are the first sequence's."""

    waveforms: tuple[Waveform, ...]
    certificate: Certificate

    @property
    def audio(self) -> NDArray[np.float32]:
        """The first sequence's waveform, shape (audio_length, channels)."""
        return self.waveforms[0].audio

    @property
    def sampling_rate(self) -> int:
        """The first sequence's sampling rate, in Hz."""
        return self.waveforms[0].sampling_rate

    def write(self, path: Path | str) -> list[Path]:
        """Write each sequence to a WAV: `song.wav`, then `song-2.wav` and so on. Returns the paths.

        A file appears whole or not at all.
        """
        written = []
        for index, waveform in enumerate(self.waveforms):
            target = numbered(Path(path), index)
            draft = target.with_name(f".{target.name}.part")
            try:
                waveform.write(draft)
                written.append(draft.replace(target))
            finally:
                draft.unlink(missing_ok=True)
        return written


def numbered(path: Path, index: int) -> Path:
    """Return the path of sequence `index`: `song.wav`, `song-2.wav`, …."""
    return path if index == 0 else path.with_name(f"{path.stem}-{index + 1}{path.suffix}")


def waveform_of(payload: bytes, output: Mapping[str, Any]) -> Waveform:
    """Return the waveform that a manifest entry's bytes are. Raises AudioMismatch."""
    if output["media"] != WAVEFORM:
        raise AudioMismatch(f"an output is {output['media']}, not a waveform")
    frames, channels = output["frames"], output["channels"]
    if len(payload) != frames * channels * _SAMPLE.itemsize:
        raise AudioMismatch(f"{len(payload)} bytes are not {frames} frames of {channels} channels")
    samples = np.frombuffer(payload, _SAMPLE).reshape(frames, channels)
    return Waveform(samples.astype(np.float32), output["sampling_rate"])


def check_file(path: Path, outcome: Document) -> int:
    """Return the index of the output that an audio file is, sample for sample.

    Raises AudioMismatch, saying what differs, if it is none of the outcome's.
    """
    outputs = outputs_of(outcome)
    if not outputs:
        raise AudioMismatch("the certificate is of an error: it vouches for no audio")
    try:
        samples, rate = soundfile.read(str(path), dtype="float32", always_2d=True)
    except (OSError, RuntimeError) as error:
        raise AudioMismatch(f"{path} cannot be read as audio: {error}") from None
    found = hashlib.sha256((samples + 0.0).astype(_SAMPLE).tobytes()).hexdigest()
    for index, output in enumerate(outputs):
        same = output["sha256"] == found and output.get("sampling_rate") == rate
        if same and samples.shape == (output["frames"], output["channels"]):
            return index
    raise AudioMismatch(
        f"{path} is none of the {len(outputs)} outputs: {_difference(samples, rate, outputs[0])}"
    )


def _difference(samples: NDArray[np.float32], rate: int, output: Mapping[str, Any]) -> str:
    if output["media"] != WAVEFORM:
        return f"the first is {output['media']}"
    frames, channels = output["frames"], output["channels"]
    if rate != output["sampling_rate"]:
        return f"{rate} Hz, not {output['sampling_rate']}"
    if samples.shape != (frames, channels):
        found = " frames of ".join(map(str, samples.shape))
        return f"{found} channels, not {frames} frames of {channels} channels"
    return "its samples have another hash"
