"""The tokenizer: the captions' own words, and pieces down to bytes for all others."""

import re

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from scripts.embedded_model import captions, wording
from scripts.embedded_model.theory import NAMES

HEARD = 512  # characters of a prompt; attention over all 16 KiB of a long one would take gigabytes
SPECIAL = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
PREFIX = "##"


def vocabulary() -> dict[str, int]:
    """Words and the 256 bytes, each also as a word's continuation; ids from 0."""
    texts = [*wording.everything(), *captions.FORMS, *captions.HELD_BACK_FORMS, *captions.WITH]
    texts.append("flat sharp bpm in at for like about an without")
    found = {word for text in texts for word in re.findall(r"[a-z]+|[0-9]+", text.lower())}
    found |= {name[0].lower() for name in NAMES} | {str(number) for number in range(50, 200)}
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    endings = ("s", "y", "ing", "ed", "er", "ly", "ish", "ic", "al")
    tokens = [
        *SPECIAL.values(), *letters, *(PREFIX + letter for letter in letters),
        *(PREFIX + ending for ending in endings if len(ending) > 1),
        *sorted(word for word in found if len(word) > 1),
    ]  # fmt: skip
    return {token: place for place, token in enumerate(tokens)}


def tokenizer() -> PreTrainedTokenizerFast:
    """Greedy longest pieces of lower-case words; no prompt has an unknown token."""
    known = vocabulary()
    inner = Tokenizer(
        models.WordPiece(
            vocab=known,
            unk_token=SPECIAL["unk_token"],
            max_input_chars_per_word=8 * HEARD,
            continuing_subword_prefix=PREFIX,
        )
    )
    inner.normalizer = normalizers.Sequence(
        [normalizers.Replace(Regex(rf"(?m)(?<=\A.{{{HEARD}}}).+"), ""), normalizers.Lowercase()]
    )
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Whitespace(),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    inner.decoder = decoders.WordPiece(prefix=PREFIX)
    inner.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", known["</s>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, **SPECIAL,
        model_max_length=4096, model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip
