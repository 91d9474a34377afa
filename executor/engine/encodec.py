"""EnCodec's decoder: from tokens to a waveform."""

import ctypes
import math
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from executor.engine import library
from executor.engine.library import MAX_CODEBOOKS, Status, address
from executor.engine.matrices import Kind, Matrices, MatrixStruct, Tensors
from executor.engine.pool import Control, Pool
from executor.errors import ModelRefused
from executor.models.json_files import check_integer

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Values of transformers' EncodecConfig where a configuration has none.
DEFAULTS: Mapping[str, object] = MappingProxyType(
    {
        "audio_channels": 1,
        "chunk_length_s": None,
        "codebook_size": 1024,
        "compress": 2,
        "dilation_growth_rate": 2,
        "hidden_size": 128,
        "kernel_size": 7,
        "last_kernel_size": 7,
        "norm_type": "weight_norm",
        "num_filters": 32,
        "num_lstm_layers": 2,
        "num_residual_layers": 1,
        "pad_mode": "reflect",
        "residual_kernel_size": 3,
        "trim_right_ratio": 1.0,
        "upsampling_ratios": [8, 5, 4, 2],
        "use_causal_conv": True,
        "use_conv_shortcut": True,
    }
)
# Settings that this code computes with some values only. Others either are no MusicGen model's, or
# transformers itself refuses them.
FIXED: Mapping[str, tuple[object, ...]] = MappingProxyType(
    {
        "audio_channels": (1,),
        "chunk_length_s": (None,),
        "norm_type": ("weight_norm",),
        "pad_mode": ("reflect", "constant"),
        "use_causal_conv": (True, False),
        "use_conv_shortcut": (True, False),
    }
)
SIZES = ("hidden_size", "num_filters", "compress", "codebook_size", "dilation_growth_rate")
KERNELS = ("kernel_size", "last_kernel_size", "residual_kernel_size")
# Bounds far above any model's, so that products of sizes fit into 64 bits and memory is bounded.
MAX_SIZE, MAX_KERNEL, MAX_SPAN, MAX_LAYERS = 65_536, 1_024, 4_096, 16
# transformers computes padding in float32, which has no odd lengths above this.
MAX_SAMPLES = 2**24
# Tokens of a block, and numbers of its largest signal (8 MB): they stay in the last-level cache.
BLOCK_TOKENS, BLOCK_NUMBERS = 48, 2**21
# Kinds of layers (`csrc/engine.h`).
CONVOLUTION, TRANSPOSED, RESIDUAL = range(3)


class ConvStruct(ctypes.Structure):
    """`he_conv`."""

    _fields_ = (
        ("weights", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("inputs", "out", "kernel", "dilation")),
        *((name, ctypes.c_int64) for name in ("before", "after")),
    )


class LstmStruct(ctypes.Structure):
    """`he_lstm`."""

    _fields_ = (
        *((name, MatrixStruct) for name in ("input", "recurrent")),
        *((name, ctypes.c_void_p) for name in ("input_bias", "recurrent_bias")),
    )


class LayerStruct(ctypes.Structure):
    """`he_codec_layer`."""

    _fields_ = (
        *((name, ConvStruct) for name in ("conv", "pointwise")),
        ("kind", ctypes.c_int32),
    )


class CodecStruct(ctypes.Structure):
    """`he_codec`."""

    _fields_ = (
        ("codebooks", ctypes.POINTER(MatrixStruct)),
        ("lstm", ctypes.POINTER(LstmStruct)),
        ("layers", ctypes.POINTER(LayerStruct)),
        ("first", ConvStruct),
        *((name, ctypes.c_int64) for name in ("codebook_count", "lstm_count", "layer_count")),
        ("reflect", ctypes.c_int32),
    )


