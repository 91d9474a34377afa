"""What a Pop2Piano model hears of a song: its beats, and a spectrogram of each few bars.

The numbers are those of transformers' Pop2PianoFeatureExtractor for one song, bit for bit. essentia
finds the beats, and resampy has the filter of the resampler, which is read as a file: numba, which
computes with it there, is not needed. All else is numpy.
"""

import functools
import importlib.util
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]

STEPS_PER_BEAT = 2
BEATS_PER_BAR = 4  # as the extractor counts steps, which are half as long
# The least power of a band, so that silence has a logarithm; the first one is below the second.
MEL_FLOOR, POWER_FLOOR = 1e-10, 1e-6
# The scale of mels: hertz at which it turns from linear to logarithmic, and mels of a decade.
MEL_BREAK, MEL_DECADE = 700.0, 2595.0
RESAMPLING_FILTER = "kaiser_best"
# Outputs of the resampler that are computed at once: their numbers stay in the caches.
BLOCK = 8_192


@dataclass(frozen=True, slots=True)
class FeatureSettings:
    """How a model hears; the names and defaults are transformers'. Frequencies are in Hz."""

    sampling_rate: int = 22_050
    window_size: int = 4_096
    hop_length: int = 1_024
    min_frequency: float = 10.0
    feature_size: int = 512
    num_bars: int = 2


@dataclass(frozen=True, slots=True)
class SongFeatures:
    """What a model hears.

    `spectrograms` are `(rows, frames, feature_size)`, logarithms of power, one row for each few
    bars. `steps` are the times of half beats in seconds. `later_steps` begin at 0 with the first of
    them, and go on after the song.
    """

    spectrograms: "NDArray[np.float32]"
    steps: "NDArray[np.float32]"
    later_steps: "NDArray[np.float32]"


def extract(audio: "NDArray[np.float32]", rate: int, settings: FeatureSettings) -> SongFeatures:
    """Return the features of a song, `(samples,)` at `rate`.

    Raises any error where there is no beat: the libraries have no type of it.
    """
    steps = interpolate(find_beats(audio), STEPS_PER_BEAT, 1)
    audio = resample(audio, rate, settings.sampling_rate)
    first, last = (int(step * settings.sampling_rate) for step in (steps[0], steps[-1]))
    starts = steps - steps[0]
    later = interpolate(starts, 1, (settings.num_bars + 1) * BEATS_PER_BAR + 1)
    rows = cut(audio[first:last], len(starts), later, settings)
    powers = np.array([mel_powers(row, settings) for row in rows])
    logarithms = np.log(np.clip(powers, a_min=POWER_FLOOR, a_max=None))
    return SongFeatures(
        np.transpose(logarithms, (0, 2, 1)).astype(np.float32),
        steps.astype(np.float32),
        later.astype(np.float32),
    )


def find_beats(audio: "NDArray[np.float32]") -> "NDArray[np.float32]":
    """Return the times of the beats in seconds; `audio` is at 44,100 Hz."""
    import essentia.standard

    tracker = essentia.standard.RhythmExtractor2013(method="multifeature")
    beats: NDArray[np.float32] = tracker(audio)[1]
    if len(beats) < 2:
        raise ValueError(f"{len(beats)} beats")
    return beats


def interpolate(times: "NDArray[Any]", parts: int, more: int) -> "Numbers":
    """Return `times` with each step cut in `parts`, and continued by `more` of the last step."""
    count = len(times)
    at = np.linspace(0, count + more - 1, count * parts + more)
    after = np.searchsorted(np.arange(count), at).clip(1, count - 1)
    slopes = (times[after] - times[after - 1]).astype(np.float64)
    result: Numbers = slopes * (at - (after - 1)) + times[after - 1]
    return result


def cut(
    audio: "NDArray[np.float32]", steps: int, times: "Numbers", settings: FeatureSettings
) -> "NDArray[np.float32]":
    """Return the audio of each `num_bars` bars of `steps`, all as long as the longest one."""
    row = settings.num_bars * BEATS_PER_BAR
    samples = [int(time * settings.sampling_rate) for time in times]
    bounds = [(samples[i], samples[min(i + row, steps)]) for i in range(0, steps, row)]
    rows = np.zeros((len(bounds), max(end - start for start, end in bounds)), np.float32)
    for number, (start, end) in enumerate(bounds):
        part = audio[start:end]
        rows[number, : len(part)] = part
    return rows


