"""A small Pop2Piano, and the auxiliary losses that make its encoder and its attention useful.

With the decoder's loss alone, covers had the right rhythm and the wrong notes: 0.27 of them on
held-out rows, although a linear probe found 0.83 in the encoder's output. The decoder did not know
where to look. So the encoder is first trained to predict, for each frame, its step in the row and
the notes that begin there. Then some attention heads are trained to look at the step of the note
being written.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch.nn import functional
from transformers import (
    GenerationConfig,
    Pop2PianoConfig,
    Pop2PianoFeatureExtractor,
    Pop2PianoForConditionalGeneration,
    Pop2PianoProcessor,
    Pop2PianoTokenizer,
)

from scripts.models.piano.score import COMPOSERS, END_TOKEN, STEPS_PER_ROW, VOCABULARY, note_onsets

# `_init_position_bias` has a pattern for each of them.
HEADS: Final = 4
# The longest row that the model can write.
MAX_ROW_TOKENS: Final = 120
# The feature extractor's value for no sound.
SILENCE: Final = float(np.log(1e-6))
# A part of the names of parameters that learn faster, to tell distances sharply.
POSITION_BIAS: Final = "relative_attention_bias"


@dataclass(frozen=True, slots=True)
class PianoConfig:
    """The size of a Pop2Piano. The default is the shipped model's."""

    # Bands of the mel spectrogram. Pop2Piano feeds them to the model without a projection.
    width: int = 192
    head_width: int = 48
    feed_forward_width: int = 512
    layers: int = 3
    # Distances that attention tells apart: all of tokens, 64 frames each way.
    distances: int = 256


SHIPPED_SIZE: Final = PianoConfig()


def build_piano_model(config: PianoConfig = SHIPPED_SIZE) -> Pop2PianoForConditionalGeneration:
    """Return the untrained model. Its weights come from torch's generator."""
    model = Pop2PianoForConditionalGeneration(
        Pop2PianoConfig(
            vocab_size=len(VOCABULARY), composer_vocab_size=len(COMPOSERS), d_model=config.width,
            d_kv=config.head_width, d_ff=config.feed_forward_width, num_layers=config.layers,
            num_heads=HEADS, decoder_start_token_id=0, dropout_rate=0.0,
            relative_attention_num_buckets=config.distances,
            relative_attention_max_distance=config.distances,
        )
    )  # fmt: skip
    _init_position_bias(
        model.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight
    )
    model.generation_config = GenerationConfig(
        decoder_start_token_id=0, pad_token_id=0, eos_token_id=END_TOKEN, max_length=MAX_ROW_TOKENS,
        composer_to_feature_token={
            name: len(VOCABULARY) + place for place, name in enumerate(COMPOSERS)
        },
    )  # fmt: skip
    return model


@torch.no_grad()  # type: ignore[untyped-decorator]
def _init_position_bias(bias: torch.Tensor) -> None:
    """Initialise four heads to look nearby, everywhere, before and after a frame.

    After 240 encoder steps, 0.69 of held-out frames had the correct step. It was 0.61 with random
    biases, and 0.59 without their higher learning rate.
    """
    half = len(bias) // 2  # distances to frames before, then to those after
    distances = torch.arange(half, dtype=bias.dtype)
    nearby_head, global_head, past_head, future_head = bias.T
    nearby_head.copy_(torch.cat([-distances, -distances]))
    global_head.zero_()
    past_head.copy_(torch.cat([-distances / 16, torch.full((half,), -8.0)]))
    future_head.copy_(torch.cat([torch.full((half,), -8.0), -distances / 16]))
    future_head[0] = 0.0  # the frame itself


def feature_extractor(width: int = SHIPPED_SIZE.width) -> Pop2PianoFeatureExtractor:
    return Pop2PianoFeatureExtractor(feature_size=width)


def save_piano_model(model: Any, folder: Path) -> None:
    """Write the model's folder, except for its card."""
    model.save_pretrained(folder)
    vocabulary = folder / "vocab.json"
    vocabulary.write_text(json.dumps(VOCABULARY))
    Pop2PianoProcessor(feature_extractor(), Pop2PianoTokenizer(str(vocabulary))).save_pretrained(
        folder
    )


# Prefix of the onset head's parameters, which are not exported.
ONSET_HEAD: Final = "hearing."
ENCODER_PREFIXES: Final = (
    ONSET_HEAD,
    "encoder.",
    "mel_conditioner.",
)  # by names of the whole model
PITCHES: Final = 128
# Most notes do not begin at a given step.
INITIAL_LOGIT: Final = -4.0
# A note may begin this share of a step early; see `score.quantize`.
EARLY_STEPS: Final = 0.3
ALIGNED_HEADS: Final = (
    2  # heads of each layer that look at the note's own step; the others are free
)
IGNORED: Final = -100


