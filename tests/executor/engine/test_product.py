"""Products: the stated order of operations, whatever the library, the threads and the rows."""

import ctypes
from typing import Any

import numpy as np
import pytest

from executor.engine.library import address
from executor.engine.matrices import GROUP, Kind, Matrices, MatrixStruct
from executor.engine.pool import Pool
from executor.errors import ModelRefused

SHAPES = [(16, 64), (5, 24), (7, 13), (33, 96), (3, 2048), (1, 1)]
# Largest share of the exact result by which one may be off.
TOLERANCE = {
    Kind.FLOAT32: 1e-6,
    Kind.FLOAT16: 1e-3,
    Kind.BFLOAT16: 1e-2,
    Kind.INT8: 2e-2,
    Kind.INT4: 0.3,
}
# With these, tiles of 1 to 12 packed rows and 1 to 6 of integers occur, and a second chunk.
ROWS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 15, 17, 70)


def bits(array: Any) -> Any:
    return array.view(np.uint32)


def product(library: ctypes.CDLL, matrix: MatrixStruct, x: Any, pool: Pool | None = None) -> Any:
    x = np.ascontiguousarray(x)
    y = np.full((len(x), matrix.out), np.nan, np.float32)
    status = library.he_product(
        pool,
        ctypes.byref(matrix),
        None,
        ctypes.c_void_p(address(x)),
        ctypes.c_void_p(address(y)),
        ctypes.c_int64(len(x)),
    )
    assert status == 0
    return y


def stated(x: Any, weights: Any) -> Any:
    """Compute a product in the order that docs/engine.md states.

    A product of two float32 is exact in 64 bits, and a sum is rounded to 64 bits and then to 32.
    That equals one rounding for these numbers; the C library rounds once.
    """
    padding = ((0, 0), (0, -x.shape[1] % 8))
    x, weights = (np.pad(array, padding).astype(np.longdouble) for array in (x, weights))
    lanes = np.zeros((len(x), len(weights), 8), np.float32)
    for i in range(0, x.shape[1], 8):
        lanes = (x[:, None, i : i + 8] * weights[None, :, i : i + 8] + lanes).astype(np.float32)
    low, high = lanes[..., :4], lanes[..., 4:]
    halves = low + high
    return (halves[..., 0] + halves[..., 2]) + (halves[..., 1] + halves[..., 3])


def weights_of(shape: tuple[int, int], seed: int = 1) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(
    ("shape", "kind"),
    # 4 bits need whole groups; other rows are refused (below).
    [(s, kind) for kind in Kind for s in SHAPES if kind is not Kind.INT4 or s[1] % GROUP == 0],
    ids=str,
)
def test_bits_do_not_depend_on_library_threads_or_rows(
    libraries: dict[str, ctypes.CDLL], shape: tuple[int, int], kind: Kind
) -> None:
    weights = weights_of(shape)
    matrices = Matrices({"w": weights}, kind)
    matrix = matrices.matrix("w", *shape)
    with Pool(2) as pool, Pool(5) as wide_pool:
        for rows in ROWS:
            x = weights_of((rows, shape[1]), rows)
            alone = np.concatenate(
                [product(next(iter(libraries.values())), matrix, row[None]) for row in x]
            )
            exact = x.astype(float) @ weights.astype(float).T
            assert np.abs(alone - exact).max() <= TOLERANCE[kind] * np.abs(exact).max()
            for library in libraries.values():
                assert (bits(product(library, matrix, x)) == bits(alone)).all()
                assert (bits(product(library, matrix, x, pool)) == bits(alone)).all()
                assert (bits(product(library, matrix, x, wide_pool)) == bits(alone)).all()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_sums_are_in_the_stated_order(each_library: ctypes.CDLL, shape: tuple[int, int]) -> None:
    weights, x = weights_of(shape), weights_of((5, shape[1]), 2)
    matrices = Matrices({"w": weights}, Kind.FLOAT32)
    y = product(each_library, matrices.matrix("w", *shape), x)
    assert (bits(y) == bits(stated(x, weights))).all()


@pytest.mark.parametrize("kind", [Kind.INT8, Kind.INT4])
def test_quantised_rows_of_zeros_and_of_noise_give_zero(
    each_library: ctypes.CDLL, kind: Kind
) -> None:
    matrices = Matrices({"w": weights_of((4, 64))}, kind)
    matrix = matrices.matrix("w", 4, 64)
    for row in (np.zeros(64), np.full(64, 1e-31)):
        assert (product(each_library, matrix, row[None].astype(np.float32)) == 0).all()


