"""T5: an encoder, from token ids or embeddings to hidden states."""

import ctypes
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from executor.engine import library
from executor.engine.library import MAX_POSITIONS, Status, address
from executor.engine.matrices import Matrices, MatrixStruct
from executor.engine.pool import Control, Pool
from executor.errors import ModelRefused
from executor.models.json_files import check_integer

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Values of transformers' T5Config where a configuration has none.
DEFAULTS: Mapping[str, Any] = MappingProxyType(
    {
        "vocab_size": 32_128,
        "d_model": 512,
        "d_kv": 64,
        "d_ff": 2_048,
        "num_layers": 6,
        "num_heads": 8,
        "relative_attention_num_buckets": 32,
        "relative_attention_max_distance": 128,
        "layer_norm_epsilon": 1e-6,
        "feed_forward_proj": "relu",
        "is_decoder": False,
    }
)
# Names of transformers: gelu is by erf, gelu_new by tanh.
ACTIVATIONS = MappingProxyType({"relu": 0, "gelu": 1, "gelu_new": 2})
# Far above any model's, so that products of sizes fit into 64 bits.
MAX_SIZE, MAX_LAYERS, MAX_DISTANCE = 2**20, 256, 2**20
MAX_NUMBERS = 2**20  # positions of all rows together


class AttentionStruct(ctypes.Structure):
    """`he_t5_attention`."""

    _fields_ = (
        ("norm", ctypes.c_void_p),
        *((name, MatrixStruct) for name in ("query", "key", "value", "output")),
    )


class LayerStruct(ctypes.Structure):
    """`he_t5_layer`."""

    _fields_ = (
        *((name, AttentionStruct) for name in ("self", "cross")),
        ("norm", ctypes.c_void_p),
        *((name, MatrixStruct) for name in ("gate", "up", "down")),
    )


class StackStruct(ctypes.Structure):
    """`he_t5_stack`."""

    _fields_ = (
        ("layers", ctypes.POINTER(LayerStruct)),
        *((name, ctypes.c_void_p) for name in ("bias", "norm")),
        ("embedding", MatrixStruct),
        *((name, ctypes.c_int64) for name in ("layer_count", "heads", "buckets", "max_distance")),
        ("epsilon", ctypes.c_float),
        *((name, ctypes.c_int32) for name in ("activation", "decoder")),
    )


class Stack:
    """The layers of an encoder or a decoder."""

    def __init__(
        self, settings: Mapping[str, Any], matrices: Matrices, name: str, embedding: str
    ) -> None:
        """Take a stack's settings (`read_config`) and a model's weights, named from `name` on.

        A decoder is one whose settings say so. Raises `ModelRefused`.
        """
        self._settings, self._matrices, self._name = settings, matrices, name
        self.width, self.vocabulary = settings["d_model"], settings["vocab_size"]
        self._inner = settings["num_heads"] * settings["d_kv"]
        layers = [self._layer(number) for number in range(settings["num_layers"])]
        buckets, heads = settings["relative_attention_num_buckets"], settings["num_heads"]
        bias = f"{name}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        self.struct = StackStruct(
            (LayerStruct * len(layers))(*layers),
            matrices.vector(bias, buckets, heads),
            matrices.vector(f"{name}.final_layer_norm.weight", self.width),
            matrices.table(embedding, self.vocabulary, self.width),
            len(layers),
            heads,
            buckets,
            settings["relative_attention_max_distance"],
            settings["layer_norm_epsilon"],
            ACTIVATIONS[settings["dense_act_fn"]],
            settings["is_decoder"],
        )

    def _layer(self, number: int) -> LayerStruct:
        width, inner, matrix = self.width, self._settings["d_ff"], self._matrices.matrix
        at = f"{self._name}.block.{number}.layer"
        last = f"{at}.{1 + self._settings['is_decoder']}"
        cross = AttentionStruct()
        if self._settings["is_decoder"]:
            cross = self._attention(f"{at}.1", "EncDecAttention")
        gate, up = MatrixStruct(), "wi"
        if self._settings["is_gated_act"]:
            gate, up = matrix(f"{last}.DenseReluDense.wi_0.weight", inner, width), "wi_1"
        return LayerStruct(
            self._attention(f"{at}.0", "SelfAttention"),
            cross,
            self._matrices.vector(f"{last}.layer_norm.weight", width),
            gate,
            matrix(f"{last}.DenseReluDense.{up}.weight", inner, width),
            matrix(f"{last}.DenseReluDense.wo.weight", width, inner),
        )

    def _attention(self, at: str, name: str) -> AttentionStruct:
        width, inner, matrix = self.width, self._inner, self._matrices.matrix
        return AttentionStruct(
            self._matrices.vector(f"{at}.layer_norm.weight", width),
            *(matrix(f"{at}.{name}.{part}.weight", inner, width) for part in "qkv"),
            matrix(f"{at}.{name}.o.weight", width, inner),
        )

    def check_tokens(self, tokens: "NDArray[Any]") -> "NDArray[np.int32]":
        """Return tokens `(rows, length)` for the library. Raises `ValueError`."""
        if tokens.ndim != 2 or tokens.dtype.kind not in "iu":
            raise ValueError(f"tokens of shape {tokens.shape} and type {tokens.dtype}")
        check_length(*tokens.shape)
        if ((tokens < 0) | (tokens >= self.vocabulary)).any():
            raise ValueError(f"a token is not in 0 .. {self.vocabulary - 1}")
        return np.ascontiguousarray(tokens, np.int32)

    def check_states(self, states: "NDArray[Any]") -> "NDArray[np.float32]":
        """Return embeddings or hidden states `(rows, length, width)`. Raises `ValueError`."""
        if states.ndim != 3 or states.shape[2] != self.width or states.dtype != np.float32:
            raise ValueError(f"states of shape {states.shape} and type {states.dtype}")
        check_length(*states.shape[:2])
        return np.ascontiguousarray(states)

    def encode(
        self, inputs: "NDArray[Any]", pool: Pool | None = None, control: Control | None = None
    ) -> "tuple[Status, NDArray[np.float32]]":
        """Return the hidden states `(rows, length, width)` of an encoder, in one pass.

        `inputs` are tokens `(rows, length)`, or embeddings `(rows, length, width)`. Every row is
        computed as if it were alone. Raises `ValueError`.
        """
        control = control or Control()
        is_tokens = inputs.ndim == 2
        inputs = self.check_tokens(inputs) if is_tokens else self.check_states(inputs)
        hidden = np.zeros((*inputs.shape[:2], self.width), np.float32)
        status = library.load().he_t5_encode(
            ctypes.byref(self.struct),
            pool,
            ctypes.c_void_p(address(inputs) if is_tokens else None),
            ctypes.c_void_p(None if is_tokens else address(inputs)),
            ctypes.c_int64(inputs.shape[0]),
            ctypes.c_int64(inputs.shape[1]),
            ctypes.c_void_p(address(hidden)),
            ctypes.byref(control.stop),
        )
        return Status(status), hidden


