"""Vectors of scores, their MIDI files and waveforms, and of speakers drawn from seeds."""

import hashlib
import struct

from executor.audio import midi, piano_synth
from executor.tasks.speaker_embedding import embedding
from tests.vectors.entries import Entry, Vectors

SCORES: dict[str, list[midi.TimedNote]] = {
    "one note": [(0.0, 0.25, 69, 77)],
    "the lowest and the highest": [(0.0, 0.1, 0, 127), (0.05, 0.15, 127, 1), (0.1, 0.2, 119, 64)],
    "struck again": [(0.0, 0.2, 60, 77), (0.1, 0.3, 60, 50), (0.1, 0.3, 64, 50)],
    "struck twice at once": [(0.0, 0.1, 60, 90), (0.0, 0.2, 60, 30), (0.0, 0.2, 60, 40)],
    "halves to even, and before the start": [
        (2.5 / 768, 3.5 / 768, 72, 77),
        (-1.0, -0.5, 48, 77),
        (0.3, 0.3, 50, 77),
    ],
    "long after": [(0.0, 0.02, 100, 20), (16_384 / 768, 16_390 / 768, 101, 90)],
    "nothing": [],
}
SPEAKERS = ((0, 8), (1, 16), (42, 11), (4_294_967_295, 512))


def scores() -> Vectors:
    """Notes to bytes, and seeds to speakers."""
    return {
        "description": "Sections 8.8 to 8.10. `scores`: `notes` holds [start, end, pitch, velocity]"
        " in seconds; `taken` the same in ticks after step 2 of 8.8; `midi` is the file (hex);"
        " `frames` and `sha256` are the waveform's. `speakers`: `numbers` holds binary32 as"
        " big-endian hex, one after the other, and `sha256` is of these bytes; of more than 16 it"
        " stands alone.",
        "scores": [_score(name, notes) for name, notes in SCORES.items()],
        "speakers": [_speaker(seed, size) for seed, size in SPEAKERS],
    }


def _score(name: str, timed: list[midi.TimedNote]) -> Entry:
    notes = midi.canonical(timed)
    sound = piano_synth.render(notes)
    return {
        "name": name,
        "notes": [list(note) for note in timed],
        "taken": [[note.start, note.end, note.pitch, note.velocity] for note in notes],
        "midi": midi.encode(notes).hex(),
        "frames": len(sound),
        "sha256": hashlib.sha256(sound.astype("<f4").tobytes()).hexdigest(),
    }


def _speaker(seed: int, size: int) -> Entry:
    numbers = struct.pack(f">{size}f", *embedding(seed, size))
    whole = {"numbers": numbers.hex()} if size <= 16 else {}
    return {"seed": seed, "size": size, **whole, "sha256": hashlib.sha256(numbers).hexdigest()}
