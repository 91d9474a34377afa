"""Hearing first: the encoder learns what sounds when, before the decoder writes it down.

Left to the decoder alone, covers had the rhythm and not the notes: 0.27 of them on held-back rows,
though a linear probe found 0.83 of them in what the encoder had made of the sound. The decoder did
not know where to look. So the encoder is first made to tell of each frame to which of the row's
steps it belongs, and which notes begin there; and then attention is taught to look at the step of
the note that is written.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch.nn import functional

from scripts.embedded_model import piano
from scripts.embedded_model.piano import COMPOSERS, STEPS

HEAD: Final = "hearing."  # what tells the steps and notes; it is not shipped
LEARNED: Final = (HEAD, "encoder.", "mel_conditioner.")  # by names of the whole model
NOTES: Final = 128
RARE: Final = -4.0  # the notes' first logits: most do not begin
EARLY: Final = 0.3  # of a step: how much before it a note may begin; see `piano.on_grid`
LOOKING: Final = 2  # heads of each layer that look at the note's own step; the others are free
NOWHERE: Final = -100


@dataclass(frozen=True, slots=True)
class Due:
    """What is to be heard in a batch of rows.

    `steps` (rows, time): the step that a frame belongs to, `NOWHERE` where the row is over.
    `notes` (rows, STEPS, composers, NOTES): 1 for the notes that begin at a step.
    """

    steps: torch.Tensor
    notes: torch.Tensor


def head(width: int) -> torch.nn.Linear:
    """What tells them, for each frame: a score of each step, then of each composer's notes."""
    made = torch.nn.Linear(width, STEPS + len(COMPOSERS) * NOTES)
    with torch.no_grad():
        made.weight.zero_()
        made.bias.zero_()
        made.bias[STEPS:] = RARE
    return made


def due(lengths: Sequence[int], rows: Sequence[Sequence[Sequence[int]]]) -> Due:
    """From the rows' lengths in frames, and the tokens of each row's composers."""
    steps = torch.full((len(lengths), max(lengths)), NOWHERE)
    notes = torch.zeros(len(rows), STEPS, len(COMPOSERS), NOTES)
    for row, (length, composers) in enumerate(zip(lengths, rows, strict=True)):
        steps[row, :length] = torch.tensor([step_of(frame, length) for frame in range(length)])
        for composer, tokens in enumerate(composers):
            for step, pitch in piano.begun(tokens):
                notes[row, step, composer, pitch] = 1
    return Due(steps, notes)


def step_of(frame: int, length: int) -> int:
    """The step of a row that a frame of so many belongs to."""
    return min(STEPS - 1, int(frame * STEPS / (length - 1) + EARLY))


def losses(made: Any, encoded: torch.Tensor, asked: Due) -> torch.Tensor:
    """Nats for a frame's notes, summed over the pitches of a composer, and for its step."""
    steps, notes = told(made, encoded)
    inside = asked.steps != NOWHERE
    sounding = functional.binary_cross_entropy_with_logits(
        notes[inside], spread(asked)[inside], reduction="sum"
    )
    return torch.stack(
        [
            sounding / (int(inside.sum()) * len(COMPOSERS)),
            functional.cross_entropy(steps[inside], asked.steps[inside]),
        ]
    )


def told(made: Any, encoded: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores of steps, (rows, time, STEPS), and of notes, (rows, time, composers, NOTES).

    `encoded` is the encoder's output, which begins with the composer: (rows, 1 + time, width).
    """
    scores = made(encoded[:, 1:]).float()
    return scores[..., :STEPS], scores[..., STEPS:].unflatten(-1, (len(COMPOSERS), NOTES))


def spread(asked: Due) -> torch.Tensor:
    """The notes of each frame's step, (rows, time, composers, NOTES)."""
    places = asked.steps.clamp(min=0)[..., None, None].expand(-1, -1, len(COMPOSERS), NOTES)
    return asked.notes.gather(1, places)


def looked(attentions: Sequence[torch.Tensor], at: torch.Tensor, asked: Due) -> torch.Tensor:
    """How much of each head's attention is on the step of the note that is written.

    `attentions` has for each layer (rows, heads, tokens, 1 + time), and `at` (rows, tokens) the
    step of a note that begins, else `NOWHERE`. Gives (notes, layers, heads).
    """
    there = (asked.steps[:, None] == at[..., None])[:, None]  # of each token and frame
    written = at != NOWHERE
    return torch.stack(
        [
            (layer[..., 1:].float() * there).sum(-1).transpose(1, 2)[written]
            for layer in attentions
        ],
        dim=1,
    )  # fmt: skip


def astray(shares: torch.Tensor) -> torch.Tensor:
    """Nats by which the heads that should look at a note's step look elsewhere."""
    return -(shares[:, :, :LOOKING] + 1e-4).log().mean()
