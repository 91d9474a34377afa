"""How one waveform differs from another, and whether it is the other one altered in a known way."""

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Samples: TypeAlias = NDArray[np.float32]  # of shape (frames, channels)

BLOCK = 1 << 20  # samples computed on at a time, in binary64
WINDOW = 1 << 20  # frames in which a shift is looked for
ROUNDING_DB = -90.0  # below this, a difference is of the size of 16-bit rounding
SCALED = 1e-6  # what a scaled copy may differ by, relative: binary32 rounds to 6e-8
UNSCALED = 1e-4  # a gain this close to one is no alteration


@dataclass(frozen=True, slots=True)
class Difference:
    """Where and how much two waveforms of one channel count differ, over the frames of both.

    `first` is a frame, or where the shorter one ends if all before is equal; `differing` a number
    of samples; `greatest` and `rms` are in full scale, `relative_db` is the difference's level
    against the first waveform's. They are None where they are no numbers.
    """

    first: int
    differing: int
    samples: int
    greatest: float | None
    rms: float | None
    relative_db: float | None
    pattern: str  # what the second is of the first, "the others'", in words; "" if nothing known

    @property
    def tiny(self) -> bool:
        """Whether it is of the size of rounding."""
        return self.relative_db is not None and self.relative_db < ROUNDING_DB


def difference(first: Samples, second: Samples) -> Difference | None:
    """Return how `second` differs from `first`, bit by bit; None if it does not.

    Raises ValueError for different channel counts.
    """
    if first.shape[1] != second.shape[1]:
        raise ValueError(f"{first.shape[1]} and {second.shape[1]} channels")
    frames = min(len(first), len(second))
    one, other = first[:frames], second[:frames]
    unequal = _bits(one) != _bits(other)
    differing = int(np.count_nonzero(unequal))
    if not differing and len(first) == len(second):
        return None
    start = int(np.argmax(unequal.any(axis=1))) if differing else frames
    sums = _sums(one.ravel(), other.ravel())
    if sums is None:
        return Difference(start, differing, one.size, None, None, None, _no_numbers(second))
    return Difference(
        start,
        differing,
        one.size,
        sums.greatest,
        math.sqrt(sums.difference / one.size) if one.size else None,
        _decibels(sums.difference, sums.first),
        _pattern(first, second, sums, differing),
    )


@dataclass(frozen=True, slots=True)
class _Sums:
    """Sums over all samples: of squares, of products, of squared differences."""

    first: float
    second: float
    product: float
    difference: float
    greatest: float


def _sums(first: Samples, second: Samples) -> _Sums | None:
    """Return the sums of two flat waveforms, or None if one holds what is no number."""
    total = _Sums(0.0, 0.0, 0.0, 0.0, 0.0)
    for start in range(0, len(first), BLOCK):
        a = first[start : start + BLOCK].astype(np.float64)
        b = second[start : start + BLOCK].astype(np.float64)
        if not (np.isfinite(a).all() and np.isfinite(b).all()):
            return None
        apart = b - a
        total = _Sums(
            total.first + float(a @ a),
            total.second + float(b @ b),
            total.product + float(a @ b),
            total.difference + float(apart @ apart),
            max(total.greatest, float(np.abs(apart).max())),
        )
    return total


def _pattern(first: Samples, second: Samples, sums: _Sums, differing: int) -> str:
    if not differing:
        longer = len(second) > len(first)
        return "the others' and then more" if longer else "the others', cut off"
    if not sums.second:
        return "silence"
    if scaled := _scaled(sums):
        return scaled
    if any(_same(second, turned) for turned in (first[::-1], first.ravel()[::-1])):
        return "the others', played backwards"
    if differing == 1:
        return "the others' but for one sample"
    shift = _shift(first, second)
    return f"the others', moved by {shift} frames" if shift else ""


def _scaled(sums: _Sums) -> str:
    """Say by what the second waveform is the first multiplied; "" if it is no multiple."""
    if not sums.first:
        return ""
    gain = sums.product / sums.first
    rest = sums.second - gain * sums.product
    if rest > SCALED**2 * sums.second or abs(gain - 1) < UNSCALED:
        return ""
    if abs(gain + 1) < UNSCALED:
        return "the others', upside down (every sample's sign turned)"
    turned = " and upside down" if gain < 0 else ""
    return f"the others', times {abs(gain):.6g} ({20 * math.log10(abs(gain)):+.2f} dB){turned}"


def _shift(first: Samples, second: Samples) -> int:
    """Return by how many frames the second waveform is later than the first; 0 if it is not.

    Looked for by correlation of the beginnings; believed only if what overlaps, at least half, is
    equal bit by bit.
    """
    a, b = (each[:WINDOW, 0].astype(np.float64) for each in (first, second))
    size = 1 << (len(a) + len(b)).bit_length()
    correlation = np.fft.irfft(np.fft.rfft(b, size) * np.conj(np.fft.rfft(a, size)), size)
    place = int(np.argmax(correlation))
    shift = place if place < size // 2 else place - size
    early, late = (first, second) if shift > 0 else (second, first)
    overlap = min(len(early), len(late) - abs(shift))
    whole = 2 * overlap >= len(first) and _same(early[:overlap], late[abs(shift) :][:overlap])
    return shift if whole else 0


def _no_numbers(second: Samples) -> str:
    count = int(np.count_nonzero(~np.isfinite(second)))
    return f"{count} samples that are no numbers"


def _same(one: Samples, other: Samples) -> bool:
    return one.size == other.size and bool(np.array_equal(_bits(one).ravel(), _bits(other).ravel()))


def _bits(samples: Samples) -> NDArray[np.uint32]:
    return np.ascontiguousarray(samples, np.float32).view(np.uint32)


def _decibels(part: float, whole: float) -> float | None:
    """Return 10 log10 of a ratio of sums of squares; None where either is nothing."""
    return 10 * math.log10(part / whole) if part and whole else None
