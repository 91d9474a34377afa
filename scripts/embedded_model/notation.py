"""Scores in tokens: one token of each book per frame, and MusicGen's delay between the books."""

import random
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from scripts.embedded_model.brief import Brief, draw
from scripts.embedded_model.composer import Note, Score, compose
from scripts.embedded_model.vocabulary import (
    BARS,
    BASS_SOUNDS,
    IDS,
    LEAD_SOUNDS,
    SIXTEENTHS,
    SIZE,
    TOKENS,
    Bass,
    BassHold,
    BassRest,
    Chord,
    ChordHold,
    ChordRest,
    Lead,
    LeadHold,
    LeadRest,
    Tick,
    Token,
    Until,
)

BLANK = SIZE  # MusicGen's id for "not yet": before a book's first frame

Codes = NDArray[np.int64]


def piece(seed: str, frames: int) -> tuple[Brief, Score, Codes]:
    """The piece of a seed: its brief, its score, and its tokens, (books, frames)."""
    chance = random.Random(seed)
    brief = draw(chance)
    bars = -(-frames // (brief.frames * SIXTEENTHS))
    score = compose(brief, bars, chance)
    return brief, score, encode(score)[:, :frames]


def encode(score: Score) -> Codes:
    """The tokens of a whole score, (books, frames)."""
    rows = (beat(score), chords(score), bass(score), lead(score))
    return np.array(
        [[IDS[book][token] for token in row] for book, row in enumerate(rows)], dtype=np.int64
    )


def decode(codes: Codes) -> list[list[Token | None]]:
    """What the ids mean, book by book; None for an id that means nothing."""
    return [
        [TOKENS[book][i] if i < len(TOKENS[book]) else None for i in row]
        for book, row in enumerate(codes.tolist())
    ]


def beat(score: Score) -> Iterator[Token]:
    frames = score.brief.frames
    for place, hits in enumerate(score.hits):
        bar, sixteenth = divmod(place, SIXTEENTHS)
        yield Tick(bar % BARS if sixteenth == 0 else 0, sixteenth, hits)
        yield from (Until(frames, left) for left in range(frames - 1, 0, -1))


def chords(score: Score) -> Iterator[Token]:
    brief, key = score.brief, score.key
    damping = brief.chords if brief.chords in ("piano", "guitar") else "none"
    wait: Token = ChordRest(key.tonic, key.mode)
    for struck in score.chords:
        if struck:
            yield Chord(struck.root, struck.quality, brief.chords, brief.bright)
            wait = ChordHold(key.tonic, key.mode, damping)
        yield from [wait] * (brief.frames - bool(struck))


def bass(score: Score) -> Iterator[Token]:
    sound = score.brief.bass or BASS_SOUNDS[0]
    wait: Token = BassRest(score.style)
    for note in score.bass:
        if isinstance(note, Note):
            yield Bass(note.pitch, sound, note.strong)
            wait = BassHold(sound, score.style)
        yield from [wait] * (score.brief.frames - isinstance(note, Note))


def lead(score: Score) -> Iterator[Token]:
    brief = score.brief
    sound = brief.lead or LEAD_SOUNDS[0]
    rest = LeadRest(sound, brief.part)
    wait: Token = rest
    for note in score.lead:
        if isinstance(note, Note):
            yield Lead(note.pitch, sound, brief.bright)
            wait = LeadHold(sound, brief.part)
        elif note is not None:
            wait = rest
        yield from [wait] * (brief.frames - isinstance(note, Note))


def delayed(codes: Codes) -> Codes:
    """The tokens as MusicGen writes them: a first column of blanks, book k moved by k frames."""
    books, frames = codes.shape
    moved = np.full((books, frames + books), BLANK, dtype=np.int64)
    for book in range(books):
        moved[book, 1 + book : 1 + book + frames] = codes[book]
    return moved
