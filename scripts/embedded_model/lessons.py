"""What each step of the language model's training looks at."""

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch

from scripts.embedded_model import language, notation
from scripts.embedded_model.captions import caption, held_back

UNTOLD: Final = 0.12  # of the pieces come without a caption: what guidance leads away from
LATER: Final = 0.25  # of the batches are crops from later in a piece
LATEST: Final = 1_000  # frames into a piece
# Pieces and columns of a step. What a caption decides shows in the first second: many openings
# teach words; fives of seconds teach bars; and at the end there are ten, as a listener wants.
OPENINGS: Final = (64, 68)
SHORT: Final = (16, 260)
LONG: Final = (8, 516)


@dataclass(frozen=True, slots=True)
class Lesson:
    """Captions, which words count, tokens (pieces, books, columns), the first one's position."""

    text: torch.Tensor
    mask: torch.Tensor
    columns: torch.Tensor
    start: int


def lesson(words: Callable[..., Any], seed: int, step: int, *, longer: bool) -> Lesson:
    """A step's pieces, drawn from the seed and the step's number alone: every other one openings.

    `longer`: the other half of the steps is on ten seconds rather than five.
    """
    chance = random.Random(f"step/{seed}/{step}")
    opening = step % 2 == 0
    count, length = OPENINGS if opening else LONG if longer else SHORT
    later = not opening and chance.random() < LATER
    start = chance.randrange(1, LATEST) if later else 0
    texts, rows, told = [], [], []
    for number in range(count):
        codes, text = taught(f"train/{seed}/{step}/{number}", start + length)
        rows.append(notation.delayed(codes)[:, start : start + length])
        texts.append(text)
        told.append(chance.random() >= UNTOLD)
    said = words(texts, return_tensors="pt", padding=True)
    mask = said["attention_mask"] * torch.tensor(told)[:, None]
    return Lesson(said["input_ids"], mask, torch.from_numpy(np.stack(rows)), start)


def taught(name: str, frames: int) -> tuple[notation.Codes, str]:
    """A piece and its caption, of a combination of attributes that is not held back."""
    for again in itertools.count():
        seed = f"{name}/{again}"
        brief, _, codes = notation.piece(seed, frames)
        if not held_back(brief):
            return codes, caption(brief, random.Random(f"{seed}/caption"))[0]
    raise AssertionError("counting has no end")


def loss(model: Any, given: Lesson, device: str) -> torch.Tensor:
    """The loss of each book, computed in 16 bits."""
    place = {"device": device}
    with language.positions_from(model, given.start), torch.autocast(device, torch.bfloat16):
        return language.losses(
            model, given.text.to(**place), given.mask.to(**place), given.columns.to(**place)
        )
