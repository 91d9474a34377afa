"""What plain signal analysis finds in audio: tempo, key, brightness, drums, onsets, faults."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter
from scipy.signal import stft

from embedded_model.percussion import SAMPLING_RATE
from embedded_model.vocabulary import TEMPI

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
TEMPO_CENTRE: Final = 0.62  # seconds of a quarter: between several readings the usual one


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
    jump: float


def analyse(audio: Samples) -> Found:
    """Analyse mono audio of 16 kHz."""
    audio = audio.astype(np.float64)
    frequencies, spectrum = spectra(audio, 1024, STEP)
    flux = novelty(spectrum)
    tonic, mode, major = key(audio)
    return Found(
        frames=tempo(flux),
        tonic=tonic,
        mode=mode,
        major=major,
        centroid=centroid(frequencies, spectrum),
        drums=noisiness(frequencies, spectrum),
        onsets=len(peaks(flux)) * SAMPLING_RATE / len(audio),
        peak=float(np.abs(audio).max()),
        rms=float(np.sqrt(np.mean(audio**2))),
        jump=float(np.abs(np.diff(audio)).max()),
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


def tempo(flux: Samples) -> int:
    """The number of frames of a sixteenth whose grid of quarters fits the onsets best."""
    here = flux - flux.mean()
    size = 1 << (2 * len(here)).bit_length()
    correlation = np.fft.irfft(np.abs(np.fft.rfft(here, size)) ** 2)[: len(here)]
    correlation = correlation / (np.arange(len(here), 0, -1) * max(1e-12, correlation[0]))

    def at(seconds: float) -> float:
        place = round(seconds * RATE)
        around = correlation[max(1, place - 1) : place + 2]
        return float(around.max()) if len(around) else 0.0

    def score(frames: int) -> float:
        quarter = 4 * frames / 50
        fit = sum(at(quarter * k) * w for k, w in ((0.25, 0.5), (0.5, 1), (1, 1), (2, 1), (4, 1)))
        off = sum(at(quarter * k) for k in (0.375, 0.625, 0.75, 1.5))
        prior = np.exp(-0.5 * (np.log2(quarter / TEMPO_CENTRE) / 1.2) ** 2)
        return float((fit - 0.5 * off) * prior)

    return max(TEMPI, key=score)


def key(audio: Samples) -> tuple[int, str, float]:
    """The key whose profile fits best, and by how much the best major one beats the minor one."""
    frequencies, spectrum = spectra(audio, 8192, 1024)
    energy = np.sqrt(spectrum)
    chroma = np.zeros(12)
    for note in range(36, 96):
        centre = 440 * 2 ** ((note - 69) / 12)
        near = np.abs(frequencies - centre) < centre * 0.02
        if near.any():
            weight = 1.5 if note < 52 else 1.0 if note < 76 else 0.5
            chroma[note % 12] += weight * energy[near].max(0).sum()
    chroma = chroma - chroma.min()
    fits = {
        (tonic, mode): float(np.corrcoef(np.roll(profile, tonic), chroma)[0, 1])
        for mode, profile in PROFILES.items() for tonic in range(12)
    }  # fmt: skip
    best = {mode: max(f for (_, m), f in fits.items() if m == mode) for mode in PROFILES}
    tonic, mode = max(fits, key=fits.__getitem__)
    return tonic, mode, best["major"] - best["minor"]


def centroid(frequencies: Samples, spectrum: Samples) -> float:
    """The centroid of what lasts: a median over time leaves drums out."""
    lasting = median_filter(spectrum, size=(1, 15))
    heard = (frequencies > 150) & (frequencies < 6_000)
    power = lasting[heard].mean(1)
    return float((frequencies[heard] * power).sum() / max(1e-12, power.sum()))


def noisiness(frequencies: Samples, spectrum: Samples) -> float:
    """How strongly noise above 5 kHz and kicks below 110 Hz begin, per second and in all."""
    high = np.sqrt((spectrum[frequencies > 5_000] ** 2).sum(0))
    low = np.sqrt((spectrum[(frequencies > 30) & (frequencies < 110)] ** 2).sum(0))
    rises = [np.maximum(0, band[2:] - band[:-2]) for band in (high, low)]
    return float(np.percentile(rises[0], 97) * 1e3 + 0 * rises[1].mean())
