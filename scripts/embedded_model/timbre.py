"""What each sound is made of: partials on the semitone grid, loudness, and how it decays."""

import math
from dataclasses import dataclass
from typing import Final

from scripts.embedded_model.theory import INTERVALS
from scripts.embedded_model.vocabulary import Bass, Chord, Lead

# Semitones above the fundamental, nearest to its overtones 1, 2, 3, 4, 5, 6 and 8.
OVERTONES: Final = (0, 12, 19, 24, 28, 31, 36)
NUMBERS: Final = (1, 2, 3, 4, 5, 6, 8)


@dataclass(frozen=True, slots=True)
class Timbre:
    """Amplitudes of the overtones, peak of a note, loudness of its attack noise, and its decay.

    `damping` is 0 for a sound that lasts, 1 for a piano's, more for a plucked string's; `ring` is
    how much of the notes before a new one leaves sounding.
    """

    overtones: tuple[float, ...]
    peak: float
    click: float = 0.0
    damping: float = 0.0
    ring: float = 1 / 16


SAW: Final = (1.0, 0.5, 0.33, 0.25, 0.2, 0.17, 0.12)
TIMBRES: Final = {
    Lead: {
        "piano": Timbre((1.0, 0.5, 0.28, 0.18, 0.08, 0.06, 0.03), 0.25, 0.3, 1.0, 0.15),
        "bells": Timbre((1.0, 0.05, 0.1, 0.45, 0.0, 0.2, 0.12), 0.22, 0.4, 0.97, 0.6),
        "harp": Timbre((1.0, 0.6, 0.3, 0.15, 0.1, 0.05, 0.0), 0.26, 0.5, 1.12, 0.5),
        "synth": Timbre(SAW, 0.24, 0.0, 0.6),
        "flute": Timbre((1.0, 0.18, 0.08, 0.02, 0.0, 0.0, 0.0), 0.2, 0.15),
        "strings": Timbre((1.0, 0.7, 0.45, 0.4, 0.25, 0.2, 0.1), 0.22),
    },
    Chord: {
        "pad": Timbre((1.0, 0.35, 0.25, 0.12, 0.06, 0.03, 0.0), 0.2),
        "organ": Timbre((1.0, 0.8, 0.5, 0.4, 0.0, 0.2, 0.2), 0.2),
        "piano": Timbre((1.0, 0.5, 0.28, 0.18, 0.08, 0.06, 0.03), 0.26, 0.25, 1.0, 0.15),
        "guitar": Timbre((1.0, 0.65, 0.4, 0.2, 0.12, 0.08, 0.0), 0.26, 0.45, 1.12, 0.2),
    },
    Bass: {
        "round": Timbre((1.0, 0.3, 0.08, 0.0, 0.0, 0.0, 0.0), 0.24, 0.0, 0.9),
        "picked": Timbre((1.0, 0.6, 0.4, 0.25, 0.1, 0.05, 0.0), 0.24, 0.0, 1.0),
        "synth": Timbre(SAW, 0.24),
    },
}
TILT: Final = {True: 0.45, False: -0.9}  # exponent of an overtone's number: bright, dark
GAIN: Final = 0.92  # of everything: the loudest arrangement stays below 0.9
WEAK: Final = 0.7  # of a bass note that is not accented
# Chord tones lie in the octave from here up: close to each other from chord to chord.
CHORD_LOW: Final = {True: 57, False: 50}


def timbre(event: Lead | Chord | Bass) -> Timbre:
    """The timbre of an event's sound."""
    return TIMBRES[type(event)][event.sound]


def notes(event: Lead | Chord | Bass) -> tuple[int, ...]:
    """The MIDI notes of an event."""
    if not isinstance(event, Chord):
        return (event.pitch,)
    low = CHORD_LOW[event.bright]
    return tuple(low + (event.root + tone - low) % 12 for tone in INTERVALS[event.quality])


def partials(event: Lead | Chord | Bass) -> dict[int, float]:
    """Amplitude of each MIDI pitch that an event sets sounding; together at most its peak."""
    made = timbre(event)
    tilt = 0.0 if isinstance(event, Bass) else TILT[event.bright]
    found: dict[int, float] = {}
    for note in notes(event):
        for above, number, level in zip(OVERTONES, NUMBERS, made.overtones, strict=True):
            found[note + above] = found.get(note + above, 0.0) + level * number**tilt
    peak = GAIN * made.peak * (WEAK if isinstance(event, Bass) and not event.strong else 1.0)
    # Random phases: the peak of n partials grows like their root of squares more than their sum.
    norm = math.sqrt(sum(level**2 for level in found.values()) * sum(found.values()))
    return {pitch: peak * level / norm for pitch, level in found.items()}
