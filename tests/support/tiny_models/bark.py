"""Bark: three language models in a row (semantic, coarse, fine), then EnCodec."""

import json
from pathlib import Path

import torch
from transformers import BarkConfig, BarkModel, BarkProcessor

from tests.support.tiny_models import parts, weights

WORDS, ENTRIES, CODEBOOKS = 20, 16, 8  # semantic tokens; entries per codebook; codebooks
OFFSET = 30  # of text tokens in the semantic model's vocabulary
TEXT = OFFSET + parts.VOCABULARY + 5
ACOUSTIC = WORDS + 2 * ENTRIES + 12
HEARD = 32  # characters; the coarse and fine windows below are as short in proportion
SHAPE = {"num_layers": 1, "num_heads": 4, "hidden_size": 64}

GENERATION = {
    "model_type": "bark",
    "sample_rate": 24_000,
    "codebook_size": ENTRIES,
    "semantic_config": {
        "do_sample": True,
        "eos_token_id": WORDS,
        "text_encoding_offset": OFFSET,
        "text_pad_token": TEXT - 2,
        "semantic_infer_token": TEXT - 1,
        "semantic_vocab_size": WORDS,
        "max_new_tokens": 24,
        "max_input_semantic_length": HEARD,
        "semantic_rate_hz": 49.9,
    },
    "coarse_acoustics_config": {
        "do_sample": True,
        "coarse_semantic_pad_token": ACOUSTIC - 2,
        "coarse_infer_token": ACOUSTIC - 1,
        "max_coarse_input_length": 16,
        "max_coarse_history": 24,
        "sliding_window_len": 12,
        "coarse_rate_hz": 75,
        "n_coarse_codebooks": 2,
    },
    "fine_acoustics_config": {
        "temperature": 0.5,
        "max_fine_history_length": 32,
        "max_fine_input_length": 64,
        "n_fine_codebooks": CODEBOOKS,
    },
}


def build(folder: Path) -> None:
    """Write the model to `folder`."""
    torch.manual_seed(0)
    config = BarkConfig(
        semantic_config={
            **SHAPE,
            "block_size": 256,
            "input_vocab_size": TEXT,
            "output_vocab_size": 32,
        },
        coarse_acoustics_config={
            **SHAPE,
            "block_size": 256,
            "input_vocab_size": ACOUSTIC,
            "output_vocab_size": ACOUSTIC,
        },
        fine_acoustics_config={
            **SHAPE,
            "block_size": 256,
            "input_vocab_size": ENTRIES + 1,
            "output_vocab_size": 32,
            "n_codes_total": CODEBOOKS,
            "n_codes_given": 1,
        },
        codec_config=parts.encodec(ENTRIES, 2.4, 24_000).to_dict(),  # 75 frames/s × 4 bits × 8
    )
    model = BarkModel(config).eval()
    weights.fill(model, 0)
    parts.fill(model.codec_model.quantizer.layers)
    model.save_pretrained(folder)
    BarkProcessor(parts.characters()).save_pretrained(folder)
    # Its own class of settings does not survive save_pretrained.
    (folder / "generation_config.json").write_text(json.dumps(GENERATION, indent=1))
