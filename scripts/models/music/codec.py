"""An EnCodec whose decoder weights are computed instead of trained: a synthesiser as a network.

Its LSTM is a bank of oscillators. With forget gates closed and output gates open, its state is h(t)
= i · tanh(tanh(R h(t-1) + W x(t))). For the small states used here this is linear. R rotates each
pair of states by the phase that a semitone advances in one frame. A note that was struck once
therefore sounds on, in tune and in phase, through frames whose tokens add nothing. The input gates
are the dampers: control channels of a token close them a little (the decay of a piano) or almost
completely (before the next note). Drums are delay lines; each tap holds one frame of a recording.

The transposed convolutions overlap and add one frame of a sine per oscillator, and then only bring
samples into their order. A bias keeps every value in the linear half of the ELUs.
"""

import math
import random
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import (
    EncodecConfig,
)

from scripts.models.music.brief import FRAME_RATE
from scripts.models.music.instruments import (
    DRUM_FRAMES,
    HOP,
    SAMPLING_RATE,
    Samples,
    click_samples,
    drum_samples,
    partial_levels,
    timbre_of,
)
from scripts.models.music.tokens import (
    BOOKS,
    CODEBOOK_SIZE,
    TOKENS,
    Bass,
    BassHold,
    BassRest,
    Chord,
    ChordHold,
    ChordRest,
    Codes,
    Lead,
    LeadHold,
    LeadRest,
    Tick,
    Token,
)

Array = NDArray[np.float64]
# The factor 20 comes last, so that few channels hold the samples of a frame.
RATIOS: Final = (2, 2, 2, 2, 20)
FILTERS: Final = 11
UNIT_COUNT: Final = FILTERS * 2 ** len(RATIOS)
# The MIDI pitches of each bank's oscillators, both included.
BANKS: Final = {"lead": (60, 116), "chords": (48, 100), "bass": (28, 70)}
DRUMS: Final = tuple(DRUM_FRAMES)
CONTROLS: Final = ("damp", "kill")
CLICKS: Final = ("lead", "chords")
# Sample amplitude per unit of state. States stay near 0.01, where tanh is linear.
LOUDNESS: Final = 16.0
DRUM_LOUDNESS: Final = 64.0
# Larger than all states, to keep them in the linear half of the first ELU.
BIAS: Final = 1 / 32
# Part of each stroke bypasses the LSTM. This scale keeps it small; the LSTM amplifies it.
DRIVE: Final = 1 / 64
# The amplitude of a control channel.
CONTROL: Final = 1 / 32
# An open gate, before its sigmoid.
GATE_OPEN: Final = 12.0
GATE_SHUT: Final = -30.0
# Closes a gate from open to 1/16.
KILL_DEPTH: Final = 14.708
# The share of an oscillator's state that is left after a frame without damping.
FRAME_DECAY: Final = 0.994
# Larger than all samples, to keep them in the linear half of the later ELUs.
SAMPLE_BIAS: Final = 2.0
# Samples over which a frame's sines fade into the next frame's.
CROSSFADE: Final = 192


def codec_config() -> EncodecConfig:
    """Return the configuration of the EnCodec."""
    return EncodecConfig(
        sampling_rate=SAMPLING_RATE, audio_channels=1, num_filters=FILTERS,
        hidden_size=len(COLUMNS), codebook_size=CODEBOOK_SIZE, codebook_dim=len(COLUMNS),
        upsampling_ratios=list(RATIOS), kernel_size=1, last_kernel_size=1, num_residual_layers=0,
        num_lstm_layers=1, use_causal_conv=False, pad_mode="constant", norm_type="weight_norm",
        target_bandwidths=[_bandwidth()],
    )  # fmt: skip


def _column_indices() -> dict[tuple[str, object], int]:
    """Return the components of a code vector: amplitudes, drums, controls, clicks."""
    names: list[tuple[str, object]] = [
        (bank, pitch) for bank, (low, top) in BANKS.items() for pitch in range(low, top + 1)
    ]
    names += [("drum", name) for name in DRUMS]
    names += [(control, bank) for control in CONTROLS for bank in BANKS]
    names += [("click", bank) for bank in CLICKS]
    return {name: index for index, name in enumerate(names)}


