"""The weights of a model: safetensors files, mapped read-only.

Nothing is copied: the pages of a file are shared by all workers of a machine that map it.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from executor.errors import ModelRefused
from executor.models.json_files import configuration
from executor.models.safetensors import tensor_offsets
from schemas.errors import printable

if TYPE_CHECKING:
    from numpy.typing import NDArray

FILE = "model.safetensors"
INDEX = f"{FILE}.index.json"
# The dtypes of weights that the engine computes with. numpy has no bfloat16.
DTYPES: Mapping[str, Any] = MappingProxyType({"F32": "<f4", "F16": "<f2", "BF16": "<u2"})


class Weights(Mapping[str, "NDArray[Any]"]):
    """The tensors of a model by name: float32, float16, or bfloat16 as uint16, aligned or not.

    It remembers which were read, so that a model with tensors of another kind can be refused.
    """

    def __init__(self, folder: Path) -> None:
        """Map the files of a checked model folder. Raises `ModelRefused`."""
        self._tensors: dict[str, NDArray[Any]] = {}
        self._read: set[str] = set()
        for path, names in files(folder):
            tensors = map_file(path)
            for name in names or tensors:
                if name not in tensors:
                    raise ModelRefused(f"{path.name} has no {printable(name)}, which {INDEX} names")
                self._tensors[name] = tensors[name]

    def __getitem__(self, name: str) -> "NDArray[Any]":
        tensor = self._tensors[name]
        self._read.add(name)
        return tensor

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def refuse_unread(self) -> None:
        """Raise `ModelRefused` if there is a tensor that nothing read: part of another model."""
        if unread := sorted(self._tensors.keys() - self._read):
            raise ModelRefused(f"the engine does not compute with {printable(unread[0])}")


def files(folder: Path) -> list[tuple[Path, list[str]]]:
    """Return the files of a folder with the tensors to take from each: [] for all of them."""
    if (folder / FILE).exists():
        return [(folder / FILE, [])]
    shards: dict[str, list[str]] = {}
    weight_map = configuration(folder, INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelRefused(f"the folder has no {FILE}, and no {INDEX} with a weight_map")
    for name, file in weight_map.items():
        if not isinstance(file, str) or "/" in file or not (folder / file).is_file():
            raise ModelRefused(f"{INDEX} names a file that is not in the folder")
        shards.setdefault(file, []).append(name)
    return [(folder / file, names) for file, names in sorted(shards.items())]


def map_file(path: Path) -> "dict[str, NDArray[Any]]":
    """Return views of the tensors of a safetensors file. Raises `ModelRefused`."""
    offsets = tensor_offsets(path)
    content = np.memmap(path, np.uint8, "r")
    tensors = {}
    for name, (dtype, first, _, shape) in offsets.items():
        if dtype not in DTYPES:
            raise ModelRefused(f"{path.name}: {printable(name)} has the dtype {dtype}")
        count = int(np.prod(shape, dtype=np.int64))
        # The offsets need not be aligned.
        numbers = np.frombuffer(content, DTYPES[dtype], count, first)
        tensors[name] = numbers.reshape(shape)
    return tensors
