"""How many notes of a song's piano part its cover has: F1 of note onsets, on held-back songs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from scripts.embedded_model import notation, piano
from scripts.embedded_model.measuring import decoded
from scripts.embedded_model.percussion import HOP, SAMPLING_RATE
from scripts.embedded_model.worker import Worker

FRAMES: Final = 800  # of a song: 16 seconds
NEAR: Final = 0.1  # seconds between two onsets that are taken for one
Onset = tuple[float, int]  # seconds, MIDI pitch


@dataclass(frozen=True, slots=True)
class Heard:
    """Notes found, notes written and notes due, of one cover."""

    right: int
    written: int
    due: int

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall."""
        return 2 * self.right / max(1, self.written + self.due)


def judged(codec: Any, node: Worker, count: int) -> dict[str, list[Heard]]:
    """Each composer's covers of held-back songs; `chance` is its cover of the song before."""
    found: dict[str, list[Heard]] = {name: [] for name in (*piano.COMPOSERS, "chance")}
    before: dict[str, list[Onset]] = {}
    for number in range(count):
        composer = list(piano.COMPOSERS)[number % len(piano.COMPOSERS)]
        codes = song(number)
        due = onsets(codes, composer)
        made = node.cover(decoded(codec, codes), composer)
        found[composer].append(matched(made, due))
        if composer in before:
            found["chance"].append(matched(before[composer], due))
        before[composer] = made
    return found


def song(number: int) -> notation.Codes:
    """A song that training never saw: no song of its has such a name."""
    return notation.piece(f"held back song/{number}", FRAMES)[2]


def onsets(codes: notation.Codes, composer: str) -> list[Onset]:
    """The song's piano part, as far as Pop2Piano could write it: what begins on eighths."""
    beat = notation.decode(codes)[0]
    ticks = [frame for frame, token in enumerate(beat) if type(token).__name__ == "Tick"]
    grid = piano.Grid(0.0, 2.0 * (ticks[1] - ticks[0]))
    strokes = piano.on_grid(piano.parts(codes)[composer], grid)
    return [(step * grid.step * HOP / SAMPLING_RATE, pitch) for step, pitch in sorted(strokes)]


def matched(made: Sequence[Onset], due: Sequence[Onset]) -> Heard:
    """Each note due is found at most once, by the nearest note of its pitch."""
    left, right = list(made), 0
    for seconds, pitch in due:
        near = [one for one in left if one[1] == pitch and abs(one[0] - seconds) <= NEAR]
        if near:
            left.remove(min(near, key=lambda one: abs(one[0] - seconds)))
            right += 1
    return Heard(right, len(made), len(due))


def table(found: Mapping[str, Sequence[Heard]]) -> str:
    """The figures in Markdown: of all notes together, and the mean of the songs' F1."""
    lines = [
        "| composer | songs | note onset F1 | precision | recall | F1, mean of songs |",
        "|---|---|---|---|---|---|",
    ]
    for name, covers in found.items():
        if covers:
            total = Heard(
                sum(cover.right for cover in covers),
                sum(cover.written for cover in covers),
                sum(cover.due for cover in covers),
            )
            figures = (
                total.f1,
                total.right / max(1, total.written),
                total.right / max(1, total.due),
                float(np.mean([cover.f1 for cover in covers])),
            )
            shown = " | ".join(f"{figure:.2f}" for figure in figures)
            lines.append(f"| {name} | {len(covers)} | {shown} |")
    return "\n".join(lines)