def _unit_indices() -> dict[tuple[object, ...], int]:
    """Return the LSTM's units: two per oscillator, drum taps, controls, clicks, cancellers."""
    names: list[tuple[object, ...]] = [
        (bank, pitch, half)
        for bank, (low, top) in BANKS.items() for pitch in range(low, top + 1) for half in (0, 1)
    ]  # fmt: skip
    names += [("drum", name, tap) for name, taps in DRUM_FRAMES.items() for tap in range(taps)]
    names += [(control, bank) for control in CONTROLS for bank in BANKS]
    names += [("click", bank) for bank in CLICKS]
    names += [("cancel", 0), ("cancel", 1)]
    return {name: index for index, name in enumerate(names)}


COLUMNS: Final = _column_indices()
UNITS: Final = _unit_indices()


def pitch_frequency(pitch: int) -> float:
    """Return the frequency of a MIDI note in Hz."""
    return 440.0 * 2 ** ((pitch - 69) / 12)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def damping_depth(bank: str, pitch: int) -> float:
    """Return how far a damping of 1 closes an oscillator's gate. High notes decay faster."""
    low, top = BANKS[bank]
    return 8.9 + 1.5 * (pitch - low) / (top - low)


def _oscillators() -> Iterator[tuple[str, int, int, int]]:
    """Yield bank, pitch, cosine unit and sine unit of each oscillator."""
    for bank, (low, top) in BANKS.items():
        for pitch in range(low, top + 1):
            yield bank, pitch, UNITS[bank, pitch, 0], UNITS[bank, pitch, 1]


def starting_phase(bank: str, pitch: int) -> float:
    """Return a phase in turns. Phases are scattered, so that the partials' peaks do not add up."""
    return random.Random(f"phase/{bank}/{pitch}").random()


# What tokens say: the codebooks.


def _codebook(book: int) -> Array:
    """Return the code vectors of a book, (CODEBOOK_SIZE, columns)."""
    table = np.zeros((CODEBOOK_SIZE, len(COLUMNS)))
    for row, token in enumerate(TOKENS[book]):
        for name, value in _token_columns(token):
            table[row, COLUMNS[name]] += value
    return table


def _token_columns(token: Token) -> Iterator[tuple[tuple[str, object], float]]:
    """Yield the components of a token's code vector."""
    match token:
        case Tick(hits=hits):
            for name in hits.replace("crash", "open").split():
                loud = 1.6 if "crash" in hits and name == "open" else 1.0
                yield ("drum", name), loud / DRUM_LOUDNESS
        case Lead():
            yield from _note_columns("lead", token)
        case Chord():
            yield from _note_columns("chords", token)
        case Bass():
            yield from _note_columns("bass", token)
        case LeadHold(sound=sound):
            yield ("damp", "lead"), timbre_of(Lead(60, sound, bright=False)).damping
        case ChordHold(damping=sound) if sound != "none":
            yield ("damp", "chords"), timbre_of(Chord(0, "major", sound, bright=False)).damping
        case BassHold(sound=sound):
            yield ("damp", "bass"), timbre_of(Bass(40, sound, strong=False)).damping
        case LeadRest():
            yield ("kill", "lead"), 1.0
        case ChordRest():
            yield ("kill", "chords"), 1.0
        case BassRest():
            yield ("kill", "bass"), 1.0


def _note_columns(
    bank: str, event: Lead | Chord | Bass
) -> Iterator[tuple[tuple[str, object], float]]:
    """Close the gates of sounding notes, and compensate the new note for its closed gate."""
    timbre = timbre_of(event)
    closing = GATE_OPEN - math.log(timbre.ring / (1 - timbre.ring))
    yield ("kill", bank), closing / KILL_DEPTH
    for pitch, level in partial_levels(event).items():
        if pitch <= BANKS[bank][1]:
            yield (bank, pitch), math.atanh(level / LOUDNESS / timbre.ring)
    if timbre.click:
        yield ("click", bank), timbre.click / DRUM_LOUDNESS


# How the LSTM moves them.


