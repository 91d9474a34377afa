"""The generator's own audio: each score played by additive synthesis, with a little reverb.

It knows nothing of tokens or frames' pieces: it is what the codec is compared with, what the
signal analysis is calibrated on, and what plays some of the songs that Pop2Piano learns from.
"""

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.signal import fftconvolve

from scripts.embedded_model import percussion
from scripts.embedded_model.codec import BANKS, LASTING, OPEN, damper, frequency, sigmoid
from scripts.embedded_model.notation import decode
from scripts.embedded_model.percussion import HOP, SAMPLING_RATE
from scripts.embedded_model.timbre import partials, timbre
from scripts.embedded_model.vocabulary import (
    BASS,
    CHORDS,
    LEAD,
    Bass,
    Chord,
    Lead,
    LeadRest,
    Tick,
    Token,
)

Samples = NDArray[np.float64]

REVERB: Final = 0.35  # seconds until it has faded by 60 dB
WET: Final = 0.08
ATTACK: Final = 0.004  # seconds
RELEASE: Final = 0.012
NAMES: Final = {CHORDS: "chords", BASS: "bass", LEAD: "lead"}


@dataclass(frozen=True, slots=True)
class Sounding:
    """An event from its first frame until what ends it."""

    event: Lead | Chord | Bass
    start: int
    end: int


def play(codes: NDArray[np.int64], *, wet: float = WET) -> Samples:
    """The audio of tokens that a score was written in, mono."""
    length = codes.shape[1] * HOP
    heard = np.zeros(length)
    rows = decode(codes)
    for book, bank in NAMES.items():
        for sounding in events(rows[book]):
            add(heard, sounding, bank)
    for frame, token in enumerate(rows[0]):
        if isinstance(token, Tick):
            for name in token.hits.replace("crash", "open").split():
                hit = np.array(percussion.recording(name))
                place = slice(frame * HOP, min(length, frame * HOP + len(hit)))
                heard[place] += hit[: place.stop - place.start]
    return reverberated(heard, wet)


def events(row: Sequence[Token | None]) -> Iterator[Sounding]:
    """What begins in a book, until the book's next event or rest."""
    begun: tuple[Lead | Chord | Bass, int] | None = None
    for frame, token in enumerate([*row, LeadRest("piano", "melody")]):
        begins = isinstance(token, Lead | Chord | Bass)
        if begun and (begins or type(token).__name__.endswith("Rest")):
            yield Sounding(begun[0], begun[1], frame)
            begun = None
        if isinstance(token, Lead | Chord | Bass):
            begun = token, frame


def add(heard: Samples, sounding: Sounding, bank: str) -> None:
    """Add an event's partials, each decaying by itself."""
    made = timbre(sounding.event)
    start = sounding.start * HOP
    rings = 0.4 if made.ring > 0.3 else 0.0  # seconds that it sounds on into the next note
    end = min(len(heard), sounding.end * HOP + int((rings + RELEASE) * SAMPLING_RATE))
    seconds = np.arange(end - start) / SAMPLING_RATE
    held = (sounding.end - sounding.start) * HOP / SAMPLING_RATE + rings
    shape = np.clip(seconds / ATTACK, 0, 1) * np.clip((held - seconds) / RELEASE + 1, 0, 1)
    if made.click:
        knock = made.click * np.array(percussion.click(HOP))[: end - start]
        heard[start : start + len(knock)] += knock
    _, top = BANKS[bank]
    for pitch, level in partials(sounding.event).items():
        if pitch > top:
            continue
        kept = LASTING * sigmoid(OPEN - made.damping * damper(bank, pitch))  # a frame
        decay = np.exp(seconds * math.log(kept) * SAMPLING_RATE / HOP)
        phase = random.Random(f"phase/{bank}/{pitch}").random()
        turns = frequency(pitch) * seconds + phase
        heard[start:end] += level * shape * decay * np.cos(2 * np.pi * turns)


def reverberated(dry: Samples, wet: float) -> Samples:
    """With the echoes of a small room: decaying noise."""
    if not wet:
        return dry
    draw = random.Random("room")
    length = int(REVERB * SAMPLING_RATE)
    room = np.array([(draw.random() * 2 - 1) * percussion.decay(n, REVERB) for n in range(length)])
    room /= math.sqrt((room**2).sum())
    echoes: Samples = fftconvolve(dry, room)[: len(dry)]
    return dry + wet * echoes
