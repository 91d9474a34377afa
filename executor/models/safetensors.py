"""Safetensors files: bounds and checks before a loader opens them, and the search for NaN.

The format is eight bytes of header length, a JSON header with the place of each tensor, and the
tensors' bytes. The safetensors library checks that the tensors fill the file without gaps or
overlaps. What it does not bound is bounded here: the header's size, dimensions and dtypes.
"""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open

from executor.errors import ModelRefused

# Bytes. The library allows 100 MB of JSON, which takes seconds and gigabytes to parse; a thousand
# tensors take about 0.1 MB.
HEADER_LIMIT = 16_777_216
# As many as PyTorch's tensors can have; the library allows any number.
MAX_DIMENSIONS = 64
# Of the library's dtypes, those that a model's weights have. Others, such as complex numbers, would
# be converted on loading.
INTEGERS = ("BOOL", "I8", "U8", "I16", "U16", "I32", "U32", "I64", "U64")
SHORT_FLOATS = ("F8_E4M3", "F8_E5M2")
# Floats as unsigned integers: numpy's dtype, all bits but the sign, and infinity. A number whose
# bits without the sign are above infinity is a NaN.
NAN_PATTERNS: Mapping[str, tuple[str, int, int]] = MappingProxyType(
    {
        "F16": ("<u2", 0x7FFF, 0x7C00),
        "BF16": ("<u2", 0x7FFF, 0x7F80),
        "F32": ("<u4", 0x7FFF_FFFF, 0x7F80_0000),
        "F64": ("<u8", 0x7FFF_FFFF_FFFF_FFFF, 0x7FF0_0000_0000_0000),
    }
)
DTYPES = frozenset((*INTEGERS, *SHORT_FLOATS, *NAN_PATTERNS))
# Numbers that are compared at a time: they stay in the processor's cache.
SCAN_NUMBERS = 1_048_576


class TensorPlace(NamedTuple):
    """A tensor's dtype and shape, and its first byte and end in the file."""

    dtype: str
    first: int
    end: int
    shape: tuple[int, ...]


def tensor_offsets(path: Path) -> dict[str, TensorPlace]:
    """Return where each tensor of a file lies. Raises `ModelRefused` for a file to be refused."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if HEADER_LIMIT < length <= path.stat().st_size:
            raise ModelRefused(f"{path.name} has a header of {length} bytes, over {HEADER_LIMIT}")
        try:
            with safe_open(path, framework="numpy"):
                pass
        except SafetensorError as error:
            raise ModelRefused(f"{path.name} is not safetensors: {error}") from error
        try:
            header = json.loads(file.read(length))
        except (ValueError, RecursionError) as error:
            raise ModelRefused(f"{path.name} is not safetensors: {error}") from error
    return {
        name: place._replace(first=8 + length + place.first, end=8 + length + place.end)
        for name, place in tensors(path, header)
    }


def tensors(path: Path, header: Mapping[str, Any]) -> Iterator[tuple[str, TensorPlace]]:
    """Yield each tensor of a valid header, by name; its place is within the data."""
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if entry["dtype"] not in DTYPES:
            raise ModelRefused(f"{path.name}: {name:.80} has the dtype {entry['dtype']}")
        if len(entry["shape"]) > MAX_DIMENSIONS:
            raise ModelRefused(f"{path.name}: {name:.80} has {len(entry['shape'])} dimensions")
        # A shape with a zero has no bytes, whatever its other dimensions are.
        if math.prod(size or 1 for size in entry["shape"]) >= 2**63:
            raise ModelRefused(f"{path.name}: {name:.80} has a shape that no tensor can have")
        first, end = entry["data_offsets"]
        yield name, TensorPlace(entry["dtype"], first, end, tuple(entry["shape"]))


def first_nan_tensor(path: Path) -> str:
    """Return the first tensor, by name, that holds a NaN; "" if none does.

    Reads the whole file, about as fast as it can be read. Raises `ModelRefused`.
    """
    import numpy as np

    offsets = tensor_offsets(path)
    if not offsets:
        return ""
    content = np.memmap(path, np.uint8, "r")
    for name, (dtype, first, end, _) in sorted(offsets.items()):
        if dtype in NAN_PATTERNS:
            kind, mask, infinity = NAN_PATTERNS[dtype]
            count = (end - first) // np.dtype(kind).itemsize
            numbers = np.frombuffer(content, kind, count, first)  # need not be aligned
            for start in range(0, count, SCAN_NUMBERS):
                if ((numbers[start : start + SCAN_NUMBERS] & mask) > infinity).any():
                    return name
    return ""
