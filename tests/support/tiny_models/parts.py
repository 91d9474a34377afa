"""What several tiny models share: a tokenizer of characters, codecs, a vocoder."""

import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    EncodecConfig,
    PreTrainedTokenizerFast,
    SpeechT5HifiGan,
    SpeechT5HifiGanConfig,
)

from tests.support.tiny_models import weights

SPECIAL = ("<pad>", "<unk>", "</s>")
PAD, UNKNOWN, END = range(len(SPECIAL))
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789 .,!?'-"
VOCABULARY = len(SPECIAL) + len(LETTERS)
HEARD = 128  # characters of a prompt that a model reads


def characters(heard: int = HEARD) -> PreTrainedTokenizerFast:
    """A tokenizer of lowercase characters that reads the first `heard` of a prompt."""
    tokens = [*SPECIAL, *LETTERS]
    vocabulary = {token: place for place, token in enumerate(tokens)}
    core = Tokenizer(models.WordLevel(vocabulary, SPECIAL[UNKNOWN]))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    core.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", END)]
    )
    core.enable_truncation(heard)
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=SPECIAL[PAD],
        eos_token=SPECIAL[END],
        unk_token=SPECIAL[UNKNOWN],
        model_max_length=heard,
    )


def encodec(entries: int, bandwidth: float, sampling_rate: int = 16_000) -> EncodecConfig:
    """A codec of `entries` per codebook; its frame is 320 samples."""
    return EncodecConfig(
        sampling_rate=sampling_rate,
        audio_channels=1,
        num_filters=4,
        upsampling_ratios=[8, 5, 4, 2],
        hidden_size=16,
        codebook_size=entries,
        codebook_dim=16,
        target_bandwidths=[bandwidth],
        use_causal_conv=False,
        num_lstm_layers=1,
    )


def fill(layers: Iterable[Any]) -> None:
    """Fill a codec's codebooks: transformers leaves them at zero, and no token would be heard."""
    draws = random.Random(0)
    for layer in layers:
        book = layer.codebook
        entries = book.embed_sum if hasattr(book, "embed_sum") else book.embed
        values = [draws.uniform(-1, 1) for _ in range(entries.numel())]
        entries.copy_(torch.tensor(values).reshape(entries.shape))


def vocoder(folder: Path) -> None:
    """A HiFi-GAN of 80 mel bins, in the subfolder where the executor looks for one."""
    config = SpeechT5HifiGanConfig(
        upsample_initial_channel=16, resblock_kernel_sizes=[3], resblock_dilation_sizes=[[1, 3, 5]]
    )
    model = SpeechT5HifiGan(config)
    weights.fill(model, 1)
    model.save_pretrained(folder / "vocoder")
