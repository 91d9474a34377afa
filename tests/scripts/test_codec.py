"""The instrument in the codec's weights: in tune, damped, replaced, silent, never too loud."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from executor.models.folders import EMBEDDED, SHIPPED
from scripts.models.common.export import FLOAT32_PARTS
from scripts.models.music.codec import DRUMS, FRAME_DECAY, pitch_frequency, starting_phase
from scripts.models.music.instruments import (
    HOP,
    SAMPLING_RATE,
    Samples,
    drum_samples,
    partial_levels,
)
from scripts.models.music.tokens import (
    BASS,
    BEAT,
    CHORDS,
    IDS,
    LEAD,
    Bass,
    BassHold,
    BassRest,
    Chord,
    ChordHold,
    ChordRest,
    Codes,
    Lead,
    LeadHold,
    LeadRest,
    Tick,
    Token,
    Until,
    compose_piece,
)
from tests.scripts.conftest import Play

START = 10  # the frame of the first event
REST: tuple[Token, ...] = (
    Until(5, 1),
    ChordRest(0, "major"),
    BassRest("whole"),
    LeadRest("piano", "melody"),
)


def score(frames: int, book: int, *events: tuple[int, Token]) -> Codes:
    """Rests, but for what is in a book from given frames on."""
    rows = np.array([[IDS[b][token]] * frames for b, token in enumerate(REST)])
    for frame, token in events:
        rows[book, frame:] = IDS[book][token]
    return rows


def note(event: Token, hold: Token, frame: int = START) -> Sequence[tuple[int, Token]]:
    return (frame, event), (frame + 1, hold)


def level(audio: Samples, frequency: float, first: int, last: int) -> float:
    """The amplitude of a frequency between two frames."""
    part = audio[first * HOP : last * HOP]
    window = np.hanning(len(part))
    turns = np.exp(-2j * math.pi * frequency * np.arange(len(part)) / SAMPLING_RATE)
    return float(2 * np.abs((part * window * turns).sum()) / window.sum())


def test_rests_are_silence(play: Play) -> None:
    assert np.abs(play(score(100, LEAD))).max() < 10 ** (-90 / 20)


@pytest.mark.parametrize("pitch", [60, 69, 89])
def test_lead_note_is_in_tune(play: Play, pitch: int) -> None:
    events = note(Lead(pitch, "flute", bright=False), LeadHold("flute", "melody"))
    assert abs(cents(play(score(150, LEAD, *events)), pitch)) < 0.5


@pytest.mark.parametrize("pitch", [28, 40, 51])
def test_bass_note_is_in_tune(play: Play, pitch: int) -> None:
    events = note(Bass(pitch, "synth", strong=True), BassHold("synth", "whole"))
    assert abs(cents(play(score(150, BASS, *events)), pitch)) < 0.5


def cents(audio: Samples, pitch: int) -> float:
    """How far the strongest frequency near a pitch is from it."""
    part = audio[(START + 10) * HOP :]
    size = 1 << 20
    spectrum = np.abs(np.fft.rfft(part * np.hanning(len(part)), size))
    expected = pitch_frequency(pitch)
    near = np.arange(
        int(expected * 0.9 / SAMPLING_RATE * size), int(expected * 1.1 / SAMPLING_RATE * size)
    )
    return 1200 * math.log2(near[spectrum[near].argmax()] * SAMPLING_RATE / size / expected)


def test_note_is_the_sum_of_its_partials(play: Play) -> None:
    """40 dB against ideal sines that decay: the first frame, and the steps of the decay, differ."""
    event = Lead(69, "strings", bright=False)
    audio = play(score(150, LEAD, *note(event, LeadHold("strings", "melody"))))
    place = np.arange(len(audio)) - START * HOP - HOP / 2
    expected = np.zeros(len(audio))
    for pitch, amplitude in partial_levels(event).items():
        turn = pitch_frequency(pitch) * place / SAMPLING_RATE + starting_phase("lead", pitch)
        expected += amplitude * FRAME_DECAY ** (place / HOP) * np.cos(2 * math.pi * turn)
    steady = slice((START + 2) * HOP, -2 * HOP)
    error = audio[steady] - expected[steady]
    assert 10 * math.log10((expected[steady] ** 2).sum() / (error**2).sum()) > 40


def test_struck_sounds_decay_and_sustained_sounds_last(play: Play) -> None:
    levels = {}
    for sound in ("piano", "harp", "flute"):
        events = note(Lead(69, sound, bright=False), LeadHold(sound, "melody"))
        audio = play(score(150, LEAD, *events))
        levels[sound] = level(audio, 440, 60, 80) / level(audio, 440, 15, 35)
    assert levels["harp"] < levels["piano"] < 0.3
    assert levels["flute"] > 0.7


def test_rest_ends_a_note(play: Play) -> None:
    events = note(Lead(69, "flute", bright=False), LeadHold("flute", "melody"))
    audio = play(score(150, LEAD, *events, (60, LeadRest("flute", "melody"))))
    assert np.abs(audio[40 * HOP : 60 * HOP]).max() > 0.05
    assert np.abs(audio[65 * HOP :]).max() < 1e-4


def test_chord_ends_the_previous_one(play: Play) -> None:
    hold = ChordHold(0, "major", "none")
    first, second = (Chord(root, "major", "pad", bright=False) for root in (0, 6))
    audio = play(score(150, CHORDS, *note(first, hold), *note(second, hold, 80)))
    fifth = pitch_frequency(55)  # of the first: the second chord has no G
    assert level(audio, fifth, 85, 145) < level(audio, fifth, 15, 75) / 10


def test_new_note_is_as_loud_as_the_first(play: Play) -> None:
    """Gates that are nearly shut, and a stroke so much harder."""
    hold = BassHold("synth", "whole")
    events = (
        *note(Bass(40, "synth", strong=True), hold),
        *note(Bass(45, "synth", strong=True), hold, 80),
    )
    audio = play(score(150, BASS, *events))
    first = level(audio, pitch_frequency(40), 15, 40)
    assert level(audio, pitch_frequency(45), 85, 110) == pytest.approx(first, rel=0.1)


@pytest.mark.parametrize("name", DRUMS)
def test_drum_equals_its_recording(play: Play, name: str) -> None:
    audio = play(score(60, BEAT, (START, Tick(0, 0, name)), (START + 1, Until(5, 1))))
    expected = np.array(drum_samples(name))
    played = audio[START * HOP : START * HOP + len(expected)]
    assert np.abs(played - expected).max() < 0.02 * np.abs(expected).max()


def test_loudest_pieces_do_not_clip(play: Play) -> None:
    peaks = [np.abs(play(compose_piece(f"loud/{n}", 300)[2])).max() for n in range(12)]
    assert 0.3 < max(peaks) < 0.9


def test_shipped_codec_equals_the_computed_one(codec: Any) -> None:
    shipped = load_file(SHIPPED / EMBEDDED / "model.safetensors")
    for name, tensor in codec.state_dict().items():
        weights = shipped[f"audio_encoder.{name}"]
        if any(part in name for part in FLOAT32_PARTS):
            torch.testing.assert_close(weights, tensor, rtol=1e-6, atol=1e-7)
        else:
            assert torch.equal(weights, tensor.half()), name
