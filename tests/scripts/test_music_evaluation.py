"""The signal analysis on the generator's own audio, and on what has faults."""

import numpy as np
import pytest

from scripts.models.common.audio_analysis import (
    CLICK_THRESHOLD,
    analyse,
    largest_click,
    spectral_distance,
)
from scripts.models.music.captions import is_held_out
from scripts.models.music.evaluate import (
    ATTRIBUTE_COUNTS,
    PIECE_FRAMES,
    Tally,
    attribute_table,
    best_threshold,
    calibration_report,
    find_faults,
    held_out_captions,
    share_correct,
    tally_answers,
)
from scripts.models.music.instruments import Samples
from scripts.models.music.render import render_tokens
from scripts.models.music.tokens import compose_piece
from tests.scripts.conftest import Play

SECOND = 16_000


def sung(frequency: float, seconds: float = 4.0) -> Samples:
    return 0.3 * np.sin(2 * np.pi * frequency * np.arange(int(seconds * SECOND)) / SECOND)


def test_analysis_recognises_the_reference_audio() -> None:
    tally = tally_answers(held_out_captions(24), lambda question: render_tokens(question.codes))
    for name in ATTRIBUTE_COUNTS:
        assert tally.share(name) >= max(0.75, tally.chance(name)), name
        assert tally.balanced(name) > 0.7, name
    assert not sum(tally.faults.values())


def test_codec_audio_is_close_to_the_reference(play: Play) -> None:
    codes = [question.codes for question in held_out_captions(4)]
    for song, next_song in zip(codes, [*codes[1:], codes[0]], strict=True):
        reference = render_tokens(song)
        assert (
            spectral_distance(reference, play(song))
            < 4
            < spectral_distance(reference, play(next_song))
        )


def test_silence_and_clipping_are_faults() -> None:
    for audio, fault in ((np.zeros(SECOND), "silent"), (4 * sung(440), "clipped")):
        assert find_faults(analyse(audio))[fault]
    assert not any(find_faults(analyse(sung(440))).values())


def test_only_isolated_steps_are_clicks() -> None:
    quiet = sung(440) / 3
    click, edge, drum = quiet.copy(), quiet.copy(), quiet.copy()
    click[SECOND] += 0.5
    edge[SECOND:] += 0.5
    drum[SECOND : SECOND + 800] += np.random.default_rng(0).uniform(-0.5, 0.5, 800)
    assert largest_click(quiet) < 0.05
    assert min(largest_click(click), largest_click(edge)) > 0.4 > CLICK_THRESHOLD
    assert np.abs(np.diff(drum)).max() > 0.5
    assert largest_click(drum) < CLICK_THRESHOLD


@pytest.mark.parametrize("frames", [5, 7, 8, 11])
def test_tempo_of_a_click_track(frames: int) -> None:
    audio = 0.001 * np.ones(8 * SECOND)
    for beat in range(0, 8 * 50, 4 * frames):
        audio[beat * 320 : beat * 320 + 800] += sung(1_000, 0.05)
    assert analyse(audio).frames in (frames, 2 * frames)


def test_evaluation_captions_are_held_out() -> None:
    for question in held_out_captions(5):
        assert is_held_out(question.brief)
        assert question.codes.shape == (4, PIECE_FRAMES)


def test_wrong_answers_are_counted() -> None:
    questions = held_out_captions(12)
    tally = tally_answers(questions, lambda _: render_tokens(compose_piece("other", 400)[2]))
    assert tally.count == 12
    asked_for, right = (
        sum(by_value.total() for by_value in counts.values())
        for counts in (tally.asked, tally.right)
    )
    assert len(tally.wrong) == asked_for - right > 0


def test_guessing_the_commonest_value_scores_chance() -> None:
    tally = Tally()
    for value, total, right in (("fast", 6, 6), ("medium", 3, 0), ("slow", 1, 0)):
        tally.asked["tempo"][value], tally.right["tempo"][value] = total, right
    assert tally.share("tempo") == tally.chance("tempo") == pytest.approx(0.6)
    assert tally.balanced("tempo") == pytest.approx(1 / 3)
    assert tally.chance("mode") == 0.5
    table = attribute_table([("model", tally)])
    assert "| tempo (of 10) | 60% | 60% (33%) |" in table
    assert "| tempo | fast 6 of 6, medium 0 of 3, slow 0 of 1 |" in table


def test_calibration_finds_the_best_threshold() -> None:
    samples = [(1.0, False), (2.0, True), (4.0, False), (9.0, True), (16.0, True)]
    assert best_threshold(samples) == pytest.approx(72**0.25)
    assert share_correct(samples, 3.0) == 0.6
    lines = calibration_report(10).splitlines()
    assert [line.split()[0] for line in lines] == ["BRIGHT", "DRUMMED", "DENSE", "jumps"]
