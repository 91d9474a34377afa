"""Evaluation of the music model: how often audio has the attributes that its caption names.

The same audio analysis judges three sources: the reference audio, which shows how reliable the
analysis is; the codec's audio of the same tokens; and the model's audio for held-out captions.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

import numpy as np

from scripts.models.common.audio_analysis import (
    CLICK_THRESHOLD,
    CLIPPING_PEAK,
    SILENCE_RMS,
    AudioFeatures,
    analyse,
    spectral_distance,
)
from scripts.models.music.brief import SPEEDS, Brief
from scripts.models.music.captions import HELD_OUT_FORMS, is_held_out, write_caption
from scripts.models.music.codec import decode_audio
from scripts.models.music.composition import NOTE_NAMES
from scripts.models.music.instruments import Samples
from scripts.models.music.render import render_tokens
from scripts.models.music.tokens import Codes, compose_piece

PIECE_SECONDS: Final = 8
PIECE_FRAMES: Final = 50 * PIECE_SECONDS
# The evaluated attributes, and the number of values of each.
ATTRIBUTE_COUNTS: Final = {
    "tempo": 3,
    "mode": 2,
    "brightness": 2,
    "drums": 2,
    "density": 2,
    "tonic": 12,
}
# Thresholds of `AudioFeatures`: centroid in Hz, drums, onsets per second. They were set on
# reference audio: `scripts/embed measure music --calibrate`.
BRIGHT_THRESHOLD: Final = 712.0
DRUM_THRESHOLD: Final = 3.1
DENSE_THRESHOLD: Final = 2.36


@dataclass(frozen=True, slots=True)
class HeldOutCaption:
    """A held-out caption: its brief, the attributes it expresses, and the piece it describes."""

    number: int
    brief: Brief
    text: str
    attributes: frozenset[str]
    codes: Codes


@dataclass(slots=True)
class Tally:
    """Correct answers and questions, by attribute and expected value."""

    right: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    asked: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    faults: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    count: int = 0

    def add(self, question: HeldOutCaption, audio: Samples) -> None:
        """Analyse the audio that answers a question."""
        features = analyse(audio)
        self.count += 1
        for fault, present in find_faults(features).items():
            self.faults[fault] += present
        for name, (value, holds) in _compare_attributes(question, features).items():
            self.asked[name][value] += 1
            self.right[name][value] += holds
            if not holds:
                self.wrong.append(f"{question.number} {name}: {question.text}")

    def share(self, name: str) -> float:
        """Return how often an attribute was correct, or 0 if it was never asked for."""
        return self.right[name].total() / max(1, self.asked[name].total())

    def balanced(self, name: str) -> float:
        """Return the mean of the shares by value, which guessing the commonest does not raise."""
        asked, right = self.asked[name], self.right[name]
        return sum(right[value] / asked[value] for value in asked) / max(1, len(asked))

    def chance(self, name: str) -> float:
        """Return the share of a random guess or of the commonest value, whichever is larger."""
        asked = self.asked[name]
        return max(
            1 / ATTRIBUTE_COUNTS[name], max(asked.values(), default=0) / max(1, asked.total())
        )

    def values(self, name: str) -> str:
        """Return correct answers by value, for a table."""
        asked, right = self.asked[name], self.right[name]
        return ", ".join(f"{value} {right[value]} of {asked[value]}" for value in sorted(asked))


def held_out_captions(count: int) -> list[HeldOutCaption]:
    """Return captions with attributes and sentence forms that training never saw."""
    captions: list[HeldOutCaption] = []
    number = 0
    while len(captions) < count:
        seed, number = f"held back/{number}", number + 1
        brief, _, codes = compose_piece(seed, PIECE_FRAMES)
        if is_held_out(brief):
            text, attributes = write_caption(
                brief, random.Random(f"{seed}/caption"), HELD_OUT_FORMS
            )
            captions.append(HeldOutCaption(number - 1, brief, text, frozenset(attributes), codes))
    return captions


def _compare_attributes(
    question: HeldOutCaption, features: AudioFeatures
) -> dict[str, tuple[str, bool]]:
    """Return, for each attribute of the caption, the expected value and whether it was met."""
    brief = question.brief
    speed = next(name for name, frames in SPEEDS.items() if features.frames in frames)
    sounds_bright = features.centroid > BRIGHT_THRESHOLD
    sounds_drummed = features.drums > DRUM_THRESHOLD
    sounds_dense = features.onsets > DENSE_THRESHOLD
    # By attribute: the caption's key for it, the expected value, the measured value.
    comparisons = {
        "tempo": ("speed", brief.speed, speed),
        "mode": ("mode", brief.mode, features.mode),
        "brightness": ("bright", *_choose_names(("dark", "bright"), brief.bright, sounds_bright)),
        "drums": ("kit", *_choose_names(("without", "with"), bool(brief.groove), sounds_drummed)),
        "density": ("density", brief.density, ("sparse", "dense")[sounds_dense]),
        "tonic": ("key", NOTE_NAMES[brief.tonic], NOTE_NAMES[features.tonic]),
    }
    return {
        name: (expected, expected == measured)
        for name, (attribute, expected, measured) in comparisons.items()
        if attribute in question.attributes
    }


def _choose_names(values: tuple[str, str], *choices: bool) -> tuple[str, ...]:
    return tuple(values[place] for place in choices)


def find_faults(features: AudioFeatures) -> dict[str, bool]:
    """Return the faults of audio. A click is a larger jump than reference audio ever has."""
    return {
        "silent": features.rms < SILENCE_RMS,
        "clipped": features.peak >= CLIPPING_PEAK,
        "clicks": features.jump > CLICK_THRESHOLD,
    }


def attribute_table(tallies: Sequence[tuple[str, Tally]]) -> str:
    """Return a Markdown table with a column per source: shares, balanced shares in brackets."""
    titles, last = [title for title, _ in tallies], tallies[-1][1]
    lines = [
        f"| attribute | chance | {' | '.join(titles)} |",
        f"|---|---|{'---|' * len(titles)}",
    ]
    for name in ATTRIBUTE_COUNTS:
        shares = " | ".join(f"{t.share(name):.0%} ({t.balanced(name):.0%})" for _, t in tallies)
        total = last.asked[name].total()
        lines.append(f"| {name} (of {total}) | {last.chance(name):.0%} | {shares} |")
    for fault in ("silent", "clipped", "clicks"):
        counts = " | ".join(f"{tally.faults[fault]} of {tally.count}" for _, tally in tallies)
        lines.append(f"| {fault} | | {counts} |")
    lines += ["", f"| {titles[-1]}, by what was asked for | |", "|---|---|"]
    return "\n".join([*lines, *(f"| {name} | {last.values(name)} |" for name in ATTRIBUTE_COUNTS)])


def tally_answers(
    questions: Sequence[HeldOutCaption], make: Callable[[HeldOutCaption], Samples]
) -> Tally:
    """Analyse the audio that `make` returns for each question."""
    tally = Tally()
    for question in questions:
        tally.add(question, make(question))
    return tally


def codec_distances(codec: Any, questions: Sequence[HeldOutCaption]) -> tuple[float, float]:
    """Return mean distances in dB: codec to reference, and codec to the next piece."""
    rendered = [render_tokens(question.codes) for question in questions]
    decoded = [decode_audio(codec, question.codes) for question in questions]
    distances = [spectral_distance(a, b) for a, b in zip(rendered, decoded, strict=True)]
    other_distances = [spectral_distance(a, b) for a, b in zip(rendered[1:], decoded, strict=False)]
    return float(np.mean(distances)), float(np.mean(other_distances))


CALIBRATION_PIECES: Final = 150


def calibration_report(pieces: int = CALIBRATION_PIECES) -> str:
    """Return the best thresholds on reference audio, and how well the current ones do."""
    bright, drummed, dense, jumps = [], [], [], []
    for number in range(pieces):
        brief, _, codes = compose_piece(f"calibrate/{number}", PIECE_FRAMES)
        features = analyse(render_tokens(codes))
        bright.append((features.centroid, brief.bright))
        drummed.append((features.drums, bool(brief.groove)))
        if brief.density != "even":
            dense.append((features.onsets, brief.density == "dense"))
        jumps.append(features.jump)
    kinds = (
        ("BRIGHT", bright, BRIGHT_THRESHOLD),
        ("DRUMMED", drummed, DRUM_THRESHOLD),
        ("DENSE", dense, DENSE_THRESHOLD),
    )
    lines = []
    for name, samples, threshold in kinds:
        best = best_threshold(samples)
        lines.append(
            f"{name} {best:.2f} tells {share_correct(samples, best):.1%}; "
            f"{threshold} is set: {share_correct(samples, threshold):.1%}"
        )
    return "\n".join([*lines, f"jumps reach {max(jumps):.3f}; {CLICK_THRESHOLD} is set"])


def best_threshold(samples: Sequence[tuple[float, bool]]) -> float:
    """Return the geometric mean of the lowest and the highest of the best thresholds."""
    edges = sorted({value for value, _ in samples})
    candidates = [float(np.sqrt(lower * upper)) for lower, upper in pairwise(edges)]
    best_share = max(share_correct(samples, middle) for middle in candidates)
    best_candidates = [
        middle for middle in candidates if share_correct(samples, middle) == best_share
    ]
    return float(np.sqrt(best_candidates[0] * best_candidates[-1]))


def share_correct(samples: Sequence[tuple[float, bool]], threshold: float) -> float:
    """Return the share of values that are above the threshold exactly if they should be."""
    return sum((value > threshold) == above for value, above in samples) / len(samples)
