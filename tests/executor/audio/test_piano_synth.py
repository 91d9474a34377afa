"""The waveform of notes: that it sounds as it should, and is the same whatever computes it."""

import hashlib
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from executor.audio import piano_synth
from executor.audio.midi import Note, canonical

ROOT = Path(__file__).resolve().parents[3]
SCALE = canonical([(key * 0.25, key * 0.25 + 0.5, 40 + 7 * key, 77) for key in range(10)])
# What these notes sound like, for ever: the waveform's bytes are agreed on.
SOUND = "ddcf889f76357f470ac0f5ee955b1be2c8291d65493e269e2b0b0b8dadbacc8e"


def digest(notes: tuple[Note, ...]) -> str:
    return hashlib.sha256(piano_synth.render(notes).tobytes()).hexdigest()


def test_the_bytes_are_these() -> None:
    assert digest(SCALE) == SOUND


@pytest.mark.parametrize("off", ["", "AVX2 FMA3 X86_V3 X86_V4 AVX512_ICL AVX512_SPR"])
def test_the_bytes_are_these_with_other_instructions(off: str) -> None:
    code = "from tests.executor.audio.test_piano_synth import *; print(digest(SCALE))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NPY_DISABLE_CPU_FEATURES": off}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env=environment,
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == SOUND


def test_waveform_does_not_depend_on_note_order() -> None:
    assert digest(SCALE[::-1]) == SOUND


def test_the_tables_are_what_they_stand_for() -> None:
    turn = 2 * np.pi * np.arange(piano_synth.SINE_ENTRIES) / piano_synth.SINE_ENTRIES
    assert np.abs(piano_synth.sine() - 32_767 * np.sin(turn)).max() < 0.5001
    fall = 65_536 * 2.0 ** (-np.arange(piano_synth.DECAY_STEPS) / piano_synth.DECAY_STEPS)
    assert ((fall - piano_synth.octave() >= 0) & (fall - piano_synth.octave() < 1)).all()
    for pitch in range(128):
        frequency = piano_synth.step(pitch) * piano_synth.RATE / 2**32
        assert math.isclose(frequency, 440 * 2 ** ((pitch - 69) / 12), rel_tol=2e-6)


@pytest.mark.parametrize("pitch", [21, 45, 69, 100, 127])
def test_a_key_sounds_at_its_pitch(pitch: int) -> None:
    sound = piano_synth.render([Note(0, pitch, 1536, 77)])[:, 0]
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound))))
    loudest = float(spectrum.argmax()) * piano_synth.RATE / len(sound)
    assert abs(loudest - 440 * 2 ** ((pitch - 69) / 12)) < 1


def test_note_sounds_from_its_start_to_shortly_after_its_end() -> None:
    sound = piano_synth.render([Note(768, 60, 1536, 77)])[:, 0]
    assert len(sound) == 2 * piano_synth.RATE + piano_synth.RELEASE
    assert not sound[: piano_synth.RATE].any()
    assert np.abs(sound[piano_synth.RATE :][:500]).max() > 0.5
    held, ending = sound[2 * piano_synth.RATE - 500 : 2 * piano_synth.RATE], sound[-500:]
    assert 0.1 < np.abs(held).max() < 0.5
    assert np.abs(ending).max() < 0.01
    assert sound[-1] == 0


def test_there_are_no_clicks() -> None:
    sound = piano_synth.render([Note(0, 60, 700, 77), Note(700, 60, 1400, 77)])[:, 0]
    assert np.abs(np.diff(sound)).max() < 0.2


def test_the_loudest_sample_is_always_the_same() -> None:
    for notes in ([Note(0, 60, 10, 1)], SCALE, [Note(0, key, 768, 127) for key in range(128)]):
        assert 0.8999 < float(np.abs(piano_synth.render(notes)).max()) <= 0.9


def test_velocity_is_loudness() -> None:
    sound = piano_synth.render([Note(0, 60, 384, 30), Note(1536, 60, 1920, 60)])[:, 0]
    first, second = sound[: piano_synth.RATE], sound[2 * piano_synth.RATE :]
    assert 1.9 < np.abs(second).max() / np.abs(first).max() < 2.1


def test_long_low_note_decays_to_silence() -> None:
    sound = piano_synth.render([Note(0, 21, 768 * 40, 77)])[:, 0]
    assert sound[: piano_synth.RATE].any()
    assert not sound[-piano_synth.RATE * 5 :].any()


def test_no_notes_are_silence() -> None:
    assert piano_synth.render([]).shape == (piano_synth.RELEASE, 1)
    assert not piano_synth.render([]).any()


@pytest.mark.parametrize(
    ("value", "degree", "expected"),
    [(0, 3, 0), (1, 12, 1), (26, 3, 2), (27, 3, 3), (2**120, 12, 1024)],
)
def test_roots_are_exact(value: int, degree: int, expected: int) -> None:
    assert piano_synth.root(value, degree) == expected
