"""Which files of a model's folder are loaded, and whether they may be.

Loaded are the regular files directly in the folder, and in its `vocoder`, whose names end in one of
`LOADED_SUFFIXES`: safetensors weights, configurations, tokenizers. A loader reads nothing else in
it: no pickles, no code, no other subfolders. A file that names code or files elsewhere, or is not
what its name says, is refused here, with a reason and before any library opens it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from executor.errors import ModelRefused
from executor.models import safetensors
from executor.models.json_files import (
    LFS_POINTER,
    TOKENIZER_LIMIT,
    check_text,
    members,
    read_json,
    refuse_lfs_pointer,
)
from executor.models.members import config_problem, member_problem, settings_problem
from schemas.errors import describe_value, printable

LOADED_SUFFIXES = (".safetensors", ".json", ".model", ".txt", ".jinja")
PICKLE_SUFFIXES = (".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth")
# The one subfolder that is loaded.
VOCODER = "vocoder"
WEIGHTS_INDEX = ".safetensors.index.json"
# Words of a vocabulary: the largest have some hundred thousand.
MAX_VOCABULARY = 2**31
# Files that bring in a second model, whose weights the digest does not cover.
FOREIGN_FILES = ("adapter_config.json", "audio_tokenizer_config.json")
# Files whose members are words of a vocabulary, with numbers as values.
VOCABULARIES = ("tokenizer.json", "vocab.json", "added_tokens.json")
# Files that need not be objects: vocabularies, and lists of settings that no family here reads.
LISTS = ("vocab.json", "special_tokens_map.json", "chat_template.json")
# Tables of a family that a tokenizer reads: words and their numbers.
TOKEN_TABLES = ("vocab.json", "added_tokens.json")


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
    check_text("a file", path.name)
    name = printable(path.name)
    # A pipe or a device would block the loader.
    if not path.is_file() or not belongs_to(path, folder):
        raise ModelRefused(f"{name} is not a file of the model's own folder")
    if path.name in FOREIGN_FILES:
        raise ModelRefused(f"{name} would load a second model, or weights from elsewhere")
    with path.open("rb") as file:
        refuse_lfs_pointer(name, file.read(len(LFS_POINTER)))
    if path.suffix == ".json":
        check_configuration(path, names)
    if path.suffix == ".safetensors":
        safetensors.tensor_offsets(path)
    if path.suffix in (".txt", ".jinja"):
        check_lines(path)


def check_lines(path: Path) -> None:
    """Raise `ModelRefused` for a text file, of words or a template, that is not UTF-8."""
    if path.stat().st_size > TOKENIZER_LIMIT:
        raise ModelRefused(f"{path.name} is larger than {TOKENIZER_LIMIT} bytes")
    try:
        path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise ModelRefused(f"{path.name} is not UTF-8: byte {error.start} is not") from error


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
    """Raise `ModelRefused` for a configuration that names code, a second model or other files.

    `names` are the files of its folder.
    """
    if path.name.endswith(".index.json") and not path.name.endswith(WEIGHTS_INDEX):
        return  # an index of pickles, which nothing follows
    document = read_json(path)
    if problem := file_problem(path.name, document, names):
        raise ModelRefused(f"{path.name} {problem}")
    numbers_are_words = path.name in VOCABULARIES
    for key, value in members(document):
        if numbers_are_words and type(value) in (int, float):
            continue
        if problem := member_problem(key, value, names):
            raise ModelRefused(f"{path.name} {problem}")


def file_problem(name: str, document: object, names: set[str]) -> str:
    """Return why the content of a configuration of this name is refused, "" if it is not."""
    if not isinstance(document, dict):
        return "" if name in LISTS else "is not an object"
    if name.endswith(WEIGHTS_INDEX):
        named_here = maps_to_files(document.get("weight_map"), names)
        return "" if named_here else "names a file that is not in the folder"
    if name in TOKEN_TABLES:
        wrong = next((key for key, token in document.items() if not is_token(token)), None)
        return "" if wrong is None else f"has no token number for {describe_value(wrong)}"
    match name:
        case "config.json":
            return config_problem(document)
        case "generation_config.json":
            return settings_problem(document)
        case "tokenizer.json":
            return tokenizer_problem(document)
        case _:
            return ""


def tokenizer_problem(document: Mapping[str, Any]) -> str:
    """Return why a tokenizer is refused, "" if it is not: one with dropout draws by no seed."""
    model = document.get("model")
    dropout = model.get("dropout") if isinstance(model, dict) else None
    return f"has a dropout, {describe_value(dropout)}" if dropout else ""


def is_token(value: object) -> bool:
    """Return whether a value can be the number of a token."""
    return type(value) is int and 0 <= value < MAX_VOCABULARY


def maps_to_files(weight_map: object, names: set[str]) -> bool:
    """Return whether a weight map names only files of the folder."""
    return isinstance(weight_map, dict) and all(
        isinstance(name, str) and name in names for name in weight_map.values()
    )
