"""Which files of a model's folder are loaded, and whether they may be.

Loaded are the regular files directly in the folder, and in its `vocoder`, whose names end in one of
`LOADED_SUFFIXES`: safetensors weights, configurations, tokenizers. A loader reads nothing else in
it: no pickles, no code, no other subfolders. A file that names code or files elsewhere, or is not
what its name says, is refused here, with a reason and before any library opens it.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from executor.errors import ModelRefused
from executor.models import safetensors

LOADED_SUFFIXES = (".safetensors", ".json", ".model", ".txt", ".jinja")
PICKLE_SUFFIXES = (".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth")
# The one subfolder that is loaded.
VOCODER = "vocoder"
# Files that bring in weights which the digest does not cover.
FOREIGN_FILES = ("adapter_config.json",)
# Members of a configuration that run code from the model's folder or a hub, anywhere in it.
CODE_MEMBERS = ("auto_map", "custom_pipelines", "custom_generate")
# Members whose value names classes of transformers: one plain word each.
CLASS_MEMBERS = (
    "architectures",
    "feature_extractor_type",
    "image_processor_type",
    "processor_class",
    "tokenizer_class",
)
CLASS_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
# Members that choose which weights are loaded and how: only the executor decides that.
LOADER_MEMBERS = ("transformers_weights", "quantization_config", "init_inputs")
# Many files have a path of the machine on which they were saved in this member. Nothing opens it.
UNUSED_PATH_MEMBERS = ("special_tokens_map_file",)
# Bytes. The index of a large model has some hundred thousand; only a tokenizer may be larger.
CONFIGURATION_LIMIT = 4_194_304


def loadable_files(folder: Path) -> list[Path]:
    """Return the files whose names would be loaded, by name, those of the vocoder last."""
    return [
        path
        for directory in (folder, folder / VOCODER)
        if directory.is_dir()
        for path in sorted(directory.iterdir())
        if path.name.endswith(LOADED_SUFFIXES) and path.exists()
    ]


def checked_files(folder: Path) -> list[Path]:
    """Return `loadable_files` after checking each. Raises `ModelRefused`."""
    files = loadable_files(folder)
    for path in files:
        check_file(path, folder, {file.name for file in files if file.parent == path.parent})
    own_files = [path for path in files if path.parent == folder]
    if not any(path.suffix == ".safetensors" for path in own_files):
        pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLE_SUFFIXES)
        only = f", only {pickles[0]}" if pickles else ""
        raise ModelRefused(f"no safetensors weights{only} (pickled weights are never loaded)")
    if not any(path.name == "config.json" for path in own_files):
        raise ModelRefused("no config.json")
    return files


def check_file(path: Path, folder: Path, names: set[str]) -> None:
    """Raise `ModelRefused` unless a file may be loaded; `names` are the files beside it."""
    # A pipe or a device would block the loader.
    if not path.is_file() or not belongs_to(path, folder):
        raise ModelRefused(f"{path.name} is not a file of the model's own folder")
    if path.name in FOREIGN_FILES:
        raise ModelRefused(f"{path.name} would load weights from elsewhere")
    if path.suffix == ".json":
        check_configuration(path, names)
    if path.suffix == ".safetensors":
        safetensors.tensor_offsets(path)


def belongs_to(path: Path, folder: Path) -> bool:
    """Return whether a file lies in a model's folder, or where a Hugging Face cache keeps it.

    A snapshot of that cache holds links to the folder `blobs` beside the snapshots.
    """
    # Links are followed first: a loader would follow them too.
    folder, target = folder.resolve(), path.resolve()
    cache = folder.parent.parent
    is_snapshot = folder.parent.name == "snapshots" and cache.name.startswith("models--")
    return target.is_relative_to(folder) or (is_snapshot and target.parent == cache / "blobs")


def check_configuration(path: Path, names: set[str]) -> None:
    """Raise `ModelRefused` for a configuration that names code, an attention kernel or other files.

    `names` are the files of its folder.
    """
    document = read_json(path)
    is_weights_index = path.name.endswith(".safetensors.index.json")
    if path.name.endswith(".index.json") and not is_weights_index:
        return  # an index of pickles, which nothing follows
    for key, value in members(document):
        if key in CODE_MEMBERS or key.removeprefix("_").startswith("attn_implementation"):
            raise ModelRefused(f"{path.name} sets {key}")
        if key in LOADER_MEMBERS and value not in (None, [], {}):
            raise ModelRefused(f"{path.name} sets {key}")
        if key in CLASS_MEMBERS and not names_plain_classes(value):
            raise ModelRefused(f"{path.name} names code in {key}: {value!r:.80}")
        if key == "weight_map" and is_weights_index and not maps_to_files(value, names):
            raise ModelRefused(f"{path.name} names a file that is not in the folder")
        if names_other_file(key, value, names):
            raise ModelRefused(f"{path.name} names another file in {key}: {value!r:.80}")


def names_plain_classes(value: object) -> bool:
    """Return whether every string of a `CLASS_MEMBERS` value is one plain word.

    Other types are ignored: the words of a tokenizer's vocabulary are members too, whose values
    are numbers.
    """
    names = value if isinstance(value, list) else [value]
    return all(CLASS_NAME.fullmatch(name) for name in names if isinstance(name, str))


def names_other_file(key: str, value: object, names: set[str]) -> bool:
    """Return whether a member names a file that is not in the folder."""
    is_file_name = key.endswith("_file") and key not in UNUSED_PATH_MEMBERS
    return is_file_name and isinstance(value, str) and value not in names


def maps_to_files(weight_map: object, names: set[str]) -> bool:
    """Return whether a weight map names only files of the folder."""
    return isinstance(weight_map, dict) and all(
        isinstance(name, str) and name in names for name in weight_map.values()
    )


def read_json(path: Path) -> object:
    """Return the content of a configuration file of bounded size. Raises `ModelRefused`."""
    if path.stat().st_size > CONFIGURATION_LIMIT and path.name != "tokenizer.json":
        raise ModelRefused(f"{path.name} is larger than {CONFIGURATION_LIMIT} bytes")
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ModelRefused(f"{path.name} is not JSON: {error}") from error


def members(document: object) -> Iterator[tuple[str, object]]:
    """Yield every member of every object in a JSON document, at any depth."""
    # A stack instead of recursion: a stranger decides the depth.
    waiting = [document]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            yield from node.items()
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)


def configuration(folder: Path, name: str) -> Mapping[str, Any]:
    """Return a configuration file of a folder, {} if it has none. Raises `ModelRefused`."""
    if not (folder / name).exists():
        return {}
    document = read_json(folder / name)
    if not isinstance(document, dict):
        raise ModelRefused(f"{name} is not an object")
    return document
