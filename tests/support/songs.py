"""Small audio files, as bytes."""

import struct

RATE = 44_100


def wav(frames: int, rate: int = RATE) -> bytes:
    """Return a WAV of silence: mono, 8 bits, so of `44 + frames` bytes."""
    form = struct.pack("<HHIIHH", 1, 1, rate, rate, 1, 8)
    header = b"RIFF" + struct.pack("<I", 36 + frames) + b"WAVEfmt " + struct.pack("<I", len(form))
    return header + form + b"data" + struct.pack("<I", frames) + bytes(frames)
