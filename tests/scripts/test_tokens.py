"""Scores in tokens, and back."""

import hashlib
import random

import numpy as np
import pytest

from scripts.models.music.brief import SIXTEENTHS_PER_BAR, SPEEDS, draw_brief
from scripts.models.music.composition import SCALES, compose
from scripts.models.music.tokens import (
    BEAT,
    BLANK,
    BOOKS,
    CHORDS,
    CODEBOOK_SIZE,
    LEAD,
    TOKENS,
    Chord,
    Lead,
    Tick,
    Until,
    apply_delay,
    compose_piece,
    decode_tokens,
)

SEEDS = [f"piece/{number}" for number in range(30)]


def test_tokens_of_a_book_are_distinct() -> None:
    for book in TOKENS:
        assert len(book) == len(set(book)) <= CODEBOOK_SIZE


def test_pieces_are_reproducible() -> None:
    """Models were trained on these: another composer needs another training."""
    content = b"".join(compose_piece(seed, 300)[2].tobytes() for seed in SEEDS)
    assert hashlib.sha256(content).hexdigest().startswith("1c18d9285e20c562")


@pytest.mark.parametrize("seed", SEEDS)
def test_beat_tokens_count_down_to_the_next_sixteenth(seed: str) -> None:
    """From tick to tick as many frames as each wait says, and sixteen ticks to a bar."""
    brief, _, codes = compose_piece(seed, 600)
    remaining, places = 0, []
    for token in decode_tokens(codes)[BEAT]:
        if isinstance(token, Tick):
            assert remaining == 0
            places.append(token.sixteenth)
            remaining = brief.frames - 1
        else:
            assert token == Until(brief.frames, remaining)
            remaining -= 1
    assert places == [number % SIXTEENTHS_PER_BAR for number in range(len(places))]


@pytest.mark.parametrize("seed", SEEDS)
def test_notes_belong_to_the_key(seed: str) -> None:
    """But for the raised seventh over a minor key's fifth; and it begins on the tonic."""
    brief, score, codes = compose_piece(seed, 600)
    rows = decode_tokens(codes)
    scale = {(brief.tonic + step) % 12 for step in SCALES[brief.mode]}
    scale |= {(brief.tonic + 11) % 12} if score.key.leading else set()
    pitches = {token.pitch % 12 for token in rows[LEAD] if isinstance(token, Lead)}
    assert pitches <= scale
    chords = [token for token in rows[CHORDS] if isinstance(token, Chord)]
    assert all(chord.root in scale for chord in chords)
    if chords and isinstance(rows[CHORDS][0], Chord):
        assert chords[0].root == brief.tonic


def test_books_are_delayed_by_their_number() -> None:
    codes = compose_piece("delay", 20)[2]
    moved = apply_delay(codes)
    assert moved.shape == (len(BOOKS), 20 + len(BOOKS))
    for book in range(len(BOOKS)):
        assert (moved[book, : book + 1] == BLANK).all()
        assert (moved[book, book + 1 : book + 21] == codes[book]).all()


def test_briefs_cover_all_values() -> None:
    briefs = [draw_brief(random.Random(seed)) for seed in range(400)]
    assert {brief.speed for brief in briefs} == set(SPEEDS)
    for name in ("mode", "bright", "density", "groove", "lead", "chords", "bass"):
        counts = np.unique([str(getattr(brief, name)) for brief in briefs], return_counts=True)[1]
        assert counts.min() > 0.03 * len(briefs), name


@pytest.mark.parametrize("bars", [1, 3, 8])
def test_score_has_the_requested_bars(bars: int) -> None:
    for seed in range(20):
        score = compose(draw_brief(random.Random(seed)), bars, random.Random(seed))
        for row in (score.hits, score.chords, score.bass, score.lead):
            assert len(row) == bars * SIXTEENTHS_PER_BAR
