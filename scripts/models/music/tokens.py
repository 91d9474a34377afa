"""Tokens: the meaning of every id of the four codebooks, and scores as tokens.

A token is an event or a wait. A wait adds no sound, but there are many waits. They repeat the state
of the piece: the time until the next sixteenth, the key, the instrument that sounds. The language
model can copy this state from the tokens just before, and need not count.

MusicGen delays book k by k frames. A book is therefore predicted after the same frame of the books
before it: first the beat, then the chords, the bass and the lead.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from scripts.models.music.brief import (
    BARS_PER_PHRASE,
    BASS_HIGH,
    BASS_LOW,
    BASS_SOUNDS,
    BASS_STYLES,
    CHORD_DAMPING,
    CHORD_SOUNDS,
    HITS,
    LEAD_HIGH,
    LEAD_LOW,
    LEAD_SOUNDS,
    MODES,
    PARTS,
    QUALITIES,
    SIXTEENTHS_PER_BAR,
    TEMPI,
    Brief,
    draw_brief,
)
from scripts.models.music.composition import Note, Score, compose

# A power of two, as EnCodec requires.
CODEBOOK_SIZE: Final = 512
BOOKS: Final = ("beat", "chords", "bass", "lead")
BEAT, CHORDS, BASS, LEAD = range(4)


@dataclass(frozen=True, slots=True)
class Tick:
    """The first frame of a sixteenth: its position in the phrase, and the drums that are hit."""

    bar: int
    sixteenth: int
    hits: str


@dataclass(frozen=True, slots=True)
class Until:
    """A frame between sixteenths: frames per sixteenth, and frames left to the next one."""

    frames: int
    left: int


@dataclass(frozen=True, slots=True)
class Chord:
    """A chord begins and replaces the previous one."""

    root: int
    quality: str
    sound: str
    bright: bool


@dataclass(frozen=True, slots=True)
class ChordHold:
    """The chord sounds on. Repeats the key and the chord's decay."""

    tonic: int
    mode: str
    damping: str


@dataclass(frozen=True, slots=True)
class ChordRest:
    """No chord sounds. Repeats the key."""

    tonic: int
    mode: str


@dataclass(frozen=True, slots=True)
class Bass:
    """A bass note begins and replaces the previous one."""

    pitch: int
    sound: str
    strong: bool


@dataclass(frozen=True, slots=True)
class BassHold:
    """The bass note sounds on."""

    sound: str
    style: str


@dataclass(frozen=True, slots=True)
class BassRest:
    """No bass note sounds."""

    style: str


@dataclass(frozen=True, slots=True)
class Lead:
    """A lead note begins and replaces the previous one."""

    pitch: int
    sound: str
    bright: bool


@dataclass(frozen=True, slots=True)
class LeadHold:
    """The lead note sounds on."""

    sound: str
    part: str


@dataclass(frozen=True, slots=True)
class LeadRest:
    """No lead note sounds."""

    sound: str
    part: str


Token = (
    Tick | Until | Chord | ChordHold | ChordRest | Bass | BassHold | BassRest | Lead | LeadHold
    | LeadRest
)  # fmt: skip


def _beat_tokens() -> tuple[Token, ...]:
    waits = [Until(frames, left) for frames in TEMPI for left in range(1, frames)]
    downbeats = [Tick(bar, 0, hits) for bar in range(BARS_PER_PHRASE) for hits in HITS]
    offbeats = [
        Tick(0, sixteenth, hits) for sixteenth in range(1, SIXTEENTHS_PER_BAR) for hits in HITS
    ]
    return (*waits, *downbeats, *offbeats)


def _chord_tokens() -> tuple[Token, ...]:
    onsets = [
        Chord(root, quality, sound, bright)
        for sound in CHORD_SOUNDS for bright in (False, True)
        for quality in QUALITIES for root in range(12)
    ]  # fmt: skip
    holds = [
        ChordHold(tonic, mode, damping)
        for damping in CHORD_DAMPING for mode in MODES for tonic in range(12)
    ]  # fmt: skip
    return (*onsets, *holds, *(ChordRest(tonic, mode) for mode in MODES for tonic in range(12)))


