"""FastSpeech2Conformer with its HiFi-GAN in one model."""

from pathlib import Path

import torch
from transformers import (
    FastSpeech2ConformerConfig,
    FastSpeech2ConformerHifiGanConfig,
    FastSpeech2ConformerWithHifiGan,
    FastSpeech2ConformerWithHifiGanConfig,
)

from tests.support.tiny_models import fastspeech2_conformer as bare
from tests.support.tiny_models import parts, weights


def build(folder: Path) -> None:
    """Write the model to `folder`."""
    torch.manual_seed(0)
    config = FastSpeech2ConformerWithHifiGanConfig(
        model_config=FastSpeech2ConformerConfig(**bare.shape()).to_dict(),
        vocoder_config=FastSpeech2ConformerHifiGanConfig(**bare.vocoder_shape()).to_dict(),
    )
    model = FastSpeech2ConformerWithHifiGan(config).eval()
    weights.fill(model, 0)
    bare.lengthen(model.model)
    model.save_pretrained(folder)
    parts.characters().save_pretrained(folder)
