"""The instruments: overtones, loudness and decay of each sound, and drums as short recordings."""

import math
import random
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from scripts.models.music.brief import FRAME_RATE
from scripts.models.music.composition import CHORD_INTERVALS
from scripts.models.music.tokens import Bass, Chord, Lead

Samples = NDArray[np.float64]

# Semitones above the fundamental, nearest to its overtones 1, 2, 3, 4, 5, 6 and 8.
OVERTONE_SEMITONES: Final = (0, 12, 19, 24, 28, 31, 36)
OVERTONE_NUMBERS: Final = (1, 2, 3, 4, 5, 6, 8)


@dataclass(frozen=True, slots=True)
class Timbre:
    """A sound: levels of its overtones, its peak, attack noise (`click`) and decay.

    `damping`: 0 for a sound that sustains, 1 for a piano's decay, more for a plucked string.
    `ring`: the share of the previous notes that a new note leaves sounding.
    """

    overtones: tuple[float, ...]
    peak: float
    click: float = 0.0
    damping: float = 0.0
    ring: float = 1 / 16


SAWTOOTH: Final = (1.0, 0.5, 0.33, 0.25, 0.2, 0.17, 0.12)
TIMBRES: Final = {
    Lead: {
        "piano": Timbre((1.0, 0.5, 0.28, 0.18, 0.08, 0.06, 0.03), 0.25, 0.3, 1.0, 0.15),
        "bells": Timbre((1.0, 0.05, 0.1, 0.45, 0.0, 0.2, 0.12), 0.22, 0.4, 0.97, 0.6),
        "harp": Timbre((1.0, 0.6, 0.3, 0.15, 0.1, 0.05, 0.0), 0.26, 0.5, 1.12, 0.5),
        "synth": Timbre(SAWTOOTH, 0.24, 0.0, 0.6),
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
        "synth": Timbre(SAWTOOTH, 0.24),
    },
}
# The exponent of an overtone's number by which its level changes: bright and dark.
TILT: Final = {True: 0.45, False: -0.9}
# Keeps the loudest arrangement below a peak of 0.9.
GAIN: Final = 0.92
# The level of a bass note without accent.
UNACCENTED_GAIN: Final = 0.7
# Chord tones lie in the octave from here up: close to each other from chord to chord.
CHORD_LOW: Final = {True: 57, False: 50}


def timbre_of(event: Lead | Chord | Bass) -> Timbre:
    """Return the timbre of an event's sound."""
    return TIMBRES[type(event)][event.sound]


def midi_notes(event: Lead | Chord | Bass) -> tuple[int, ...]:
    """Return the MIDI notes of an event."""
    if not isinstance(event, Chord):
        return (event.pitch,)
    low = CHORD_LOW[event.bright]
    return tuple(low + (event.root + tone - low) % 12 for tone in CHORD_INTERVALS[event.quality])


def partial_levels(event: Lead | Chord | Bass) -> dict[int, float]:
    """Return the level of each MIDI pitch that an event excites."""
    timbre = timbre_of(event)
    tilt = 0.0 if isinstance(event, Bass) else TILT[event.bright]
    levels: dict[int, float] = {}
    for note in midi_notes(event):
        for above, number, level in zip(
            OVERTONE_SEMITONES, OVERTONE_NUMBERS, timbre.overtones, strict=True
        ):
            levels[note + above] = levels.get(note + above, 0.0) + level * number**tilt
    peak = (
        GAIN
        * timbre.peak
        * (UNACCENTED_GAIN if isinstance(event, Bass) and not event.strong else 1.0)
    )
    # Random phases: the peak of n partials grows like their root of squares more than their sum.
    norm = math.sqrt(sum(level**2 for level in levels.values()) * sum(levels.values()))
    return {pitch: peak * level / norm for pitch, level in levels.items()}