def _bass_tokens() -> tuple[Token, ...]:
    onsets = [
        Bass(pitch, sound, strong)
        for sound in BASS_SOUNDS for strong in (False, True)
        for pitch in range(BASS_LOW, BASS_HIGH + 1)
    ]  # fmt: skip
    holds = [BassHold(sound, style) for sound in BASS_SOUNDS for style in BASS_STYLES]
    return (*onsets, *holds, *(BassRest(style) for style in BASS_STYLES))


def _lead_tokens() -> tuple[Token, ...]:
    onsets = [
        Lead(pitch, sound, bright)
        for sound in LEAD_SOUNDS for bright in (False, True)
        for pitch in range(LEAD_LOW, LEAD_HIGH + 1)
    ]  # fmt: skip
    holds = [LeadHold(sound, part) for sound in LEAD_SOUNDS for part in PARTS]
    return (*onsets, *holds, *(LeadRest(sound, part) for sound in LEAD_SOUNDS for part in PARTS))


TOKENS: Final = (
    _beat_tokens(),
    _chord_tokens(),
    _bass_tokens(),
    _lead_tokens(),
)  # a token's id is its place in its book
IDS: Final = tuple({token: place for place, token in enumerate(book)} for book in TOKENS)
# MusicGen's id for the time before a book's first frame.
BLANK = CODEBOOK_SIZE
Codes = NDArray[np.int64]


def compose_piece(seed: str, frames: int) -> tuple[Brief, Score, Codes]:
    """Return the brief, the score and the tokens (books, frames) of a seed."""
    rng = random.Random(seed)
    brief = draw_brief(rng)
    bars = -(-frames // (brief.frames * SIXTEENTHS_PER_BAR))
    score = compose(brief, bars, rng)
    return brief, score, encode_score(score)[:, :frames]


def encode_score(score: Score) -> Codes:
    """Return the tokens of a score, (books, frames)."""
    rows = (_encode_beat(score), _encode_chords(score), _encode_bass(score), _encode_lead(score))
    return np.array(
        [[IDS[book][token] for token in row] for book, row in enumerate(rows)], dtype=np.int64
    )


def decode_tokens(codes: Codes) -> list[list[Token | None]]:
    """Return the meaning of ids (books, frames), None for unused ids."""
    return [
        [TOKENS[book][i] if i < len(TOKENS[book]) else None for i in row]
        for book, row in enumerate(codes.tolist())
    ]


def _encode_beat(score: Score) -> Iterator[Token]:
    frames = score.brief.frames
    for place, hits in enumerate(score.hits):
        bar, sixteenth = divmod(place, SIXTEENTHS_PER_BAR)
        yield Tick(bar % BARS_PER_PHRASE if sixteenth == 0 else 0, sixteenth, hits)
        yield from (Until(frames, left) for left in range(frames - 1, 0, -1))


def _encode_chords(score: Score) -> Iterator[Token]:
    brief, key = score.brief, score.key
    damping = brief.chords if brief.chords in ("piano", "guitar") else "none"
    hold: Token = ChordRest(key.tonic, key.mode)
    for harmony in score.chords:
        if harmony:
            yield Chord(harmony.root, harmony.quality, brief.chords, brief.bright)
            hold = ChordHold(key.tonic, key.mode, damping)
        yield from [hold] * (brief.frames - bool(harmony))


def _encode_bass(score: Score) -> Iterator[Token]:
    sound = score.brief.bass or BASS_SOUNDS[0]
    hold: Token = BassRest(score.style)
    for note in score.bass:
        if isinstance(note, Note):
            yield Bass(note.pitch, sound, note.strong)
            hold = BassHold(sound, score.style)
        yield from [hold] * (score.brief.frames - isinstance(note, Note))


def _encode_lead(score: Score) -> Iterator[Token]:
    brief = score.brief
    sound = brief.lead or LEAD_SOUNDS[0]
    rest = LeadRest(sound, brief.part)
    hold: Token = rest
    for note in score.lead:
        if isinstance(note, Note):
            yield Lead(note.pitch, sound, brief.bright)
            hold = LeadHold(sound, brief.part)
        elif note is not None:
            hold = rest
        yield from [hold] * (brief.frames - isinstance(note, Note))


def apply_delay(codes: Codes) -> Codes:
    """Return tokens in MusicGen's order: a column of blanks, then book k delayed by k frames."""
    books, frames = codes.shape
    delayed = np.full((books, frames + books), BLANK, dtype=np.int64)
    for book in range(books):
        delayed[book, 1 + book : 1 + book + frames] = codes[book]
    return delayed
