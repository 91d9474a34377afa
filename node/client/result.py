"""What a requester gets: verified waveforms, as arrays and as files (the task's response)."""

import functools
import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from protocol.consensus.certificate import Certificate
from protocol.manifest import WAVEFORM, outputs_of
from protocol.wire.encoding import Document
from schemas.errors import HeliumError

_SAMPLE = np.dtype("<f4")  # specification 8: IEEE-754 binary32, little-endian


class AudioMismatch(HeliumError):
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
    """A task's verified result. `audio` and `sampling_rate` are the first sequence's.

    `scores` are a pop2piano task's MIDI files, one for each input; `waveforms` what they sound
    like.
    """

    waveforms: tuple[Waveform, ...]
    certificate: Certificate
    scores: tuple[bytes, ...] = ()

    @property
    def audio(self) -> NDArray[np.float32]:
        """The first sequence's waveform, shape (audio_length, channels)."""
        return self.waveforms[0].audio

    @property
    def sampling_rate(self) -> int:
        """The first sequence's sampling rate, in Hz."""
        return self.waveforms[0].sampling_rate

    @property
    def midi(self) -> list[Any]:
        """The scores as `pretty_midi.PrettyMIDI`, one for each input of a pop2piano task."""
        import pretty_midi  # only for this

        return [pretty_midi.PrettyMIDI(io.BytesIO(score)) for score in self.scores]

    def write(self, path: Path | str) -> list[Path]:
        """Write each sequence to a WAV: `song.wav`, then `song-2.wav` and so on. Returns the paths.

        Scores go beside them: `song.mid` and so on. A file appears whole or not at all.
        """
        written = []
        for index, waveform in enumerate(self.waveforms):
            written.append(_whole(numbered(Path(path), index), waveform.write))
        for index, score in enumerate(self.scores):
            target = numbered(Path(path).with_suffix(".mid"), index)
            written.append(_whole(target, functools.partial(_write_bytes, payload=score)))
        return written


def _whole(target: Path, write: Callable[[Path], object]) -> Path:
    """Let `write` write a file under another name, then give it its own."""
    draft = target.with_name(f".{target.name}.part")
    try:
        write(draft)
        return draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


def _write_bytes(path: Path, payload: bytes) -> None:
    path.write_bytes(payload)


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
    """Return the index of the output that a file is: a score by its bytes, a sound by its samples.

    Raises AudioMismatch, saying what differs, if it is none of the outcome's.
    """
    outputs = outputs_of(outcome)
    if not outputs:
        raise AudioMismatch("the certificate is of an error: it vouches for no audio")
    exact = {output["sha256"]: index for index, output in enumerate(outputs)}
    try:
        with path.open("rb") as file:
            whole = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise AudioMismatch(f"{path} cannot be read as audio: {error.strerror}") from None
    if whole in exact:
        return exact[whole]
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
        f"{path} is none of the {len(outputs)} outputs: {_difference(samples, rate, outputs)}"
    )


def _difference(
    samples: NDArray[np.float32], rate: int, outputs: Sequence[Mapping[str, Any]]
) -> str:
    output = next((o for o in outputs if o["media"] == WAVEFORM), None)
    if output is None:
        return f"the first is {outputs[0]['media']}"
    frames, channels = output["frames"], output["channels"]
    if rate != output["sampling_rate"]:
        return f"{rate} Hz, not {output['sampling_rate']}"
    if samples.shape != (frames, channels):
        found = " frames of ".join(map(str, samples.shape))
        return f"{found} channels, not {frames} frames of {channels} channels"
    return "its samples have another hash"
