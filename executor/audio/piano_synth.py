"""A piano synthesiser in integer arithmetic: notes to a waveform, the same bits everywhere.

Integers add, multiply and shift alike under every instruction set and numpy version; a floating
point sine does not. Each partial of a note is a 32-bit phase accumulator over a sine table, times
an exponential decay from a second table. Both tables are computed with Python integers. Only the
final sum, below 2^24, becomes a float, which is exact.
"""

import functools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from executor.audio.midi import TICKS_PER_SECOND, Note

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Integers = NDArray[np.int64]
    Samples = NDArray[np.int32]

RATE = 44_100  # Hz
CONCERT_PITCH, CONCERT_KEY = 440, 69  # Hz, and its MIDI pitch
MAX_PARTIAL = 20_000  # Hz; higher partials would alias, so they are left out
# Amplitude of each partial (in 1/256), and its rate of decay relative to the first (in 1/8).
PARTIALS = ((256, 8), (120, 11), (64, 14), (36, 17), (22, 20), (12, 24))
ATTACK = 128  # samples of the linear fade-in, 3 ms; and of the last fade-out to silence
RELEASE = 8_820  # samples between the end of a note and silence: 200 ms
DAMPING = 60_000  # decay that each sample of the release adds, in 2^-16 of a step
SILENCE_OCTAVES = 12  # halvings after which a partial is inaudible
PEAK = 7_549_747  # the loudest sample: 0.9 of 2^23
PIECE = 1_048_576  # samples that are converted at a time

FRACTION_BITS = 64  # of the fixed-point numbers that the tables are computed with
PI = 0x3_243F6A8885A308D3  # π in units of 2^-64
DECAY_STEPS = 1_024  # steps per halving in the decay table
SINE_ENTRIES = 4_096


def render(notes: Sequence[Note]) -> "NDArray[np.float32]":
    """Return the mono waveform of canonical notes, `(samples, 1)` at `RATE`, from time 0.

    Its loudest sample is 0.9. It ends `RELEASE` samples after the last note.
    """
    import numpy as np

    length = max((sample_at(note.end) for note in notes), default=0) + RELEASE
    # 128 keys of up to 2^20 each, and as many releases, fit into 32 bits.
    total = np.zeros(length, np.int32)
    for pitch in sorted({note.pitch for note in notes}):
        strikes = [
            (sample_at(note.start), sample_at(note.end), note.velocity)
            for note in notes
            if note.pitch == pitch
        ]
        string = tone(pitch, max(end - start for start, end, _ in strikes) + RELEASE)
        for start, end, velocity in strikes:
            sound = damp(string, end - start) * velocity >> 7
            total[start : start + len(sound)] += sound
    loudest = max(1, int(total.max()), -int(total.min()))
    waveform = np.empty((length, 1), np.float32)
    for at in range(0, length, PIECE):
        scaled = total[at : at + PIECE].astype(np.int64) * PEAK // loudest
        waveform[at : at + PIECE, 0] = scaled.astype(np.float32) * np.float32(2.0**-23)
    return waveform


def sample_at(tick: int) -> int:
    """Return the sample at which a tick falls."""
    return tick * RATE // TICKS_PER_SECOND


def tone(pitch: int, samples: int) -> "Samples":
    """Return the sound of a held key until it has decayed, at most so many samples."""
    import numpy as np

    phase_step = step(pitch)
    # Decay per sample in 2^-16 of a step: middle C halves in 0.7 s, higher keys sooner.
    fade = math.isqrt(phase_step) * 28 >> 6
    at = np.arange(min(samples, (SILENCE_OCTAVES * DECAY_STEPS << 16) // fade), dtype=np.int64)
    sound = np.zeros(len(at), np.int64)
    for number, (amplitude, speed) in enumerate(PARTIALS, 1):
        if phase_step * number * RATE >> 32 > MAX_PARTIAL:
            break
        audible = at[: (SILENCE_OCTAVES * DECAY_STEPS << 16) // (fade * speed >> 3)]
        wave = sine()[(audible * (phase_step * number) & 0xFFFF_FFFF) >> 20]
        strength = decay(audible * (fade * speed >> 3) >> 16)
        sound[: len(audible)] += wave * strength * amplitude >> 20
    sound[:ATTACK] = sound[:ATTACK] * at[:ATTACK] >> 7
    return sound.astype(np.int32)


def damp(string: "Samples", held: int) -> "Samples":
    """Return the sound of a key that is released after `held` samples."""
    sound = string[: held + RELEASE].copy()
    late = sound[held:]
    late[:] = late.astype("int64") * release()[: len(late)] >> 16
    return sound


def decay(steps: "Integers") -> "Integers":
    """Return 2^-(steps / 1024), in units of 2^-16."""
    import numpy as np

    strength: Integers = octave()[steps % DECAY_STEPS] >> np.minimum(steps // DECAY_STEPS, 31)
    return strength


@functools.cache
def release() -> "Integers":
    """Return the strength of a damped string over the release, in units of 2^-16; 0 at its end."""
    import numpy as np

    at = np.arange(RELEASE, dtype=np.int64)
    return decay(at * DAMPING >> 16) * np.minimum(RELEASE - 1 - at, ATTACK) >> 7


@functools.cache
def step(pitch: int) -> int:
    """Return how far a key's phase advances per sample, in 2^-32 of a turn."""
    octaves, key = divmod(pitch - CONCERT_KEY, 12)
    ratio = root(2 ** (key + 12 * FRACTION_BITS), 12)  # 2^(key / 12)
    frequency = CONCERT_PITCH * ratio << 32 + 12 + octaves
    return (frequency // RATE) >> FRACTION_BITS + 12


@functools.cache
def sine() -> "Integers":
    """Return one turn of a sine, in units of 1 / 32,767."""
    import numpy as np

    return np.array(
        [
            (sine_of(entry) * 32_767 + (1 << FRACTION_BITS - 1)) >> FRACTION_BITS
            for entry in range(SINE_ENTRIES)
        ]
    )


def sine_of(entry: int) -> int:
    """Return sin(2π entry / SINE_ENTRIES) by its series, in units of 2^-64."""
    angle = 2 * PI * entry // SINE_ENTRIES
    term, total, power = angle, 0, 1
    while term:
        total += term
        term = -(term * angle * angle >> 2 * FRACTION_BITS) // ((power + 1) * (power + 2))
        power += 2
    return total


@functools.cache
def octave() -> "Integers":
    """Return 2^-(i / 1024) for i from 0 to 1023, in units of 2^-16."""
    import numpy as np

    return np.array([root(2 ** (DECAY_STEPS * 16 - i), DECAY_STEPS) for i in range(DECAY_STEPS)])


def root(value: int, degree: int) -> int:
    """Return the greatest integer whose power of `degree` is at most `value`."""
    low, high = 0, 1 << value.bit_length() // degree + 1
    while low < high:
        middle = (low + high + 1) // 2
        if middle**degree <= value:
            low = middle
        else:
            high = middle - 1
    return low
