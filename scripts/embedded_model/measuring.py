"""How often generated audio is what its caption says, on captions kept out of training.

The same analysis judges three things: the generator's own audio, which says how far the analysis
can be trusted; the codec's rendering of the same tokens; and what the model makes of the captions.
"""

import random
from collections import Counter
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

SECONDS: Final = 8
FRAMES: Final = 50 * SECONDS
ATTRIBUTES: Final = {
    "tempo (slow, medium, fast)": 1 / 3,
    "mode (major, minor)": 1 / 2,
    "brightness (bright, dark)": 1 / 2,
    "drums (with, without)": 1 / 2,
    "density (dense, sparse)": 1 / 2,
    "tonic (twelve)": 1 / 12,
}  # and what chance would reach
# Set by the generator's own audio of pieces named "calibrate/…".
BRIGHT: Final = 710.0  # Hz
DRUMMED: Final = 3.1
DENSE: Final = 2.1  # onsets per second


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
    """Right answers and questions by attribute."""

    right: Counter[str] = field(default_factory=Counter)
    asked: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    count: int = 0

    def add(self, asked: Asked, audio: Samples) -> None:
        """Analyse the audio that answers a question."""
        found = analysis.analyse(audio)
        self.count += 1
        for fault, there in faults(found).items():
            self.faults[fault] += there
        for name, holds in verdicts(asked, found).items():
            self.asked[name] += 1
            self.right[name] += holds
            if not holds:
                self.wrong.append(f"{asked.number} {name}: {asked.text}")

    def share(self, name: str) -> str:
        """How often an attribute was right, for a table."""
        asked = self.asked[name]
        return f"{self.right[name] / asked:.0%} of {asked}" if asked else "–"


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


def verdicts(asked: Asked, found: Found) -> dict[str, bool]:
    """For each attribute that the caption says: whether the audio has it."""
    brief, said = asked.brief, asked.said
    names = list(ATTRIBUTES)
    speed = next(name for name, frames in SPEEDS.items() if found.frames in frames)
    held = {
        names[0]: ("speed", speed == brief.speed),
        names[1]: ("mode", found.mode == brief.mode),
        names[2]: ("bright", (found.centroid > BRIGHT) == brief.bright),
        names[3]: ("kit", (found.drums > DRUMMED) == bool(brief.groove)),
        names[4]: ("density", (found.onsets > DENSE) == (brief.density == "dense")),
        names[5]: ("key", found.tonic == brief.tonic),
    }
    return {name: holds for name, (attribute, holds) in held.items() if attribute in said}


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
    """The figures in Markdown, a column for each thing judged."""
    heads = [title for title, _ in tallies]
    lines = [
        f"| attribute | chance | {' | '.join(heads)} |",
        f"|---|---|{'---|' * len(heads)}",
    ]
    for name, chance in ATTRIBUTES.items():
        shares = " | ".join(found.share(name) for _, found in tallies)
        lines.append(f"| {name} | {chance:.0%} | {shares} |")
    for fault in ("silent", "clipped", "clicks"):
        counts = " | ".join(f"{found.faults[fault]} of {found.count}" for _, found in tallies)
        lines.append(f"| {fault} | | {counts} |")
    return "\n".join(lines)


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
