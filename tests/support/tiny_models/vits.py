"""VITS: text to speech in one pass, with noise drawn from the seed."""

import json
import tempfile
from pathlib import Path

import torch
from transformers import VitsConfig, VitsModel, VitsTokenizer

from tests.support.tiny_models import weights

UNKNOWN = "<unk>"
LETTERS = "_abcdefghijklmnopqrstuvwxyz '"


def build(folder: Path) -> None:
    """Write the model to `folder`."""
    torch.manual_seed(0)
    vocabulary = {token: place for place, token in enumerate([*LETTERS, "<pad>", UNKNOWN])}
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "vocab.json"
        file.write_text(json.dumps(vocabulary))
        tokenizer = VitsTokenizer(
            str(file),
            phonemize=False,
            is_uroman=False,
            language="eng",
            pad_token=LETTERS[0],
            unk_token=UNKNOWN,
        )
        tokenizer.save_pretrained(folder)
    config = VitsConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        ffn_dim=32,
        flow_size=16,
        spectrogram_bins=17,
        upsample_initial_channel=16,
        upsample_rates=[8, 8, 2, 2],
        resblock_kernel_sizes=[3],
        resblock_dilation_sizes=[[1, 3, 5]],
        duration_predictor_filter_channels=16,
        depth_separable_num_layers=2,
        prior_encoder_num_flows=2,
        prior_encoder_num_wavenet_layers=2,
        posterior_encoder_num_wavenet_layers=2,
        duration_predictor_num_flows=2,
    )
    model = VitsModel(config).eval()
    weights.fill(model, 0)
    model.save_pretrained(folder)
