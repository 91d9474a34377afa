"""Scales, chords on their degrees, and progressions that let the tonic be heard."""

from dataclasses import dataclass
from typing import Final

NAMES: Final = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
FLATS: Final = {"C#": "Db", "D#": "Eb", "F#": "Gb", "G#": "Ab", "A#": "Bb"}
SCALES: Final = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}
TRIADS: Final = {
    "major": ("major", "minor", "minor", "major", "major", "minor", ""),
    "minor": ("minor", "", "major", "minor", "minor", "major", "major"),
}
INTERVALS: Final = {
    "major": (0, 4, 7),
    "minor": (0, 3, 7),
    "major 7": (0, 4, 7, 11),
    "minor 7": (0, 3, 7, 10),
}
# Degrees from 0; the tonic begins, and comes back where it can.
PROGRESSIONS: Final = {
    "major": (
        (0, 3, 0, 4), (0, 3, 4, 0), (0, 4, 0, 3), (0, 4, 5, 3), (0, 5, 3, 4), (0, 3, 4, 4),
        (0, 0, 3, 4), (0, 2, 3, 4), (0, 4, 3, 0), (0, 3, 1, 4),
    ),
    "minor": (
        (0, 3, 0, 4), (0, 5, 6, 0), (0, 3, 4, 0), (0, 6, 5, 4), (0, 5, 3, 4), (0, 0, 3, 4),
        (0, 6, 0, 4), (0, 5, 2, 6), (0, 3, 5, 4), (0, 4, 0, 3),
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Key:
    """A tonic, 0 to 11 from C, and a mode; `leading` raises the seventh over a minor fifth."""

    tonic: int
    mode: str
    leading: bool = False

    def pitch_class(self, degree: int, *, over_fifth: bool = False) -> int:
        """The pitch class of a degree, counted from 0 at the tonic, in any octave."""
        raised = self.leading and over_fifth and degree % 7 == 6
        return (self.tonic + SCALES[self.mode][degree % 7] + raised) % 12

    def triad(self, degree: int) -> str:
        """The quality of the chord on a degree."""
        if self.leading and degree == 4:
            return "major"
        return TRIADS[self.mode][degree]

    def step(self, degree: int, *, over_fifth: bool = False) -> int:
        """Semitones of a degree above the tonic; octaves go on."""
        raised = self.leading and over_fifth and degree % 7 == 6
        return SCALES[self.mode][degree % 7] + 12 * (degree // 7) + raised