class EncodecDecoder:
    """The decoder of an EnCodec model of one channel, on the engine's kernels.

    A stereo MusicGen model has one: it decodes the codebooks of each side by themselves.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        tensors: Tensors,
        codebooks: int,
        prefix: str = "audio_encoder",
    ) -> None:
        """Take the codec's configuration and a model's tensors, to decode `codebooks` codebooks.

        Raises `ModelRefused`.
        """
        self._config = read_config(config)
        self._matrices, self._prefix = Matrices(tensors, Kind.FLOAT32), prefix
        if not 1 <= codebooks <= MAX_CODEBOOKS:
            raise ModelRefused(f"a codec is to decode {codebooks} codebooks")
        self.codebooks = codebooks
        self.entries = self._config["codebook_size"]
        ratios = self._config["upsampling_ratios"]
        self.samples_per_token = math.prod(ratios)
        units = self._config["num_filters"] << len(ratios)
        first = self._convolution("0.conv", self._config["hidden_size"], units, "kernel_size")
        lstm = [self._lstm(number, units) for number in range(self._config["num_lstm_layers"])]
        layers = list(self._layers(units))
        books = [self._codebook(number) for number in range(codebooks)]
        self.struct = CodecStruct(
            (MatrixStruct * len(books))(*books),
            (LstmStruct * len(lstm))(*lstm),
            (LayerStruct * len(layers))(*layers),
            first,
            len(books),
            len(lstm),
            len(layers),
            self._config["pad_mode"] == "reflect",
        )
        sizes = np.cumprod(ratios) * (units >> np.arange(1, len(ratios) + 1))
        self.block = max(1, min(BLOCK_TOKENS, BLOCK_NUMBERS // int(sizes.max())))

    @property
    def copied_bytes(self) -> int:
        """The bytes of weights that could not be used where they lie."""
        return self._matrices.copied_bytes

    def decode(
        self,
        codes: "NDArray[Any]",
        pool: Pool | None = None,
        control: Control | None = None,
        block: int | None = None,
    ) -> "tuple[Status, NDArray[np.float32]]":
        """Return the samples of `codes` `(codebooks, tokens)`.

        `control.done` counts tokens. `block` is how many are computed at a time; the samples do not
        depend on it. Raises ValueError for codes that the codec does not have.
        """
        control = control or Control()
        if codes.ndim != 2 or len(codes) != self.codebooks or codes.dtype.kind not in "iu":
            raise ValueError(f"codes of shape {codes.shape} and type {codes.dtype}")
        tokens = codes.shape[1]
        if not 1 <= tokens <= MAX_SAMPLES // self.samples_per_token:
            raise ValueError(f"{tokens} tokens of {self.samples_per_token} samples")
        if ((codes < 0) | (codes >= self.entries)).any():
            raise ValueError(f"a code is not in 0 .. {self.entries - 1}")
        block = min(block or self.block, tokens)
        if block < 1:
            raise ValueError(f"blocks of {block} tokens")
        codes = np.ascontiguousarray(codes, np.int32)
        samples = np.zeros(tokens * self.samples_per_token, np.float32)
        status = library.load().he_encodec_decode(
            pool,
            ctypes.byref(self.struct),
            ctypes.c_void_p(address(codes)),
            ctypes.c_int64(tokens),
            ctypes.c_int64(block),
            ctypes.c_void_p(address(samples)),
            ctypes.byref(control.stop),
            ctypes.byref(control.done),
        )
        return Status(status), samples

    def _layers(self, channels: int) -> Iterator[LayerStruct]:
        """Yield the layers behind the LSTM, in the order and with the numbers of transformers."""
        config, nothing = self._config, ConvStruct()
        number = 2
        for ratio in config["upsampling_ratios"]:
            up = self._transposed(f"{number + 1}.conv", channels, channels // 2, ratio)
            yield LayerStruct(up, nothing, TRANSPOSED)
            channels //= 2
            number += 2
            for exponent in range(config["num_residual_layers"]):
                yield self._residual(number, channels, config["dilation_growth_rate"] ** exponent)
                number += 1
        last = self._convolution(f"{number + 1}.conv", channels, 1, "last_kernel_size")
        yield LayerStruct(last, nothing, CONVOLUTION)

    def _residual(self, number: int, channels: int, dilation: int) -> LayerStruct:
        inner, kernel = channels // self._config["compress"], "residual_kernel_size"
        if inner < 1:
            raise ModelRefused(f"compress is {self._config['compress']} for {channels} channels")
        block = f"{number}.block"
        return LayerStruct(
            self._convolution(f"{block}.1.conv", channels, inner, kernel, dilation),
            self._pointwise(number, inner, channels),
            RESIDUAL,
        )

    def _pointwise(self, number: int, inner: int, channels: int) -> ConvStruct:
        """Return a block's second convolution; its shortcut, if it is one, reads further inputs."""
        parts = {f"{number}.block.3.conv": inner}
        if self._config["use_conv_shortcut"]:
            parts[f"{number}.shortcut.conv"] = channels
        convs = [ConvStruct(None, None, inputs, channels, 1, 1) for inputs in parts.values()]
        weights = [self._folded(name, conv) for name, conv in zip(parts, convs, strict=True)]
        biases = [self._tensor(f"{name}.bias", channels) for name in parts]
        return ConvStruct(
            self._matrices.keep(np.hstack([each.reshape(channels, -1) for each in weights])),
            self._matrices.keep(np.add.reduce(biases)),
            sum(parts.values()),
            channels,
            kernel=1,
            dilation=1,
        )

    def _convolution(
        self, name: str, inputs: int, out: int, kernel_name: str, dilation: int = 1
    ) -> ConvStruct:
        kernel = self._config[kernel_name]
        span = (kernel - 1) * dilation
        if span > MAX_SPAN:
            raise ModelRefused(f"{name} spans {span} moments; the engine has at most {MAX_SPAN}")
        after = 0 if self._config["use_causal_conv"] else span // 2
        conv = ConvStruct(None, None, inputs, out, kernel, dilation, span - after, after)
        conv.bias = self._vector(f"{name}.bias", out)
        conv.weights = self._matrices.keep(self._folded(name, conv))
        return conv

    def _transposed(self, name: str, inputs: int, out: int, ratio: int) -> ConvStruct:
        after = ratio // 2
        if self._config["use_causal_conv"]:
            after = math.ceil(ratio * self._config["trim_right_ratio"])
        conv = ConvStruct(None, None, inputs, out, 2 * ratio, 1, ratio - after, after)
        conv.bias = self._matrices.keep(np.tile(self._tensor(f"{name}.bias", out), ratio))
        conv.weights = self._matrices.keep(self._folded(name, conv, transposed=True))
        return conv

    def _folded(
        self, name: str, conv: ConvStruct, *, transposed: bool = False
    ) -> "NDArray[np.float32]":
        """Return a convolution's weights with its norm applied, laid as `he_conv` has them."""
        length, direction = "parametrizations.weight.original0", "parametrizations.weight.original1"
        if f"{self._name(name)}.weight_v" in self._matrices:
            length, direction = "weight_g", "weight_v"
        ends = (conv.inputs, conv.out) if transposed else (conv.out, conv.inputs)
        v = self._tensor(f"{name}.{direction}", *ends, conv.kernel)
        g = self._tensor(f"{name}.{length}", ends[0], 1, 1)
        weights = np.empty(v.size, np.float32)
        library.load().he_encodec_fold(
            ctypes.c_void_p(address(v)),
            ctypes.c_void_p(address(g)),
            ctypes.byref(conv),
            ctypes.c_int32(transposed),
            ctypes.c_void_p(address(weights)),
        )
        return weights

    def _lstm(self, number: int, units: int) -> LstmStruct:
        weights = [f"1.lstm.weight_{part}_l{number}" for part in ("ih", "hh")]
        biases = [f"1.lstm.bias_{part}_l{number}" for part in ("ih", "hh")]
        return LstmStruct(
            *(self._matrices.matrix(self._name(name), 4 * units, units) for name in weights),
            *(self._vector(name, 4 * units) for name in biases),
        )

    def _codebook(self, number: int) -> MatrixStruct:
        name = f"{self._prefix}.quantizer.layers.{number}.codebook.embed"
        return self._matrices.table(name, self.entries, self._config["hidden_size"])

    def _name(self, name: str) -> str:
        return f"{self._prefix}.decoder.layers.{name}"

    def _vector(self, name: str, *shape: int) -> int:
        return self._matrices.vector(self._name(name), *shape)

    def _tensor(self, name: str, *shape: int) -> "NDArray[np.float32]":
        return self._matrices.array(self._name(name), *shape)