def _input_projection() -> tuple[Array, Array]:
    """Return the first convolution (units, columns) and its bias."""
    weight = np.zeros((UNIT_COUNT, len(COLUMNS)))
    for bank, pitch, cos, sin in _oscillators():
        turn = 2 * math.pi * starting_phase(bank, pitch)
        weight[cos, COLUMNS[bank, pitch]] = DRIVE * math.cos(turn)
        weight[sin, COLUMNS[bank, pitch]] = DRIVE * math.sin(turn)
    for name in DRUMS:
        weight[UNITS["drum", name, 0], COLUMNS["drum", name]] = DRIVE
    for bank in CLICKS:
        weight[UNITS["click", bank], COLUMNS["click", bank]] = DRIVE
    for control in CONTROLS:
        for bank in BANKS:
            weight[UNITS[control, bank], COLUMNS[control, bank]] = CONTROL
    bias = np.zeros(UNIT_COUNT)
    bias[: len(UNITS)] = BIAS
    return weight, bias


def _lstm_weights() -> tuple[Array, Array, Array]:
    """Return the LSTM's input weights, state weights and biases, in the order i, f, g, o."""
    inputs, states = np.zeros((4, UNIT_COUNT, UNIT_COUNT)), np.zeros((4, UNIT_COUNT, UNIT_COUNT))
    bias = np.zeros((4, UNIT_COUNT))
    bias[0], bias[1], bias[3] = GATE_OPEN, GATE_SHUT, -GATE_SHUT
    for unit, row in UNITS.items():
        if unit[0] not in (*CONTROLS, "cancel"):
            inputs[2, row, row] = 1 / DRIVE
            bias[2, row] = -BIAS / DRIVE
    for bank, pitch, cos, sin in _oscillators():
        turn = 2 * math.pi * pitch_frequency(pitch) / FRAME_RATE
        block = FRAME_DECAY * np.array(
            [[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]]
        )
        states[2][np.ix_((cos, sin), (cos, sin))] = block
        for control, reach in (("damp", damping_depth(bank, pitch)), ("kill", KILL_DEPTH)):
            for row in (cos, sin):
                inputs[0, row, UNITS[control, bank]] = -reach / CONTROL
                bias[0, row] += reach / CONTROL * BIAS
    for name, taps in DRUM_FRAMES.items():
        for tap in range(1, taps):
            states[2, UNITS["drum", name, tap], UNITS["drum", name, tap - 1]] = 1.0
    return (
        inputs.reshape(4 * UNIT_COUNT, UNIT_COUNT),
        states.reshape(4 * UNIT_COUNT, UNIT_COUNT),
        bias.reshape(-1),
    )


# How states become samples.


def _frame_window() -> Array:
    """Return the weight of a frame for the samples around it, (2 · HOP,), with soft edges."""
    from_start = (np.arange(2 * HOP) + 0.5 - (HOP - CROSSFADE) / 2) / CROSSFADE
    rise = np.sin(np.clip(from_start, 0, 1) * math.pi / 2) ** 2
    window: Array = rise * rise[::-1]
    return window


