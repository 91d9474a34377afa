"""How much one waveform differs from another, sample by sample."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from node.explain import waveform_diff
from node.explain.waveform_diff import Samples, WaveformDifference, compare_waveforms
from scripts.testnet_tool import liar

RNG = np.random.default_rng(1)
MONO = RNG.uniform(-1, 1, (5000, 1)).astype(np.float32)
STEREO = RNG.uniform(-1, 1, (5000, 2)).astype(np.float32)


def difference(first: Samples, second: Samples) -> WaveformDifference:
    result = compare_waveforms(first, second)
    assert result is not None
    return result


@pytest.mark.parametrize("samples", [MONO, STEREO, MONO[:0]])
def test_equal_waveforms_do_not_differ(samples: Samples) -> None:
    assert compare_waveforms(samples, samples.copy()) is None


@pytest.mark.parametrize("samples", [MONO, STEREO], ids=["mono", "stereo"])
@pytest.mark.parametrize(
    "alter", [liar.quieter, liar.backwards, liar.upside_down, liar.silent, liar.lie_of(6)]
)
def test_every_altered_sample_is_counted(
    samples: Samples, alter: Callable[[Samples], Samples]
) -> None:
    result = difference(samples, alter(samples))
    assert (result.first, result.differing, result.samples) == (0, samples.size, samples.size)
    assert not result.is_rounding


def test_one_bit_of_one_sample_is_found() -> None:
    result = difference(MONO, liar.one_bit(MONO))
    assert (result.first, result.differing, result.samples) == (2500, 1, 5000)
    assert result.is_rounding


def test_the_first_frame_and_the_size_are_measured() -> None:
    altered = STEREO.copy()
    altered[3000:, 1] += np.float32(0.25)
    result = difference(STEREO, altered)
    assert (result.first, result.differing) == (3000, 2000)
    assert result.greatest == pytest.approx(0.25, rel=1e-6)
    assert result.rms == pytest.approx(0.25 * math.sqrt(2000 / 10_000), rel=1e-6)
    level = 10 * math.log10(0.25**2 * 2000 / float((STEREO.astype(float) ** 2).sum()))
    assert result.relative_db == pytest.approx(level, abs=1e-4)
    assert not result.is_rounding


@pytest.mark.parametrize("frames", [0, 100])
def test_a_shorter_waveform_differs_from_its_end_on(frames: int) -> None:
    for a, b in ((MONO, MONO[:frames]), (MONO[:frames], MONO)):
        result = difference(a, b)
        assert (result.first, result.differing, result.samples) == (frames, 0, frames)


def test_a_tenth_quieter_is_20_db_below() -> None:
    assert difference(MONO, liar.quieter(MONO)).relative_db == pytest.approx(-20, abs=1e-3)


def test_a_difference_in_the_last_bits_is_rounding() -> None:
    altered = np.nextafter(MONO, np.float32(2)).astype(np.float32)
    result = difference(MONO, altered)
    assert result.is_rounding
    assert result.differing == result.samples


def test_samples_that_are_not_finite_are_not_measured() -> None:
    altered = MONO.copy()
    altered[10:12] = (np.nan,), (np.inf,)
    expected = WaveformDifference(10, 2, 5000, None, None, None)
    assert difference(MONO, altered) == difference(altered, MONO) == expected


def test_a_difference_from_silence_has_no_level() -> None:
    assert difference(np.zeros_like(MONO), MONO).relative_db is None


def test_minus_zero_differs_from_zero() -> None:
    zeros = np.zeros((4, 1), np.float32)
    assert difference(zeros, -zeros).greatest == 0


def test_different_channel_counts_are_rejected() -> None:
    with pytest.raises(ValueError, match="1 and 2 channels"):
        compare_waveforms(MONO, STEREO)


def test_sums_by_block_equal_the_sums_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = difference(STEREO, liar.quieter(STEREO))
    monkeypatch.setattr(waveform_diff, "BLOCK", 999)
    by_block = difference(STEREO, liar.quieter(STEREO))
    assert by_block.rms == pytest.approx(whole.rms, rel=1e-12)
    assert by_block.greatest == whole.greatest
