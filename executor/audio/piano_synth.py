"""From notes to a waveform: a plain struck string, in integers alone.

Integers add, multiply and shift alike under every instruction set and every version of numpy, which
no sine in floating point does. Each partial of a note is a phase accumulator of 32 bits over a
table of one sine, under an exponential decay out of a second table; both tables are built from
Python's own integers. Only at the end is a sum, below 2^24, a float, and that exactly.
"""

import functools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from executor.audio.midi import TICKS, Note

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Integers = NDArray[np.int64]
    Samples = NDArray[np.int32]

RATE = 44_100  # Hz
CONCERT_PITCH, CONCERT_KEY = 440, 69  # Hz, and the MIDI pitch that it is
HEARD = 20_000  # Hz; partials above it, which would fold back, are left out
# Amplitude of each partial (of 256) and how much faster than the first it dies (of 8).
PARTIALS = ((256, 8), (120, 11), (64, 14), (36, 17), (22, 20), (12, 24))
ATTACK = 128  # samples until the hammer's full strength, 3 ms; and of the last fall to silence
RELEASE = 8_820  # samples between the key's end and silence: 200 ms
DAMPING = 60_000  # 2^-16 of a step of decay, that each sample of the release adds
SILENT = 12  # octaves of decay after which a partial is over
PEAK = 7_549_747  # the loudest sample: 0.9 of 2^23
PIECE = 1_048_576  # samples converted at a time

FINE = 64  # bits behind the point in what the tables are computed with
PI = 0x3_243F6A8885A308D3  # π in units of 2^-64
STEPS = 1_024  # of an octave of decay
WAVE = 4_096  # entries of the sine


def render(notes: Sequence[Note]) -> "NDArray[np.float32]":
    """The mono waveform of canonical notes, `(samples, 1)` at `RATE`, from time 0.

    Its loudest sample is 0.9. Ends `RELEASE` samples after the last key.
    """
    import numpy as np

    length = max((place(note.end) for note in notes), default=0) + RELEASE
    total = np.zeros(length, np.int32)  # 128 keys of 2^20 each, and as many releases, fit
    for pitch in sorted({note.pitch for note in notes}):
        keys = [(place(note.start), place(note.end), note) for note in notes if note.pitch == pitch]
        string = tone(pitch, max(end - start for start, end, _ in keys) + RELEASE)
        for start, end, note in keys:
            sound = damped(string, end - start) * note.velocity >> 7
            total[start : start + len(sound)] += sound
    loudest = max(1, int(total.max()), -int(total.min()))
    made = np.empty((length, 1), np.float32)
    for at in range(0, length, PIECE):
        scaled = total[at : at + PIECE].astype(np.int64) * PEAK // loudest
        made[at : at + PIECE, 0] = scaled.astype(np.float32) * np.float32(2.0**-23)
    return made


def place(tick: int) -> int:
    """The sample at which a tick falls."""
    return tick * RATE // TICKS


def tone(pitch: int, samples: int) -> "Samples":
    """A key that is held, from its start until it has died away, at most so many samples."""
    import numpy as np

    turn = step(pitch)
    # 2^-16 of a step of decay that each sample adds: middle C halves in 0.7 s, higher keys sooner.
    fade = math.isqrt(turn) * 28 >> 6
    at = np.arange(min(samples, (SILENT * STEPS << 16) // fade), dtype=np.int64)
    sound = np.zeros(len(at), np.int64)
    for number, (amplitude, speed) in enumerate(PARTIALS, 1):
        if turn * number * RATE >> 32 > HEARD:
            break
        heard = at[: (SILENT * STEPS << 16) // (fade * speed >> 3)]
        turned = sine()[(heard * (turn * number) & 0xFFFF_FFFF) >> 20]
        strength = decay(heard * (fade * speed >> 3) >> 16)
        sound[: len(heard)] += turned * strength * amplitude >> 20
    sound[:ATTACK] = sound[:ATTACK] * at[:ATTACK] >> 7
    return sound.astype(np.int32)


def damped(string: "Samples", held: int) -> "Samples":
    """A key's sound that is let go after `held` samples."""
    sound = string[: held + RELEASE].copy()
    late = sound[held:]
    late[:] = late.astype("int64") * release()[: len(late)] >> 16
    return sound


def decay(steps: "Integers") -> "Integers":
    """2^-(steps / 1024), in units of 2^-16."""
    import numpy as np

    faded: Integers = octave()[steps % STEPS] >> np.minimum(steps // STEPS, 31)
    return faded


@functools.cache
def release() -> "Integers":
    """How a string dies that is damped, in units of 2^-16; 0 at its end."""
    import numpy as np

    at = np.arange(RELEASE, dtype=np.int64)
    return decay(at * DAMPING >> 16) * np.minimum(RELEASE - 1 - at, ATTACK) >> 7


@functools.cache
def step(pitch: int) -> int:
    """How far a key's phase goes in a sample, in 2^-32 of a turn."""
    octaves, key = divmod(pitch - CONCERT_KEY, 12)
    ratio = root(2 ** (key + 12 * FINE), 12)  # 2^(key / 12)
    turn = CONCERT_PITCH * ratio << 32 + 12 + octaves
    return (turn // RATE) >> FINE + 12


@functools.cache
def sine() -> "Integers":
    """A turn of a sine, in units of 1 / 32,767."""
    import numpy as np

    return np.array([(wave(turn) * 32_767 + (1 << FINE - 1)) >> FINE for turn in range(WAVE)])


def wave(turn: int) -> int:
    """sin(2π turn / WAVE) by its series, in units of 2^-64."""
    angle = 2 * PI * turn // WAVE
    term, total, power = angle, 0, 1
    while term:
        total += term
        term = -(term * angle * angle >> 2 * FINE) // ((power + 1) * (power + 2))
        power += 2
    return total


@functools.cache
def octave() -> "Integers":
    """2^-(i / 1024) for i from 0 to 1023, in units of 2^-16."""
    import numpy as np

    return np.array([root(2 ** (STEPS * 16 - i), STEPS) for i in range(STEPS)])


def root(value: int, degree: int) -> int:
    """The greatest integer whose power of `degree` is at most `value`."""
    low, high = 0, 1 << value.bit_length() // degree + 1
    while low < high:
        middle = (low + high + 1) // 2
        if middle**degree <= value:
            low = middle
        else:
            high = middle - 1
    return low
