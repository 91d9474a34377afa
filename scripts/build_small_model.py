"""Build a model of musicgen-small's shape with random weights, for `scripts/bench`."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from transformers import (
    EncodecConfig,
    GenerationConfig,
    MusicgenConfig,
    MusicgenDecoderConfig,
    MusicgenForConditionalGeneration,
    T5Config,
)

from scripts import arguments, one_line
from tests.support.tiny_models import parts

ENTRIES = 2048


def config() -> MusicgenConfig:
    """The three parts as facebook/musicgen-small has them; the vocabulary is the tiny models'."""
    return MusicgenConfig(
        text_encoder=T5Config(
            vocab_size=32_128,
            d_model=768,
            d_kv=64,
            d_ff=3072,
            num_layers=12,
            num_heads=12,
            pad_token_id=parts.PAD,
            eos_token_id=parts.END,
            decoder_start_token_id=parts.PAD,
        ),
        audio_encoder=EncodecConfig(
            sampling_rate=32_000,
            audio_channels=1,
            num_filters=64,
            upsampling_ratios=[8, 5, 4, 4],
            hidden_size=128,
            codebook_size=ENTRIES,
            codebook_dim=128,
            target_bandwidths=[2.2],
            use_causal_conv=False,
            num_lstm_layers=2,
        ),
        decoder=MusicgenDecoderConfig(
            vocab_size=ENTRIES,
            hidden_size=1024,
            num_hidden_layers=24,
            ffn_dim=4096,
            num_attention_heads=16,
            num_codebooks=4,
            pad_token_id=ENTRIES,
            bos_token_id=ENTRIES,
            max_position_embeddings=2048,
        ),
    )


def main() -> None:
    parser = arguments.Parser("scripts/build_small_model", own_help=False)
    parser.add_argument("folder", metavar="FOLDER", type=arguments.new_folder)
    folder = parser.parse_args().folder / "random" / "small"
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    with torch.no_grad():
        model = MusicgenForConditionalGeneration(config()).eval()
        parts.fill(model.audio_encoder.quantizer.layers)
    model.generation_config = GenerationConfig(
        decoder_start_token_id=ENTRIES,
        pad_token_id=ENTRIES,
        bos_token_id=ENTRIES,
        guidance_scale=3.0,
        do_sample=True,
        max_new_tokens=503,
    )
    model.save_pretrained(folder)
    parts.characters().save_pretrained(folder)
    print(folder)


if __name__ == "__main__":
    one_line.run(main)
