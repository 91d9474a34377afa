"""What a step of the cover model learns from, its losses, and how it does on held-back rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch.nn import functional
from transformers import GenerationMixin

from scripts.embedded_model import hearing, piano
from scripts.embedded_model.cover import SILENCE, WIDTH, Row
from scripts.embedded_model.hearing import NOWHERE

Chosen = Sequence[tuple[Row, int]]  # rows, each with the number of its composer
# What each kind of token counts in the loss: most of what ends, and its velocity, is a guess.
COUNTS: Final = {"begun": 1.0, "TIME": 1.0, "SPECIAL": 1.0, "VELOCITY": 0.3, "ended": 0.3}
ASTRAY: Final = 0.2  # of the loss of attention, and
HEARD: Final = 0.3  # of hearing, are added to that of the tokens
HEARING: Final = ("begun notes", "steps")
LOSSES: Final = ("tokens", "astray", *HEARING)


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of a step.

    `heard`: spectrograms (rows, time, WIDTH), padded with silence. `who` (rows,): the composers.
    `words`: tokens (rows, tokens), padded with `NOWHERE`. `at`: the step of those that are notes
    which begin, `NOWHERE` for others. `counts`: of each token in the loss.
    """

    heard: torch.Tensor
    who: torch.Tensor
    words: torch.Tensor
    at: torch.Tensor
    counts: torch.Tensor
    due: hearing.Due


def batch(chosen: Chosen) -> Batch:
    """Rows, padded to the longest."""
    lengths = [len(row.heard) for row, _ in chosen]
    heard = torch.full((len(chosen), max(lengths), WIDTH), SILENCE)
    words = torch.full((len(chosen), max(len(row.tokens[who]) for row, who in chosen)), NOWHERE)
    at, counts = torch.full_like(words, NOWHERE), torch.zeros(words.shape)
    for place, (row, who) in enumerate(chosen):
        heard[place, : len(row.heard)] = row.heard
        words[place, : len(row.tokens[who])] = torch.tensor(row.tokens[who])
        for number, word in enumerate(piano.said(row.tokens[who])):
            counts[place, number] = COUNTS[word.kind]
            if word.kind == "begun":
                at[place, number] = word.step
    due = hearing.due(lengths, [row.tokens for row, _ in chosen])
    return Batch(heard, torch.tensor([who for _, who in chosen]), words, at, counts, due)


def inputs(model: Any, given: Batch) -> torch.Tensor:
    """The composer, then the frames: (rows, 1 + time, WIDTH)."""
    told: torch.Tensor = model.mel_conditioner(
        feature=given.heard, index_value=given.who, embedding_offset=0
    )
    return told


def hearing_losses(model: Any, head: Any, given: Batch) -> torch.Tensor:
    """The losses of the encoder alone, named `HEARING`."""
    encoded = model.encoder(inputs_embeds=inputs(model, given))[0]
    return hearing.losses(head, encoded, given.due)


def losses(model: Any, head: Any, given: Batch) -> torch.Tensor:
    """The weighted losses of the whole model, named `LOSSES`."""
    written = read(model, given)
    found = functional.cross_entropy(
        written.logits.float().flatten(0, 1), given.words.flatten(),
        ignore_index=NOWHERE, reduction="none",
    )  # fmt: skip
    tokens = (found * given.counts.flatten()).sum() / given.counts.sum()
    shares = hearing.looked(written.cross_attentions, given.at, given.due)
    heard = hearing.losses(head, written.encoder_last_hidden_state, given.due)
    return torch.stack([tokens, ASTRAY * hearing.astray(shares), *(HEARD * heard)])


def read(model: Any, given: Batch) -> Any:
    """What the model makes of rows and the tokens so far, attentions included."""
    return model(
        inputs_embeds=inputs(model, given),
        decoder_input_ids=model.prepare_decoder_input_ids_from_labels(given.words),
        output_attentions=True,
    )


@torch.inference_mode()  # type: ignore[untyped-decorator]
def hears(model: Any, head: Any, held: Sequence[Batch]) -> dict[str, float]:
    """F1 of the notes found frame by frame, and the share of frames whose step is found."""
    right = said = due = placed = frames = 0
    for given in held:
        encoded = model.encoder(inputs_embeds=inputs(model, given))[0]
        steps, notes = hearing.told(head, encoded)
        inside = given.due.steps != NOWHERE
        found, true = notes[inside] > 0, hearing.spread(given.due)[inside] > 0
        right += int((found & true).sum())
        said += int(found.sum())
        due += int(true.sum())
        placed += int((steps.argmax(-1) == given.due.steps)[inside].sum())
        frames += int(inside.sum())
    return {"frame f1": 2 * right / max(1, said + due), "steps right": placed / frames}


@torch.inference_mode()  # type: ignore[untyped-decorator]
def covers(model: Any, held: Sequence[Batch]) -> dict[str, float]:
    """F1 of the notes begun in greedy covers, and how much the best head looks at their steps."""
    right = said = due = 0
    shares = []
    for given in held:
        made = GenerationMixin.generate(model, inputs_embeds=inputs(model, given))
        for tokens, words in zip(made.tolist(), given.words.tolist(), strict=True):
            found, true = piano.begun(tokens), piano.begun(words)
            right, said, due = right + len(found & true), said + len(found), due + len(true)
        shares.append(hearing.looked(read(model, given).cross_attentions, given.at, given.due))
    best = torch.cat(shares).mean(0).max()
    return {"note f1": 2 * right / max(1, said + due), "looked": float(best)}
