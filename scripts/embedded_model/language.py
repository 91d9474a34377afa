"""The model's shape, and how well it predicts: T5 encoder, MusicGen decoder, EnCodec."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch.nn import functional
from transformers import (
    EncodecConfig,
    GenerationConfig,
    MusicgenConfig,
    MusicgenDecoderConfig,
    MusicgenForConditionalGeneration,
    T5Config,
)

from scripts.embedded_model.notation import BLANK
from scripts.embedded_model.vocabulary import BOOKS, FRAME_RATE, SIZE

TEXT_WIDTH: Final = 128
WIDTH: Final = 256  # multiples of 64, which quantisation to 4 bits wants
LAYERS: Final = 4
HEADS: Final = 4
INNER: Final = 512
POSITIONS: Final = 2048


def text_config(vocabulary: int) -> T5Config:
    return T5Config(
        vocab_size=vocabulary, d_model=TEXT_WIDTH, d_kv=32, d_ff=256, num_layers=2, num_heads=4,
        pad_token_id=0, eos_token_id=1, decoder_start_token_id=0, dropout_rate=0.0,
    )  # fmt: skip


def decoder_config() -> MusicgenDecoderConfig:
    return MusicgenDecoderConfig(
        vocab_size=SIZE, hidden_size=WIDTH, num_hidden_layers=LAYERS, ffn_dim=INNER,
        num_attention_heads=HEADS, num_codebooks=len(BOOKS), max_position_embeddings=POSITIONS,
        pad_token_id=BLANK, bos_token_id=BLANK, dropout=0.0, tie_word_embeddings=False,
    )  # fmt: skip


def untrained(vocabulary: int, codec: EncodecConfig) -> MusicgenForConditionalGeneration:
    """The whole model, its language half drawn by torch's generator."""
    config = MusicgenConfig(
        text_encoder=text_config(vocabulary), audio_encoder=codec, decoder=decoder_config()
    )
    model = MusicgenForConditionalGeneration(config)
    listen(model)
    return model


@torch.no_grad()  # type: ignore[untyped-decorator]
def listen(model: Any) -> None:
    """Let captions be heard from the first step.

    As MusicGen is initialised, what comes through cross-attention is a hundredth of what it is
    added to, and captions were not used at all after 500 steps. These keep their input's size.
    """
    matrices = [model.enc_to_dec_proj.weight]
    for layer in model.decoder.model.decoder.layers:
        attention = layer.encoder_attn
        for part in (attention.q_proj, attention.k_proj, attention.v_proj, attention.out_proj):
            matrices.append(part.weight)
    for matrix in matrices:
        matrix.normal_(std=matrix.shape[1] ** -0.5)


def generation() -> GenerationConfig:
    return GenerationConfig(
        do_sample=True, guidance_scale=2.0, max_length=503, top_k=50, temperature=0.9,
        pad_token_id=BLANK, bos_token_id=BLANK, decoder_start_token_id=BLANK,
    )  # fmt: skip


@contextmanager
def positions_from(model: Any, offset: int) -> Iterator[None]:
    """Number the decoder's positions from `offset`: a crop of a piece knows where it stands."""

    def moved(_: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return args[0], (args[1] if len(args) > 1 else 0) + offset

    hook = model.decoder.model.decoder.embed_positions.register_forward_pre_hook(moved)
    try:
        yield
    finally:
        hook.remove()


def losses(
    model: Any, text: torch.Tensor, mask: torch.Tensor, columns: torch.Tensor
) -> torch.Tensor:
    """The mean loss of each book, (books,), in nats per frame.

    `text` and `mask` are (pieces, words), where a mask of zeros is no caption; `columns` are
    delayed tokens, (pieces, books, columns), each of which is predicted from those before.
    """
    pieces, books, length = columns.shape
    heard = model.text_encoder(input_ids=text, attention_mask=mask.clamp(min=plain(mask)))[0]
    heard = model.enc_to_dec_proj(heard) * mask[..., None]
    inputs = columns[:, :, :-1].reshape(pieces * books, length - 1)
    logits = model.decoder(
        input_ids=inputs, encoder_hidden_states=heard, encoder_attention_mask=mask
    ).logits
    due = columns[:, :, 1:].reshape(pieces * books, -1)
    found = functional.cross_entropy(
        logits.reshape(-1, SIZE).float(), due.reshape(-1), ignore_index=BLANK, reduction="none"
    ).view(pieces, books, -1)
    counted = (due != BLANK).view(pieces, books, -1).sum((0, 2))
    return found.sum((0, 2)) / counted


def plain(mask: torch.Tensor) -> torch.Tensor:
    """1 at the first word of a masked caption: the text encoder must have something to see."""
    first = torch.zeros_like(mask)
    first[:, 0] = 1
    return first


def codec_bandwidth() -> float:
    """The kilobits per second at which EnCodec has as many codebooks as we."""
    return len(BOOKS) * math.log2(SIZE) * FRAME_RATE / 1000
