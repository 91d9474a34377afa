"""FastSpeech2Conformer: text to a spectrogram in one pass; its vocoder is in `vocoder`.

The checkpoints of the hub come with a tokenizer that wants g2p_en; this one reads characters.
"""

from pathlib import Path

import torch
from transformers import (
    FastSpeech2ConformerConfig,
    FastSpeech2ConformerHifiGan,
    FastSpeech2ConformerHifiGanConfig,
    FastSpeech2ConformerModel,
)

from tests.support.tiny_models import parts, weights


def build(folder: Path) -> None:
    """Write the model and its vocoder to `folder`."""
    torch.manual_seed(0)
    model = FastSpeech2ConformerModel(FastSpeech2ConformerConfig(**shape())).eval()
    weights.fill(model, 0)
    lengthen(model)
    model.save_pretrained(folder)
    parts.characters().save_pretrained(folder)
    voice = FastSpeech2ConformerHifiGan(FastSpeech2ConformerHifiGanConfig(**vocoder_shape()))
    weights.fill(voice, 1)
    voice.save_pretrained(folder / "vocoder")


def shape() -> dict[str, object]:
    """The arguments of the configuration."""
    return {
        "vocab_size": parts.VOCABULARY,
        "hidden_size": 64,
        "encoder_layers": 1,
        "encoder_linear_units": 64,
        "decoder_layers": 1,
        "decoder_linear_units": 64,
        "speech_decoder_postnet_layers": 2,
        "speech_decoder_postnet_units": 16,
        "duration_predictor_channels": 16,
        "energy_predictor_channels": 16,
        "pitch_predictor_layers": 2,
        "pitch_predictor_channels": 16,
    }


def vocoder_shape() -> dict[str, object]:
    """The arguments of the vocoder's configuration."""
    return {
        "upsample_initial_channel": 16,
        "resblock_kernel_sizes": [3],
        "resblock_dilation_sizes": [[1, 3, 5]],
    }


def lengthen(model: torch.nn.Module) -> None:
    """Let each character last some frames; as initialised, the model says that it lasts none."""
    with torch.no_grad():
        model.duration_predictor.linear.bias.fill_(1.6)