def test_the_largest_sums_of_integers_are_exact(each_library: ctypes.CDLL) -> None:
    """All products have one sign and the largest absolute value, in a row of 8,192."""
    size = 8192
    matrices = Matrices({"w": np.ones((4, size), np.float32)}, Kind.INT8)
    y = product(each_library, matrices.matrix("w", 4, size), np.ones((1, size), np.float32))
    assert np.abs(y / size - 1).max() < 1e-5


def test_edge_values_are_alike_in_all_libraries(libraries: dict[str, ctypes.CDLL]) -> None:
    """Subnormal numbers, infinities, zeros of both signs and numbers that overflow."""
    edges = np.array(
        [0, -0.0, 1e-45, -1e-40, 1e-38, 3e38, -3e38, np.inf, 1, -1, 1 + 2**-23, 2**-149], np.float32
    )
    rng = np.random.default_rng(3)
    x, weights = rng.choice(edges, (9, 40)), rng.choice(edges, (12, 40))
    results = []
    for library in libraries.values():
        for kind in (Kind.FLOAT32, Kind.FLOAT16, Kind.BFLOAT16):
            matrices = Matrices({"w": weights}, kind)
            results.append(product(library, matrices.matrix("w", 12, 40), x))
    number = len(results) // len(libraries)
    for first, other in zip(results[:number], results[number:], strict=False):
        nan = np.isnan(first)
        assert (nan == np.isnan(other)).all()
        assert (bits(first)[~nan] == bits(other)[~nan]).all()


@pytest.mark.parametrize("inputs", [1, 8, 9])
def test_every_float16_number_is_widened_exactly(each_library: ctypes.CDLL, inputs: int) -> None:
    """Zeros, subnormal numbers and infinities too; each alone in its row of weights."""
    every = np.arange(2**16, dtype=np.uint16).view(np.float16)
    every = every[~np.isnan(every)]
    column = inputs - 1
    weights = np.zeros((len(every), inputs), np.float16)
    weights[:, column] = every
    x = np.zeros((4, inputs), np.float32)
    x[:, column] = 1
    matrix = Matrices({"w": weights}, Kind.FLOAT32).matrix("w", *weights.shape)
    assert matrix.kind == Kind.FLOAT16
    with np.errstate(all="ignore"):
        expected = every.astype(np.float32)
    assert (product(each_library, matrix, x) == expected).all()
    assert (product(each_library, matrix, x[:1]) == expected).all()


@pytest.mark.parametrize("stored", ["float16", "bfloat16"])
def test_weights_of_16_bits_give_the_bits_of_their_copy(
    each_library: ctypes.CDLL, stored: str
) -> None:
    """They are used where they lie."""
    widened = weights_of((37, 45)).astype(np.float16).astype(np.float32)
    tensor = widened.astype(np.float16)
    if stored == "bfloat16":
        widened = (widened.view(np.uint32) & 0xFFFF0000).view(np.float32)
        tensor = (widened.view(np.uint32) >> 16).astype(np.uint16)
    matrices = Matrices({"w": tensor, "v": widened}, Kind.FLOAT32)
    short, long = (matrices.matrix(name, 37, 45) for name in "wv")
    assert short.rows == address(tensor)
    for rows in ROWS:
        x = weights_of((rows, 45), rows)
        result = product(each_library, short, x)
        assert (bits(result) == bits(product(each_library, long, x))).all()


def test_weights_are_rounded_to_float16(each_library: ctypes.CDLL) -> None:
    """To nearest, ties to even; beyond the largest number to infinity."""
    numbers = [1 + 2**-11, 1 + 3 * 2**-11, 65_519, 65_520, 2**-25, 3 * 2**-25]
    weights = np.array(numbers, np.float32)[:, None]
    matrices = Matrices({"w": weights}, Kind.FLOAT16)
    result = product(each_library, matrices.matrix("w", 6, 1), np.ones((1, 1), np.float32))
    assert result[0].tolist() == [1, 1 + 2**-9, 65_504, np.inf, 0, 2**-23]


def test_wrong_tensors_are_refused() -> None:
    matrices = Matrices({"w": weights_of((4, 24))}, Kind.INT4)
    with pytest.raises(ModelRefused, match="the weights have no v"):
        matrices.matrix("v", 4, 24)
    with pytest.raises(ModelRefused, match="w has the shape 4x24; the configuration says 5x24"):
        matrices.matrix("w", 5, 24)
    with pytest.raises(ModelRefused, match="4 bits need a multiple of 32"):
        matrices.matrix("w", 4, 24)
