"""The scores and speakers of the vectors, computed anew from the protocol's text alone.

Whole numbers and `decimal` of the standard library, nothing of the executor: 8.8 to 8.10 of
protocol/README.md, sentence by sentence.
"""

import hashlib
import math
import struct
from decimal import Decimal, localcontext
from functools import cache
from typing import Any

import pytest

from tests.vectors.test_vectors import stored

Note = tuple[int, int, int, int]  # start, end, pitch, velocity
SCORES: list[dict[str, Any]] = stored("scores.json")["scores"]
SPEAKERS: list[dict[str, Any]] = stored("scores.json")["speakers"]
PARTIALS = ((256, 8), (120, 11), (64, 14), (36, 17), (22, 20), (12, 24))


# 8.8


def taken(seconds: list[list[Any]]) -> list[Note]:
    ticks = []
    for begins, ends, pitch, velocity in seconds:
        start = max(0, round(768 * begins))
        ticks.append((start, pitch, max(start + 1, round(768 * ends)), velocity))
    notes: list[Note] = []
    for start, pitch, end, velocity in sorted(ticks):
        place = max((i for i, note in enumerate(notes) if note[2] == pitch), default=None)
        if place is not None and notes[place][1] > start:
            if notes[place][0] == start:
                notes[place] = (start, end, pitch, velocity)
                continue
            notes[place] = (notes[place][0], start, pitch, notes[place][3])
        notes.append((start, end, pitch, velocity))
    return notes


def midi(notes: list[Note]) -> bytes:
    events = [(start, 1, pitch, velocity) for start, _, pitch, velocity in notes]
    events += [(end, 0, pitch, 0) for _, end, pitch, _ in notes]
    written, now = b"", 0
    for tick, _, pitch, velocity in sorted(events):
        written += quantity(tick - now) + bytes([0x90, pitch, velocity])
        now = tick
    first = bytes.fromhex("00ff510307a12000ff58040402180800ff2f00")
    second = bytes.fromhex("00c000") + written + bytes.fromhex("00ff2f00")
    file = bytes.fromhex("4d546864000000060001000201 80")
    for content in (first, second):
        file += bytes.fromhex("4d54726b") + len(content).to_bytes(4, "big") + content
    return file


def quantity(number: int) -> bytes:
    digits = [number % 128]
    while number := number // 128:
        digits.insert(0, number % 128 + 128)
    return bytes(digits)


# 8.9


@cache
def pi() -> Decimal:
    """Machin's formula, to 60 digits."""

    def arctangent(inverse: int) -> Decimal:
        power = total = Decimal(1) / inverse
        for n in range(1, 50):
            power = -power / (inverse * inverse)
            total += power / (2 * n + 1)
        return total

    with localcontext(prec=60):
        return 16 * arctangent(5) - 4 * arctangent(239)


@cache
def sine(j: int) -> int:
    with localcontext(prec=60):
        angle = 2 * pi() * j / 4096
        term = total = angle
        for n in range(1, 60):
            term = -term * angle * angle / (2 * n * (2 * n + 1))
            total += term
        exact = 32767 * total
        assert abs(exact % 1 - Decimal("0.5")) > Decimal("1e-9"), "none is near a half"
        return int(exact.to_integral_value())


@cache
def power_of_two(numerator: int, denominator: int) -> int:
    """2^(numerator / denominator), rounded down."""
    with localcontext(prec=60):
        power = int((Decimal(2).ln() * numerator / denominator).exp())
    for guess in (power + 1, power):
        if guess**denominator <= 2**numerator:
            return guess
    return power - 1


def decay(s: int) -> int:
    return power_of_two(16 * 1024 - s % 1024, 1024) >> min(s // 1024, 31)


def key(pitch: int, samples: int) -> list[int]:
    q, r = (pitch - 69) // 12, (pitch - 69) % 12
    turn = (440 * power_of_two(64 * 12 + r, 12) * 2 ** (44 + q) // 44100) >> 76
    fade = 28 * math.isqrt(turn) >> 6
    sound = [0] * samples
    for n, (a, v) in enumerate(PARTIALS, 1):
        if 44100 * n * turn >> 32 > 20000:
            break
        f = fade * v >> 3
        for i in range(min(samples, 805306368 // f)):
            sound[i] += sine((i * n * turn % 2**32) >> 20) * decay(i * f >> 16) * a >> 20
    return [x * i >> 7 if i < 128 else x for i, x in enumerate(sound)]


def waveform(notes: list[Note]) -> bytes:
    spans = [(s * 44100 // 768, e * 44100 // 768, pitch, v) for s, e, pitch, v in notes]
    total = [0] * (max((end for _, end, _, _ in spans), default=0) + 8820)
    for start, end, pitch, velocity in spans:
        held = end - start
        for i, x in enumerate(key(pitch, held + 8820)):
            k = i - held
            if k >= 0:
                x = x * (decay(60000 * k >> 16) * min(8819 - k, 128) >> 7) >> 16  # noqa: PLW2901
            total[start + i] += x * velocity >> 7
    peak = max(1, *map(abs, total))
    return struct.pack(f"<{len(total)}f", *((x * 7549747 // peak) * 2.0**-23 for x in total))


# 8.10


def speaker(seed: int, size: int) -> bytes:
    integers: list[int] = []
    for block in range((size + 7) // 8):
        preimage = b"helium/2/speaker\0" + seed.to_bytes(8, "big") + block.to_bytes(4, "big")
        integers += struct.unpack(">8i", hashlib.sha256(preimage).digest())
    integers = integers[:size]
    root = math.sqrt(float(sum(x * x for x in integers)))
    return struct.pack(f">{size}f", *(x / root for x in integers))


@pytest.mark.parametrize("entry", SCORES, ids=lambda entry: str(entry["name"]))
def test_score_bytes_match_an_independent_implementation(entry: dict[str, Any]) -> None:
    notes = taken(entry["notes"])
    assert [list(note) for note in notes] == entry["taken"]
    assert midi(notes).hex() == entry["midi"]
    sound = waveform(notes)
    assert len(sound) == 4 * entry["frames"]
    assert hashlib.sha256(sound).hexdigest() == entry["sha256"]


@pytest.mark.parametrize("entry", SPEAKERS, ids=lambda entry: str(entry["seed"]))
def test_speaker_numbers_match_an_independent_implementation(entry: dict[str, Any]) -> None:
    numbers = speaker(entry["seed"], entry["size"])
    assert entry.get("numbers", numbers.hex()) == numbers.hex()
    assert hashlib.sha256(numbers).hexdigest() == entry["sha256"]
