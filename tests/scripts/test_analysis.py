"""The signal analysis on the generator's own audio, and on what has faults."""

import numpy as np
import pytest

from scripts.embedded_model import analysis, captions, measuring, notation, rendering
from scripts.embedded_model.analysis import Samples
from tests.scripts.conftest import Play

SECOND = 16_000


def sung(frequency: float, seconds: float = 4.0) -> Samples:
    return 0.3 * np.sin(2 * np.pi * frequency * np.arange(int(seconds * SECOND)) / SECOND)


def test_it_knows_the_generators_own_audio() -> None:
    tally = measuring.judged(measuring.questions(24), lambda asked: rendering.play(asked.codes))
    for name, chance in measuring.ATTRIBUTES.items():
        assert tally.right[name] >= 0.75 * tally.asked[name] > chance, name
    assert not sum(tally.faults.values())


def test_the_codec_sounds_like_the_generator(play: Play) -> None:
    codes = [asked.codes for asked in measuring.questions(4)]
    for one, other in zip(codes, [*codes[1:], codes[0]], strict=True):
        due = rendering.play(one)
        assert measuring.distance(due, play(one)) < 4 < measuring.distance(due, play(other))


def test_faults_are_found() -> None:
    clicking = sung(440)
    clicking[SECOND] = -0.9
    for audio, fault in ((np.zeros(SECOND), "silent"), (4 * sung(440), "clipped")):
        assert measuring.faults(analysis.analyse(audio))[fault]
    assert measuring.faults(analysis.analyse(clicking))["clicks"]
    assert not any(measuring.faults(analysis.analyse(sung(440))).values())


@pytest.mark.parametrize("frames", [5, 7, 8, 11])
def test_clicks_have_a_tempo(frames: int) -> None:
    audio = 0.001 * np.ones(8 * SECOND)
    for beat in range(0, 8 * 50, 4 * frames):
        audio[beat * 320 : beat * 320 + 800] += sung(1_000, 0.05)
    assert analysis.analyse(audio).frames in (frames, 2 * frames)


def test_questions_are_held_back() -> None:
    for asked in measuring.questions(5):
        assert captions.held_back(asked.brief)
        assert asked.codes.shape == (4, measuring.FRAMES)


def test_a_wrong_answer_counts() -> None:
    asked = measuring.questions(12)
    tally = measuring.judged(asked, lambda one: rendering.play(notation.piece("other", 400)[2]))
    assert tally.count == 12
    assert len(tally.wrong) == sum(tally.asked.values()) - sum(tally.right.values()) > 0
    assert "| 12 |" not in measuring.table([("model", tally)])