def read_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a codec that the engine can compute. Raises `ModelRefused`."""
    settings = {name: config.get(name, default) for name, default in DEFAULTS.items()}
    for name, values in FIXED.items():
        if settings[name] not in values:
            possible = " or ".join(map(repr, values))
            raise ModelRefused(f"audio_encoder.{name} is {settings[name]!r}, not {possible}")
    bounds = {
        **dict.fromkeys(SIZES, (1, MAX_SIZE)),
        **dict.fromkeys(KERNELS, (1, MAX_KERNEL)),
        "num_lstm_layers": (1, MAX_LAYERS),  # torch has no LSTM without layers
        "num_residual_layers": (0, MAX_LAYERS),
    }
    for name, (least, most) in bounds.items():
        check_integer(f"audio_encoder.{name}", settings[name], least, most)
    dimension = config.get("codebook_dim")
    if dimension not in (None, settings["hidden_size"]):
        raise ModelRefused(f"audio_encoder.codebook_dim is {dimension!r}, unlike hidden_size")
    ratios = settings["upsampling_ratios"]
    if not isinstance(ratios, list | tuple) or not 1 <= len(ratios) <= MAX_LAYERS:
        raise ModelRefused(f"audio_encoder.upsampling_ratios is {ratios!r:.80}")
    for ratio in ratios:
        check_integer("audio_encoder.upsampling_ratios", ratio, 1, MAX_KERNEL)
    if math.prod(ratios) > MAX_SIZE:
        raise ModelRefused(f"audio_encoder.upsampling_ratios multiply to over {MAX_SIZE}")
    trim = settings["trim_right_ratio"]
    trims = isinstance(trim, int | float) and 0 <= trim <= 1
    if not trims or (trim != 1 and not settings["use_causal_conv"]):
        raise ModelRefused(f"audio_encoder.trim_right_ratio is {trim!r}")
    return settings
