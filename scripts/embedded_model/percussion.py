"""Drums as short recordings, made from falling sines and filtered noise."""

import math
import random
from typing import Final

from scripts.embedded_model.vocabulary import FRAME_RATE

SAMPLING_RATE: Final = 16_000  # Hz
HOP: Final = SAMPLING_RATE // FRAME_RATE
FRAMES: Final = {"kick": 8, "snare": 8, "hat": 3, "open": 8, "shaker": 3, "rim": 3}
PEAK: Final = {
    "kick": 0.38,
    "snare": 0.24,
    "hat": 0.065,
    "open": 0.075,
    "shaker": 0.055,
    "rim": 0.14,
}
FADE: Final = 80  # samples at the end of each


def recording(name: str) -> list[float]:
    """A drum's samples, a whole number of frames."""
    made = {"kick": kick, "snare": snare, "rim": rim}.get(name)
    length = FRAMES[name] * HOP
    samples = made(length) if made else cymbal(name, length)
    peak = max(map(abs, samples))
    fade = [min(1.0, (length - n - 1) / FADE) for n in range(length)]
    return [PEAK[name] * sample / peak * end for sample, end in zip(samples, fade, strict=True)]


def noise(name: str, length: int) -> list[float]:
    draw = random.Random(f"percussion/{name}")
    return [draw.random() * 2 - 1 for _ in range(length)]


def high(samples: list[float], times: int) -> list[float]:
    """Without low frequencies: differences, taken again and again."""
    for _ in range(times):
        samples = [here - before for before, here in zip([0.0, *samples], samples, strict=False)]
    return samples


def decay(n: int, seconds: float) -> float:
    """An exponential that falls by 60 dB."""
    return math.exp(-6.9 * n / (seconds * SAMPLING_RATE))


def kick(length: int) -> list[float]:
    phase, samples = 0.0, []
    for n in range(length):
        frequency = 48 + 110 * decay(n, 0.12)
        phase += 2 * math.pi * frequency / SAMPLING_RATE
        knock = 0.25 * decay(n, 0.02) * math.sin(2 * math.pi * 900 * n / SAMPLING_RATE)
        samples.append(math.sin(phase) * decay(n, 0.35) + knock)
    return samples


def snare(length: int) -> list[float]:
    rattle = high(noise("snare", length), 1)
    body = (185, 330)
    return [
        0.8 * rattle[n] * decay(n, 0.22)
        + sum(0.45 * math.sin(2 * math.pi * f * n / SAMPLING_RATE) for f in body) * decay(n, 0.12)
        for n in range(length)
    ]


def rim(length: int) -> list[float]:
    tap = high(noise("rim", length), 1)
    return [
        math.sin(2 * math.pi * 1700 * n / SAMPLING_RATE) * decay(n, 0.05)
        + 0.5 * tap[n] * decay(n, 0.02)
        for n in range(length)
    ]


def cymbal(name: str, length: int) -> list[float]:
    """Hi-hats and shaker: noise without low frequencies."""
    seconds = {"hat": 0.07, "open": 0.4, "shaker": 0.09}[name]
    soft = {"shaker": 160}.get(name, 1)  # samples until it is at its loudest
    hiss = high(noise(name, length), 2)
    return [hiss[n] * decay(n, seconds) * min(1.0, (n + 1) / soft) for n in range(length)]


def click(samples: int) -> list[float]:
    """The knock with which a key or a string is struck; its peak is 0.1."""
    raw = high(noise("click", samples), 1)
    smooth = [(a + b + c) / 3 for a, b, c in zip([0.0, 0.0, *raw], [0.0, *raw], raw, strict=False)]
    shaped = [s * decay(n, 0.012) for n, s in enumerate(smooth)]
    peak = max(map(abs, shaped))
    return [0.1 * s / peak for s in shaped]
