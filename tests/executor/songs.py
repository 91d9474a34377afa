"""Songs to cover: made of a few sines and beats, the same every time."""

from pathlib import Path
from typing import Any

import numpy as np
import soundfile


def song(seconds: float, rate: int, seed: int = 0, beat: float = 0.5) -> np.ndarray[Any, Any]:
    """A melody over a beat, `(seconds * rate,)`."""
    draws = np.random.default_rng(seed)
    sound = np.zeros(int(seconds * rate))
    for start in np.arange(0, seconds, beat):
        played = sound[int(start * rate) :][: int(0.4 * rate)]
        at = np.arange(len(played)) / rate
        tone = 220 * 2 ** (draws.integers(0, 24) / 12)
        played += 0.4 * np.sin(2 * np.pi * tone * at) * np.exp(-6 * at)
        played += 0.3 * draws.standard_normal(len(played)) * np.exp(-80 * at)
    made: np.ndarray[Any, Any] = 0.8 * sound / np.abs(sound).max()
    return made


def written(path: Path, sound: np.ndarray[Any, Any], rate: int, **form: str) -> Path:
    """The same as an audio file; soundfile's `subtype` and `format` in `form`."""
    soundfile.write(path, sound, rate, **form)
    return path
