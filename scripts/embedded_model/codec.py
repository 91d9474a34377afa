"""An EnCodec whose decoder is written down rather than learned: an instrument in its weights.

Its LSTM is a bank of oscillators. With forget gates shut and output gates open, its state is
h(t) = i · tanh(tanh(R h(t-1) + W x(t))), which for the small states kept here is linear. R turns a
pair of states by one frame's phase of a semitone, so a note struck once sounds on, in tune and in
phase, through frames whose tokens add nothing. The input gates are the dampers: a token's control
channels shut them a little (a piano's decay) or nearly wholly (the next note). Drums are delay
lines, each of whose taps is a frame of a recording.

The transposed convolutions overlap and add one frame's piece of sine per oscillator, and then only
sort samples into their order. A bias keeps every value in the linear half of the ELUs.
"""

import math
import random
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import EncodecConfig

from scripts.embedded_model import language, percussion
from scripts.embedded_model.percussion import HOP, SAMPLING_RATE
from scripts.embedded_model.timbre import partials, timbre
from scripts.embedded_model.vocabulary import (
    FRAME_RATE,
    SIZE,
    TOKENS,
    Bass,
    BassHold,
    BassRest,
    Chord,
    ChordHold,
    ChordRest,
    Lead,
    LeadHold,
    LeadRest,
    Tick,
    Token,
)

Array = NDArray[np.float64]

RATIOS: Final = (2, 2, 2, 2, 20)  # half frames first, so that few channels hold a frame's samples
FILTERS: Final = 11
WIDTH: Final = FILTERS * 2 ** len(RATIOS)
BANKS: Final = {"lead": (60, 116), "chords": (48, 100), "bass": (28, 70)}  # MIDI, both included
DRUMS: Final = tuple(percussion.FRAMES)
CONTROLS: Final = ("damp", "kill")
CLICKS: Final = ("lead", "chords")

LOUDNESS: Final = 16.0  # sample amplitude per state: states stay near 0.01, where tanh is linear
DRUM_LOUDNESS: Final = 64.0
BIAS: Final = 1 / 32  # above all states: they stay in the linear half of the first ELU
DRIVE: Final = 1 / 64  # of what is struck goes past the LSTM, and the LSTM gets it amplified
CONTROL: Final = 1 / 32  # a control channel's reach
OPEN: Final = 12.0  # an open gate, before its sigmoid
SHUT: Final = -30.0
KILL: Final = 14.708  # from open to 1/16
LASTING: Final = 0.994  # of an oscillator's state is left after a frame, if nothing damps it
SAMPLE_BIAS: Final = 2.0  # above all samples: the linear half of the later ELUs
CROSSFADE: Final = 192  # samples between a frame's sines and the next one's


def configuration() -> EncodecConfig:
    return EncodecConfig(
        sampling_rate=SAMPLING_RATE, audio_channels=1, num_filters=FILTERS,
        hidden_size=len(COLUMNS), codebook_size=SIZE, codebook_dim=len(COLUMNS),
        upsampling_ratios=list(RATIOS), kernel_size=1, last_kernel_size=1, num_residual_layers=0,
        num_lstm_layers=1, use_causal_conv=False, pad_mode="constant", norm_type="weight_norm",
        target_bandwidths=[language.codec_bandwidth()],
    )  # fmt: skip


def columns() -> dict[tuple[str, object], int]:
    """What a codebook's vectors say, in order: amplitudes, hits, controls, clicks."""
    names: list[tuple[str, object]] = [
        (bank, pitch) for bank, (low, top) in BANKS.items() for pitch in range(low, top + 1)
    ]
    names += [("drum", name) for name in DRUMS]
    names += [(control, bank) for control in CONTROLS for bank in BANKS]
    names += [("click", bank) for bank in CLICKS]
    return {name: place for place, name in enumerate(names)}


def rows() -> dict[tuple[object, ...], int]:
    """The LSTM's units: a pair per oscillator, a drum's taps, controls, clicks, cancellers."""
    names: list[tuple[object, ...]] = [
        (bank, pitch, half)
        for bank, (low, top) in BANKS.items() for pitch in range(low, top + 1) for half in (0, 1)
    ]  # fmt: skip
    names += [
        ("drum", name, tap) for name, taps in percussion.FRAMES.items() for tap in range(taps)
    ]
    names += [(control, bank) for control in CONTROLS for bank in BANKS]
    names += [("click", bank) for bank in CLICKS]
    names += [("cancel", 0), ("cancel", 1)]
    return {name: place for place, name in enumerate(names)}


COLUMNS: Final = columns()
ROWS: Final = rows()


def frequency(pitch: int) -> float:
    """Hertz of a MIDI note."""
    return 440.0 * 2 ** ((pitch - 69) / 12)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def damper(bank: str, pitch: int) -> float:
    """How far a damping of 1 shuts an oscillator's gate: higher notes decay faster."""
    low, top = BANKS[bank]
    return 8.9 + 1.5 * (pitch - low) / (top - low)


