"""CSM: a language model of the first codebook, a small one of the others, then Mimi."""

from pathlib import Path

import torch
from transformers import CsmConfig, CsmForConditionalGeneration, GenerationConfig, MimiConfig

from tests.support.tiny_models import parts, weights

CODEBOOKS, ENTRIES = 4, 32
SHAPE = {
    "num_codebooks": CODEBOOKS,
    "vocab_size": ENTRIES,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}


def build(folder: Path) -> None:
    """Write the model to `folder`."""
    torch.manual_seed(0)
    codec = MimiConfig(
        num_filters=4,
        hidden_size=64,
        codebook_size=ENTRIES,
        codebook_dim=16,
        vector_quantization_hidden_dimension=16,
        num_quantizers=CODEBOOKS,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=32,
        intermediate_size=64,
        upsample_groups=64,
    )
    config = CsmConfig(
        **SHAPE,
        hidden_size=64,
        text_vocab_size=parts.VOCABULARY,
        max_position_embeddings=512,
        pad_token_id=parts.PAD,
        bos_token_id=parts.UNKNOWN,
        audio_token_id=parts.VOCABULARY - 1,
        audio_eos_token_id=parts.VOCABULARY - 2,
        codebook_pad_token_id=ENTRIES - 1,
        codebook_eos_token_id=0,
        depth_decoder_config={**SHAPE, "hidden_size": 64, "backbone_hidden_size": 64},
        codec_config=codec.to_dict(),
    )
    model = CsmForConditionalGeneration(config).eval()
    weights.fill(model, 0)
    quantizer = model.codec_model.quantizer
    parts.fill(quantizer.semantic_residual_vector_quantizer.layers)
    parts.fill(quantizer.acoustic_residual_vector_quantizer.layers)
    model.generation_config = GenerationConfig(
        do_sample=True, max_new_tokens=20, pad_token_id=parts.PAD, bos_token_id=parts.UNKNOWN
    )
    model.depth_decoder.generation_config = GenerationConfig(do_sample=True)
    model.save_pretrained(folder)
    parts.characters().save_pretrained(folder)
