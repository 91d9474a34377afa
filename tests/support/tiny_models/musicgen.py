"""MusicGen, mono: a T5 encoder, a decoder of four codebooks, EnCodec."""

from pathlib import Path

import torch
from transformers import (
    GenerationConfig,
    MusicgenConfig,
    MusicgenDecoderConfig,
    MusicgenForConditionalGeneration,
    T5Config,
)

from tests.support.tiny_models import parts, weights

ENTRIES = 64
WIDTH = 64
STEPS = 40  # of its own: nothing said, it generates as many


def build(folder: Path, channels: int = 1) -> None:
    """Write the model to `folder`; with two channels it has twice the codebooks."""
    torch.manual_seed(0)
    decoder = MusicgenDecoderConfig(
        vocab_size=ENTRIES,
        hidden_size=WIDTH,
        num_hidden_layers=2,
        ffn_dim=2 * WIDTH,
        num_attention_heads=4,
        num_codebooks=4 * channels,
        audio_channels=channels,
        pad_token_id=ENTRIES,
        bos_token_id=ENTRIES,
        max_position_embeddings=512,
    )
    config = MusicgenConfig(
        text_encoder=text_encoder(), audio_encoder=parts.encodec(ENTRIES, 1.2), decoder=decoder
    )
    model = MusicgenForConditionalGeneration(config).eval()
    save(model, folder)


def text_encoder() -> T5Config:
    return T5Config(
        vocab_size=parts.VOCABULARY,
        d_model=WIDTH,
        d_kv=16,
        d_ff=2 * WIDTH,
        num_layers=2,
        num_heads=4,
        pad_token_id=parts.PAD,
        eos_token_id=parts.END,
        decoder_start_token_id=parts.PAD,
    )


def save(model: torch.nn.Module, folder: Path) -> None:
    """Write a model of the MusicGen kind, with settings of its own and a tokenizer."""
    weights.fill(model, 0)
    parts.fill(model.audio_encoder.quantizer.layers)
    model.generation_config = GenerationConfig(
        decoder_start_token_id=ENTRIES,
        pad_token_id=ENTRIES,
        bos_token_id=ENTRIES,
        guidance_scale=3.0,
        do_sample=True,
        max_new_tokens=STEPS,
    )
    model.save_pretrained(folder)
    parts.characters().save_pretrained(folder)