class T5Encoder(Stack):
    """The encoder of a T5 model, on the engine's kernels."""

    def __init__(self, config: Mapping[str, Any], matrices: Matrices, prefix: str = "") -> None:
        """Take a T5 configuration and a model's weights, whose names begin with `prefix`.

        Raises `ModelRefused`.
        """
        if config.get("model_type", "t5") != "t5":
            raise ModelRefused(f"the text encoder is {config['model_type']!r:.80}, not 't5'")
        settings = read_config(config)
        embedding = matrices.same_tables(
            f"{prefix}shared.weight", f"{prefix}encoder.embed_tokens.weight"
        )
        super().__init__(settings, matrices, f"{prefix}encoder", embedding)


def read_config(
    config: Mapping[str, Any], defaults: Mapping[str, Any] = DEFAULTS
) -> dict[str, Any]:
    """Return the settings of a T5 model as transformers has them. Raises `ModelRefused`."""
    settings = {name: config.get(name, default) for name, default in defaults.items()}
    form = settings["feed_forward_proj"]
    if not isinstance(form, str):
        raise ModelRefused(f"feed_forward_proj is {form!r:.80}")
    parts = form.split("-")
    if len(parts) > 2 or (len(parts) == 2 and parts[0] != "gated"):
        raise ModelRefused(f"feed_forward_proj is {form!r:.80}")
    # Members of their own count more than what the form says.
    activation = "gelu_new" if form == "gated-gelu" else parts[-1]
    settings["dense_act_fn"] = config.get("dense_act_fn", settings.get("dense_act_fn", activation))
    settings["is_gated_act"] = config.get("is_gated_act", parts[0] == "gated")
    if settings["dense_act_fn"] not in list(ACTIVATIONS):
        possible = ", ".join(ACTIVATIONS)
        raise ModelRefused(f"dense_act_fn is {settings['dense_act_fn']!r:.80}, not {possible}")
    if settings["is_gated_act"] not in (True, False):
        raise ModelRefused(f"is_gated_act is {settings['is_gated_act']!r:.80}")
    if settings["is_decoder"] is not False:
        raise ModelRefused(f"is_decoder is {settings['is_decoder']!r:.80}")
    check_sizes(settings)
    return settings


def check_sizes(settings: Mapping[str, Any]) -> None:
    """Raise `ModelRefused` for a size that no model has."""
    for name in ("vocab_size", "d_model", "d_kv", "d_ff", "num_heads"):
        check_integer(name, settings[name], 1, MAX_SIZE)
    check_integer("num_layers", settings["num_layers"], 1, MAX_LAYERS)
    buckets = settings["relative_attention_num_buckets"]
    check_integer("relative_attention_num_buckets", buckets, 4, MAX_SIZE)
    # Half of the buckets of each direction are one position each; a decoder has one direction.
    distance = settings["relative_attention_max_distance"]
    check_integer("relative_attention_max_distance", distance, buckets // 2 + 1, MAX_DISTANCE)
    epsilon = settings["layer_norm_epsilon"]
    if type(epsilon) is not float or not 0 < epsilon < 1:
        raise ModelRefused(f"layer_norm_epsilon is {epsilon!r:.80}")


def check_length(rows: int, length: int) -> None:
    """Raise `ValueError` for positions that no task has."""
    if not 1 <= length <= MAX_POSITIONS or not 1 <= rows <= MAX_NUMBERS // length:
        raise ValueError(f"{rows} rows of {length} positions")
