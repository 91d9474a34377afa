"""A waveform that differs, measured; an alteration that is known, named."""

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import pytest

from node.explain import waveform_diff
from node.explain.waveform_diff import Difference, Samples, difference
from scripts.testnet_tool import liar

Altered: TypeAlias = Callable[[Samples], Samples]
DICE = np.random.default_rng(1)
MONO = DICE.uniform(-1, 1, (5000, 1)).astype(np.float32)
STEREO = DICE.uniform(-1, 1, (5000, 2)).astype(np.float32)


def found(first: Samples, second: Samples) -> Difference:
    result = difference(first, second)
    assert result is not None
    return result


def later(frames: int) -> Altered:
    def moved(samples: Samples) -> Samples:
        silence = np.zeros_like(samples[: abs(frames)])
        if frames > 0:
            return np.concatenate([silence, samples[:-frames]])
        return np.concatenate([samples[-frames:], silence])

    return moved


@pytest.mark.parametrize("samples", [MONO, STEREO, MONO[:0]])
def test_the_same_does_not_differ(samples: Samples) -> None:
    assert difference(samples, samples.copy()) is None


@pytest.mark.parametrize("samples", [MONO, STEREO], ids=["mono", "stereo"])
@pytest.mark.parametrize(
    ("alter", "pattern"),
    [
        (liar.quieter, "the others', times 0.9 (-0.92 dB)"),
        (liar.backwards, "the others', played backwards"),
        (lambda s: s.ravel()[::-1].reshape(s.shape), "the others', played backwards"),
        (liar.upside_down, "the others', upside down (every sample's sign turned)"),
        (liar.silent, "silence"),
        (liar.lie_of(6), "the others', times 1.06 (+0.51 dB)"),
        (lambda s: s * np.float32(-0.5), "the others', times 0.5 (-6.02 dB) and upside down"),
        (later(7), "the others', moved by 7 frames"),
        (later(-2000), "the others', moved by -2000 frames"),
        (lambda s: s[:100], "the others', cut off"),
        (lambda s: np.concatenate([s, s[:1]]), "the others' and then more"),
        (lambda s: s + np.float32(1e-3) * s**2, ""),
        (lambda s: s * np.float32(1.00001), ""),
        (lambda s: s * np.float32(np.nan), None),
    ],
)
def test_what_was_done_to_it_is_named(samples: Samples, alter: Altered, pattern: str) -> None:
    said = found(samples, alter(samples)).pattern
    assert said == (f"{samples.size} samples that are no numbers" if pattern is None else pattern)


def test_one_sample_in_its_last_bit() -> None:
    result = found(MONO, liar.one_bit(MONO))
    assert result.pattern == "the others' but for one sample"
    assert (result.first, result.differing, result.samples) == (2500, 1, 5000)
    assert result.tiny


def test_where_it_begins_and_how_much_it_is() -> None:
    altered = STEREO.copy()
    altered[3000:, 1] += np.float32(0.25)
    result = found(STEREO, altered)
    assert (result.first, result.differing) == (3000, 2000)
    assert result.greatest == pytest.approx(0.25, rel=1e-6)
    assert result.rms == pytest.approx(0.25 * math.sqrt(2000 / 10_000), rel=1e-6)
    level = 10 * math.log10(0.25**2 * 2000 / float((STEREO.astype(float) ** 2).sum()))
    assert result.relative_db == pytest.approx(level, abs=1e-4)
    assert not result.tiny


def test_a_tenth_quieter_is_20_db_below() -> None:
    assert found(MONO, liar.quieter(MONO)).relative_db == pytest.approx(-20, abs=1e-3)


def test_rounding_is_tiny() -> None:
    altered = np.nextafter(MONO, np.float32(2)).astype(np.float32)
    result = found(MONO, altered)
    assert result.tiny
    assert result.pattern == ""
    assert result.differing == result.samples


def test_what_is_no_number_is_not_measured() -> None:
    altered = MONO.copy()
    altered[10:12] = (np.nan,), (np.inf,)
    assert found(MONO, altered) == Difference(
        10, 2, 5000, None, None, None, "2 samples that are no numbers"
    )


def test_beside_silence_there_is_no_level() -> None:
    result = found(np.zeros_like(MONO), MONO)
    assert result.relative_db is None
    assert result.pattern == ""


def test_minus_zero_differs_and_measures_nothing() -> None:
    zeros = np.zeros((4, 1), np.float32)
    assert found(zeros, -zeros).greatest == 0


def test_other_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="1 and 2 channels"):
        difference(MONO, STEREO)


@pytest.mark.parametrize("alter", [liar.quieter, later(300)])
def test_long_ones_are_computed_in_blocks(monkeypatch: pytest.MonkeyPatch, alter: Altered) -> None:
    whole = found(STEREO, alter(STEREO))
    monkeypatch.setattr(waveform_diff, "BLOCK", 999)
    monkeypatch.setattr(waveform_diff, "WINDOW", 2000)
    parts = found(STEREO, alter(STEREO))
    assert parts.pattern == whole.pattern
    assert parts.rms == pytest.approx(whole.rms, rel=1e-12)
    assert parts.greatest == whole.greatest
