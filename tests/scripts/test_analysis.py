"""The signal analysis on the generator's own audio, and on what has faults."""

import numpy as np
import pytest

from scripts.embedded_model import analysis, calibrating, captions, measuring, notation, rendering
from scripts.embedded_model.analysis import Samples
from tests.scripts.conftest import Play

SECOND = 16_000


def sung(frequency: float, seconds: float = 4.0) -> Samples:
    return 0.3 * np.sin(2 * np.pi * frequency * np.arange(int(seconds * SECOND)) / SECOND)


def test_it_knows_the_generators_own_audio() -> None:
    tally = measuring.judged(measuring.questions(24), lambda asked: rendering.play(asked.codes))
    for name in measuring.ATTRIBUTES:
        assert tally.share(name) >= max(0.75, tally.chance(name)), name
        assert tally.balanced(name) > 0.7, name
    assert not sum(tally.faults.values())


def test_the_codec_sounds_like_the_generator(play: Play) -> None:
    codes = [asked.codes for asked in measuring.questions(4)]
    for one, other in zip(codes, [*codes[1:], codes[0]], strict=True):
        due = rendering.play(one)
        assert measuring.distance(due, play(one)) < 4 < measuring.distance(due, play(other))


def test_faults_are_found() -> None:
    for audio, fault in ((np.zeros(SECOND), "silent"), (4 * sung(440), "clipped")):
        assert measuring.faults(analysis.analyse(audio))[fault]
    assert not any(measuring.faults(analysis.analyse(sung(440))).values())


def test_clicks_are_steps_that_stand_alone() -> None:
    quiet = sung(440) / 3
    click, edge, drum = quiet.copy(), quiet.copy(), quiet.copy()
    click[SECOND] += 0.5
    edge[SECOND:] += 0.5
    drum[SECOND : SECOND + 800] += np.random.default_rng(0).uniform(-0.5, 0.5, 800)
    assert analysis.jump(quiet) < 0.05
    assert min(analysis.jump(click), analysis.jump(edge)) > 0.4 > analysis.JUMP
    assert np.abs(np.diff(drum)).max() > 0.5
    assert analysis.jump(drum) < analysis.JUMP


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
    asked_for, right = (
        sum(by_value.total() for by_value in found.values()) for found in (tally.asked, tally.right)
    )
    assert len(tally.wrong) == asked_for - right > 0


def test_always_saying_the_commonest_is_chance() -> None:
    tally = measuring.Tally()
    for value, asked, right in (("fast", 6, 6), ("medium", 3, 0), ("slow", 1, 0)):
        tally.asked["tempo"][value], tally.right["tempo"][value] = asked, right
    assert tally.share("tempo") == tally.chance("tempo") == pytest.approx(0.6)
    assert tally.balanced("tempo") == pytest.approx(1 / 3)
    assert tally.chance("mode") == 0.5
    shown = measuring.table([("model", tally)])
    assert "| tempo (of 10) | 60% | 60% (33%) |" in shown
    assert "| tempo | fast 6 of 6, medium 0 of 3, slow 0 of 1 |" in shown


def test_thresholds_are_where_most_are_told_right() -> None:
    told = [(1.0, False), (2.0, True), (4.0, False), (9.0, True), (16.0, True)]
    assert calibrating.best(told) == pytest.approx(72**0.25)
    assert calibrating.right(told, 3.0) == 0.6
    lines = calibrating.report(10).splitlines()
    assert [line.split()[0] for line in lines] == ["BRIGHT", "DRUMMED", "DENSE", "jumps"]