def oscillators() -> Iterator[tuple[str, int, int, int]]:
    """Bank, pitch and the two units of each."""
    for bank, (low, top) in BANKS.items():
        for pitch in range(low, top + 1):
            yield bank, pitch, ROWS[bank, pitch, 0], ROWS[bank, pitch, 1]


def starting_phase(bank: str, pitch: int) -> float:
    """In turns; scattered, so that peaks do not pile up."""
    return random.Random(f"phase/{bank}/{pitch}").random()


# What tokens say: the codebooks.


def codebook(book: int) -> Array:
    """The vectors of a book's tokens, (SIZE, columns)."""
    table = np.zeros((SIZE, len(COLUMNS)))
    for place, token in enumerate(TOKENS[book]):
        for name, value in said(token):
            table[place, COLUMNS[name]] += value
    return table


def said(token: Token) -> Iterator[tuple[tuple[str, object], float]]:
    """The columns that a token sets."""
    match token:
        case Tick(hits=hits):
            for name in hits.replace("crash", "open").split():
                loud = 1.6 if "crash" in hits and name == "open" else 1.0
                yield ("drum", name), loud / DRUM_LOUDNESS
        case Lead():
            yield from struck("lead", token)
        case Chord():
            yield from struck("chords", token)
        case Bass():
            yield from struck("bass", token)
        case LeadHold(sound=sound):
            yield ("damp", "lead"), timbre(Lead(60, sound, bright=False)).damping
        case ChordHold(damping=sound) if sound != "none":
            yield ("damp", "chords"), timbre(Chord(0, "major", sound, bright=False)).damping
        case BassHold(sound=sound):
            yield ("damp", "bass"), timbre(Bass(40, sound, strong=False)).damping
        case LeadRest():
            yield ("kill", "lead"), 1.0
        case ChordRest():
            yield ("kill", "chords"), 1.0
        case BassRest():
            yield ("kill", "bass"), 1.0


def struck(bank: str, event: Lead | Chord | Bass) -> Iterator[tuple[tuple[str, object], float]]:
    """Shut the gates on what sounds, and strike so much harder through them."""
    made = timbre(event)
    shut = OPEN - math.log(made.ring / (1 - made.ring))
    yield ("kill", bank), shut / KILL
    for pitch, level in partials(event).items():
        if pitch <= BANKS[bank][1]:
            yield (bank, pitch), math.atanh(level / LOUDNESS / made.ring)
    if made.click:
        yield ("click", bank), made.click / DRUM_LOUDNESS


# How the LSTM moves them.


def projection() -> tuple[Array, Array]:
    """The first convolution, (units, columns), and its bias."""
    weight = np.zeros((WIDTH, len(COLUMNS)))
    for bank, pitch, cos, sin in oscillators():
        turn = 2 * math.pi * starting_phase(bank, pitch)
        weight[cos, COLUMNS[bank, pitch]] = DRIVE * math.cos(turn)
        weight[sin, COLUMNS[bank, pitch]] = DRIVE * math.sin(turn)
    for name in DRUMS:
        weight[ROWS["drum", name, 0], COLUMNS["drum", name]] = DRIVE
    for bank in CLICKS:
        weight[ROWS["click", bank], COLUMNS["click", bank]] = DRIVE
    for control in CONTROLS:
        for bank in BANKS:
            weight[ROWS[control, bank], COLUMNS[control, bank]] = CONTROL
    bias = np.zeros(WIDTH)
    bias[: len(ROWS)] = BIAS
    return weight, bias


def recurrence() -> tuple[Array, Array, Array]:
    """The LSTM's input weights, state weights and biases; gates i, f, g, o one below the other."""
    inputs, states = np.zeros((4, WIDTH, WIDTH)), np.zeros((4, WIDTH, WIDTH))
    bias = np.zeros((4, WIDTH))
    bias[0], bias[1], bias[3] = OPEN, SHUT, -SHUT
    for unit, row in ROWS.items():
        if unit[0] not in (*CONTROLS, "cancel"):
            inputs[2, row, row] = 1 / DRIVE
            bias[2, row] = -BIAS / DRIVE
    for bank, pitch, cos, sin in oscillators():
        turn = 2 * math.pi * frequency(pitch) / FRAME_RATE
        block = LASTING * np.array(
            [[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]]
        )
        states[2][np.ix_((cos, sin), (cos, sin))] = block
        for control, reach in (("damp", damper(bank, pitch)), ("kill", KILL)):
            for row in (cos, sin):
                inputs[0, row, ROWS[control, bank]] = -reach / CONTROL
                bias[0, row] += reach / CONTROL * BIAS
    for name, taps in percussion.FRAMES.items():
        for tap in range(1, taps):
            states[2, ROWS["drum", name, tap], ROWS["drum", name, tap - 1]] = 1.0
    return inputs.reshape(4 * WIDTH, WIDTH), states.reshape(4 * WIDTH, WIDTH), bias.reshape(-1)


# How states become samples.


