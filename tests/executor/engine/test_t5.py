"""T5's encoder against transformers, and against itself in every way to run it."""

import ctypes
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from transformers import MusicgenForConditionalGeneration, T5Config, T5EncoderModel
from transformers.models.t5.modeling_t5 import T5Attention

from executor.engine import library
from executor.engine.library import Status
from executor.engine.matrices import Kind, Matrices
from executor.engine.pool import Control, Pool
from executor.engine.t5 import T5Encoder
from executor.errors import ModelRefused
from executor.models.folders import EMBEDDED, SHIPPED
from executor.models.weights import Weights

# Of the largest number. Torch's float32 is as far from its float64 as the engine's.
TOLERANCE = 2e-6
TINY: Mapping[str, Any] = {
    "vocab_size": 50,
    "d_model": 40,
    "d_kv": 12,
    "d_ff": 52,
    "num_layers": 3,
    "num_heads": 3,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 20,
}


@functools.cache
def shipped() -> Any:
    model = MusicgenForConditionalGeneration.from_pretrained(
        SHIPPED / EMBEDDED, dtype=torch.float32, local_files_only=True
    )
    return model.text_encoder.eval()


def shipped_encoder(kind: Kind = Kind.FLOAT32) -> T5Encoder:
    matrices = Matrices(Weights(SHIPPED / EMBEDDED), kind)
    return T5Encoder(shipped().config.to_dict(), matrices, "text_encoder.")


def tiny(**changes: Any) -> Any:
    torch.manual_seed(1)
    model = T5EncoderModel(T5Config(**{**TINY, **changes})).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def tensors_of(model: Any) -> dict[str, Any]:
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def tiny_encoder(model: Any, kind: Kind = Kind.FLOAT32) -> T5Encoder:
    return T5Encoder(model.config.to_dict(), Matrices(tensors_of(model), kind))


def tokens(rows: int, length: int, vocabulary: int = 50) -> Any:
    return np.random.default_rng(length).integers(0, vocabulary, (rows, length))


def expected(model: Any, ids: Any) -> Any:
    with torch.inference_mode():
        return model(input_ids=torch.from_numpy(ids)).last_hidden_state.numpy()


def difference(result: Any, reference: Any) -> float:
    return float(np.abs(result - reference).max() / np.abs(reference).max())


def bits(array: Any) -> Any:
    return array.view(np.uint32)


@pytest.mark.parametrize("length", [1, 5, 64, 200])
def test_shipped_text_encoder_computes_what_transformers_does(
    each_library: ctypes.CDLL, length: int
) -> None:
    ids = tokens(2, length, 1132)
    status, hidden = shipped_encoder().encode(ids)
    assert status is Status.OK
    assert difference(hidden, expected(shipped(), ids)) < TOLERANCE


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"feed_forward_proj": "gelu"},
        {"feed_forward_proj": "gelu_new"},
        {"feed_forward_proj": "gated-gelu"},
        {"feed_forward_proj": "gated-relu"},
        {"feed_forward_proj": "gated-gelu", "dense_act_fn": "gelu"},
        {"feed_forward_proj": "gated-gelu", "is_gated_act": False},
        {"layer_norm_epsilon": 1e-2, "num_layers": 1},
        {"d_model": 37, "d_kv": 5, "d_ff": 9},
        {"relative_attention_num_buckets": 32, "relative_attention_max_distance": 128},
    ],
    ids=str,
)
def test_every_form_of_the_model_computes_what_transformers_does(
    each_library: ctypes.CDLL, changes: Mapping[str, Any]
) -> None:
    model, ids = tiny(**changes), tokens(3, 33)
    status, hidden = tiny_encoder(model).encode(ids)
    assert status is Status.OK
    assert difference(hidden, expected(model, ids)) < TOLERANCE


