"""How much one waveform differs from another, sample by sample."""

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Samples: TypeAlias = NDArray[np.float32]  # of shape (frames, channels)

# Samples per step of the sums: the binary64 copies of a whole output would take 1 GB.
BLOCK = 1 << 20
# A difference below this level is as small as the rounding of 16-bit audio.
ROUNDING_DB = -90.0


@dataclass(frozen=True, slots=True)
class WaveformDifference:
    """Where and how much two waveforms differ, over the frames that both have.

    `first` is the first differing frame, or the length of the shorter waveform if all before is
    equal. `differing` of `samples` samples differ. `greatest` and `rms` are in full scale;
    `relative_db` is the difference's level against the first waveform. They are None where they
    are not defined: a sample is not finite, or one of the two is silent.
    """

    first: int
    differing: int
    samples: int
    greatest: float | None
    rms: float | None
    relative_db: float | None

    @property
    def is_rounding(self) -> bool:
        """Whether the difference is as small as rounding."""
        return self.relative_db is not None and self.relative_db < ROUNDING_DB


def compare_waveforms(first: Samples, second: Samples) -> WaveformDifference | None:
    """Return how `second` differs from `first`, bit by bit; None if it does not.

    Args:
        first: float32, shape (frames, channels).
        second: float32, the same number of channels, any number of frames.

    Raises:
        ValueError: the numbers of channels differ.
    """
    if first.shape[1] != second.shape[1]:
        raise ValueError(f"{first.shape[1]} and {second.shape[1]} channels")
    frames = min(len(first), len(second))
    a, b = first[:frames], second[:frames]
    # Compared as bits: -0.0 equals 0.0 and NaN differs from itself, but hashes cover the bits.
    unequal = _bits(a) != _bits(b)
    differing = int(np.count_nonzero(unequal))
    if not differing and len(first) == len(second):
        return None
    start = int(np.argmax(unequal.any(axis=1))) if differing else frames
    greatest, rms, relative_db = _measure(a.ravel(), b.ravel())
    return WaveformDifference(start, differing, a.size, greatest, rms, relative_db)


def _measure(first: Samples, second: Samples) -> tuple[float | None, float | None, float | None]:
    """Return the greatest difference, its RMS and its level in dB, of two flat waveforms."""
    greatest = signal = noise = 0.0
    for start in range(0, len(first), BLOCK):
        a = first[start : start + BLOCK].astype(np.float64)
        b = second[start : start + BLOCK].astype(np.float64)
        if not (np.isfinite(a).all() and np.isfinite(b).all()):
            return None, None, None
        difference = b - a
        signal += float(a @ a)
        noise += float(difference @ difference)
        greatest = max(greatest, float(np.abs(difference).max()))
    rms = math.sqrt(noise / len(first)) if len(first) else None
    relative_db = 10 * math.log10(noise / signal) if noise and signal else None
    return greatest, rms, relative_db


def _bits(samples: Samples) -> NDArray[np.uint32]:
    return np.ascontiguousarray(samples, np.float32).view(np.uint32)