SAMPLING_RATE: Final = 16_000  # Hz
HOP: Final = SAMPLING_RATE // FRAME_RATE
DRUM_FRAMES: Final = {"kick": 8, "snare": 8, "hat": 3, "open": 8, "shaker": 3, "rim": 3}
DRUM_PEAKS: Final = {
    "kick": 0.38,
    "snare": 0.24,
    "hat": 0.065,
    "open": 0.075,
    "shaker": 0.055,
    "rim": 0.14,
}
# The length of the fade-out of each drum.
FADE_SAMPLES: Final = 80


def drum_samples(name: str) -> list[float]:
    """Return a drum's samples, a whole number of frames."""
    synthesize = {"kick": _kick, "snare": _snare, "rim": _rim}.get(name)
    length = DRUM_FRAMES[name] * HOP
    samples = synthesize(length) if synthesize else _cymbal(name, length)
    peak = max(map(abs, samples))
    fade = [min(1.0, (length - n - 1) / FADE_SAMPLES) for n in range(length)]
    return [
        DRUM_PEAKS[name] * sample / peak * end for sample, end in zip(samples, fade, strict=True)
    ]


def _noise(name: str, length: int) -> list[float]:
    draw = random.Random(f"percussion/{name}")
    return [draw.random() * 2 - 1 for _ in range(length)]


def _high_pass(samples: list[float], times: int) -> list[float]:
    """Remove low frequencies by taking differences repeatedly."""
    for _ in range(times):
        samples = [
            sample - previous for previous, sample in zip([0.0, *samples], samples, strict=False)
        ]
    return samples


def decay_at(n: int, seconds: float) -> float:
    """Return an exponential that falls by 60 dB in `seconds`, at sample `n`."""
    return math.exp(-6.9 * n / (seconds * SAMPLING_RATE))


def _kick(length: int) -> list[float]:
    phase, samples = 0.0, []
    for n in range(length):
        frequency = 48 + 110 * decay_at(n, 0.12)
        phase += 2 * math.pi * frequency / SAMPLING_RATE
        knock = 0.25 * decay_at(n, 0.02) * math.sin(2 * math.pi * 900 * n / SAMPLING_RATE)
        samples.append(math.sin(phase) * decay_at(n, 0.35) + knock)
    return samples


def _snare(length: int) -> list[float]:
    rattle = _high_pass(_noise("snare", length), 1)
    body = (185, 330)
    return [
        0.8 * rattle[n] * decay_at(n, 0.22)
        + sum(0.45 * math.sin(2 * math.pi * f * n / SAMPLING_RATE) for f in body)
        * decay_at(n, 0.12)
        for n in range(length)
    ]


def _rim(length: int) -> list[float]:
    tap = _high_pass(_noise("rim", length), 1)
    return [
        math.sin(2 * math.pi * 1700 * n / SAMPLING_RATE) * decay_at(n, 0.05)
        + 0.5 * tap[n] * decay_at(n, 0.02)
        for n in range(length)
    ]


def _cymbal(name: str, length: int) -> list[float]:
    """Return hi-hat or shaker: noise without low frequencies."""
    seconds = {"hat": 0.07, "open": 0.4, "shaker": 0.09}[name]
    soft = {"shaker": 160}.get(name, 1)  # samples until it is at its loudest
    hiss = _high_pass(_noise(name, length), 2)
    return [hiss[n] * decay_at(n, seconds) * min(1.0, (n + 1) / soft) for n in range(length)]


def click_samples(samples: int) -> list[float]:
    """Return the attack noise of a key or a string, with a peak of 0.1."""
    raw = _high_pass(_noise("click", samples), 1)
    smooth = [(a + b + c) / 3 for a, b, c in zip([0.0, 0.0, *raw], [0.0, *raw], raw, strict=False)]
    shaped = [s * decay_at(n, 0.012) for n, s in enumerate(smooth)]
    peak = max(map(abs, shaped))
    return [0.1 * s / peak for s in shaped]