def test_error_is_no_larger_than_that_of_torch() -> None:
    ids = tokens(2, 64, 1132)
    _, hidden = shipped_encoder().encode(ids)
    single = expected(shipped(), ids)
    double = expected(shipped().double(), ids)
    shipped().float()
    assert difference(hidden, double) < 1.5 * difference(single, double)


@pytest.mark.parametrize("kind", list(Kind))
def test_every_kind_of_weights_is_near_float32(each_library: ctypes.CDLL, kind: Kind) -> None:
    ids = tokens(2, 20, 1132)
    _, hidden = shipped_encoder(kind).encode(ids)
    limits = {Kind.FLOAT32: 2e-6, Kind.FLOAT16: 2e-3, Kind.BFLOAT16: 0.02}
    limit = {**limits, Kind.INT8: 0.05, Kind.INT4: 0.6}[kind]
    assert difference(hidden, expected(shipped(), ids)) < limit


def test_bfloat16_weights_are_used_as_they_are() -> None:
    """The numbers of a bfloat16 file are those of the same weights in float32."""
    model = tiny().bfloat16()
    stored = {
        name: tensor.view(torch.int16).numpy().view(np.uint16)
        for name, tensor in model.state_dict().items()
    }
    ids = tokens(2, 9)
    matrices = Matrices(stored, Kind.BFLOAT16)
    _, hidden = T5Encoder(model.config.to_dict(), matrices).encode(ids)
    _, widened = tiny_encoder(model.float()).encode(ids)
    assert matrices.converted_bytes == 0
    assert (bits(hidden) == bits(widened)).all()


@pytest.mark.parametrize("kind", list(Kind))
def test_every_way_to_run_gives_the_same_bits(
    libraries: dict[str, ctypes.CDLL], monkeypatch: pytest.MonkeyPatch, kind: Kind
) -> None:
    encoder, ids = shipped_encoder(kind), tokens(5, 21, 1132)
    _, together = encoder.encode(ids)
    for loaded in libraries.values():
        monkeypatch.setattr(library, "load", lambda loaded=loaded: loaded)
        with Pool(2) as pool:
            for threads in (None, pool):
                _, hidden = encoder.encode(ids, threads)
                assert (bits(hidden) == bits(together)).all()
                for row in range(5):
                    _, alone = encoder.encode(ids[row : row + 1], threads)
                    assert (bits(alone[0]) == bits(together[row])).all()


def test_embeddings_give_what_their_tokens_give() -> None:
    encoder, ids = shipped_encoder(), tokens(2, 8, 1132)
    table = shipped().shared.weight.detach().numpy()
    _, of_tokens = encoder.encode(ids)
    _, of_embeddings = encoder.encode(table[ids])
    assert (bits(of_tokens) == bits(of_embeddings)).all()


@pytest.mark.parametrize("decoder", [False, True])
@pytest.mark.parametrize("buckets", [4, 8, 32, 100, 256])
@pytest.mark.parametrize("distance", [129, 200, 256, 1000, 1024])
def test_buckets_of_positions_are_those_of_transformers(
    each_library: ctypes.CDLL, buckets: int, distance: int, decoder: bool
) -> None:
    length = 3000
    result = np.zeros(2 * length - 1, np.int32)
    each_library.he_t5_buckets(
        ctypes.c_int64(buckets),
        ctypes.c_int64(distance),
        ctypes.c_int32(decoder),
        ctypes.c_int64(length),
        ctypes.c_void_p(result.ctypes.data),
    )
    reference = T5Attention._relative_position_bucket(
        torch.arange(1 - length, length),
        bidirectional=not decoder,
        num_buckets=buckets,
        max_distance=distance,
    )
    assert (result == reference.numpy()).all()


def test_a_stopped_call_ends_before_its_next_layer() -> None:
    control = Control()
    control.stop.value = 1
    assert shipped_encoder().encode(tokens(1, 4), control=control)[0] is Status.STOPPED


