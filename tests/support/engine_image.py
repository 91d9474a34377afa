"""A model of the engine as one file that a C program maps: its structures and its weights.

The engine's structures hold addresses. An image holds the same bytes, with a list of the places of
those addresses and of what each points to in the file. So a program without Python or torch, on any
processor with the same sizes of types, computes with the model exactly as it is loaded here.
"""

import ctypes
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from executor.engine.matrices import MatrixStruct
from executor.engine.music import MusicModel, Request

ALIGNMENT = 64
POINTER_BYTES = 8
MAGIC = b"heimage1"


def song_image(model: MusicModel, request: Request) -> bytes:
    """Return the image of a model and a song, as `engine_run.c` computes it."""
    ids = np.array(request.prompt, np.int32)
    encoder, decoder, codec = model._encoder, model._decoder, model._codec
    # The program computes the prompt's hidden states itself.
    hidden = np.zeros((1, decoder.width), np.float32)
    song, kept = decoder._song(hidden, request.steps, request.seeds, request.sampling)
    sizes = np.array([len(ids), decoder.width, encoder.width, codec.samples_per_token], np.int64)
    projection = decoder._projection or MatrixStruct()
    roots = [encoder.struct, projection, decoder._projection_bias, decoder._struct, song]
    return write_image([*roots, codec.struct, sizes, ids], [encoder, decoder, codec, kept])


def write_image(roots: Sequence[Any], owners: Sequence[Any]) -> bytes:
    """Return an image; `roots` are what the program uses, in the order that it expects.

    `owners` hold, at any depth, all arrays and structures that the roots point to.
    """
    buffers: dict[int, tuple[int, bool]] = {}  # size, whether it has addresses, by address
    for item in (*roots, *owners):
        _collect(item, buffers, set())
    places, position = {}, 0
    for start, (size, _) in sorted(buffers.items()):
        places[start] = position
        position += -(-size // ALIGNMENT) * ALIGNMENT
    content = bytearray(position)
    fixes = []
    starts = sorted(places)
    for start, (size, has_addresses) in buffers.items():
        offset = places[start]
        content[offset : offset + size] = ctypes.string_at(start, size)
        if not has_addresses:
            continue
        for at in range(0, size - POINTER_BYTES + 1, POINTER_BYTES):
            (value,) = struct.unpack_from("<Q", content, offset + at)
            if (target := _target(value, starts, buffers)) is not None:
                fixes.append((offset + at, places[target] + value - target))
    header = struct.pack("<8sQQ", MAGIC, len(fixes), len(roots))
    header += b"".join(struct.pack("<QQ", *fix) for fix in fixes)
    header += b"".join(struct.pack("<Q", places[_span(root)[0]]) for root in roots)
    return header + bytes(-len(header) % ALIGNMENT) + bytes(content)


def _target(value: int, starts: Sequence[int], buffers: dict[int, tuple[int, bool]]) -> int | None:
    """Return the buffer that an address points into; None if it is no address."""
    number = int(np.searchsorted(np.array(starts, np.uint64), np.uint64(value), "right")) - 1
    if number < 0 or value >= starts[number] + buffers[starts[number]][0]:
        return None
    return starts[number]


def _span(item: Any) -> tuple[int, int]:
    """Return the address and the size of an array or a structure."""
    if isinstance(item, np.ndarray):
        return item.ctypes.data, item.nbytes
    return ctypes.addressof(item), ctypes.sizeof(item)


def _collect(item: Any, buffers: dict[int, tuple[int, bool]], seen: set[int]) -> None:
    if id(item) in seen:
        return
    seen.add(id(item))
    if isinstance(item, np.ndarray | ctypes.Structure | ctypes.Array):
        address, size = _span(item)
        if size and buffers.get(address, (0,))[0] < size:
            buffers[address] = (size, not isinstance(item, np.ndarray))
        # What a pointer inside was made from is kept by the structure.
        for kept in (getattr(item, "_objects", None) or {}).values():
            _collect(kept, buffers, seen)
    elif isinstance(item, dict):
        for value in item.values():
            _collect(value, buffers, seen)
    elif isinstance(item, list | tuple):
        for value in item:
            _collect(value, buffers, seen)
    elif type(item).__module__.startswith("executor.engine"):
        _collect(getattr(item, "__dict__", {}), buffers, seen)
