"""SeamlessM4T, text to speech: translation to text, text to units, units to a waveform."""

from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, SeamlessM4TConfig, SeamlessM4TForTextToSpeech

from tests.support.tiny_models import parts, weights

LANGUAGES = ("eng", "fra")
DRAW = 1  # of the draws tried, one with which prompts and seeds give different units
UNITS, CONTROL = 24, 4  # units of speech; control symbols before them
VOCABULARY = parts.VOCABULARY + len(LANGUAGES)


def build(folder: Path) -> None:
    """Write the model to `folder`."""
    torch.manual_seed(0)
    model = SeamlessM4TForTextToSpeech(SeamlessM4TConfig(**shape())).eval()
    weights.fill(model, DRAW)
    heed(model)
    model.generation_config = GenerationConfig(**settings())
    model.save_pretrained(folder)
    parts.characters().save_pretrained(folder)


def heed(model: Any) -> None:
    """Let a unit depend on the text more than on the unit before: it would repeat itself."""
    model.t2u_model.model.decoder.embed_tokens.weight.data *= 0.1


def shape() -> dict[str, Any]:
    """The arguments of the configuration that both versions have."""
    stacks = ("encoder", "decoder", "t2u_encoder", "t2u_decoder")
    return {
        **{f"{stack}_layers": 1 for stack in stacks},
        **{f"{stack}_ffn_dim": 64 for stack in stacks},
        **{f"{stack}_attention_heads": 2 for stack in stacks},
        "vocab_size": VOCABULARY,
        "hidden_size": 64,
        "t2u_vocab_size": UNITS + CONTROL + len(LANGUAGES),
        "speech_encoder_layers": 0,
        "max_position_embeddings": 256,
        "t2u_max_position_embeddings": 256,
        "max_new_tokens": 24,
        "t2u_max_new_tokens": 40,
        "scale_embedding": False,
        "pad_token_id": parts.PAD,
        "bos_token_id": parts.UNKNOWN,
        "eos_token_id": parts.END,
        "decoder_start_token_id": parts.END,
        "upsample_initial_channel": 32,
        "upsample_rates": [5, 4, 4, 2, 2],
        "resblock_kernel_sizes": [3],
        "resblock_dilation_sizes": [[1, 3, 5]],
        # Trained models hardly ever say a control symbol; this one does: its vocoder speaks them.
        "unit_hifi_gan_vocab_size": UNITS + CONTROL + len(LANGUAGES),
        "unit_embed_dim": 32,
        "lang_embed_dim": 8,
        "spkr_embed_dim": 8,
        "vocoder_num_langs": len(LANGUAGES),
        "vocoder_num_spkrs": 2,
        "vocoder_offset": 0,
    }


def settings() -> dict[str, Any]:
    """Settings of its own: languages by their token in each of the three parts."""
    places = list(enumerate(LANGUAGES))
    return {
        "do_sample": True,
        "max_new_tokens": 24,
        "pad_token_id": parts.PAD,
        "eos_token_id": parts.END,
        "decoder_start_token_id": parts.END,
        "suppress_tokens": [parts.PAD, parts.UNKNOWN],
        "text_decoder_lang_to_code_id": {name: parts.VOCABULARY + place for place, name in places},
        "t2u_lang_code_to_id": {name: UNITS + CONTROL + place for place, name in places},
        "vocoder_lang_code_to_id": {name: place for place, name in places},
    }