def window() -> Array:
    """The share of a frame in the samples around it, (2 · HOP,): flat, with soft edges."""
    from_start = (np.arange(2 * HOP) + 0.5 - (HOP - CROSSFADE) / 2) / CROSSFADE
    rise = np.sin(np.clip(from_start, 0, 1) * math.pi / 2) ** 2
    both: Array = rise * rise[::-1]
    return both


def pieces() -> Array:
    """What each unit adds to the samples around its frame, (units, 2 · HOP)."""
    table, shape = np.zeros((WIDTH, 2 * HOP)), window()
    seconds = (np.arange(2 * HOP) - HOP) / SAMPLING_RATE
    for _, pitch, cos, sin in oscillators():
        turns = 2 * math.pi * frequency(pitch) * seconds
        table[cos] = LOUDNESS * shape * np.cos(turns)
        table[sin] = -LOUDNESS * shape * np.sin(turns)
    frame = slice(HOP // 2, HOP // 2 + HOP)
    for name, taps in percussion.FRAMES.items():
        sound = DRUM_LOUDNESS * np.array(percussion.recording(name)).reshape(taps, HOP)
        for tap in range(taps):
            table[ROWS["drum", name, tap], frame] = sound[tap]
    for bank in CLICKS:
        table[ROWS["click", bank], frame] = DRUM_LOUDNESS * np.array(percussion.click(HOP))
    return table


def stored(numbers: Array) -> Array:
    """What is left of numbers in the 16 bits in which they are shipped."""
    return numbers.astype(np.float16).astype(np.float64)


def first_kernel() -> Array:
    """The first transposed convolution, (units, channels, 4): a channel per sample of half a frame.

    Two units take out what the bias adds: one roughly, one the rest.
    """
    half = HOP // 2
    table = stored(pieces())
    table[ROWS["cancel", 0]] = stored(-table.sum(0))
    table[ROWS["cancel", 1]] = stored(-table.sum(0))
    kernel = np.zeros((WIDTH, WIDTH // 2, 4))
    kernel[:, :half] = table.reshape(WIDTH, 4, half).transpose(0, 2, 1)
    return kernel


def halving(channels: int, held: int) -> Array:
    """A transposed convolution that plays the second half of the channels after the first."""
    kernel = np.zeros((channels, channels // 2, 4))
    for channel in range(held):
        kernel[channel, channel % (held // 2), 1 + channel // (held // 2)] = 1.0
    return kernel


def sorting(channels: int, held: int) -> Array:
    """The last one: each channel is a sample."""
    kernel = np.zeros((channels, channels // 2, 2 * held))
    for channel in range(held):
        kernel[channel, 0, held // 2 + channel] = 1.0
    return kernel


@torch.no_grad()  # type: ignore[untyped-decorator]
def write(codec: Any) -> None:
    """Write the instrument into an `EncodecModel` of `configuration()`."""
    for parameter in codec.parameters():
        parameter.zero_()
    for book, layer in enumerate(codec.quantizer.layers):
        layer.codebook.embed.copy_(torch.from_numpy(stored(codebook(book))))
    layers = codec.decoder.layers
    weight, bias = projection()
    convolve(layers[0].conv, stored(weight)[:, :, None], bias)
    inputs, states, biases = recurrence()
    lstm = layers[1].lstm
    lstm.weight_ih_l0.copy_(torch.from_numpy(stored(inputs)))
    lstm.weight_hh_l0.copy_(torch.from_numpy(stored(states)))
    lstm.bias_ih_l0.copy_(torch.from_numpy(biases))
    held, bias = HOP // 2, np.zeros(WIDTH // 2)
    bias[:held] = SAMPLE_BIAS
    convolve(layers[3].conv, first_kernel(), bias)
    for place, layer in enumerate(layers[5:10:2]):
        convolve(layer.conv, halving(WIDTH // 2 ** (place + 1), held))
        held //= 2
    convolve(layers[11].conv, sorting(2 * FILTERS, held))
    convolve(layers[13].conv, np.eye(1, FILTERS)[:, :, None], np.array([-SAMPLE_BIAS]))
    for layer in codec.encoder.layers:  # never called: silence in, silence out
        if hasattr(layer, "conv"):
            convolve(layer.conv, np.zeros(tuple(layer.conv.weight.shape)))


def convolve(conv: Any, weight: Array, bias: Array | None = None) -> None:
    """Write a plain weight into a weight-normed convolution: lengths and directions of its rows."""
    parts = conv.parametrizations.weight
    direction = torch.from_numpy(weight).float()
    empty = direction.flatten(1).abs().sum(1) == 0
    direction[empty] = 1.0  # a row of zeros has no direction; its length makes it zero
    parts.original1.copy_(direction)
    length = torch.linalg.vector_norm(parts.original1.flatten(1), dim=1)
    parts.original0.copy_(torch.where(empty, 0.0, length).view(parts.original0.shape))
    if bias is not None:
        conv.bias.copy_(torch.from_numpy(bias))
