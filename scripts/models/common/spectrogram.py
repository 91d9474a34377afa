"""Draw a spectrogram of a WAV file as a PNG image.

Usage: scripts/embed picture SOUND.wav PICTURE.png
"""

import struct
import sys
import zlib
from pathlib import Path
from typing import Final

import numpy as np
import soundfile
from numpy.typing import NDArray

from scripts import one_line
from scripts.models.common.audio_analysis import magnitude_spectra
from scripts.models.music.instruments import Samples

WIDTH, HEIGHT = 900, 300
# The ends of the logarithmic frequency axis.
LOWEST_HZ, HIGHEST_HZ = 40.0, 7_800.0
# From black to the brightest colour.
RANGE_DB: Final = 70.0
# Few, so that the file is small.
BRIGHTNESS_LEVELS: Final = 24
# From black over violet and orange to white: red, green and blue at even distances.
COLOUR_STOPS: Final = (
    (0, 0, 4),
    (66, 10, 104),
    (147, 38, 103),
    (221, 81, 58),
    (252, 165, 10),
    (252, 255, 200),
)


def spectrogram(audio: Samples, rate: int) -> NDArray[np.uint8]:
    """Return pixels (HEIGHT, WIDTH, 3) with low frequencies at the bottom."""
    step = max(1, len(audio) // WIDTH)
    frequencies, magnitudes = magnitude_spectra(audio, 2048, step)
    rows = np.geomspace(HIGHEST_HZ, LOWEST_HZ, HEIGHT) / (rate / 2) * (len(frequencies) - 1)
    columns = np.linspace(0, magnitudes.shape[1] - 1, WIDTH).astype(int)
    level = 20 * np.log10(magnitudes[rows.astype(int)][:, columns] + 1e-9)
    brightness = (
        np.round(np.clip((level - level.max() + RANGE_DB) / RANGE_DB, 0, 1) * BRIGHTNESS_LEVELS)
        / BRIGHTNESS_LEVELS
    )
    edges = np.linspace(0, 1, len(COLOUR_STOPS))
    channels = [
        np.interp(brightness, edges, [colour[c] for colour in COLOUR_STOPS]) for c in range(3)
    ]
    return np.stack(channels, axis=-1).astype(np.uint8)


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """Return an RGB image as a PNG file (ISO/IEC 15948)."""
    height, width, _ = pixels.shape
    lines = b"".join(b"\x00" + row.tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(lines, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content))
        + name
        + content
        + struct.pack(">I", zlib.crc32(name + content))
        for name, content in parts
    )


def main() -> None:
    if "--help" in sys.argv or "-h" in sys.argv:
        print(__doc__)
        return
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    audio, rate = soundfile.read(sys.argv[1], always_2d=True)
    Path(sys.argv[2]).write_bytes(encode_png(spectrogram(audio.mean(1), rate)))


if __name__ == "__main__":
    one_line.run(main)
