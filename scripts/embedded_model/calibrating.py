"""What the thresholds of `measuring` and `analysis` are set by: the generator's own audio."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import numpy as np

from scripts.embedded_model import analysis, measuring, notation, rendering

PIECES: Final = 150


def report(pieces: int = PIECES) -> str:
    """Each threshold that tells most pieces named "calibrate/…" right, and what is set, a line."""
    bright, drummed, dense, jumps = [], [], [], []
    for number in range(pieces):
        brief, _, codes = notation.piece(f"calibrate/{number}", measuring.FRAMES)
        found = analysis.analyse(rendering.play(codes))
        bright.append((found.centroid, brief.bright))
        drummed.append((found.drums, bool(brief.groove)))
        if brief.density != "even":
            dense.append((found.onsets, brief.density == "dense"))
        jumps.append(found.jump)
    kinds = (
        ("BRIGHT", bright, measuring.BRIGHT),
        ("DRUMMED", drummed, measuring.DRUMMED),
        ("DENSE", dense, measuring.DENSE),
    )
    lines = [
        f"{name} {best(told):.2f} tells {right(told, best(told)):.1%}; "
        f"{threshold} is set: {right(told, threshold):.1%}"
        for name, told, threshold in kinds
    ]
    return "\n".join([*lines, f"jumps reach {max(jumps):.3f}; {analysis.JUMP} is set"])


def best(told: Sequence[tuple[float, bool]]) -> float:
    """The geometric middle of the lowest and the highest threshold that are right most often."""
    edges = sorted({value for value, _ in told})
    middles = [float(np.sqrt(one * other)) for one, other in pairwise(edges)]
    most = max(right(told, middle) for middle in middles)
    good = [middle for middle in middles if right(told, middle) == most]
    return float(np.sqrt(good[0] * good[-1]))


def right(told: Sequence[tuple[float, bool]], threshold: float) -> float:
    """The share of values that are above the threshold if, and only if, they should be."""
    return sum((value > threshold) == above for value, above in told) / len(told)