def test_hidden_states_that_are_not_finite_are_reported() -> None:
    model = tiny()
    with torch.no_grad():
        model.encoder.block[1].layer[1].DenseReluDense.wo.weight[3] = 3e38
    assert tiny_encoder(model).encode(tokens(1, 4))[0] is Status.NOT_FINITE


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "umt5"}, "the text encoder is 'umt5', not 't5'"),
        ({"is_decoder": True}, "is_decoder is True"),
        ({"dense_act_fn": "silu"}, "dense_act_fn is 'silu', not relu, gelu, gelu_new"),
        ({"dense_act_fn": []}, r"dense_act_fn is \[\]"),
        ({"feed_forward_proj": "gated-a-b"}, "feed_forward_proj is 'gated-a-b'"),
        ({"feed_forward_proj": None}, "feed_forward_proj is None"),
        ({"is_gated_act": 3}, "is_gated_act is 3"),
        ({"is_gated_act": True}, r"the weights have no encoder.*wi_0\.weight"),
        ({"num_layers": 4}, r"the weights have no encoder\.block\.3\."),
        ({"num_layers": 0}, r"num_layers is 0, not in 1 \.\. 256"),
        ({"num_heads": True}, "num_heads is True"),
        ({"num_heads": 2}, r"q\.weight has the shape 36x40; the configuration says 24x40"),
        ({"d_model": 2**40}, "d_model is 1099511627776"),
        ({"vocab_size": 51}, r"shared\.weight has the shape 50x40"),
        ({"relative_attention_num_buckets": 9}, r"bias\.weight has the shape 8x3"),
        ({"relative_attention_num_buckets": 2}, "relative_attention_num_buckets is 2"),
        ({"relative_attention_max_distance": 4}, "relative_attention_max_distance is 4"),
        ({"layer_norm_epsilon": 0.0}, "layer_norm_epsilon is 0.0"),
    ],
    ids=str,
)
def test_what_the_engine_does_not_compute_is_refused(
    changes: Mapping[str, Any], words: str
) -> None:
    model = tiny()
    matrices = Matrices(tensors_of(model), Kind.FLOAT32)
    with pytest.raises(ModelRefused, match=words):
        T5Encoder({**model.config.to_dict(), **changes}, matrices)


def test_second_table_of_embeddings_must_equal_the_first() -> None:
    model = tiny()
    tensors = tensors_of(model)
    table = "encoder.embed_tokens.weight"
    tensors[table] = tensors["shared.weight"] + 1
    with pytest.raises(ModelRefused, match=r"encoder.embed_tokens.weight is not shared.weight"):
        T5Encoder(model.config.to_dict(), Matrices(tensors, Kind.FLOAT32))
    tensors[table] = tensors.pop("shared.weight")
    _, hidden = T5Encoder(model.config.to_dict(), Matrices(tensors, Kind.FLOAT32)).encode(
        tokens(1, 3)
    )
    assert (bits(hidden) == bits(tiny_encoder(model).encode(tokens(1, 3))[1])).all()


def test_values_out_of_range_are_refused_before_the_library_sees_them() -> None:
    encoder = tiny_encoder(tiny())
    for token in (-1, 50, 2**40):
        with pytest.raises(ValueError, match=r"a token is not in 0 \.\. 49"):
            encoder.encode(np.full((1, 3), token))
    for shape in ((0, 3), (1, 0), (1, 16_385), (2**20, 2)):
        with pytest.raises(ValueError, match="rows of"):
            encoder.encode(np.broadcast_to(np.int64(0), shape))
    with pytest.raises(ValueError, match=r"tokens of shape .* and type float64"):
        encoder.encode(np.zeros((1, 3)))
    with pytest.raises(ValueError, match="states of shape"):
        encoder.encode(np.zeros((1, 3, 41), np.float32))
    with pytest.raises(ValueError, match="and type float64"):
        encoder.encode(np.zeros((1, 3, 40)))
