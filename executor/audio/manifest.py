"""The files that a job makes, and what the manifest says of each (specification, section 8)."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from executor.audio import fingerprint, midi

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SUFFIXES: Mapping[str, str] = MappingProxyType({"audio/f32": ".f32", "audio/midi": ".mid"})


@dataclass(frozen=True, slots=True)
class OutputFile:
    """One output: its entry in the manifest, and its bytes."""

    entry: dict[str, object]
    content: bytes | memoryview


def waveform_output(frames: "NDArray[np.float32]", sampling_rate: int) -> OutputFile:
    """Canonical frames (`fingerprint.waveform`) at a rate in Hz."""
    return OutputFile(fingerprint.described(frames, sampling_rate), frames.data)


def midi_output(notes: Sequence[midi.Note]) -> OutputFile:
    """Canonical notes (`midi.canonical`) as a MIDI file."""
    content = midi.encode(notes)
    entry: dict[str, object] = {
        "media": "audio/midi",
        "sha256": hashlib.sha256(content).hexdigest(),
        "size": len(content),
        "notes": len(notes),
    }
    return OutputFile(entry, content)


def cover_outputs(scores: Iterable[Sequence[midi.Note]]) -> Iterator[OutputFile]:
    """Each score's MIDI file, then its rendered waveform; one is in memory at a time."""
    from executor.audio import piano_synth

    for notes in scores:
        yield midi_output(notes)
        yield waveform_output(fingerprint.waveform(piano_synth.render(notes).T), piano_synth.RATE)


def write_outputs(made: Iterable[OutputFile], stem: Path) -> list[dict[str, object]]:
    """Write each output to its place and return the manifest's entries."""
    entries = []
    for number, output in enumerate(made):
        output_path(stem, number, str(output.entry["media"])).write_bytes(output.content)
        entries.append(output.entry)
    return entries


def output_path(stem: Path, number: int, media: str) -> Path:
    """Where output `number` of a job goes."""
    return stem.with_name(f"{stem.name}-{number}{SUFFIXES[media]}")
