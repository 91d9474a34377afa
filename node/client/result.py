"""A task's verified result: waveforms, scores and tokens, in memory and as files."""

import functools
import hashlib
import io
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from executor.audio.recognize import START_BYTES, content_name
from protocol.consensus.certificate import Certificate
from protocol.manifest import WAVEFORM, outputs_of
from protocol.wire.encoding import Document
from schemas.errors import HeliumError

# How names of lossy formats begin (`executor.audio.recognize`).
_LOSSY = ("MP3", "MPEG", "AAC")
_SAMPLE = np.dtype("<f4")  # specification 8: IEEE-754 binary32, little-endian


class AudioMismatch(HeliumError):
    """Audio does not match what a certificate covers; the text says how it differs."""


@dataclass(frozen=True, slots=True)
class Waveform:
    """One generated sequence.

    `audio` is float32 of shape (audio_length, channels); `sampling_rate` is in Hz.
    """

    audio: NDArray[np.float32]
    sampling_rate: int

    @property
    def seconds(self) -> float:
        """The duration in seconds."""
        return len(self.audio) / self.sampling_rate

    def write(self, path: Path | str) -> None:
        """Write a 32-bit float WAV file, which has the exact samples and so can be verified.

        Raises:
            OSError: the file could not be written completely.
            soundfile.LibsndfileError: the file could not be opened.
        """
        # As bytes: soundfile encodes text strictly, and a path need not be UTF-8.
        name = os.fsencode(path)
        soundfile.write(name, self.audio, self.sampling_rate, format="WAV", subtype="FLOAT")
        # soundfile does not report a full disk.
        if soundfile.info(name).frames != len(self.audio):
            raise OSError(f"{path} could not be written completely")


@dataclass(frozen=True, slots=True)
class Result:
    """A task's verified result.

    `waveforms` are the generated sequences; `scores` are the MIDI files of a pop2piano task, one
    for each input, of which the waveforms are the sound. `tokens` are the waveforms' tokens blobs
    (`protocol.work.parse_tokens`) if the task proves work. With them and the certificate anyone can
    compute the steps anew, even when no peer keeps them any more.
    """

    waveforms: tuple[Waveform, ...]
    certificate: Certificate
    scores: tuple[bytes, ...] = ()
    tokens: tuple[bytes, ...] = ()

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
        import pretty_midi  # slow to import, and only needed here

        return [pretty_midi.PrettyMIDI(io.BytesIO(score)) for score in self.scores]

    def write(self, path: Path | str) -> list[Path]:
        """Write each sequence as a WAV file, each score and all tokens; return the paths.

        They are `song.wav`, `song-2.wav` and so on, `song.mid` and so on, and `song.wav.tokens` and
        so on. Each file is written atomically.

        Raises:
            OSError, soundfile.LibsndfileError: a file could not be written.
        """
        written = []
        for index, waveform in enumerate(self.waveforms):
            written.append(_write_atomically(numbered(Path(path), index), waveform.write))
        for index, score in enumerate(self.scores):
            target = numbered(Path(path).with_suffix(".mid"), index)
            write_score = functools.partial(_write_bytes, payload=score)
            written.append(_write_atomically(target, write_score))
        for index, blob in enumerate(self.tokens):
            write_tokens = functools.partial(_write_bytes, payload=blob)
            written.append(_write_atomically(tokens_path(Path(path), index), write_tokens))
        return written


def _write_atomically(target: Path, write: Callable[[Path], object]) -> Path:
    """Let `write` write a temporary file, then rename it to `target`."""
    temporary = target.with_name(f".{target.name}.part")
    try:
        write(temporary)
        return temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _write_bytes(path: Path, payload: bytes) -> None:
    path.write_bytes(payload)


def numbered(path: Path, index: int) -> Path:
    """Return the path of sequence `index`: `song.wav`, `song-2.wav`, …."""
    return path if index == 0 else path.with_name(f"{path.stem}-{index + 1}{path.suffix}")


def tokens_path(path: Path, index: int) -> Path:
    """Return the path of a sequence's tokens: `song.wav.tokens`, `song-2.wav.tokens`, …."""
    audio = numbered(path, index)
    return audio.with_name(f"{audio.name}.tokens")


def waveform_of(payload: bytes, output: Mapping[str, Any]) -> Waveform:
    """Return the waveform of an output's bytes.

    Args:
        payload: binary32 samples, little-endian, interleaved by channel.
        output: the manifest entry, with media, frames, channels and sampling_rate.

    Raises:
        AudioMismatch: the entry is not a waveform, or the bytes have another length.
    """
    if output["media"] != WAVEFORM:
        raise AudioMismatch(f"an output is {output['media']}, not a waveform")
    frames, channels = output["frames"], output["channels"]
    if len(payload) != frames * channels * _SAMPLE.itemsize:
        raise AudioMismatch(f"{len(payload)} bytes are not {frames} frames of {channels} channels")
    samples = np.frombuffer(payload, _SAMPLE).reshape(frames, channels)
    return Waveform(samples.astype(np.float32), output["sampling_rate"])


def check_file(path: Path, outcome: Document) -> int:
    """Return the index of the output that a file holds.

    A score matches by the file's bytes, a waveform by its samples, rate and shape.

    Raises:
        AudioMismatch: the file holds none of the outcome's outputs; the text says how it differs.
    """
    outputs = outputs_of(outcome)
    if not outputs:
        raise AudioMismatch("the certificate is of an error: it covers no audio")
    # A score is hashed as a file. A waveform is not: WAV headers may differ for equal samples.
    indices = {output["sha256"]: index for index, output in enumerate(outputs)}
    try:
        with path.open("rb") as file:
            content = content_name(file.read(START_BYTES))
            file.seek(0)
            file_hash = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise AudioMismatch(f"{path} cannot be read as audio: {error.strerror}") from None
    if file_hash in indices:
        return indices[file_hash]
    # A lossy format holds other samples, and the decoder of MP3 prints what it thinks of a file.
    if content.startswith(_LOSSY):
        raise AudioMismatch(
            f"{path} is {content}: only the WAV or MIDI file itself can be verified"
        )
    try:
        samples, rate = soundfile.read(os.fsencode(path), dtype="float32", always_2d=True)
    except (OSError, RuntimeError):
        raise AudioMismatch(f"{path} cannot be read as audio: it is {content}") from None
    # Adding 0.0 turns -0.0 into 0.0, as the canonical bytes have it (specification 8).
    sample_hash = hashlib.sha256((samples + 0.0).astype(_SAMPLE).tobytes()).hexdigest()
    # The hash covers no shape: two mono frames and one stereo frame have equal bytes.
    for index, output in enumerate(outputs):
        same = output["sha256"] == sample_hash and output.get("sampling_rate") == rate
        if same and samples.shape == (output["frames"], output["channels"]):
            return index
    raise AudioMismatch(
        f"{path} is none of the {len(outputs)} outputs: {_difference(samples, rate, outputs)}"
    )


def _difference(
    samples: NDArray[np.float32], rate: int, outputs: Sequence[Mapping[str, Any]]
) -> str:
    """Return how a file differs from the first waveform of the outputs."""
    output = next((output for output in outputs if output["media"] == WAVEFORM), None)
    if output is None:
        return f"the first is {outputs[0]['media']}"
    frames, channels = output["frames"], output["channels"]
    if rate != output["sampling_rate"]:
        return f"{rate} Hz, not {output['sampling_rate']}"
    if samples.shape != (frames, channels):
        shape = " frames of ".join(map(str, samples.shape))
        return f"{shape} channels, not {frames} frames of {channels} channels"
    return "its samples have another hash"