def mel_powers(audio: "NDArray[np.float32]", settings: FeatureSettings) -> "Numbers":
    """Return the power of each band in each window, `(feature_size, frames)`."""
    size, bank = settings.window_size, mel_bank(settings)
    padded = np.pad(audio, size // 2, mode="reflect").astype(np.float64)
    windows = np.lib.stride_tricks.sliding_window_view(padded, size)[:: settings.hop_length]
    shape = np.hanning(size + 1)[:-1]
    # Rounded to binary32 in between.
    spectrum = np.array([np.fft.rfft(window * shape) for window in windows], np.complex64)
    power = np.abs(spectrum, dtype=np.float64) ** 2.0
    bands: Numbers = np.maximum(MEL_FLOOR, np.dot(bank.T, power.T))
    return bands


@functools.cache
def mel_bank(settings: FeatureSettings) -> "Numbers":
    """Return triangular filters, evenly spaced in mels, `(frequencies, feature_size)`."""
    highest = float(settings.sampling_rate // 2)
    low, high = (
        MEL_DECADE * np.log10(1.0 + hertz / MEL_BREAK)
        for hertz in (settings.min_frequency, highest)
    )
    mels = np.linspace(low, high, settings.feature_size + 2)
    corners = MEL_BREAK * (np.power(10, mels / MEL_DECADE) - 1.0)
    frequencies = np.linspace(0, settings.sampling_rate // 2, settings.window_size // 2 + 1)
    distances = corners[None, :] - frequencies[:, None]
    widths = np.diff(corners)
    falling, rising = -distances[:, :-2] / widths[:-1], distances[:, 2:] / widths[1:]
    bank: Numbers = np.maximum(0.0, np.minimum(falling, rising))
    return bank


def resample(audio: "NDArray[np.float32]", rate: int, new_rate: int) -> "NDArray[np.float32]":
    """Return audio at another rate, by windowed sinc interpolation, as resampy computes it.

    It has as many samples as librosa gives: the last of them is 0 where the filter has ended.
    """
    if rate == new_rate:
        return audio
    ratio = float(new_rate) / rate
    length = int(len(audio) * float(new_rate) / float(rate))
    if length < 1:
        raise ValueError(f"{len(audio)} samples are too few to resample")
    result = np.zeros(math.ceil(len(audio) * ratio), np.float32)
    for start in range(0, length, BLOCK):
        outputs = np.arange(start, min(start + BLOCK, length))
        times = (outputs * (1.0 / ratio)).astype(np.float64)
        result[outputs] = resampled(audio, times, ratio)
    return result


def resampled(
    audio: "NDArray[np.float32]", times: "Numbers", ratio: float
) -> "NDArray[np.float32]":
    """Return the samples at `times`, in samples of `audio`.

    Each is a chain over the filter's left wing, then its right one: `sum + weight * sample` in
    binary64, rounded to binary32 at each step.
    """
    window, slopes, precision = resampling_filter(ratio)
    scale = min(1.0, ratio)
    step = int(scale * precision)
    nearest = times.astype(np.int64)
    share = scale * (times - nearest)
    sums = np.zeros(len(times), np.float32)
    for direction, fraction, first in ((-1, share, nearest), (1, scale - share, nearest + 1)):
        index = fraction * precision
        offset = index.astype(np.int64)
        left = first + 1 if direction < 0 else len(audio) - first
        counts = np.minimum(left, (len(window) - offset) // step)
        rest = index - offset
        if (offset == offset[0]).all() and (rest == rest[0]).all():
            offset, rest = offset[:1], rest[:1]  # all have the same weights
        fewest = max(0, int(counts.min()))
        for tap in range(int(counts.max())):
            sample = first + direction * tap
            weight = window[offset + tap * step] + rest * slopes[offset + tap * step]
            if tap < fewest:
                sums = (sums + weight * audio[sample]).astype(np.float32)
                continue
            inside = tap < counts
            products = weight * audio[np.where(inside, sample, 0)]
            sums = np.where(inside, (sums + products).astype(np.float32), sums)
    return sums


@functools.lru_cache(maxsize=2)
def resampling_filter(ratio: float) -> "tuple[Numbers, Numbers, int]":
    """Return a wing of the filter for a ratio of rates, its differences, and places a sample."""
    with np.load(filter_path()) as content:
        window, precision = content["half_window"], int(content["precision"])
    if ratio < 1:
        window = ratio * window
    return window, np.diff(window, append=window[-1]), precision


def filter_path() -> Path:
    """Return where resampy keeps its filter. Importing it would import numba."""
    spec = importlib.util.find_spec("resampy")
    places: Iterator[str] = iter(spec.submodule_search_locations or () if spec else ())
    return Path(next(places)) / "data" / f"{RESAMPLING_FILTER}.npz"
