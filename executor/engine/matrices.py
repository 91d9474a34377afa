"""Matrices and vectors of a model as the C library takes them."""

import ctypes
from collections.abc import Mapping, Sequence
from enum import IntEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from executor.engine import library
from executor.engine.library import address
from executor.errors import ModelRefused, TaskFailed

if TYPE_CHECKING:
    from numpy.typing import NDArray

Tensors = Mapping[str, "NDArray[Any]"]
# bfloat16 is uint16, which no model uses for numbers.
FLOAT16, BFLOAT16 = np.dtype(np.float16), np.dtype(np.uint16)
# Numbers that share a scale in 4-bit weights.
GROUP = 32


class Kind(IntEnum):
    """How a matrix holds its weights (`csrc/engine.h`)."""

    FLOAT32 = 0
    BFLOAT16 = 1
    INT8 = 2
    INT4 = 3
    FLOAT16 = 4


# How tasks name the precisions that the engine computes in, and how many bits quantise weights.
DTYPES: Mapping[str, Kind] = MappingProxyType(
    {"float32": Kind.FLOAT32, "bfloat16": Kind.BFLOAT16, "float16": Kind.FLOAT16}
)
# The kinds of 16 bits by the dtype that a tensor has.
STORED: Mapping[Any, Kind] = MappingProxyType({FLOAT16: Kind.FLOAT16, BFLOAT16: Kind.BFLOAT16})
BITS: Mapping[int, Kind] = MappingProxyType({8: Kind.INT8, 4: Kind.INT4})


class MatrixStruct(ctypes.Structure):
    """`he_matrix`."""

    _fields_ = (
        ("rows", ctypes.c_void_p),
        ("scales", ctypes.c_void_p),
        ("out", ctypes.c_int64),
        ("inputs", ctypes.c_int64),
        ("kind", ctypes.c_int32),
    )


class Matrices:
    """Takes tensors of a model as matrices of one kind, and keeps what they are made of.

    A tensor that already is of the kind is used where it lies; so is one of 16 bits as float32,
    which the products make of it exactly. Others are converted, in a stated order of operations
    (`csrc/product.c`).
    """

    def __init__(self, tensors: Tensors, kind: Kind) -> None:
        self._tensors, self.kind = tensors, kind
        self._kept: list[NDArray[Any]] = []
        self.converted_bytes = 0  # of matrices; `copied_bytes` has vectors too

    @property
    def copied_bytes(self) -> int:
        """The bytes of what could not be used where it lies."""
        return sum(array.nbytes for array in self._kept if array.flags.owndata)

    def __contains__(self, name: str) -> bool:
        """Whether the model has a tensor of this name."""
        return name in self._tensors

    def vector(self, name: str, *shape: int) -> int:
        """Return the address of a tensor's numbers as float32. Raises `ModelRefused`."""
        return self.keep(self.array(name, *shape))

    def array(self, name: str, *shape: int) -> "NDArray[np.float32]":
        """Return a tensor's numbers as float32. Raises `ModelRefused`."""
        return np.require(float32(self._tensor(name, shape)), requirements="A")

    def table(self, name: str, out: int, inputs: int) -> MatrixStruct:
        """Return a tensor whose rows are looked up, as it lies in the file."""
        return self._as_stored(self._tensor(name, (out, inputs)), out, inputs)

    def same_tables(self, *names: str) -> str:
        """Return which of the names of one tensor to read. Raises `ModelRefused` if two differ."""
        present = [name for name in names if name in self._tensors]
        for name in present[1:]:
            if not np.array_equal(self._tensors[name], self._tensors[present[0]]):
                raise ModelRefused(f"{name} is not {present[0]}")
        return present[0] if present else names[0]

    def matrix(self, name: str, out: int, inputs: int) -> MatrixStruct:
        """Return a tensor `(out, inputs)` as a matrix. Raises `ModelRefused`."""
        tensor = self._tensor(name, (out, inputs))
        kind = self.kind
        if kind is Kind.FLOAT32 or STORED.get(tensor.dtype) is kind:
            return self._as_stored(tensor, out, inputs)
        numbers = float32(tensor)
        if kind is Kind.FLOAT16:
            with np.errstate(over="ignore"):  # beyond 65,504 it is infinity
                halves = numbers.astype(FLOAT16)
            self.converted_bytes += halves.nbytes
            return self._as_stored(halves, out, inputs)
        if kind is Kind.INT4 and inputs % GROUP:
            raise ModelRefused(f"{name} has rows of {inputs}; 4 bits need a multiple of {GROUP}")
        rows, scales = convert(numbers, kind)
        self.converted_bytes += rows.nbytes + scales.nbytes
        return MatrixStruct(self.keep(rows), self.keep(scales), out, inputs, kind)

    def _as_stored(self, tensor: "NDArray[Any]", out: int, inputs: int) -> MatrixStruct:
        """Return a tensor of floats as a matrix of its own kind."""
        kind = STORED.get(tensor.dtype, Kind.FLOAT32)
        numbers = float32(tensor) if kind is Kind.FLOAT32 else np.ascontiguousarray(tensor)
        return MatrixStruct(self.keep(numbers), None, out, inputs, kind)

    def _tensor(self, name: str, shape: Sequence[int]) -> "NDArray[Any]":
        if name not in self:
            raise ModelRefused(f"the weights have no {name}")
        tensor = self._tensors[name]
        check_shape(name, tensor, shape)
        return tensor

    def keep(self, array: "NDArray[Any]") -> int:
        """Keep an array as long as these matrices live, and return its address."""
        self._kept.append(array)
        return address(array)


def float32(tensor: "NDArray[Any]") -> "NDArray[np.float32]":
    """Return a tensor as contiguous float32, without a copy if it is that. All values are exact."""
    if tensor.dtype == BFLOAT16:
        return (tensor.astype(np.uint32, "C") << 16).view(np.float32)
    return np.ascontiguousarray(tensor, np.float32)


def convert(
    numbers: "NDArray[np.float32]", kind: Kind
) -> "tuple[NDArray[np.uint8], NDArray[np.float32]]":
    """Return float32 weights `(out, inputs)` as rows of another kind, and their scales."""
    out, inputs = numbers.shape
    row_bytes = {Kind.BFLOAT16: 2 * inputs, Kind.INT8: inputs, Kind.INT4: inputs // 2}[kind]
    scales = {Kind.BFLOAT16: 0, Kind.INT8: 1, Kind.INT4: inputs // GROUP}[kind]
    rows = np.empty((out, row_bytes), np.uint8)
    factors = np.empty((out, scales), np.float32)
    library.load().he_convert(
        ctypes.c_void_p(address(numbers)),
        ctypes.c_int64(out),
        ctypes.c_int64(inputs),
        ctypes.c_int32(kind),
        ctypes.c_void_p(address(rows)),
        ctypes.c_void_p(address(factors)),
    )
    return rows, factors


def kind_of(dtype: str, bits: int | None) -> Kind:
    """Return the kind of weights for a task's precision. Raises `TaskFailed`."""
    if bits is not None and bits in BITS:
        return BITS[bits]
    if bits is None and dtype in DTYPES:
        return DTYPES[dtype]
    raise TaskFailed("generation-rejected", f"the engine does not compute in {bits or dtype}")


def check_shape(name: str, array: "NDArray[Any]", shape: Sequence[int]) -> None:
    """Raise `ModelRefused` unless a tensor has a shape."""
    if array.shape != tuple(shape):
        expected = "x".join(map(str, shape))
        actual = "x".join(map(str, array.shape))
        raise ModelRefused(f"{name} has the shape {actual}; the configuration says {expected}")