@dataclass(frozen=True, slots=True)
class OnsetTargets:
    """The correct predictions for a batch of rows.

    `steps` (rows, time): the step that a frame belongs to, `IGNORED` after the end of the row.
    `notes` (rows, STEPS_PER_ROW, composers, PITCHES): 1 for notes that begin at a step.
    """

    steps: torch.Tensor
    notes: torch.Tensor


def build_onset_head(width: int) -> torch.nn.Linear:
    """Return the layer that predicts, per frame, its step and each composer's notes."""
    head = torch.nn.Linear(width, STEPS_PER_ROW + len(COMPOSERS) * PITCHES)
    with torch.no_grad():
        head.weight.zero_()
        head.bias.zero_()
        head.bias[STEPS_PER_ROW:] = INITIAL_LOGIT
    return head


def onset_targets(lengths: Sequence[int], rows: Sequence[Sequence[Sequence[int]]]) -> OnsetTargets:
    """Return targets from the rows' lengths in frames and the tokens for each composer."""
    steps = torch.full((len(lengths), max(lengths)), IGNORED)
    notes = torch.zeros(len(rows), STEPS_PER_ROW, len(COMPOSERS), PITCHES)
    for row, (length, composers) in enumerate(zip(lengths, rows, strict=True)):
        steps[row, :length] = torch.tensor(
            [_step_of_frame(frame, length) for frame in range(length)]
        )
        for composer, tokens in enumerate(composers):
            for step, pitch in note_onsets(tokens):
                notes[row, step, composer, pitch] = 1
    return OnsetTargets(steps, notes)


def _step_of_frame(frame: int, length: int) -> int:
    """Return the step of a row to which a frame belongs."""
    return min(STEPS_PER_ROW - 1, int(frame * STEPS_PER_ROW / (length - 1) + EARLY_STEPS))


def onset_losses(head: Any, encoded: torch.Tensor, targets: OnsetTargets) -> torch.Tensor:
    """Return the nats of a frame's notes, summed over a composer's pitches, and of its step."""
    steps, notes = onset_logits(head, encoded)
    is_frame = targets.steps != IGNORED
    note_loss = functional.binary_cross_entropy_with_logits(
        notes[is_frame], frame_notes(targets)[is_frame], reduction="sum"
    )
    return torch.stack(
        [
            note_loss / (int(is_frame.sum()) * len(COMPOSERS)),
            functional.cross_entropy(steps[is_frame], targets.steps[is_frame]),
        ]
    )


def onset_logits(head: Any, encoded: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits of steps (rows, time, STEPS_PER_ROW) and notes (…, composers, PITCHES).

    `encoded` is the encoder's output, which begins with the composer: (rows, 1 + time, width).
    """
    scores = head(encoded[:, 1:]).float()
    return scores[..., :STEPS_PER_ROW], scores[..., STEPS_PER_ROW:].unflatten(
        -1, (len(COMPOSERS), PITCHES)
    )


def frame_notes(targets: OnsetTargets) -> torch.Tensor:
    """Return the notes of each frame's step, (rows, time, composers, PITCHES)."""
    index = targets.steps.clamp(min=0)[..., None, None].expand(-1, -1, len(COMPOSERS), PITCHES)
    return targets.notes.gather(1, index)


def step_attention(
    attentions: Sequence[torch.Tensor], onset_steps: torch.Tensor, targets: OnsetTargets
) -> torch.Tensor:
    """Return how much of each head's attention is on the step of the note being written.

    `attentions` has (rows, heads, tokens, 1 + time) for each layer; `onset_steps` (rows, tokens)
    has the step of a note that begins, else `IGNORED`. Returns (notes, layers, heads).
    """
    is_step = (targets.steps[:, None] == onset_steps[..., None])[:, None]  # of each token and frame
    is_onset = onset_steps != IGNORED
    return torch.stack(
        [
            (layer[..., 1:].float() * is_step).sum(-1).transpose(1, 2)[is_onset]
            for layer in attentions
        ],
        dim=1,
    )  # fmt: skip


def alignment_loss(shares: torch.Tensor) -> torch.Tensor:
    """Return the nats by which the aligned heads miss a note's step."""
    return -(shares[:, :, :ALIGNED_HEADS] + 1e-4).log().mean()
