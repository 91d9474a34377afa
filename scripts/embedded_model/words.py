"""Captions first: the text encoder learns what a brief is before the decoder listens to it.

Left to the decoder alone, captions stayed unused for 500 steps, and what a text encoder had learned
was lost again: what they decide is a few of a piece's thousand tokens, all others are noise to it.
So the mean of the encoded words, as the decoder gets them, is first made to tell each attribute, as
far as the caption says it, and stays so.
"""

import random
from collections.abc import Callable
from typing import Any, Final

import torch
from torch.nn import functional

from scripts.embedded_model.brief import GROOVES, SPEEDS, Brief, draw
from scripts.embedded_model.captions import caption, held_back
from scripts.embedded_model.vocabulary import BASS_SOUNDS, CHORD_SOUNDS, LEAD_SOUNDS, MODES

CAPTIONS: Final = 128  # of a step
# The attributes' values; what a brief leaves out is a value too.
VALUES: Final[dict[str, tuple[object, ...]]] = {
    "frames": tuple(frames for speed in SPEEDS.values() for frames in speed),
    "tonic": tuple(range(12)),
    "mode": MODES,
    "bright": (False, True),
    "density": ("sparse", "even", "dense"),
    "groove": ("", *GROOVES),
    "lead": LEAD_SOUNDS,
    "part": ("melody", "arpeggio"),
    "chords": ("", *CHORD_SOUNDS),
    "bass": ("", *BASS_SOUNDS),
}
HEAD: Final = "lm_head."  # what tells the attributes; it is not shipped
CLASSES: Final = sum(len(values) for values in VALUES.values())


def briefs(seed: int, step: int) -> list[tuple[Brief, str]]:
    """A step's briefs and captions; none of a combination that is held back."""
    chance = random.Random(f"words/{seed}/{step}")
    found: list[tuple[Brief, str]] = []
    while len(found) < CAPTIONS:
        brief = draw(chance)
        if not held_back(brief):
            found.append((brief, caption(brief, chance)[0]))
    return found


def losses(
    model: Any, head: Any, words: Callable[..., Any], given: list[tuple[Brief, str]], device: str
) -> torch.Tensor:
    """The loss of each attribute, in nats."""
    said = words([text for _, text in given], return_tensors="pt", padding=True).to(device)
    mask = said["attention_mask"]
    with torch.autocast(device, torch.bfloat16):
        heard = model.text_encoder(input_ids=said["input_ids"], attention_mask=mask)[0]
        heard = model.enc_to_dec_proj(heard) * mask[..., None]
        told = head(heard.sum(1) / mask.sum(1, keepdim=True)).float()
    parts = told.split([len(values) for values in VALUES.values()], dim=1)
    return torch.stack(
        [
            functional.cross_entropy(part, due(name, given, device))
            for name, part in zip(VALUES, parts, strict=True)
        ]
    )


def due(name: str, given: list[tuple[Brief, str]], device: str) -> torch.Tensor:
    """The right answers for an attribute, as places in `VALUES`."""
    places = [VALUES[name].index(getattr(brief, name)) for brief, _ in given]
    return torch.tensor(places, device=device)
