"""Reference audio: renders tokens by additive synthesis, independently of the codec.

It is the reference for the codec, the calibration data of the audio analysis, and the source of
some of the songs that the piano model learns from.
"""

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.signal import fftconvolve

from scripts.models.music.codec import (
    BANKS,
    FRAME_DECAY,
    GATE_OPEN,
    damping_depth,
    pitch_frequency,
    sigmoid,
)
from scripts.models.music.instruments import (
    HOP,
    SAMPLING_RATE,
    Samples,
    click_samples,
    decay_at,
    drum_samples,
    partial_levels,
    timbre_of,
)
from scripts.models.music.tokens import (
    BASS,
    CHORDS,
    LEAD,
    Bass,
    Chord,
    Lead,
    LeadRest,
    Tick,
    Token,
    decode_tokens,
)

# The time in which the echoes fall by 60 dB.
REVERB_SECONDS: Final = 0.35
REVERB_LEVEL: Final = 0.08
ATTACK_SECONDS: Final = 0.004  # seconds
RELEASE_SECONDS: Final = 0.012
BANK_OF_BOOK: Final = {CHORDS: "chords", BASS: "bass", LEAD: "lead"}


@dataclass(frozen=True, slots=True)
class SoundingNote:
    """An event with its first frame and the frame at which it ends."""

    event: Lead | Chord | Bass
    start: int
    end: int


def render_tokens(codes: NDArray[np.int64], *, wet: float = REVERB_LEVEL) -> Samples:
    """Return mono audio of a score's tokens (books, frames)."""
    length = codes.shape[1] * HOP
    audio = np.zeros(length)
    rows = decode_tokens(codes)
    for book, bank in BANK_OF_BOOK.items():
        for sounding in sounding_notes(rows[book]):
            _add_note(audio, sounding, bank)
    for frame, token in enumerate(rows[0]):
        if isinstance(token, Tick):
            for name in token.hits.replace("crash", "open").split():
                hit = np.array(drum_samples(name))
                span = slice(frame * HOP, min(length, frame * HOP + len(hit)))
                audio[span] += hit[: span.stop - span.start]
    return _add_reverb(audio, wet)


def sounding_notes(row: Sequence[Token | None]) -> Iterator[SoundingNote]:
    """Yield a book's events, each until the book's next event or rest."""
    sounding: tuple[Lead | Chord | Bass, int] | None = None
    for frame, token in enumerate([*row, LeadRest("piano", "melody")]):
        is_onset = isinstance(token, Lead | Chord | Bass)
        if sounding and (is_onset or type(token).__name__.endswith("Rest")):
            yield SoundingNote(sounding[0], sounding[1], frame)
            sounding = None
        if isinstance(token, Lead | Chord | Bass):
            sounding = token, frame


def _add_note(audio: Samples, sounding: SoundingNote, bank: str) -> None:
    """Add an event's partials, each with its own decay."""
    timbre = timbre_of(sounding.event)
    start = sounding.start * HOP
    overlap = 0.4 if timbre.ring > 0.3 else 0.0  # seconds that it sounds on into the next note
    end = min(len(audio), sounding.end * HOP + int((overlap + RELEASE_SECONDS) * SAMPLING_RATE))
    seconds = np.arange(end - start) / SAMPLING_RATE
    duration = (sounding.end - sounding.start) * HOP / SAMPLING_RATE + overlap
    envelope = np.clip(seconds / ATTACK_SECONDS, 0, 1) * np.clip(
        (duration - seconds) / RELEASE_SECONDS + 1, 0, 1
    )
    if timbre.click:
        knock = timbre.click * np.array(click_samples(HOP))[: end - start]
        audio[start : start + len(knock)] += knock
    _, top = BANKS[bank]
    for pitch, level in partial_levels(sounding.event).items():
        if pitch > top:
            continue
        decay_per_frame = FRAME_DECAY * sigmoid(
            GATE_OPEN - timbre.damping * damping_depth(bank, pitch)
        )  # a frame
        decay = np.exp(seconds * math.log(decay_per_frame) * SAMPLING_RATE / HOP)
        phase = random.Random(f"phase/{bank}/{pitch}").random()
        turns = pitch_frequency(pitch) * seconds + phase
        audio[start:end] += level * envelope * decay * np.cos(2 * np.pi * turns)


def _add_reverb(dry: Samples, wet: float) -> Samples:
    """Add the echoes of a small room: convolution with decaying noise."""
    if not wet:
        return dry
    rng = random.Random("room")
    length = int(REVERB_SECONDS * SAMPLING_RATE)
    room = np.array([(rng.random() * 2 - 1) * decay_at(n, REVERB_SECONDS) for n in range(length)])
    room /= math.sqrt((room**2).sum())
    echoes: Samples = fftconvolve(dry, room)[: len(dry)]
    return dry + wet * echoes
