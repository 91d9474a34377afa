"""SeamlessM4T, version 2: the units come in one pass, from the characters of the text."""

from pathlib import Path

import torch
from transformers import GenerationConfig, SeamlessM4Tv2Config, SeamlessM4Tv2ForTextToSpeech

from tests.support.tiny_models import parts, weights
from tests.support.tiny_models import seamless_m4t as first


def build(folder: Path) -> None:
    """Write the model to `folder`."""
    torch.manual_seed(0)
    config = SeamlessM4Tv2Config(
        **first.shape(),
        char_vocab_size=parts.VOCABULARY,
        t2u_variance_predictor_embed_dim=64,
        t2u_variance_predictor_hidden_dim=16,
    )
    model = SeamlessM4Tv2ForTextToSpeech(config).eval()
    weights.fill(model, 0)
    with torch.no_grad():
        model.t2u_model.model.decoder.duration_predictor.proj.bias.fill_(1.0)
    tokens = [*parts.SPECIAL, *parts.LETTERS, *first.LANGUAGES]
    model.generation_config = GenerationConfig(
        **first.settings(),
        id_to_text={str(place): token for place, token in enumerate(tokens)},
        char_to_id={letter: 3 + place for place, letter in enumerate(parts.LETTERS)},
    )
    model.save_pretrained(folder)
    parts.characters().save_pretrained(folder)
