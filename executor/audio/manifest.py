"""The outputs that a job makes: their canonical bytes and their manifest entries (section 8)."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
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


@dataclass(frozen=True, slots=True)
class OutputFile:
    """One output: its entry in the manifest, and its bytes."""

    entry: dict[str, object]
    content: bytes


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


def waveform_output(frames: "NDArray[np.float32]", sampling_rate: int) -> OutputFile:
    """Return the output of canonical frames, `(frames, channels)`; `sampling_rate` in Hz."""
    content = frames.tobytes()
    length, channels = frames.shape
    entry = waveform_entry(content, sampling_rate=sampling_rate, frames=length, channels=channels)
    return OutputFile(entry, content)


def midi_output(notes: Sequence[midi.Note]) -> OutputFile:
    """Return the output of canonical notes (`midi.canonical`): a MIDI file."""
    content = midi.encode(notes)
    return OutputFile(score_entry(content, notes=len(notes)), content)


def cover_outputs(scores: Iterable[Sequence[midi.Note]]) -> Iterator[OutputFile]:
    """Yield each score's MIDI file, then its rendered waveform; one is in memory at a time."""
    from executor.audio import piano_synth

    for notes in scores:
        yield midi_output(notes)
        yield waveform_output(canonical_frames(piano_synth.render(notes).T), piano_synth.RATE)