def _unit_waveforms() -> Array:
    """Return what each unit adds to the samples around its frame, (units, 2 · HOP)."""
    table, shape = np.zeros((UNIT_COUNT, 2 * HOP)), _frame_window()
    seconds = (np.arange(2 * HOP) - HOP) / SAMPLING_RATE
    for _, pitch, cos, sin in _oscillators():
        turns = 2 * math.pi * pitch_frequency(pitch) * seconds
        table[cos] = LOUDNESS * shape * np.cos(turns)
        table[sin] = -LOUDNESS * shape * np.sin(turns)
    frame = slice(HOP // 2, HOP // 2 + HOP)
    for name, taps in DRUM_FRAMES.items():
        sound = DRUM_LOUDNESS * np.array(drum_samples(name)).reshape(taps, HOP)
        for tap in range(taps):
            table[UNITS["drum", name, tap], frame] = sound[tap]
    for bank in CLICKS:
        table[UNITS["click", bank], frame] = DRUM_LOUDNESS * np.array(click_samples(HOP))
    return table


def _as_float16(numbers: Array) -> Array:
    """Round to float16, the precision of the shipped file."""
    return numbers.astype(np.float16).astype(np.float64)


def _waveform_kernel() -> Array:
    """Return the first transposed convolution, (units, channels, 4).

    It has a channel for each sample of half a frame. Two units subtract what the bias adds: the
    first one roughly, the second one its rounding error.
    """
    half = HOP // 2
    table = _as_float16(_unit_waveforms())
    table[UNITS["cancel", 0]] = _as_float16(-table.sum(0))
    table[UNITS["cancel", 1]] = _as_float16(-table.sum(0))
    kernel = np.zeros((UNIT_COUNT, UNIT_COUNT // 2, 4))
    kernel[:, :half] = table.reshape(UNIT_COUNT, 4, half).transpose(0, 2, 1)
    return kernel


def _interleave_kernel(channels: int, samples: int) -> Array:
    """Return a transposed convolution that plays the second half of the channels second."""
    kernel = np.zeros((channels, channels // 2, 4))
    for channel in range(samples):
        kernel[channel, channel % (samples // 2), 1 + channel // (samples // 2)] = 1.0
    return kernel


def _output_kernel(channels: int, samples: int) -> Array:
    """Return the last transposed convolution, in which each channel is a sample."""
    kernel = np.zeros((channels, channels // 2, 2 * samples))
    for channel in range(samples):
        kernel[channel, 0, samples // 2 + channel] = 1.0
    return kernel


@torch.no_grad()  # type: ignore[untyped-decorator]
def write_codec(codec: Any) -> None:
    """Write the computed weights into an `EncodecModel` of `codec_config()`."""
    for parameter in codec.parameters():
        parameter.zero_()
    for book, layer in enumerate(codec.quantizer.layers):
        layer.codebook.embed.copy_(torch.from_numpy(_as_float16(_codebook(book))))
    layers = codec.decoder.layers
    weight, bias = _input_projection()
    _set_convolution(layers[0].conv, _as_float16(weight)[:, :, None], bias)
    inputs, states, biases = _lstm_weights()
    lstm = layers[1].lstm
    lstm.weight_ih_l0.copy_(torch.from_numpy(_as_float16(inputs)))
    lstm.weight_hh_l0.copy_(torch.from_numpy(_as_float16(states)))
    lstm.bias_ih_l0.copy_(torch.from_numpy(biases))
    samples, bias = HOP // 2, np.zeros(UNIT_COUNT // 2)
    bias[:samples] = SAMPLE_BIAS
    _set_convolution(layers[3].conv, _waveform_kernel(), bias)
    for index, layer in enumerate(layers[5:10:2]):
        _set_convolution(layer.conv, _interleave_kernel(UNIT_COUNT // 2 ** (index + 1), samples))
        samples //= 2
    _set_convolution(layers[11].conv, _output_kernel(2 * FILTERS, samples))
    _set_convolution(layers[13].conv, np.eye(1, FILTERS)[:, :, None], np.array([-SAMPLE_BIAS]))
    for layer in codec.encoder.layers:  # never called: silence in, silence out
        if hasattr(layer, "conv"):
            _set_convolution(layer.conv, np.zeros(tuple(layer.conv.weight.shape)))


def _set_convolution(conv: Any, weight: Array, bias: Array | None = None) -> None:
    """Write a plain weight into a weight-normed convolution as lengths and directions."""
    parts = conv.parametrizations.weight
    direction = torch.from_numpy(weight).float()
    empty = direction.flatten(1).abs().sum(1) == 0
    direction[empty] = 1.0  # a row of zeros has no direction; its length makes it zero
    parts.original1.copy_(direction)
    length = torch.linalg.vector_norm(parts.original1.flatten(1), dim=1)
    parts.original0.copy_(torch.where(empty, 0.0, length).view(parts.original0.shape))
    if bias is not None:
        conv.bias.copy_(torch.from_numpy(bias))


def _bandwidth() -> float:
    """Return the kilobits per second for which EnCodec uses all of our codebooks."""
    return len(BOOKS) * math.log2(CODEBOOK_SIZE) * FRAME_RATE / 1000


def decode_audio(codec: Any, codes: Codes) -> Samples:
    """Return the codec's audio of tokens (books, frames)."""
    with torch.no_grad():
        audio = codec.decode(torch.from_numpy(codes)[None, None], [None]).audio_values
    return np.asarray(audio[0, 0].numpy(), dtype=np.float64)
