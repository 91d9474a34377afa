"""Draw a spectrogram of a WAV file as a PNG image.

Usage: scripts/embed picture SOUND.wav PICTURE.png
"""

import struct
import zlib
from typing import Final

import numpy as np
import soundfile
from numpy.typing import NDArray

from scripts import arguments, one_line
from scripts.models.common.audio_analysis import magnitude_spectra
from scripts.models.music.instruments import Samples

WIDTH, HEIGHT = 900, 300
# The ends of the logarithmic frequency axis.
LOWEST_HZ, HIGHEST_HZ = 40.0, 7_800.0
# Samples of one spectrum.
WINDOW = 2048
# Half of it is the highest frequency that a sound has.
MIN_RATE = 2 * int(HIGHEST_HZ)
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
    frequencies, magnitudes = magnitude_spectra(audio, WINDOW, step)
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
    assert __doc__
    parser = arguments.Parser("scripts/embed picture", __doc__.split("\n")[0])
    parser.add_argument("sound", metavar="SOUND.wav", type=arguments.file)
    parser.add_argument("picture", metavar="PICTURE.png", type=arguments.new_file)
    options = parser.parse_args()
    try:
        audio, rate = soundfile.read(options.sound, always_2d=True)
    except soundfile.LibsndfileError as error:
        parser.error(f"SOUND.wav: {options.sound}: {error.error_string}")
    if len(audio) < WINDOW or rate < MIN_RATE:
        parser.error(
            f"SOUND.wav: {options.sound}: {len(audio)} samples at {rate} Hz; it needs {WINDOW} "
            f"samples, at {MIN_RATE} Hz or more"
        )
    options.picture.write_bytes(encode_png(spectrogram(audio.mean(1), rate)))


if __name__ == "__main__":
    one_line.run(main)
