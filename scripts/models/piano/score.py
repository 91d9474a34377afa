"""The piano part of a piece, and its encoding as the tokens of Pop2Piano.

Pop2Piano reads a song in rows of eight steps of half a beat. It writes each row as tokens: steps
since the last event, velocity 1 or 0 for the notes that follow, and notes that begin (1) or end
(0).
"""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from scripts.models.music.instruments import midi_notes
from scripts.models.music.render import BANK_OF_BOOK, sounding_notes
from scripts.models.music.tokens import decode_tokens

# Half beats, as Pop2Piano defines a row.
STEPS_PER_ROW: Final = 8
# Pop2Piano ends every note at most this many steps after the start of its row.
MAX_TIME_STEPS: Final = 12
# Longer notes are cut: a piano's sound has decayed by then.
MAX_NOTE_STEPS: Final = 6
END_TOKEN: Final = 1
# Which books each composer plays.
COMPOSERS: Final = {
    "composer1": ("lead", "chords", "bass"),
    "composer2": ("lead", "bass"),
    "composer3": ("chords", "bass"),
}
TOKEN_KINDS: Final = (("SPECIAL", 3), ("NOTE", 128), ("VELOCITY", 2), ("TIME", MAX_TIME_STEPS + 1))
TOKEN_MEANINGS: Final = tuple(
    (number, kind) for kind, count in TOKEN_KINDS for number in range(count)
)
VOCABULARY: Final = {
    f"{number}_TOKEN_{kind}": place for place, (number, kind) in enumerate(TOKEN_MEANINGS)
}


@dataclass(frozen=True, slots=True, order=True)
class PianoNote:
    """A note of the piano. Times are in frames from the start of the piece."""

    start: float
    pitch: int
    end: float


def piano_parts(codes: NDArray[np.int64]) -> dict[str, list[PianoNote]]:
    """Return each composer's piano part of a piece, in order."""
    rows = decode_tokens(codes)
    banks = {
        bank: [
            PianoNote(sounding.start, pitch, sounding.end)
            for sounding in sounding_notes(rows[book])
            for pitch in midi_notes(sounding.event)
        ]
        for book, bank in BANK_OF_BOOK.items()
    }
    return {
        composer: sorted(note for bank in played for note in banks[bank])
        for composer, played in COMPOSERS.items()
    }


@dataclass(frozen=True, slots=True)
class DecodedToken:
    """The meaning of a token. `kind`: "onset", "release" or a name of `TOKEN_KINDS`."""

    kind: str  # "onset" or "release" for a note, else one of `KINDS`
    number: int
    step: int


@dataclass(frozen=True, slots=True)
class Grid:
    """The positions of steps: the first one and their distance, in frames."""

    first: float
    step: float

    def rows(self, frames: int) -> int:
        """Return how many whole rows fit into a number of frames."""
        return max(0, int((frames - self.first) / self.step / STEPS_PER_ROW))

    def span(self, row: int) -> tuple[float, float]:
        """Return the first frame and the end of a row."""
        first = self.first + row * STEPS_PER_ROW * self.step
        return first, first + STEPS_PER_ROW * self.step

    def nearest_step(self, frame: float) -> int:
        """Return the step nearest to a frame."""
        return round((frame - self.first) / self.step)


def quantize(piano_notes: Iterable[PianoNote], grid: Grid) -> dict[tuple[int, int], int]:
    """Return the notes that begin near a step, as {(step, pitch): end step}."""
    notes: dict[tuple[int, int], int] = {}
    for note in piano_notes:
        start = grid.nearest_step(note.start)
        if abs(grid.first + start * grid.step - note.start) <= 0.3 * grid.step:
            end = min(start + MAX_NOTE_STEPS, max(start + 1, grid.nearest_step(note.end)))
            notes[start, note.pitch] = max(end, notes.get((start, note.pitch), 0))
    return notes


def encode_row(notes: dict[tuple[int, int], int], row: int) -> list[int]:
    """Return a row's tokens with the end token. Notes end with their row at the latest."""
    first = row * STEPS_PER_ROW
    times: dict[int, tuple[list[int], list[int]]] = {}
    for (step, pitch), last in sorted(notes.items()):
        if first <= step < first + STEPS_PER_ROW:
            end = min(last, first + STEPS_PER_ROW)
            times.setdefault(step - first, ([], []))[1].append(pitch)
            sounding = range(step + 1, min(end + 1, first + STEPS_PER_ROW))
            if not any((later, pitch) in notes for later in sounding):
                times.setdefault(end - first, ([], []))[0].append(pitch)
    return [*_row_tokens(times), END_TOKEN]


def _row_tokens(times: dict[int, tuple[list[int], list[int]]]) -> Iterator[int]:
    """Yield tokens for the pitches that end and begin at each step of a row."""
    now = velocity = 0
    for step, (ended, started) in sorted(times.items()):
        if step > now:
            yield VOCABULARY[f"{step - now}_TOKEN_TIME"]
            now = step
        for level, pitches in ((0, ended), (1, started)):
            if pitches and velocity != level:
                yield VOCABULARY[f"{level}_TOKEN_VELOCITY"]
                velocity = level
            yield from (VOCABULARY[f"{pitch}_TOKEN_NOTE"] for pitch in sorted(pitches))


def decode_row(tokens: Iterable[int]) -> Iterator[DecodedToken]:
    """Yield the meaning of each token of a row."""
    step = velocity = 0
    for token in tokens:
        number, kind = TOKEN_MEANINGS[token]
        if kind == "TIME":
            step += number
        elif kind == "VELOCITY":
            velocity = number
        elif kind == "NOTE":
            kind = "onset" if velocity else "release"
        yield DecodedToken(kind, number, step)


def note_onsets(tokens: Iterable[int]) -> set[tuple[int, int]]:
    """Return the notes that begin in a row, as (step, pitch)."""
    row = itertools.takewhile(lambda token: token != END_TOKEN, tokens)
    return {
        (token.step, token.number) for token in decode_row(row)
        if token.kind == "onset" and token.step < STEPS_PER_ROW
    }  # fmt: skip
