"""The piano part of a piece, and how Pop2Piano writes it: what the cover model learns.

Pop2Piano hears a song in rows of eight steps, half a beat each, and writes each row as tokens:
time since the last event in steps, velocity 1 or 0 for what follows, and notes that begin or end.
"""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from scripts.embedded_model.notation import decode
from scripts.embedded_model.rendering import NAMES, events
from scripts.embedded_model.timbre import notes

STEPS: Final = 8  # of a row
LAST: Final = 12  # steps from a row's begin until what has not ended is ended
LONGEST: Final = 6  # steps of a note
END: Final = 1
# Which books each composer plays.
COMPOSERS: Final = {
    "composer1": ("lead", "chords", "bass"),
    "composer2": ("lead", "bass"),
    "composer3": ("chords", "bass"),
}
KINDS: Final = (("SPECIAL", 3), ("NOTE", 128), ("VELOCITY", 2), ("TIME", LAST + 1))
MEANINGS: Final = tuple((number, kind) for kind, count in KINDS for number in range(count))
VOCABULARY: Final = {
    f"{number}_TOKEN_{kind}": place for place, (number, kind) in enumerate(MEANINGS)
}


@dataclass(frozen=True, slots=True, order=True)
class Stroke:
    """A note of the piano; times in frames from the begin of the piece."""

    start: float
    pitch: int
    end: float


def parts(codes: NDArray[np.int64]) -> dict[str, list[Stroke]]:
    """What each composer's pianist plays of a piece, in order."""
    rows = decode(codes)
    banks = {
        bank: [
            Stroke(sounding.start, pitch, sounding.end)
            for sounding in events(rows[book])
            for pitch in notes(sounding.event)
        ]
        for book, bank in NAMES.items()
    }
    return {
        composer: sorted(stroke for bank in played for stroke in banks[bank])
        for composer, played in COMPOSERS.items()
    }


@dataclass(frozen=True, slots=True)
class Said:
    """What a token of a row says: its number, what that is, and the step it is said at."""

    kind: str  # "begun" or "ended" for a note, else one of `KINDS`
    number: int
    step: int


@dataclass(frozen=True, slots=True)
class Grid:
    """Where steps lie: the first one and their distance, in frames."""

    first: float
    step: float

    def rows(self, frames: int) -> int:
        """How many whole rows fit into so many frames."""
        return max(0, int((frames - self.first) / self.step / STEPS))

    def span(self, row: int) -> tuple[float, float]:
        """First frame and end of a row."""
        first = self.first + row * STEPS * self.step
        return first, first + STEPS * self.step

    def place(self, frame: float) -> int:
        """The step nearest to a frame."""
        return round((frame - self.first) / self.step)


def on_grid(strokes: Iterable[Stroke], grid: Grid) -> dict[tuple[int, int], int]:
    """Strokes that begin near a step: (step, pitch) and the step of the end."""
    found: dict[tuple[int, int], int] = {}
    for stroke in strokes:
        begin = grid.place(stroke.start)
        if abs(grid.first + begin * grid.step - stroke.start) <= 0.3 * grid.step:
            end = min(begin + LONGEST, max(begin + 1, grid.place(stroke.end)))
            found[begin, stroke.pitch] = max(end, found.get((begin, stroke.pitch), 0))
    return found


def written(found: dict[tuple[int, int], int], row: int) -> list[int]:
    """A row's tokens, the end included. A note ends with its row at the latest, as it is heard."""
    first = row * STEPS
    times: dict[int, tuple[list[int], list[int]]] = {}
    for (step, pitch), last in sorted(found.items()):
        if first <= step < first + STEPS:
            end = min(last, first + STEPS)
            times.setdefault(step - first, ([], []))[1].append(pitch)
            here = range(step + 1, min(end + 1, first + STEPS))
            if not any((later, pitch) in found for later in here):
                times.setdefault(end - first, ([], []))[0].append(pitch)
    return [*tokens(times), END]


def tokens(times: dict[int, tuple[list[int], list[int]]]) -> Iterator[int]:
    """Tokens for the pitches that end and that begin at each step of a row."""
    now = velocity = 0
    for step, (ended, begun) in sorted(times.items()):
        if step > now:
            yield VOCABULARY[f"{step - now}_TOKEN_TIME"]
            now = step
        for level, pitches in ((0, ended), (1, begun)):
            if pitches and velocity != level:
                yield VOCABULARY[f"{level}_TOKEN_VELOCITY"]
                velocity = level
            yield from (VOCABULARY[f"{pitch}_TOKEN_NOTE"] for pitch in sorted(pitches))


def said(tokens: Iterable[int]) -> Iterator[Said]:
    """What a row's tokens say, one by one."""
    step = velocity = 0
    for token in tokens:
        number, kind = MEANINGS[token]
        if kind == "TIME":
            step += number
        elif kind == "VELOCITY":
            velocity = number
        elif kind == "NOTE":
            kind = "begun" if velocity else "ended"
        yield Said(kind, number, step)


def begun(tokens: Iterable[int]) -> set[tuple[int, int]]:
    """The notes that begin in a row, as (step, pitch)."""
    own = itertools.takewhile(lambda token: token != END, tokens)
    return {
        (word.step, word.number) for word in said(own)
        if word.kind == "begun" and word.step < STEPS
    }  # fmt: skip
