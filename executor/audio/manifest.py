"""The outputs that a job makes: their canonical bytes and their manifest entries (section 8)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from executor.audio import midi
from executor.errors import TaskFailed
from protocol.manifest import SCORE, WAVEFORM, score_entry, waveform_entry

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SUFFIXES: Mapping[str, str] = MappingProxyType({WAVEFORM: ".f32", SCORE: ".mid"})
TOKENS_SUFFIX = ".tokens"


@dataclass(frozen=True, slots=True)
class OutputFile:
    """One output: its entry in the manifest, its bytes, and its tokens' (`work.tokens_blob`)."""

    entry: dict[str, object]
    content: bytes
    tokens: bytes | None = None


def canonical_frames(audio: "NDArray[Any]") -> "NDArray[np.float32]":
    """Return audio in the canonical layout of section 8.

    `audio` is what a pipeline gives: `(frames,)` or `(channels, frames)`. The result is
    `(frames, channels)`: C order, little-endian binary32, with −0.0 as 0.0. Raises `TaskFailed` for
    NaN and infinity, also where a wider type overflows binary32.
    """
    import numpy as np

    if audio.ndim not in (1, 2):
        raise ValueError(f"a waveform of {audio.ndim} dimensions")
    with np.errstate(over="ignore"):
        frames = np.atleast_2d(audio).T.astype("<f4", order="C")
    if not np.isfinite(frames).all():
        raise TaskFailed("non-finite-output", "the waveform holds NaN or infinity")
    # Both zeros sound alike but differ in their bytes.
    frames[frames == 0] = 0.0
    return frames


def waveform_output(
    frames: "NDArray[np.float32]", sampling_rate: int, tokens: bytes | None = None
) -> OutputFile:
    """Return the output of canonical frames, `(frames, channels)`; `sampling_rate` in Hz.

    `tokens` is the sequence's blob (`work.tokens_blob`), if the task proves work.
    """
    content = frames.tobytes()
    length, channels = frames.shape
    entry = waveform_entry(
        content, sampling_rate=sampling_rate, frames=length, channels=channels, tokens=tokens
    )
    return OutputFile(entry, content, tokens)


def midi_output(notes: Sequence[midi.Note]) -> OutputFile:
    """Return the output of canonical notes (`midi.canonical`): a MIDI file."""
    content = midi.encode(notes)
    return OutputFile(score_entry(content, notes=len(notes)), content)


def cover_outputs(
    scores: Sequence[Sequence[midi.Note]], tokens: Sequence[bytes] | None = None
) -> Iterator[OutputFile]:
    """Yield each score's MIDI file, then its rendered waveform; one is in memory at a time.

    `tokens` are the scores' blobs (`work.tokens_blob`), if the task proves work.
    """
    from executor.audio import piano_synth

    blobs: Sequence[bytes | None] = [None] * len(scores) if tokens is None else tokens
    for notes, blob in zip(scores, blobs, strict=True):
        yield midi_output(notes)
        frames = canonical_frames(piano_synth.render(notes).T)
        yield waveform_output(frames, piano_synth.RATE, blob)
