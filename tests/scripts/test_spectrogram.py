"""A spectrogram shows where a sound is."""

import struct
import zlib

import numpy as np

from scripts.models.common.spectrogram import HEIGHT, WIDTH, encode_png, spectrogram


def test_tone_is_a_horizontal_line() -> None:
    turns = 2 * np.pi * np.arange(32_000) / 16_000
    heights = []
    for frequency in (200, 2_000):
        pixels = spectrogram(0.5 * np.sin(frequency * turns), 16_000)
        assert pixels.shape == (HEIGHT, WIDTH, 3)
        heights.append(int(pixels.sum(-1).mean(1).argmax()))
    assert heights[1] < heights[0]


def test_png_contains_the_pixels() -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    file = encode_png(pixels)
    assert file[:8] == b"\x89PNG\r\n\x1a\n"
    place, parts = 8, {}
    while place < len(file):
        length, name = struct.unpack(">I4s", file[place : place + 8])
        content = file[place + 8 : place + 8 + length]
        (checksum,) = struct.unpack(">I", file[place + 8 + length : place + 12 + length])
        assert checksum == zlib.crc32(name + content)
        parts[name], place = content, place + 12 + length
    assert struct.unpack(">II", parts[b"IHDR"][:8]) == (4, 2)
    lines = zlib.decompress(parts[b"IDAT"])
    assert lines == b"\x00" + pixels[0].tobytes() + b"\x00" + pixels[1].tobytes()
