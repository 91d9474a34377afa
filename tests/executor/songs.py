"""Songs to cover: made of a few sines and beats, the same every time."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

RATE = 44_100


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
    normalized: np.ndarray[Any, Any] = 0.8 * sound / np.abs(sound).max()
    return normalized


def written(path: Path, sound: np.ndarray[Any, Any], rate: int, **form: str) -> Path:
    """The same as an audio file; soundfile's `subtype` and `format` in `form`."""
    soundfile.write(path, sound, rate, **form)
    return path


def recorded(folder: Path) -> Mapping[str, Path]:
    """Songs of several rates and forms, and what is no song, as files in `folder` by name."""
    stereo = np.stack([song(6, 48_000, 1), song(6, 48_000, 2)], 1)
    text, broken = folder / "text", folder / "broken"
    text.write_text("la la la")
    broken.write_bytes(b"fLaC")
    return {
        "mono": written(folder / "mono.wav", song(8, RATE), RATE),
        "stereo": written(folder / "stereo.flac", stereo, 48_000),
        "low": written(folder / "low.wav", song(9, 22_050, 3, 0.4), 22_050, subtype="FLOAT"),
        "silence": written(folder / "silence.wav", np.zeros(5 * RATE), RATE),
        "second": written(folder / "second.wav", song(1, RATE), RATE),
        "text": text,
        "broken": broken,
    }
