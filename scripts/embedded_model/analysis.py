"""What plain signal analysis finds in audio: tempo, key, brightness, drums, onsets, faults."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d, median_filter, minimum_filter1d
from scipy.signal import stft

from scripts.embedded_model.percussion import SAMPLING_RATE
from scripts.embedded_model.vocabulary import FRAME_RATE, SIXTEENTHS, TEMPI

Samples = NDArray[np.float64]

STEP: Final = 160  # samples between spectra: 10 ms
RATE: Final = SAMPLING_RATE / STEP
# Temperley's key profiles (Music and Probability, 2007), from the tonic.
PROFILES: Final = {
    "major": (0.748, 0.060, 0.488, 0.082, 0.670, 0.460, 0.096, 0.715, 0.104, 0.366, 0.057, 0.400),
    "minor": (0.712, 0.084, 0.474, 0.618, 0.049, 0.460, 0.105, 0.747, 0.404, 0.067, 0.133, 0.330),
}
SILENT: Final = 1e-3  # RMS
CLIPPED: Final = 0.99
JUMP: Final = 0.25  # the generator's own audio reaches 0.21: `measure music --calibrate`
CLICK: Final = 3  # samples between steps that may be of one click
AROUND: Final = 80  # samples before and after it: 5 ms
CHROMA_STEP: Final = 800  # samples
QUICK: Final = 0.6
OPENING: Final = 0.15  # of a piece counts more for its key: it begins on the tonic
OPENING_WEIGHT: Final = 8.0


@dataclass(frozen=True, slots=True)
class Found:
    """What was measured; `tempo` in frames of a sixteenth, `centroid` in Hz, rates per second."""

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


def analyse(audio: Samples) -> Found:
    """Analyse mono audio of 16 kHz."""
    audio = audio.astype(np.float64)
    frequencies, spectrum = spectra(audio, 1024, STEP)
    flux = novelty(spectrum)
    chroma = chromagram(audio)
    tonic, mode, major = key(chroma)
    return Found(
        frames=tempo(flux, chroma),
        tonic=tonic,
        mode=mode,
        major=major,
        centroid=centroid(frequencies, spectrum),
        drums=noisiness(audio),
        onsets=len(peaks(flux)) * SAMPLING_RATE / len(audio),
        peak=float(np.abs(audio).max()),
        rms=float(np.sqrt(np.mean(audio**2))),
        jump=jump(audio),
    )


def spectra(audio: Samples, length: int, step: int) -> tuple[Samples, Samples]:
    """Frequencies, and magnitudes (frequencies, frames)."""
    frequencies, _, values = stft(
        audio, SAMPLING_RATE, nperseg=length, noverlap=length - step, boundary="zeros"
    )
    return frequencies, np.abs(values)


def novelty(spectrum: Samples) -> Samples:
    """How much each frame adds to the one before, over loudness in 24 bands."""
    edges = np.unique(np.geomspace(2, len(spectrum), 25).astype(int))
    bands = np.add.reduceat(spectrum**2, edges[:-1], axis=0)
    loud = np.log1p(3e4 * bands)
    flux = np.maximum(0, loud[:, 2:] - loud[:, :-2]).mean(0)
    return np.concatenate([[0.0], flux, [0.0]])


def peaks(flux: Samples) -> NDArray[np.int64]:
    """Frames at which something begins."""
    around = np.array([flux[max(0, i - 4) : i + 5].max() for i in range(len(flux))])
    level = np.array([np.median(flux[max(0, i - 40) : i + 41]) for i in range(len(flux))])
    return np.flatnonzero((flux == around) & (flux > level + 0.18))


def tempo(flux: Samples, chroma: Samples) -> int:
    """The number of frames of a sixteenth whose grid of quarters fits the onsets best.

    Half and double the tempo fit alike; how often the harmony changes decides between them.
    """
    here = flux - flux.mean()
    size = 1 << (2 * len(here)).bit_length()
    correlation = np.fft.irfft(np.abs(np.fft.rfft(here, size)) ** 2)[: len(here)]
    correlation = correlation / (np.arange(len(here), 0, -1) * max(1e-12, correlation[0]))

    def at(seconds: float) -> float:
        place = round(seconds * RATE)
        around = correlation[max(1, place - 1) : place + 2]
        return float(around.max()) if len(around) else 0.0

    def score(frames: int) -> float:
        quarter = 4 * frames / FRAME_RATE
        fit = sum(at(quarter * k) * w for k, w in ((0.25, 0.5), (0.5, 1), (1, 1), (2, 1), (4, 1)))
        return float(fit - 0.5 * sum(at(quarter * k) for k in (0.375, 0.625, 0.75, 1.5)))

    best = max(TEMPI, key=score)
    for fast in TEMPI:
        if best in (fast, 2 * fast) and 2 * fast in TEMPI:
            return fast if quick(chroma, SIXTEENTHS * fast / FRAME_RATE) else 2 * fast
    return best


def quick(chroma: Samples, bar: float) -> bool:
    """Whether the harmony changes at every bar of so many seconds, and not at every other one."""
    rate, found = SAMPLING_RATE / CHROMA_STEP, {0: [0.0], 1: [0.0]}
    for number in range(1, int(chroma.shape[1] / rate / bar)):
        edge, reach = round(number * bar * rate), round(0.8 * bar * rate)
        before = chroma[:, max(0, edge - reach) : edge].mean(1)
        after = chroma[:, edge : edge + reach].mean(1)
        alike = before @ after / max(1e-12, np.linalg.norm(before) * np.linalg.norm(after))
        found[number % 2].append(1 - float(alike))
    return max(found[1]) > QUICK * max(found[0])


def chromagram(audio: Samples) -> Samples:
    """How much of each pitch class sounds, (12, frames); the bass counts most."""
    frequencies, spectrum = spectra(audio, 4096, CHROMA_STEP)
    energy, chroma = np.sqrt(spectrum), np.zeros((12, spectrum.shape[1]))
    for note in range(36, 96):
        centre = 440 * 2 ** ((note - 69) / 12)
        near = np.abs(frequencies - centre) < max(centre * 0.02, 2.0)
        if near.any():
            weight = 1.5 if note < 52 else 1.0 if note < 76 else 0.5
            chroma[note % 12] += weight * energy[near].max(0)
    return chroma


def key(chroma: Samples) -> tuple[int, str, float]:
    """The key whose profile fits best, and by how much the best major one beats the minor one."""
    length = chroma.shape[1]
    weight = np.where(np.arange(length) < length * OPENING, OPENING_WEIGHT, 1.0)
    total = (chroma * weight).sum(1)
    if total.max() - total.min() <= 0:
        return 0, "major", 0.0  # nothing sounds
    fits = {
        (tonic, mode): float(np.corrcoef(np.roll(profile, tonic), total)[0, 1])
        for mode, profile in PROFILES.items() for tonic in range(12)
    }  # fmt: skip
    best = {mode: max(f for (_, m), f in fits.items() if m == mode) for mode in PROFILES}
    tonic, mode = max(fits, key=fits.__getitem__)
    return tonic, mode, best["major"] - best["minor"]


def centroid(frequencies: Samples, spectrum: Samples) -> float:
    """The centroid of the power above 300 Hz that lasts: a median over time leaves drums out."""
    heard = (frequencies > 300) & (frequencies < 6_000)
    power = (median_filter(spectrum[heard], size=(1, 15)) ** 2).mean(1)
    return float((frequencies[heard] * power).sum() / max(1e-12, power.sum()))


def noisiness(audio: Samples) -> float:
    """How loud the loudest noise above 4.5 kHz is that lasts longer than the click of a string.

    The median over frequencies leaves tones out, the least of some frames leaves clicks out.
    """
    frequencies, spectrum = spectra(audio, 256, STEP)
    noise = np.median(spectrum[frequencies > 4_500], axis=0)
    return float(1e5 * np.percentile(minimum_filter1d(noise, 4), 99))


def jump(audio: Samples) -> float:
    """By how much the largest step between two samples exceeds all steps around it.

    Steps as large as their neighbours are a drum's noise or a high tone; alone they are a click.
    """
    steps = np.pad(np.abs(np.diff(audio)), AROUND)
    size = AROUND - CLICK
    largest, middle = maximum_filter1d(steps, size), CLICK + size // 2
    before, after = np.roll(largest, middle), np.roll(largest, -middle)
    return float((steps - np.maximum(before, after))[AROUND:-AROUND].max())
