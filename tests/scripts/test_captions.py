"""What captions say, and what the tokenizer makes of any text."""

import random

import pytest

from scripts.embedded_model import captions, lessons, notation, wording
from scripts.embedded_model.brief import Brief, draw
from scripts.embedded_model.tokenizer import HEARD, tokenizer

EVERYTHING = dict.fromkeys(captions.SAID, 1.0)
BRIEF = Brief(
    "80s pop", 9, "minor", 6, bright=True, density="dense", groove="four", lead="synth",
    part="melody", chords="pad", bass="synth",
)  # fmt: skip


def test_a_caption_says_what_it_claims() -> None:
    for seed in range(50):
        text, said = captions.caption(BRIEF, random.Random(seed), said=EVERYTHING)
        assert said == set(captions.SAID)
        assert "a minor" in text
        assert any(word in text for word in wording.words(wording.SPEED["fast"]))
        assert any(word in text for word in wording.words(wording.BRIGHTNESS[True]))
        assert any(word in text for word in wording.words(wording.MODE["minor"]))
        drums = (*wording.words(wording.KIT), *wording.words(wording.GROOVE["four"]))
        assert any(word in text for word in drums)


def test_a_caption_may_say_nothing() -> None:
    text, said = captions.caption(BRIEF, random.Random(1), said=dict.fromkeys(captions.SAID, 0.0))
    assert text
    assert not said


def test_no_wording_says_two_things_at_once() -> None:
    for table in (wording.SPEED, wording.MODE, wording.BRIGHTNESS, wording.DENSITY):
        lists = [set(wording.words(text)) for text in table.values()]
        for place, one in enumerate(lists):
            assert not any(one & other for other in lists[place + 1 :])


def test_what_is_held_back_is_never_taught() -> None:
    assert not set(captions.FORMS) & set(captions.HELD_BACK_FORMS)
    share = sum(captions.held_back(draw(random.Random(n))) for n in range(2_000)) / 2_000
    assert 0.07 < share < 0.14
    for number in range(30):
        name = f"train/0/0/{number}"
        codes, _ = lessons.taught(name, 60)
        again = next(
            n for n in range(100) if not captions.held_back(notation.piece(f"{name}/{n}", 60)[0])
        )
        assert (codes == notation.piece(f"{name}/{again}", 60)[2]).all()


@pytest.mark.parametrize("text", ["", "🎵 ночь", "Straße\x00\u0301", "a" * 5_000, "#!?,.;:\n\t"])
def test_no_text_has_an_unknown_token(text: str) -> None:
    words = tokenizer()
    ids = words(text)["input_ids"]
    assert words.unk_token_id not in ids
    assert ids[-1] == words.eos_token_id
    assert len(ids) <= 8 * HEARD


def test_words_of_captions_are_tokens() -> None:
    words = tokenizer()
    for text in wording.everything():
        for word in text.replace("'s", "").replace("-", " ").replace("&", " ").split():
            if word.isalpha():
                assert len(words(word)["input_ids"]) == 2, word


def test_case_does_not_matter() -> None:
    words = tokenizer()
    assert words("Happy POP")["input_ids"] == words("happy pop")["input_ids"]
