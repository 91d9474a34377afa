"""The training steps of the language model: captions first, then pieces with captions.

Trained together from the start, captions stayed unused for 500 steps, and a trained text encoder
was spoilt again: a caption decides few of a piece's thousand tokens, all other gradients are noise
to it. The text encoder is therefore trained first. The mean of its output, as the decoder receives
it, has to predict the attributes of the brief. It is then frozen.
"""

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch.nn import functional

from scripts.models.music.brief import (
    BASS_SOUNDS,
    CHORD_SOUNDS,
    GROOVES,
    LEAD_SOUNDS,
    MODES,
    SPEEDS,
    Brief,
    draw_brief,
)
from scripts.models.music.captions import is_held_out, write_caption
from scripts.models.music.model import codebook_losses, positions_from
from scripts.models.music.tokens import Codes, apply_delay, compose_piece


@dataclass(frozen=True, slots=True)
class BatchConfig:
    """The sizes of the batches. The defaults are the shipped model's.

    What a caption decides shows in the first second of a piece: many openings teach words. Crops of
    five seconds teach bars. The last crops have ten seconds, the length of a typical request.
    """

    # Of the first stage.
    captions: int = 128
    # Pieces and columns of a step of the second stage.
    openings: tuple[int, int] = (64, 68)
    short_crops: tuple[int, int] = (16, 260)
    long_crops: tuple[int, int] = (8, 516)


SHIPPED_BATCHES: Final = BatchConfig()
# The attributes' values; what a brief leaves out is a value too.
ATTRIBUTE_VALUES: Final[dict[str, tuple[object, ...]]] = {
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
# Prefix of the attribute head's parameters, which are not exported.
ATTRIBUTE_HEAD: Final = "lm_head."
ATTRIBUTE_CLASSES: Final = sum(len(values) for values in ATTRIBUTE_VALUES.values())


def draw_captions(
    seed: int, step: int, count: int = SHIPPED_BATCHES.captions
) -> list[tuple[Brief, str]]:
    """Draw a step's briefs and captions, none of them held out."""
    rng = random.Random(f"words/{seed}/{step}")
    captions: list[tuple[Brief, str]] = []
    while len(captions) < count:
        brief = draw_brief(rng)
        if not is_held_out(brief):
            captions.append((brief, write_caption(brief, rng)[0]))
    return captions


def attribute_losses(
    model: Any,
    head: Any,
    tokenize: Callable[..., Any],
    captions: list[tuple[Brief, str]],
    device: str,
) -> torch.Tensor:
    """Return the loss of each attribute in nats."""
    encoding = tokenize([text for _, text in captions], return_tensors="pt", padding=True).to(
        device
    )
    mask = encoding["attention_mask"]
    with torch.autocast(device, torch.bfloat16):
        encoded = model.text_encoder(input_ids=encoding["input_ids"], attention_mask=mask)[0]
        encoded = model.enc_to_dec_proj(encoded) * mask[..., None]
        logits = head(encoded.sum(1) / mask.sum(1, keepdim=True)).float()
    parts = logits.split([len(values) for values in ATTRIBUTE_VALUES.values()], dim=1)
    return torch.stack(
        [
            functional.cross_entropy(part, attribute_targets(name, captions, device))
            for name, part in zip(ATTRIBUTE_VALUES, parts, strict=True)
        ]
    )


def attribute_targets(name: str, captions: list[tuple[Brief, str]], device: str) -> torch.Tensor:
    """Return the correct classes of an attribute, as indices in `ATTRIBUTE_VALUES`."""
    indices = [ATTRIBUTE_VALUES[name].index(getattr(brief, name)) for brief, _ in captions]
    return torch.tensor(indices, device=device)


# The share of pieces without a caption, which classifier-free guidance needs.
NO_CAPTION_SHARE: Final = (
    0.12  # of the pieces come without a caption: what guidance leads away from
)
# The share of batches that are cropped from later in a piece.
CROP_SHARE: Final = 0.25
# The latest frame at which a crop begins.
MAX_CROP_START: Final = 1_000


@dataclass(frozen=True, slots=True)
class MusicBatch:
    """The pieces of a step.

    `text`: token ids of the captions. `mask`: 1 for the words that count, all 0 for no caption.
    `columns`: delayed tokens (pieces, books, columns). `start`: the position of the first column.
    """

    text: torch.Tensor
    mask: torch.Tensor
    columns: torch.Tensor
    start: int


def draw_music_batch(
    tokenize: Callable[..., Any],
    seed: int,
    step: int,
    config: BatchConfig = SHIPPED_BATCHES,
    *,
    longer: bool,
) -> MusicBatch:
    """Draw a step's pieces from the seed and the step's number alone.

    Every other step has openings of pieces. `longer` makes the other steps ten instead of five
    seconds.
    """
    rng = random.Random(f"step/{seed}/{step}")
    is_opening = step % 2 == 0
    crops = config.long_crops if longer else config.short_crops
    count, length = config.openings if is_opening else crops
    is_crop = not is_opening and rng.random() < CROP_SHARE
    start = rng.randrange(1, MAX_CROP_START) if is_crop else 0
    texts, rows, has_caption = [], [], []
    for number in range(count):
        codes, text = draw_training_piece(f"train/{seed}/{step}/{number}", start + length)
        rows.append(apply_delay(codes)[:, start : start + length])
        texts.append(text)
        has_caption.append(rng.random() >= NO_CAPTION_SHARE)
    encoding = tokenize(texts, return_tensors="pt", padding=True)
    mask = encoding["attention_mask"] * torch.tensor(has_caption)[:, None]
    return MusicBatch(encoding["input_ids"], mask, torch.from_numpy(np.stack(rows)), start)


def draw_training_piece(name: str, frames: int) -> tuple[Codes, str]:
    """Return a piece that is not held out, and its caption."""
    for retry in itertools.count():
        seed = f"{name}/{retry}"
        brief, _, codes = compose_piece(seed, frames)
        if not is_held_out(brief):
            return codes, write_caption(brief, random.Random(f"{seed}/caption"))[0]
    raise AssertionError("counting has no end")


def music_losses(model: Any, batch: MusicBatch, device: str) -> torch.Tensor:
    """Return the loss of each book, computed in bfloat16."""
    target = {"device": device}
    with positions_from(model, batch.start), torch.autocast(device, torch.bfloat16):
        return codebook_losses(
            model, batch.text.to(**target), batch.mask.to(**target), batch.columns.to(**target)
        )
