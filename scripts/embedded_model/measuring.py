"""How often generated audio is what its caption says, on captions kept out of training.

The same analysis judges three things: the generator's own audio, which says how far the analysis
can be trusted; the codec's rendering of the same tokens; and what the model makes of the captions.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import torch

from scripts.embedded_model import analysis, notation, rendering
from scripts.embedded_model.analysis import Found, Samples
from scripts.embedded_model.brief import SPEEDS, Brief
from scripts.embedded_model.captions import HELD_BACK_FORMS, caption, held_back
from scripts.embedded_model.percussion import HOP
from scripts.embedded_model.theory import NAMES

SECONDS: Final = 8
FRAMES: Final = 50 * SECONDS
ATTRIBUTES: Final = {
    "tempo": 3,
    "mode": 2,
    "brightness": 2,
    "drums": 2,
    "density": 2,
    "tonic": 12,
}  # and how many values each has
# Set by the generator's own audio: `scripts/embed measure music --calibrate`.
BRIGHT: Final = 712.0  # Hz
DRUMMED: Final = 3.1
DENSE: Final = 2.36  # onsets per second


@dataclass(frozen=True, slots=True)
class Asked:
    """A held-back caption: its brief, what of it is said, and the piece it was made for."""

    number: int
    brief: Brief
    text: str
    said: frozenset[str]
    codes: notation.Codes


@dataclass(slots=True)
class Tally:
    """Right answers and questions by attribute and the value that was asked for."""

    right: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    asked: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    faults: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    count: int = 0

    def add(self, asked: Asked, audio: Samples) -> None:
        """Analyse the audio that answers a question."""
        found = analysis.analyse(audio)
        self.count += 1
        for fault, there in faults(found).items():
            self.faults[fault] += there
        for name, (value, holds) in verdicts(asked, found).items():
            self.asked[name][value] += 1
            self.right[name][value] += holds
            if not holds:
                self.wrong.append(f"{asked.number} {name}: {asked.text}")

    def share(self, name: str) -> float:
        """How often an attribute was right; 0 if it was never asked for."""
        return self.right[name].total() / max(1, self.asked[name].total())

    def balanced(self, name: str) -> float:
        """The mean of the shares by value: what always saying the commonest does not raise."""
        asked, right = self.asked[name], self.right[name]
        return sum(right[value] / asked[value] for value in asked) / max(1, len(asked))

    def chance(self, name: str) -> float:
        """The share of who draws a value, or always says the commonest, whichever is larger."""
        asked = self.asked[name]
        return max(1 / ATTRIBUTES[name], max(asked.values(), default=0) / max(1, asked.total()))

    def values(self, name: str) -> str:
        """Right answers by value, for a table."""
        asked, right = self.asked[name], self.right[name]
        return ", ".join(f"{value} {right[value]} of {asked[value]}" for value in sorted(asked))


def questions(count: int) -> list[Asked]:
    """Captions of combinations and in forms that training never saw."""
    found: list[Asked] = []
    number = 0
    while len(found) < count:
        seed, number = f"held back/{number}", number + 1
        brief, _, codes = notation.piece(seed, FRAMES)
        if held_back(brief):
            text, said = caption(brief, random.Random(f"{seed}/caption"), HELD_BACK_FORMS)
            found.append(Asked(number - 1, brief, text, frozenset(said), codes))
    return found


def verdicts(asked: Asked, found: Found) -> dict[str, tuple[str, bool]]:
    """For each attribute that the caption says: the value, and whether the audio has it."""
    brief = asked.brief
    speed = next(name for name, frames in SPEEDS.items() if found.frames in frames)
    compared = {
        "tempo": ("speed", brief.speed, speed),
        "mode": ("mode", brief.mode, found.mode),
        "brightness": ("bright", *named(("dark", "bright"), brief.bright, found.centroid > BRIGHT)),
        "drums": ("kit", *named(("without", "with"), bool(brief.groove), found.drums > DRUMMED)),
        "density": (
            "density", brief.density, ("sparse", "dense")[found.onsets > DENSE],
        ),
        "tonic": ("key", NAMES[brief.tonic], NAMES[found.tonic]),
    }  # fmt: skip
    return {
        name: (due, due == heard)
        for name, (attribute, due, heard) in compared.items()
        if attribute in asked.said
    }


def named(values: tuple[str, str], *places: bool) -> tuple[str, ...]:
    return tuple(values[place] for place in places)


def faults(found: Found) -> dict[str, bool]:
    """What no audio should have. A click is a jump that the generator's own audio never makes."""
    return {
        "silent": found.rms < analysis.SILENT,
        "clipped": found.peak >= analysis.CLIPPED,
        "clicks": found.jump > analysis.JUMP,
    }


def decoded(codec: Any, codes: notation.Codes) -> Samples:
    """The codec's audio of tokens."""
    with torch.no_grad():
        made = codec.decode(torch.from_numpy(codes)[None, None], [None]).audio_values
    return np.asarray(made[0, 0].numpy(), dtype=np.float64)


def distance(one: Samples, other: Samples) -> float:
    """Mean difference of two sounds' spectra in 40 bands, in dB; below -80 dB all is silence."""
    levels = []
    for audio in (one, other):
        _, spectrum = analysis.spectra(audio, 1024, HOP)
        edges = np.unique(np.geomspace(3, len(spectrum), 41).astype(int))
        power = np.add.reduceat(spectrum**2, edges[:-1], axis=0)
        levels.append(10 * np.log10(power + 1e-8))
    return float(np.abs(levels[0] - levels[1]).mean())


def table(tallies: Sequence[tuple[str, Tally]]) -> str:
    """The figures in Markdown, a column for each thing judged: shares, balanced in brackets."""
    heads, last = [title for title, _ in tallies], tallies[-1][1]
    lines = [
        f"| attribute | chance | {' | '.join(heads)} |",
        f"|---|---|{'---|' * len(heads)}",
    ]
    for name in ATTRIBUTES:
        shares = " | ".join(f"{t.share(name):.0%} ({t.balanced(name):.0%})" for _, t in tallies)
        asked = last.asked[name].total()
        lines.append(f"| {name} (of {asked}) | {last.chance(name):.0%} | {shares} |")
    for fault in ("silent", "clipped", "clicks"):
        counts = " | ".join(f"{found.faults[fault]} of {found.count}" for _, found in tallies)
        lines.append(f"| {fault} | | {counts} |")
    lines += ["", f"| {heads[-1]}, by what was asked for | |", "|---|---|"]
    return "\n".join([*lines, *(f"| {name} | {last.values(name)} |" for name in ATTRIBUTES)])


def judged(asked: Sequence[Asked], make: Callable[[Asked], Samples]) -> Tally:
    found = Tally()
    for question in asked:
        found.add(question, make(question))
    return found


def codec_distances(codec: Any, asked: Sequence[Asked]) -> tuple[float, float]:
    """Of the codec's audio from the generator's, in dB; and, to compare, from the next piece's."""
    own = [rendering.play(question.codes) for question in asked]
    made = [decoded(codec, question.codes) for question in asked]
    same = [distance(a, b) for a, b in zip(own, made, strict=True)]
    other = [distance(a, b) for a, b in zip(own[1:], made, strict=False)]
    return float(np.mean(same)), float(np.mean(other))
