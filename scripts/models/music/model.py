"""The language model (T5 encoder, MusicGen decoder), its loss, and its tokenizer."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch.nn import functional
from transformers import (
    EncodecConfig,
    GenerationConfig,
    MusicgenConfig,
    MusicgenDecoderConfig,
    MusicgenForConditionalGeneration,
    PreTrainedTokenizerFast,
    T5Config,
)

from scripts.models.music.captions import CONNECTORS, HELD_OUT_FORMS, SENTENCE_FORMS, all_wordings
from scripts.models.music.composition import NOTE_NAMES
from scripts.models.music.tokens import BLANK, BOOKS, CODEBOOK_SIZE

# The heads of each attention, of the text encoder and of the decoder.
HEADS: Final = 4
POSITIONS: Final = 2048


@dataclass(frozen=True, slots=True)
class MusicConfig:
    """The size of the language model. The default is the shipped model's."""

    text_width: int = 128
    text_feed_forward_width: int = 256
    text_layers: int = 2
    # Multiples of 64, as quantisation to 4 bits requires.
    width: int = 256
    feed_forward_width: int = 512
    layers: int = 4


SHIPPED_SIZE: Final = MusicConfig()


def _text_config(vocabulary: int, config: MusicConfig) -> T5Config:
    return T5Config(
        vocab_size=vocabulary, d_model=config.text_width, d_kv=config.text_width // HEADS,
        d_ff=config.text_feed_forward_width, num_layers=config.text_layers, num_heads=HEADS,
        pad_token_id=0, eos_token_id=1, decoder_start_token_id=0, dropout_rate=0.0,
    )  # fmt: skip


def _decoder_config(config: MusicConfig) -> MusicgenDecoderConfig:
    return MusicgenDecoderConfig(
        vocab_size=CODEBOOK_SIZE, hidden_size=config.width, num_hidden_layers=config.layers,
        ffn_dim=config.feed_forward_width, num_attention_heads=HEADS,
        num_codebooks=len(BOOKS), max_position_embeddings=POSITIONS,
        pad_token_id=BLANK, bos_token_id=BLANK, dropout=0.0, tie_word_embeddings=False,
    )  # fmt: skip


def build_music_model(
    vocabulary: int, codec: EncodecConfig, size: MusicConfig = SHIPPED_SIZE
) -> MusicgenForConditionalGeneration:
    """Return the untrained model. Its weights come from torch's generator."""
    config = MusicgenConfig(
        text_encoder=_text_config(vocabulary, size),
        audio_encoder=codec,
        decoder=_decoder_config(size),
    )
    model = MusicgenForConditionalGeneration(config)
    _scale_cross_attention(model)
    return model


@torch.no_grad()  # type: ignore[untyped-decorator]
def _scale_cross_attention(model: Any) -> None:
    """Initialise the cross-attention so that captions have an effect from the first step.

    With MusicGen's initialisation, its output is a hundredth of what it is added to, and captions
    were not used at all after 500 steps. These weights keep the size of their input.
    """
    matrices = [model.enc_to_dec_proj.weight]
    for layer in model.decoder.model.decoder.layers:
        attention = layer.encoder_attn
        for part in (attention.q_proj, attention.k_proj, attention.v_proj, attention.out_proj):
            matrices.append(part.weight)
    for matrix in matrices:
        matrix.normal_(std=matrix.shape[1] ** -0.5)


def generation_config() -> GenerationConfig:
    return GenerationConfig(
        do_sample=True, guidance_scale=2.0, max_length=503, top_k=50, temperature=0.9,
        pad_token_id=BLANK, bos_token_id=BLANK, decoder_start_token_id=BLANK,
    )  # fmt: skip


@contextmanager
def positions_from(model: Any, offset: int) -> Iterator[None]:
    """Number the decoder's positions from `offset` during the block, for crops of a piece."""

    def shift(_: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return args[0], (args[1] if len(args) > 1 else 0) + offset

    hook = model.decoder.model.decoder.embed_positions.register_forward_pre_hook(shift)
    try:
        yield
    finally:
        hook.remove()


def codebook_losses(
    model: Any, text: torch.Tensor, mask: torch.Tensor, columns: torch.Tensor
) -> torch.Tensor:
    """Return the mean loss of each book, (books,), in nats per frame.

    `text` and `mask` are (pieces, words); a mask of zeros means no caption. `columns` are delayed
    tokens (pieces, books, columns), each predicted from the columns before it.
    """
    pieces, books, length = columns.shape
    encoded = model.text_encoder(
        input_ids=text, attention_mask=mask.clamp(min=_first_word_mask(mask))
    )[0]
    encoded = model.enc_to_dec_proj(encoded) * mask[..., None]
    inputs = columns[:, :, :-1].reshape(pieces * books, length - 1)
    logits = model.decoder(
        input_ids=inputs, encoder_hidden_states=encoded, encoder_attention_mask=mask
    ).logits
    targets = columns[:, :, 1:].reshape(pieces * books, -1)
    losses = functional.cross_entropy(
        logits.reshape(-1, CODEBOOK_SIZE).float(),
        targets.reshape(-1),
        ignore_index=BLANK,
        reduction="none",
    ).view(pieces, books, -1)
    counts = (targets != BLANK).view(pieces, books, -1).sum((0, 2))
    return losses.sum((0, 2)) / counts


def _first_word_mask(mask: torch.Tensor) -> torch.Tensor:
    """Return 1 at the first word, since the text encoder cannot attend to nothing."""
    first = torch.zeros_like(mask)
    first[:, 0] = 1
    return first


MAX_PROMPT_CHARACTERS = (
    512  # characters of a prompt; attention over all 16 KiB of a long one would take gigabytes
)
SPECIAL_TOKENS = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
CONTINUATION_PREFIX = "##"


def word_vocabulary() -> dict[str, int]:
    """Return token ids of the captions' words and of all bytes, also as continuations."""
    texts = [*all_wordings(), *SENTENCE_FORMS, *HELD_OUT_FORMS, *CONNECTORS]
    texts.append("flat sharp bpm in at for like about an without")
    known_words = {word for text in texts for word in re.findall(r"[a-z]+|[0-9]+", text.lower())}
    known_words |= {name[0].lower() for name in NOTE_NAMES} | {
        str(number) for number in range(50, 200)
    }
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    endings = ("s", "y", "ing", "ed", "er", "ly", "ish", "ic", "al")
    tokens = [
        *SPECIAL_TOKENS.values(), *letters, *(CONTINUATION_PREFIX + letter for letter in letters),
        *(CONTINUATION_PREFIX + ending for ending in endings if len(ending) > 1),
        *sorted(word for word in known_words if len(word) > 1),
    ]  # fmt: skip
    return {token: index for index, token in enumerate(tokens)}


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer of longest matches in lower case, without unknown tokens."""
    vocabulary = word_vocabulary()
    tokenizer = Tokenizer(
        models.WordPiece(
            vocab=vocabulary,
            unk_token=SPECIAL_TOKENS["unk_token"],
            max_input_chars_per_word=8 * MAX_PROMPT_CHARACTERS,
            continuing_subword_prefix=CONTINUATION_PREFIX,
        )
    )
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Replace(Regex(rf"(?m)(?<=\A.{{{MAX_PROMPT_CHARACTERS}}}).+"), ""),
            normalizers.Lowercase(),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Whitespace(),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.WordPiece(prefix=CONTINUATION_PREFIX)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", vocabulary["</s>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **SPECIAL_TOKENS,
        model_max_length=4096, model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip
