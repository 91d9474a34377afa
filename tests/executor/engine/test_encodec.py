"""EnCodec's decoder against transformers, and against itself in every way to run it."""

import copy
import ctypes
import functools
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from transformers import EncodecConfig, EncodecModel, MusicgenForConditionalGeneration

from executor.engine import encodec, library
from executor.engine.encodec import EncodecDecoder
from executor.engine.library import Status
from executor.engine.pool import Control, Pool
from executor.errors import ModelRefused
from executor.models.folders import EMBEDDED, SHIPPED
from executor.models.weights import Weights
from tests.support.tiny_models import parts

# Of the largest sample: what differs from transformers is rounding only.
TOLERANCE = 2e-6
BOOKS = 3
TINY: Mapping[str, Any] = {
    "num_filters": 3,
    "hidden_size": 10,
    "codebook_size": 16,
    "upsampling_ratios": (3, 2),
    "target_bandwidths": [200.0],
    "use_causal_conv": False,
}
# Changes of TINY; together they have every option.
CONFIGURATIONS: tuple[dict[str, Any], ...] = (
    {},
    {"pad_mode": "constant", "num_residual_layers": 0},
    {"use_conv_shortcut": False, "num_lstm_layers": 1},
    {"use_causal_conv": True, "num_residual_layers": 3},
    {"use_causal_conv": True, "trim_right_ratio": 0.4, "pad_mode": "constant"},
    {"num_residual_layers": 3, "dilation_growth_rate": 3, "compress": 1},
    {"num_lstm_layers": 3, "kernel_size": 1, "last_kernel_size": 4, "residual_kernel_size": 2},
    {"upsampling_ratios": (1, 5), "num_filters": 8, "hidden_size": 16, "compress": 3},
)


@functools.cache
def tiny(**changes: Any) -> Any:
    """A random codec with lengths and biases that transformers would start with 1 and 0."""
    torch.manual_seed(3)
    model = EncodecModel(EncodecConfig(**{**TINY, **changes})).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("original0"):
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
        if "bias" in name:
            torch.nn.init.uniform_(parameter, -0.3, 0.3)
    with torch.no_grad():
        parts.fill(model.quantizer.layers)
    return model


@functools.cache
def shipped() -> Any:
    model = MusicgenForConditionalGeneration.from_pretrained(
        SHIPPED / EMBEDDED, dtype=torch.float32, local_files_only=True
    )
    return model.audio_encoder.eval()


def tensors_of(model: Any) -> dict[str, Any]:
    return {f"audio_encoder.{name}": each.numpy() for name, each in model.state_dict().items()}


def decoder(model: Any, books: int = BOOKS) -> EncodecDecoder:
    return EncodecDecoder(model.config.to_dict(), tensors_of(model), books)


def random_codes(model: Any, tokens: int, books: int = BOOKS) -> Any:
    draws = np.random.default_rng(tokens)
    return draws.integers(0, model.config.codebook_size, (books, tokens))


def expected_samples(model: Any, codes: Any) -> Any:
    with torch.inference_mode():
        return model.decode(torch.tensor(codes)[None, None], [None]).audio_values[0, 0].numpy()


def difference(samples: Any, expected: Any) -> float:
    """Return the largest difference, of the largest sample."""
    assert samples.shape == expected.shape
    return float(np.abs(samples - expected).max() / np.abs(expected).max())


def bits(array: Any) -> Any:
    return array.view(np.uint32)


@pytest.mark.parametrize("changes", CONFIGURATIONS, ids=str)
def test_samples_are_those_of_transformers(
    each_library: ctypes.CDLL, changes: Mapping[str, Any]
) -> None:
    model = tiny(**changes)
    codec = decoder(model)
    for tokens in (1, 2, 3, 19):  # shorter than the padding, and longer than several blocks
        codes = random_codes(model, tokens)
        status, samples = codec.decode(codes)
        assert status is Status.OK
        assert difference(samples, expected_samples(model, codes)) < TOLERANCE


def test_samples_of_the_shipped_model_are_those_of_transformers(each_library: ctypes.CDLL) -> None:
    """Its weights amplify rounding, so float64 is the reference; float32 of torch is 7e-5 off."""
    model = copy.deepcopy(shipped())
    codes = random_codes(model, 60, 4)
    codec = EncodecDecoder(model.config.to_dict(), Weights(SHIPPED / EMBEDDED), 4)
    _, samples = codec.decode(codes)
    assert difference(samples, expected_samples(model.double(), codes)) < 5e-5


def test_older_names_of_the_weight_norm_are_read() -> None:
    model = tiny()
    older = {
        name.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): tensor
        for name, tensor in tensors_of(model).items()
    }
    assert any(name.endswith("weight_g") for name in older)
    codes = random_codes(model, 5)
    _, samples = EncodecDecoder(model.config.to_dict(), older, BOOKS).decode(codes)
    assert (bits(samples) == bits(decoder(model).decode(codes)[1])).all()


@pytest.mark.parametrize("changes", CONFIGURATIONS, ids=str)
def test_bits_do_not_depend_on_processor_threads_or_blocks(
    libraries: Mapping[str, ctypes.CDLL],
    monkeypatch: pytest.MonkeyPatch,
    changes: Mapping[str, Any],
) -> None:
    model = tiny(**changes)
    codes = random_codes(model, 23)
    _, expected = decoder(model).decode(codes)
    for loaded in libraries.values():
        monkeypatch.setattr(library, "load", functools.partial(_same, loaded))
        codec = decoder(model)
        for threads, block in itertools.product((1, 2), (1, 7, 23)):
            with Pool(threads) as pool:
                _, samples = codec.decode(codes, pool, block=block)
            assert (bits(samples) == bits(expected)).all()


def _same(loaded: ctypes.CDLL) -> ctypes.CDLL:
    return loaded


def test_long_rows_are_computed_in_chunks_with_the_same_bits() -> None:
    """More rows than a thread computes at a time, of a signal that reaches the last-level cache."""
    model = tiny(num_filters=16, upsampling_ratios=(8, 5))
    codes = random_codes(model, 60)
    codec = decoder(model)
    _, samples = codec.decode(codes, block=60)
    assert difference(samples, expected_samples(model, codes)) < TOLERANCE
    with Pool(2) as pool:
        assert (bits(codec.decode(codes, pool, block=9)[1]) == bits(samples)).all()


def test_a_song_begins_as_a_longer_one_does_in_a_causal_codec() -> None:
    model = tiny(use_causal_conv=True)
    codes = random_codes(model, 12)
    codec = decoder(model)
    _, longer = codec.decode(codes)
    _, shorter = codec.decode(codes[:, :9])
    assert (bits(shorter) == bits(longer[: len(shorter)])).all()


def test_weights_are_copied_only_where_their_layout_differs() -> None:
    model = tiny(num_filters=16)
    lstm = sum(p.numel() for n, p in model.decoder.named_parameters() if "lstm" in n)
    parameters = sum(p.numel() for p in model.decoder.parameters())
    bias_copies = sum((3 * 32, 2 * 16))
    assert decoder(model).copied_bytes < 4 * (parameters - lstm + bias_copies)


def test_stopped_call_ends_and_counts_what_is_done() -> None:
    model = tiny()
    control = Control()
    codes = random_codes(model, 30)
    status, _ = decoder(model).decode(codes, control=control, block=7)
    assert (status, control.done.value) == (Status.OK, 30)
    control = Control()
    control.stop.value = 1
    status, _ = decoder(model).decode(codes, control=control)
    assert (status, control.done.value) == (Status.STOPPED, 0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_heard_alike(
    libraries: Mapping[str, ctypes.CDLL], monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    model = tiny()
    codes = random_codes(model, 6)
    outputs = []
    for name in ("0.conv.bias", "1.lstm.weight_hh_l0", "6.conv.bias"):
        tensors = tensors_of(model)
        changed = tensors[f"audio_encoder.decoder.layers.{name}"].copy()
        changed.flat[0] = value
        tensors[f"audio_encoder.decoder.layers.{name}"] = changed
        for loaded in libraries.values():
            monkeypatch.setattr(library, "load", functools.partial(_same, loaded))
            _, samples = EncodecDecoder(model.config.to_dict(), tensors, BOOKS).decode(codes)
            outputs.append(np.where(np.isnan(samples), np.float32(0), samples))
            assert not np.isnan(value) or np.isnan(samples).any()
        assert (bits(outputs[0]) == bits(outputs[-1])).all()
        outputs.clear()


@pytest.mark.parametrize(
    "change",
    [
        lambda codes: codes[:2],
        lambda codes: codes[0],
        lambda codes: codes[:, :0],
        lambda codes: codes - 16,
        lambda codes: codes + 16,
        lambda codes: codes + 2**32,
        lambda codes: codes * np.nan,
    ],
)
def test_codes_that_the_codec_does_not_have_are_refused(change: Callable[[Any], Any]) -> None:
    model = tiny()
    with pytest.raises(ValueError, match=r"code|tokens"):
        decoder(model).decode(change(random_codes(model, 4)))


def test_songs_longer_than_transformers_can_pad_are_refused() -> None:
    codec = decoder(tiny())
    codes = np.zeros((BOOKS, encodec.MAX_SAMPLES // codec.samples_per_token + 1), np.int32)
    with pytest.raises(ValueError, match="tokens of 6 samples"):
        codec.decode(codes)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("audio_channels", 2),
        ("chunk_length_s", 1.0),
        ("codebook_dim", 11),
        ("codebook_size", 0),
        ("compress", 7),
        ("dilation_growth_rate", 2**20),
        ("hidden_size", True),
        ("kernel_size", 7.0),
        ("norm_type", "time_group_norm"),
        ("norm_type", "none"),
        ("num_filters", 2**40),
        ("num_lstm_layers", 0),
        ("num_residual_layers", -1),
        ("pad_mode", "replicate"),
        ("trim_right_ratio", 0.5),
        ("trim_right_ratio", "1"),
        ("upsampling_ratios", []),
        ("upsampling_ratios", [3, 0]),
        ("upsampling_ratios", [1024, 1024]),
        ("use_causal_conv", "yes"),
    ],
)
def test_options_that_the_engine_lacks_are_refused(name: str, value: object) -> None:
    model = tiny()
    with pytest.raises(ModelRefused, match=name):
        EncodecDecoder({**model.config.to_dict(), name: value}, tensors_of(model), BOOKS)


def test_every_tensor_must_be_there_in_its_shape() -> None:
    model = tiny()
    config, tensors = model.config.to_dict(), tensors_of(model)
    read = [
        name
        for name in tensors
        if ".decoder." in name or any(f"layers.{k}.codebook.embed" == name[-24:] for k in range(3))
    ]
    assert len(read) > 30
    for name in read:
        without = {key: tensor for key, tensor in tensors.items() if key != name}
        with pytest.raises(ModelRefused, match="the weights have no"):
            EncodecDecoder(config, without, BOOKS)
        with pytest.raises(ModelRefused, match="has the shape"):
            EncodecDecoder(config, {**tensors, name: tensors[name][:-1]}, BOOKS)
