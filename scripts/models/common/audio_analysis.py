"""Signal analysis of audio: tempo, key, brightness, drums, onsets, and faults such as clicks."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d, median_filter, minimum_filter1d
from scipy.signal import stft

from scripts.models.music.brief import FRAME_RATE, SIXTEENTHS_PER_BAR, TEMPI
from scripts.models.music.instruments import HOP, SAMPLING_RATE, Samples

# Samples between spectra: 10 ms.
HOP_SAMPLES: Final = 160
HOPS_PER_SECOND: Final = SAMPLING_RATE / HOP_SAMPLES
# Temperley's key profiles (Music and Probability, 2007), from the tonic.
KEY_PROFILES: Final = {
    "major": (0.748, 0.060, 0.488, 0.082, 0.670, 0.460, 0.096, 0.715, 0.104, 0.366, 0.057, 0.400),
    "minor": (0.712, 0.084, 0.474, 0.618, 0.049, 0.460, 0.105, 0.747, 0.404, 0.067, 0.133, 0.330),
}
# Audio with a lower RMS counts as silent.
SILENCE_RMS: Final = 1e-3
CLIPPING_PEAK: Final = 0.99
# Reference audio reaches 0.21: `scripts/embed measure music --calibrate`.
CLICK_THRESHOLD: Final = 0.25
# The steps of one click lie this close to each other.
CLICK_SAMPLES: Final = 3
# Samples before and after a click that are compared with it: 5 ms.
CLICK_CONTEXT: Final = 80
# Samples between two columns of the chromagram.
CHROMA_STEP: Final = 800
HARMONY_RATIO: Final = 0.6
# The opening of a piece counts more for its key, because it begins on the tonic.
OPENING_SHARE: Final = 0.15
OPENING_WEIGHT: Final = 8.0


@dataclass(frozen=True, slots=True)
class AudioFeatures:
    """The measured features of a piece.

    `frames`: frames of a sixteenth note. `tonic`: 0 to 11 from C. `major`: the fit of the best
    major key minus that of the best minor key. `centroid` in Hz. `onsets` per second. `jump`: see
    `largest_click`.
    """

    frames: int
    tonic: int
    mode: str
    major: float  # how much better the best major key fits than the best minor one
    centroid: float
    drums: float
    onsets: float
    peak: float
    rms: float
    jump: float  # the largest that stands alone


def analyse(audio: Samples) -> AudioFeatures:
    """Analyse mono audio with a sampling rate of 16 kHz."""
    audio = audio.astype(np.float64)
    frequencies, spectrum = magnitude_spectra(audio, 1024, HOP_SAMPLES)
    flux = _onset_strength(spectrum)
    chroma = _chromagram(audio)
    tonic, mode, major = _estimate_key(chroma)
    return AudioFeatures(
        frames=_estimate_tempo(flux, chroma),
        tonic=tonic,
        mode=mode,
        major=major,
        centroid=_spectral_centroid(frequencies, spectrum),
        drums=_high_noise(audio),
        onsets=len(_onset_peaks(flux)) * SAMPLING_RATE / len(audio),
        peak=float(np.abs(audio).max()),
        rms=float(np.sqrt(np.mean(audio**2))),
        jump=largest_click(audio),
    )


def magnitude_spectra(audio: Samples, length: int, step: int) -> tuple[Samples, Samples]:
    """Return frequencies in Hz, and magnitudes (frequencies, frames)."""
    frequencies, _, values = stft(
        audio, SAMPLING_RATE, nperseg=length, noverlap=length - step, boundary="zeros"
    )
    return frequencies, np.abs(values)


def _onset_strength(spectrum: Samples) -> Samples:
    """Return how much loudness each frame adds to the previous ones, averaged over 24 bands."""
    edges = np.unique(np.geomspace(2, len(spectrum), 25).astype(int))
    bands = np.add.reduceat(spectrum**2, edges[:-1], axis=0)
    loud = np.log1p(3e4 * bands)
    flux = np.maximum(0, loud[:, 2:] - loud[:, :-2]).mean(0)
    return np.concatenate([[0.0], flux, [0.0]])


def _onset_peaks(flux: Samples) -> NDArray[np.int64]:
    """Return the frames of onsets: local maxima clearly above the local median."""
    local_maximum = np.array([flux[max(0, i - 4) : i + 5].max() for i in range(len(flux))])
    local_median = np.array([np.median(flux[max(0, i - 40) : i + 41]) for i in range(len(flux))])
    return np.flatnonzero((flux == local_maximum) & (flux > local_median + 0.18))


def _estimate_tempo(flux: Samples, chroma: Samples) -> int:
    """Return the sixteenth length in frames whose grid of quarters fits the onsets best.

    Half and double tempo fit equally well. The rate of harmony changes decides between them.
    """
    centred = flux - flux.mean()
    size = 1 << (2 * len(centred)).bit_length()
    correlation = np.fft.irfft(np.abs(np.fft.rfft(centred, size)) ** 2)[: len(centred)]
    correlation = correlation / (np.arange(len(centred), 0, -1) * max(1e-12, correlation[0]))

    def at(seconds: float) -> float:
        lag = round(seconds * HOPS_PER_SECOND)
        nearby = correlation[max(1, lag - 1) : lag + 2]
        return float(nearby.max()) if len(nearby) else 0.0

    def score(frames: int) -> float:
        quarter = 4 * frames / FRAME_RATE
        fit = sum(at(quarter * k) * w for k, w in ((0.25, 0.5), (0.5, 1), (1, 1), (2, 1), (4, 1)))
        return float(fit - 0.5 * sum(at(quarter * k) for k in (0.375, 0.625, 0.75, 1.5)))

    best = max(TEMPI, key=score)
    for fast in TEMPI:
        if best in (fast, 2 * fast) and 2 * fast in TEMPI:
            return (
                fast
                if _harmony_changes_each_bar(chroma, SIXTEENTHS_PER_BAR * fast / FRAME_RATE)
                else 2 * fast
            )
    return best


def _harmony_changes_each_bar(chroma: Samples, bar: float) -> bool:
    """Whether the harmony changes at every bar, and not only at every other bar."""
    rate, changes = SAMPLING_RATE / CHROMA_STEP, {0: [0.0], 1: [0.0]}
    for number in range(1, int(chroma.shape[1] / rate / bar)):
        edge, reach = round(number * bar * rate), round(0.8 * bar * rate)
        previous = chroma[:, max(0, edge - reach) : edge].mean(1)
        following = chroma[:, edge : edge + reach].mean(1)
        similarity = (
            previous @ following / max(1e-12, np.linalg.norm(previous) * np.linalg.norm(following))
        )
        changes[number % 2].append(1 - float(similarity))
    return max(changes[1]) > HARMONY_RATIO * max(changes[0])


def _chromagram(audio: Samples) -> Samples:
    """Return the energy of each pitch class, (12, frames). Low notes count most."""
    frequencies, spectrum = magnitude_spectra(audio, 4096, CHROMA_STEP)
    energy, chroma = np.sqrt(spectrum), np.zeros((12, spectrum.shape[1]))
    for note in range(36, 96):
        centre = 440 * 2 ** ((note - 69) / 12)
        is_near = np.abs(frequencies - centre) < max(centre * 0.02, 2.0)
        if is_near.any():
            weight = 1.5 if note < 52 else 1.0 if note < 76 else 0.5
            chroma[note % 12] += weight * energy[is_near].max(0)
    return chroma


def _estimate_key(chroma: Samples) -> tuple[int, str, float]:
    """Return tonic and mode of the best key profile, and the margin of major over minor."""
    length = chroma.shape[1]
    weight = np.where(np.arange(length) < length * OPENING_SHARE, OPENING_WEIGHT, 1.0)
    total = (chroma * weight).sum(1)
    if total.max() - total.min() <= 0:
        return 0, "major", 0.0  # nothing sounds
    fits = {
        (tonic, mode): float(np.corrcoef(np.roll(profile, tonic), total)[0, 1])
        for mode, profile in KEY_PROFILES.items() for tonic in range(12)
    }  # fmt: skip
    best = {mode: max(f for (_, m), f in fits.items() if m == mode) for mode in KEY_PROFILES}
    tonic, mode = max(fits, key=fits.__getitem__)
    return tonic, mode, best["major"] - best["minor"]


def _spectral_centroid(frequencies: Samples, spectrum: Samples) -> float:
    """Return the centroid of sustained power above 300 Hz. A median over time removes drums."""
    audible = (frequencies > 300) & (frequencies < 6_000)
    power = (median_filter(spectrum[audible], size=(1, 15)) ** 2).mean(1)
    return float((frequencies[audible] * power).sum() / max(1e-12, power.sum()))


def _high_noise(audio: Samples) -> float:
    """Return the level of noise above 4.5 kHz that lasts longer than a string's attack.

    The median over frequencies removes tones, the minimum over time removes clicks.
    """
    frequencies, spectrum = magnitude_spectra(audio, 256, HOP_SAMPLES)
    noise = np.median(spectrum[frequencies > 4_500], axis=0)
    return float(1e5 * np.percentile(minimum_filter1d(noise, 4), 99))


def largest_click(audio: Samples) -> float:
    """Return how much the largest step between two samples exceeds all steps around it.

    Drums and high tones have large steps among other large steps. A click stands alone.
    """
    steps = np.pad(np.abs(np.diff(audio)), CLICK_CONTEXT)
    size = CLICK_CONTEXT - CLICK_SAMPLES
    largest, shift = maximum_filter1d(steps, size), CLICK_SAMPLES + size // 2
    before, after = np.roll(largest, shift), np.roll(largest, -shift)
    return float((steps - np.maximum(before, after))[CLICK_CONTEXT:-CLICK_CONTEXT].max())


def spectral_distance(first: Samples, second: Samples) -> float:
    """Return the mean difference of two spectra in 40 bands, in dB, with a floor of -80 dB."""
    levels = []
    for audio in (first, second):
        _, spectrum = magnitude_spectra(audio, 1024, HOP)
        edges = np.unique(np.geomspace(3, len(spectrum), 41).astype(int))
        power = np.add.reduceat(spectrum**2, edges[:-1], axis=0)
        levels.append(10 * np.log10(power + 1e-8))
    return float(np.abs(levels[0] - levels[1]).mean())
