"""What captions say, and what the tokenizer makes of any text."""

import random

import pytest

from scripts.models.music.brief import Brief, draw_brief
from scripts.models.music.captions import (
    BRIGHTNESS_WORDS,
    DENSITY_ADJECTIVES,
    DRUM_WORDS,
    GROOVE_WORDS,
    HELD_OUT_FORMS,
    MENTION_PROBABILITY,
    MODE_WORDS,
    SENTENCE_FORMS,
    SPEED_WORDS,
    all_wordings,
    is_held_out,
    split_words,
    write_caption,
)
from scripts.models.music.dataset import draw_training_piece
from scripts.models.music.model import MAX_PROMPT_CHARACTERS, build_tokenizer
from scripts.models.music.tokens import compose_piece

EVERYTHING = dict.fromkeys(MENTION_PROBABILITY, 1.0)
BRIEF = Brief(
    "80s pop", 9, "minor", 6, bright=True, density="dense", groove="four", lead="synth",
    part="melody", chords="pad", bass="synth",
)  # fmt: skip


def test_caption_contains_the_attributes_it_reports() -> None:
    for seed in range(50):
        text, attributes = write_caption(BRIEF, random.Random(seed), probabilities=EVERYTHING)
        assert attributes == set(MENTION_PROBABILITY)
        assert "a minor" in text
        assert any(word in text for word in split_words(SPEED_WORDS["fast"]))
        assert any(word in text for word in split_words(BRIGHTNESS_WORDS[True]))
        assert any(word in text for word in split_words(MODE_WORDS["minor"]))
        drums = (*split_words(DRUM_WORDS), *split_words(GROOVE_WORDS["four"]))
        assert any(word in text for word in drums)


def test_caption_without_attributes() -> None:
    text, attributes = write_caption(
        BRIEF, random.Random(1), probabilities=dict.fromkeys(MENTION_PROBABILITY, 0.0)
    )
    assert text
    assert not attributes


def test_wordings_are_unambiguous() -> None:
    for table in (SPEED_WORDS, MODE_WORDS, BRIGHTNESS_WORDS, DENSITY_ADJECTIVES):
        lists = [set(split_words(text)) for text in table.values()]
        for place, first in enumerate(lists):
            assert not any(first & second for second in lists[place + 1 :])


def test_held_out_attributes_never_occur_in_training() -> None:
    assert not set(SENTENCE_FORMS) & set(HELD_OUT_FORMS)
    share = sum(is_held_out(draw_brief(random.Random(n))) for n in range(2_000)) / 2_000
    assert 0.07 < share < 0.14
    for number in range(30):
        name = f"train/0/0/{number}"
        codes, _ = draw_training_piece(name, 60)
        again = next(n for n in range(100) if not is_held_out(compose_piece(f"{name}/{n}", 60)[0]))
        assert (codes == compose_piece(f"{name}/{again}", 60)[2]).all()


@pytest.mark.parametrize("text", ["", "🎵 ночь", "Straße\x00\u0301", "a" * 5_000, "#!?,.;:\n\t"])
def test_no_prompt_has_an_unknown_token(text: str) -> None:
    words = build_tokenizer()
    ids = words(text)["input_ids"]
    assert words.unk_token_id not in ids
    assert ids[-1] == words.eos_token_id
    assert len(ids) <= 8 * MAX_PROMPT_CHARACTERS


def test_caption_words_are_single_tokens() -> None:
    words = build_tokenizer()
    for text in all_wordings():
        for word in text.replace("'s", "").replace("-", " ").replace("&", " ").split():
            if word.isalpha():
                assert len(words(word)["input_ids"]) == 2, word


def test_tokenizer_ignores_case() -> None:
    words = build_tokenizer()
    assert words("Happy POP")["input_ids"] == words("happy pop")["input_ids"]
