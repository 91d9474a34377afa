"""MusicGen Melody, by text alone: its decoder attends to what precedes it, not across."""

from pathlib import Path

import torch
from transformers import (
    MusicgenMelodyConfig,
    MusicgenMelodyDecoderConfig,
    MusicgenMelodyForConditionalGeneration,
)

from tests.support.tiny_models import musicgen, parts


def build(folder: Path) -> None:
    """Write the model to `folder`."""
    torch.manual_seed(0)
    decoder = MusicgenMelodyDecoderConfig(
        vocab_size=musicgen.ENTRIES,
        hidden_size=musicgen.WIDTH,
        num_hidden_layers=2,
        ffn_dim=2 * musicgen.WIDTH,
        num_attention_heads=4,
        num_codebooks=4,
        pad_token_id=musicgen.ENTRIES,
        bos_token_id=musicgen.ENTRIES,
        max_position_embeddings=512,
    )
    config = MusicgenMelodyConfig(
        text_encoder=musicgen.text_encoder(),
        audio_encoder=parts.encodec(musicgen.ENTRIES, 1.2),
        decoder=decoder,
        chroma_length=23,
    )
    musicgen.save(MusicgenMelodyForConditionalGeneration(config).eval(), folder)
