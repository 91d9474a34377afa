"""A small Pop2Piano, and what it learns from: generated songs and their piano parts."""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import librosa
import numpy as np
import torch
from transformers import (
    GenerationConfig,
    Pop2PianoConfig,
    Pop2PianoFeatureExtractor,
    Pop2PianoForConditionalGeneration,
    Pop2PianoProcessor,
    Pop2PianoTokenizer,
)

from scripts.embedded_model import notation, piano, rendering
from scripts.embedded_model.measuring import decoded
from scripts.embedded_model.percussion import HOP, SAMPLING_RATE
from scripts.embedded_model.piano import COMPOSERS, VOCABULARY, Grid
from scripts.embedded_model.vocabulary import FRAME_RATE

WIDTH: Final = 192  # bands of the mel spectrogram, which are the model's width; see Pop2Piano
LAYERS: Final = 3
LENGTH: Final = 120  # tokens of a row at most
POSITIONS: Final = 256  # distances that attention tells apart: all of tokens, 64 frames each way
SILENCE: Final = float(np.log(1e-6))  # what the feature extractor makes of no sound
FRAMES: Final = 500  # of a training song
PLACES: Final = "relative_attention_bias"  # learn quickly: distances are to be told sharply
SLOWEST, FASTEST = 60.0, 165.0  # beats per minute between which a beat tracker hears a piece
OWN: Final = 0.15  # of the songs are played by the generator's own synthesis, the rest by the codec


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a song, (time, WIDTH), and the tokens of each composer in order."""

    heard: torch.Tensor
    tokens: tuple[list[int], ...]


def untrained() -> Pop2PianoForConditionalGeneration:
    """The model with weights drawn by torch's generator."""
    model = Pop2PianoForConditionalGeneration(
        Pop2PianoConfig(
            vocab_size=len(VOCABULARY), composer_vocab_size=len(COMPOSERS), d_model=WIDTH, d_kv=48,
            d_ff=512, num_layers=LAYERS, num_heads=4, decoder_start_token_id=0, dropout_rate=0.0,
            relative_attention_num_buckets=POSITIONS, relative_attention_max_distance=POSITIONS,
        )
    )  # fmt: skip
    placed(model.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight)
    model.generation_config = GenerationConfig(
        decoder_start_token_id=0, pad_token_id=0, eos_token_id=piano.END, max_length=LENGTH,
        composer_to_feature_token={
            name: len(VOCABULARY) + place for place, name in enumerate(COMPOSERS)
        },
    )  # fmt: skip
    return model


@torch.no_grad()  # type: ignore[untyped-decorator]
def placed(bias: torch.Tensor) -> None:
    """Let frames know their places from the first step: heads that look near, before and after.

    After 240 steps of hearing, 0.69 of held-back frames told their step; 0.61 where these biases
    were drawn at random, and 0.59 where they did not learn more quickly than the rest.
    """
    half = len(bias) // 2  # distances to frames before, then to those after
    away = torch.arange(half, dtype=bias.dtype)
    near, everywhere, before, after = bias.T
    near.copy_(torch.cat([-away, -away]))
    everywhere.zero_()
    before.copy_(torch.cat([-away / 16, torch.full((half,), -8.0)]))
    after.copy_(torch.cat([torch.full((half,), -8.0), -away / 16]))
    after[0] = 0.0  # the frame itself


def extractor() -> Pop2PianoFeatureExtractor:
    return Pop2PianoFeatureExtractor(feature_size=WIDTH)


def save(model: Any, folder: Path) -> None:
    """Write the model's folder, all but its card."""
    model.save_pretrained(folder)
    words = folder / "vocab.json"
    words.write_text(json.dumps(VOCABULARY))
    Pop2PianoProcessor(extractor(), Pop2PianoTokenizer(str(words))).save_pretrained(folder)


def grid(frames: int, chance: random.Random) -> Grid:
    """Steps as a beat tracker may find them: mostly the true tempo, half or double, any first."""
    quarter = 4 * frames
    beats = [
        quarter * factor for factor in (1, 1, 0.5, 2)
        if SLOWEST <= 60 * FRAME_RATE / (quarter * factor) <= FASTEST
    ]  # fmt: skip
    step = chance.choice(beats) / 2
    return Grid(chance.randrange(piano.STEPS) * step + chance.uniform(-1, 1), step)


def rows(codec: Any, listener: Pop2PianoFeatureExtractor, seed: str) -> Iterator[Row]:
    """A song's rows, played by the codec or by the generator's own synthesis."""
    chance = random.Random(f"{seed}/grid")
    brief, _, codes = notation.piece(seed, FRAMES)
    own = chance.random() < OWN
    audio = rendering.play(codes) if own else decoded(codec, codes)
    rate = listener.sampling_rate
    sound = librosa.resample(audio, orig_sr=SAMPLING_RATE, target_sr=rate, res_type="soxr_hq")
    sound *= chance.uniform(0.5, 1.2)
    laid = grid(brief.frames, chance)
    parts = [piano.on_grid(part, laid) for part in piano.parts(codes).values()]
    for row in range(laid.rows(FRAMES)):
        first, end = (max(0, int(edge * HOP / SAMPLING_RATE * rate)) for edge in laid.span(row))
        mel = listener.mel_spectrogram(sound[None, first:end].astype(np.float32))[0]
        heard = torch.from_numpy(np.log(np.clip(mel, 1e-6, None)).T.astype(np.float32))
        written = tuple(piano.written(found, row) for found in parts)
        if max(map(len, written)) < LENGTH:
            yield Row(heard, written)
