"""Packed weights against a reference in numpy, bit for bit: every kind, shape and number.

`scripts/engine_sanitize` runs these with more examples, on a library with checks in it.
"""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executor.engine import library
from executor.engine.matrices import BFLOAT16, GROUP, Kind, Matrices, MatrixStruct, convert
from executor.engine.matrices import float32 as widened

LIBRARIES = [library.open_library(name) for name in library.supported_sets()]
# 1.5 * 2^23: adding it rounds a float32 to an integer, to nearest, ties to even.
BIAS = np.float32(12_582_912)
# Signs, ties, the smallest and largest numbers, those that count as 0, and what is no number.
EDGES = np.array(
    [
        *(0.0, -0.0, 1.0, -1.0, 0.5, 1.5, 2.5, 127.0, 126.5, 7.0, 6.5, 1e-45, -1e-45, 1e-38),
        *(1.1e-30, 0.9e-30, 3.4e38, -3.4e38, 65_535.0, 1.00390625, 1.01171875),
    ],
    np.float32,
)
ODD = np.array([0x7F800000, 0xFF800000, 0x7FC00000, 0xFFC00001, 0x7F800001, 0xFFFFFFFF], np.uint32)
KINDS = st.sampled_from([Kind.BFLOAT16, Kind.INT8, Kind.INT4])
FUZZ = settings.get_current_profile_name() == "fuzz"


def drawn_weights(seed: int, out: int, inputs: int) -> Any:
    """Return random weights; each row is of one of several sorts."""
    generator = np.random.default_rng(seed)
    weights = generator.standard_normal((out, inputs)).astype(np.float32)
    for row in weights:
        match generator.integers(0, 8):
            case 0:
                row[:] = generator.choice(EDGES)
            case 1:
                row[:] = generator.choice(EDGES, inputs)
            case 2:  # any bits at all
                row[:] = generator.integers(0, 2**32, inputs, np.uint32).view(np.float32)
            case 3:  # one number that is not finite
                row[generator.integers(0, inputs)] = generator.choice(ODD.view(np.float32))
            case 4:
                row[:] = generator.choice(ODD).view(np.float32)
            case 5:
                row[:] *= np.float32(10.0) ** np.float32(generator.integers(-44, 38))
    return weights


def packed_bfloat16(weights: Any) -> Any:
    """Round to nearest, ties to even; a NaN stays one, and becomes quiet."""
    bits = weights.view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    return np.where(np.isnan(weights), bits >> 16 | 64, rounded).astype(np.uint16)


def packed_integers(groups: Any, limit: int) -> tuple[Any, Any]:
    """Return the integers of groups `(..., numbers)` and the scale of each group."""
    largest = (groups.view(np.uint32) & 0x7FFF_FFFF).max(axis=-1).view(np.float32)
    scale = np.where(largest < np.float32(1e-30), np.float32(0), largest / np.float32(limit))
    finite = np.isfinite(largest)
    inverse = np.where(finite & (scale > 0), np.float32(1) / scale, np.float32(0))
    integers = (groups * inverse[..., None] + BIAS).view(np.int32) - BIAS.view(np.int32)
    integers = np.where(finite[..., None], integers, 0)
    return np.clip(integers, -limit, limit), scale


def reference(weights: Any, kind: Kind) -> tuple[Any, Any]:
    """Return rows of bytes and scales, in the order of operations that docs/engine.md states."""
    out = len(weights)
    if kind is Kind.BFLOAT16:
        return packed_bfloat16(weights).view(np.uint8), np.empty((out, 0), np.float32)
    if kind is Kind.INT8:
        integers, scales = packed_integers(weights, 127)
        return integers.astype(np.int8).view(np.uint8), scales[:, None]
    integers, scales = packed_integers(weights.reshape(out, -1, GROUP), 7)
    halves = (integers + 8).astype(np.uint8)  # the lower half of a byte is 16 numbers earlier
    return (halves[..., :16] | halves[..., 16:] << 4).reshape(out, -1), scales


def assert_equal_bits(actual: tuple[Any, Any], expected: tuple[Any, Any]) -> None:
    """Compare rows and scales. Which of the NaN a scale is, means nothing."""
    assert (actual[0] == expected[0]).all()
    both_nan = np.isnan(actual[1]) & np.isnan(expected[1])
    assert (both_nan | (actual[1].view(np.uint32) == expected[1].view(np.uint32))).all()


@settings(max_examples=2_000 if FUZZ else 100)
@given(seed=st.integers(0, 2**32 - 1), kind=KINDS, out=st.integers(1, 9), inputs=st.integers(1, 80))
def test_packed_weights_are_those_of_the_reference(
    seed: int, kind: Kind, out: int, inputs: int
) -> None:
    if kind is Kind.INT4:  # whole groups only: other rows are refused
        inputs = -(-inputs // GROUP) * GROUP
    weights = drawn_weights(seed, out, inputs)
    with np.errstate(all="ignore"):
        expected = reference(weights, kind)
    for chosen in LIBRARIES:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(library, "load", lambda chosen=chosen: chosen)
            assert_equal_bits(convert(weights, kind), expected)


@settings(max_examples=500 if FUZZ else 40)
@given(
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(list(Kind)),
    dtype=st.sampled_from([np.dtype("<f4"), np.dtype("<f2"), BFLOAT16]),
    layout=st.sampled_from(["contiguous", "unaligned", "strided", "transposed", "reversed"]),
    shape=st.tuples(st.integers(1, 7), st.integers(1, 3)),
)
def test_a_tensor_of_any_layout_gives_the_same_matrix(
    seed: int, kind: Kind, dtype: Any, layout: str, shape: tuple[int, int]
) -> None:
    out, inputs = shape[0], shape[1] * GROUP
    numbers = drawn_weights(seed, out, inputs)
    with np.errstate(all="ignore"):
        tensor = packed_bfloat16(numbers) if dtype == BFLOAT16 else numbers.astype(dtype)
    matrix = kept(Matrices({"w": laid(tensor, layout)}, kind), "w", out, inputs)
    assert matrix == kept(Matrices({"w": tensor}, kind), "w", out, inputs)


def laid(tensor: Any, layout: str) -> Any:
    """Return an array of the same numbers that lies in memory as `layout` says."""
    out, inputs = tensor.shape
    match layout:
        case "unaligned":
            content = b"\0" + tensor.tobytes()
            return np.frombuffer(content, tensor.dtype, tensor.size, 1).reshape(out, inputs)
        case "strided":
            wide = np.zeros((2 * out, 3 * inputs), tensor.dtype)
            wide[::2, ::3] = tensor
            return wide[::2, ::3]
        case "transposed":
            return np.ascontiguousarray(tensor.T).T
        case "reversed":
            return np.ascontiguousarray(tensor[::-1, ::-1])[::-1, ::-1]
    return tensor


def kept(matrices: Matrices, name: str, out: int, inputs: int) -> tuple[int, list[bytes]]:
    """Return the kind of a matrix, and the bytes of its rows and scales."""
    matrix: MatrixStruct = matrices.matrix(name, out, inputs)
    return matrix.kind, [array.tobytes() for array in matrices._kept]


def test_rows_that_lie_apart_are_not_converted() -> None:
    with pytest.raises(ValueError, match="not contiguous"):
        convert(np.zeros((4, 64), np.float32)[:, ::2], Kind.INT8)


def test_widened_bfloat16_is_exact() -> None:
    every = np.arange(2**16, dtype=np.uint32).astype(BFLOAT16)
    assert (widened(every).view(np.uint32) == every.astype(np.uint32) << 16).all()
