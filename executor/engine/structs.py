"""The structures of `csrc/engine.h`, and the arrays that they point to.

A structure holds addresses. Whoever makes one keeps the arrays alive as long as it is used.
"""

import ctypes
from collections.abc import Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from executor.errors import ModelRefused

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Numbers that share a scale in 4-bit weights.
GROUP = 32
MAX_POSITIONS = 16_384
MAX_CODEBOOKS = 16


class Kind(IntEnum):
    """How a matrix holds its weights (`csrc/engine.h`)."""

    FLOAT32 = 0
    BFLOAT16 = 1
    INT8 = 2
    INT4 = 3


class Status(IntEnum):
    """How a call ended (`csrc/engine.h`)."""

    OK = 0
    NO_MEMORY = -1
    STOPPED = -2
    NOT_FINITE = -3
    DIFFERENT = -4


class MatrixStruct(ctypes.Structure):
    """`he_matrix`."""

    _fields_ = (
        ("rows", ctypes.c_void_p),
        ("scales", ctypes.c_void_p),
        ("out", ctypes.c_int64),
        ("inputs", ctypes.c_int64),
        ("kind", ctypes.c_int32),
    )


class SamplingStruct(ctypes.Structure):
    """`he_sampling`."""

    _fields_ = (
        ("sample", ctypes.c_int32),
        ("top_k", ctypes.c_int32),
        ("temperature", ctypes.c_float),
        ("top_p", ctypes.c_float),
    )


def address(array: "NDArray[Any]") -> int:
    """Return where an array's numbers lie. They lie one after another, or it is an error."""
    if not array.flags.c_contiguous:
        raise ValueError("the array is not contiguous")
    return array.ctypes.data


def check_shape(name: str, array: "NDArray[Any]", shape: Sequence[int]) -> None:
    """Raise `ModelRefused` unless a tensor has a shape."""
    if array.shape != tuple(shape):
        expected = "x".join(map(str, shape))
        actual = "x".join(map(str, array.shape))
        raise ModelRefused(f"{name} has the shape {actual}; the configuration says {expected}")
