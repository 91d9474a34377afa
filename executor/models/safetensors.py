"""Safetensors files, looked at before any library opens them.

The format is eight bytes that say how long the header is, a JSON header that says where each tensor
lies, and the tensors, one after another and nothing else. A file in which that does not hold is
refused here, in our own words, instead of somewhere in a loader.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from executor.errors import ModelRefused

HEADER_LIMIT = 16_777_216  # bytes; a thousand tensors take about 0.1 MB
DIMENSIONS, LONGEST = 64, 2**63  # as many, and so long, as PyTorch's tensors can be
SIZES: Mapping[str, int] = MappingProxyType(
    {
        **dict.fromkeys(("BOOL", "I8", "U8", "F8_E4M3", "F8_E5M2"), 1),
        **dict.fromkeys(("I16", "U16", "F16", "BF16"), 2),
        **dict.fromkeys(("I32", "U32", "F32"), 4),
        **dict.fromkeys(("I64", "U64", "F64"), 8),
    }
)
# Of a floating point number as an unsigned integer: all but the sign, and infinity. Above infinity
# lies what is not a number.
PATTERNS: Mapping[str, tuple[str, int, int]] = MappingProxyType(
    {
        "F16": ("<u2", 0x7FFF, 0x7C00),
        "BF16": ("<u2", 0x7FFF, 0x7F80),
        "F32": ("<u4", 0x7FFF_FFFF, 0x7F80_0000),
        "F64": ("<u8", 0x7FFF_FFFF_FFFF_FFFF, 0x7FF0_0000_0000_0000),
    }
)
CHUNK = 1_048_576  # numbers looked at together: they stay in the processor's cache

Spans = dict[str, tuple[str, int, int]]  # tensor: dtype, first byte and end in the file


def tensor_offsets(path: Path) -> Spans:
    """Where each tensor of a file lies, after checking that they fill it. Raises `ModelRefused`."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            raise ModelRefused(f"{path.name} is truncated: its header is longer than the file")
        if length > HEADER_LIMIT:
            raise ModelRefused(f"{path.name} has a header of {length} bytes, over {HEADER_LIMIT}")
        header = parsed(path, file.read(length))
    found: Spans = {}
    for name, entry in header.items():
        if name != "__metadata__":
            dtype, first, end = span(path, name, entry)
            found[name] = (dtype, first + 8 + length, end + 8 + length)
    contiguous(path, found, 8 + length, size)
    return found


def parsed(path: Path, header: bytes) -> dict[str, Any]:
    """The header as an object in which no tensor stands twice."""
    try:
        document = json.loads(header, object_pairs_hook=single)
    except (ValueError, RecursionError) as error:
        raise ModelRefused(f"{path.name} is not safetensors: {error}") from error
    if not isinstance(document, dict):
        raise ModelRefused(f"{path.name} is not safetensors: its header is not an object")
    return document


def single(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object of JSON; raises `ValueError` if a name stands in it twice."""
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a name stands twice in its header")
    return made


def span(path: Path, name: str, entry: object) -> tuple[str, int, int]:
    """A tensor's dtype, first byte and end within the data."""
    match entry:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [int(first), int(end)]}:
            if dtype not in SIZES:
                raise ModelRefused(f"{path.name}: {name} is of an unknown dtype, {dtype!r:.20}")
            if counted(shape) and first >= 0 and end - first == math.prod(shape) * SIZES[dtype]:
                return dtype, first, end
    raise ModelRefused(f"{path.name}: the header lies about {name!r:.80}")


def counted(shape: list[object]) -> bool:
    """Whether a shape is one that any tensor has: a header may hold a million digits of it."""
    few = len(shape) <= DIMENSIONS
    return few and all(type(length) is int and 0 <= length < LONGEST for length in shape)


def contiguous(path: Path, found: Spans, start: int, size: int) -> None:
    """Demand that the tensors fill the file from `start` to its end, without gap or overlap."""
    places = sorted((first, end) for _, first, end in found.values())
    ends = [start, *(end for _, end in places)]
    if ends[-1] > size:
        raise ModelRefused(f"{path.name} is truncated: a tensor ends behind the end of the file")
    if any(first != end for (first, _), end in zip(places, ends, strict=False)):
        raise ModelRefused(f"{path.name}: tensors overlap or leave gaps")
    if ends[-1] < size:
        raise ModelRefused(f"{path.name} is oversized: {size - ends[-1]} bytes after the tensors")


def first_nan_tensor(path: Path) -> str:
    """The first tensor, by name, that holds a NaN; "" if none does.

    Reads the whole file, about as fast as it can be read. Raises `ModelRefused`.
    """
    import numpy as np

    found = tensor_offsets(path)
    if not found:
        return ""
    content = np.memmap(path, np.uint8, "r")
    for name, (dtype, first, end) in sorted(found.items()):
        if dtype in PATTERNS:
            kind, mask, infinity = PATTERNS[dtype]
            # A view on bytes that need not be aligned.
            numbers = np.frombuffer(content, kind, (end - first) // SIZES[dtype], first)
            for start in range(0, len(numbers), CHUNK):
                if ((numbers[start : start + CHUNK] & mask) > infinity).any():
                    return name
    return ""
