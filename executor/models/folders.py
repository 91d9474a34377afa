"""Listed models in local folders: where they are, what may be loaded, and the digest of it.

A model's folder is `<folder>/<org>/<name>@<revision>`, `<folder>/<org>/<name>`, or in a Hugging
Face cache `<folder>/models--<org>--<name>/snapshots/<revision>`; the digest in the network
document, not the path, says whether it is the right one. What counts as *loaded*, and so goes into
the weights digest (specification, section 8), is every regular file directly in the folder whose
name ends in one of `LOADED`: safetensors weights, configurations, tokenizers. Nothing else in it is
ever read by the loader: pickles are not, code is not, subfolders are not. What is loaded is
refused, in our own words and before any library opens it, if it names code or other files, or is
not what it says it is.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any

from executor.errors import Abstained, ModelRefused
from executor.models import config as described
from executor.models import safetensors
from executor.models.families import refusal
from protocol.wire.encoding import document_hash
from protocol.wire.messages import Abstention

SHIPPED = Path(__file__).resolve().parent.parent / "shipped"
EMBEDDED = "helium/embedded-music"  # what the self-test runs
DEFAULTS = (EMBEDDED, "helium/embedded-pop2piano")  # all that are shipped, one of each task kind

LOADED = (".safetensors", ".json", ".model", ".txt", ".jinja")
PICKLED = (".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth")
VOCODER = "vocoder"  # the one subfolder that is read
# Each would bring in weights or code that the digest does not cover.
FOREIGN = ("adapter_config.json",)
# Members of a configuration that would run code of the model's, anywhere in it.
CODE = ("auto_map", "custom_pipelines", "custom_generate")
# Whose value names classes: of transformers', so one plain word.
CLASSES = (
    "architectures",
    "feature_extractor_type",
    "image_processor_type",
    "processor_class",
    "tokenizer_class",
)
CLASS = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
# Which weights are loaded, and how, is the loader's to say.
STEERING = ("transformers_weights", "quantization_config", "init_inputs")
# A path of the machine on which the model was saved, in many of them; nothing opens it.
STALE = ("special_tokens_map_file",)
PART = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
ID = re.compile(rf"{PART}(/{PART})?")
REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
COMMIT = re.compile(r"[0-9a-f]{40}")
CONFIGURATION_LIMIT = 4_194_304  # bytes; an index of a large model has some hundred thousand

Seen = tuple[int, int, int, int]  # device, inode, size, mtime in nanoseconds
Content = tuple[tuple[str, Seen], ...]  # a folder's files by name, as far as a look tells


class ModelFolders:
    """The folders in which models are looked for, in order; the shipped ones come last."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = (*folders, SHIPPED)
        self._hashes: dict[Seen, str] = {}
        self._digests: dict[tuple[Path, Content], str] = {}
        self._poisoned: dict[Seen, str] = {}

    def locate(self, model_id: str, revision: str) -> Path:
        """The folder of a model. Raises `Abstained` (model-missing)."""
        if not (ID.fullmatch(model_id) and REVISION.fullmatch(revision)) or ".." in model_id:
            raise Abstained(
                Abstention.MODEL_MISSING, f"not a model id and revision: {model_id!r}, {revision!r}"
            )
        for folder in self._folders:
            for path in places(folder, model_id, revision):
                if path.is_dir():
                    return inside(path, folder)
        raise Abstained(
            Abstention.MODEL_MISSING, f"{model_id} {revision} is in none of the model folders"
        )

    def digest(self, folder: Path) -> str:
        """Its weights digest. Raises `ModelRefused`.

        A folder is looked into again when a file's inode, size or mtime is not what it was.
        """
        try:
            seen = (folder, tuple((path.name, looked_at(path)) for path in candidates(folder)))
            if seen not in self._digests:
                self._digests[seen] = weights_digest(folder, self._hashes)
        except OSError as error:
            raise ModelRefused(f"{error.filename}: {error.strerror}") from error
        return self._digests[seen]

    def first_nan_tensor(self, folder: Path) -> str:
        """The first tensor of a model that holds a NaN, with its file; "" if none does.

        A file is read once for this while its inode, size and mtime stay. Raises `ModelRefused`.
        """
        for path in candidates(folder):
            if path.suffix == ".safetensors":
                seen = looked_at(path)
                if seen not in self._poisoned:
                    self._poisoned[seen] = safetensors.first_nan_tensor(path)
                if self._poisoned[seen]:
                    return f"{path.name}: {self._poisoned[seen]}"
        return ""

    def find(self, model_id: str, revision: str, digest: str) -> Path:
        """The folder whose content is the listed one. Raises `Abstained` (model-missing)."""
        folder = self.locate(model_id, revision)
        try:
            found = self.digest(folder)
        except ModelRefused as refusal:
            raise Abstained(Abstention.MODEL_MISSING, str(refusal)) from refusal
        if found != digest:
            raise Abstained(
                Abstention.MODEL_MISSING, f"{folder} has digest {found}, not the listed {digest}"
            )
        return folder


def places(folder: Path, model_id: str, revision: str) -> list[Path]:
    """Where a model may lie in one of the folders, in order; both names have been checked."""
    cached = folder / f"models--{model_id.replace('/', '--')}"
    commit = revision
    if (reference := cached / "refs" / revision).is_file():
        with reference.open("rb") as file:
            named = file.read(41).decode("ascii", errors="replace").strip()
        commit = named if COMMIT.fullmatch(named) else revision
    snapshot = cached / "snapshots" / commit
    return [folder / f"{model_id}@{revision}", folder / model_id, snapshot]


def inside(path: Path, folder: Path) -> Path:
    """The path, if no link leads from the folder out of it: no worker could follow it."""
    if not path.resolve().is_relative_to(folder.resolve()):
        raise Abstained(Abstention.MODEL_MISSING, f"{path} leads out of the model folder {folder}")
    return path


def weights_digest(folder: Path, seen: MutableMapping[Seen, str] | None = None) -> str:
    """H("weights", canonical({file name: sha256})) over the loaded files (section 8), 64 hex.

    `seen` keeps the hashes of files between calls. Raises `ModelRefused` for a folder that must not
    be loaded.
    """
    known = {} if seen is None else seen
    hashes = {
        path.relative_to(folder).as_posix(): file_hash(path, known) for path in loaded_files(folder)
    }
    return document_hash("weights", hashes)


def looked_at(path: Path) -> Seen:
    """What tells a file from another, or from itself before it was changed."""
    stat = path.stat()
    return (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)


def file_hash(path: Path, seen: MutableMapping[Seen, str]) -> str:
    """The SHA-256 of a file, from `seen` if it has not changed."""
    key = looked_at(path)
    if key not in seen:
        with path.open("rb") as file:
            seen[key] = hashlib.file_digest(file, "sha256").hexdigest()
    return seen[key]


def candidates(folder: Path) -> list[Path]:
    """What is in a folder, and in its vocoder's, under a name that would be loaded, by name."""
    return [
        path
        for place in (folder, folder / VOCODER)
        if place.is_dir()
        for path in sorted(place.iterdir())
        if path.name.endswith(LOADED) and path.exists()
    ]


def loaded_files(folder: Path) -> list[Path]:
    """The files that loading may read, by name, after checking that nothing else could be drawn in.

    Those of the vocoder come last. Raises `ModelRefused`.
    """
    files = candidates(folder)
    for path in files:
        if not path.is_file() or not at_home(path, folder):
            raise ModelRefused(f"{path.name} is not a file of the model's own folder")
        if path.name in FOREIGN:
            raise ModelRefused(f"{path.name} would load weights from elsewhere")
        if path.suffix == ".json":
            refuse_json(path, {file.name for file in files if file.parent == path.parent})
        if path.suffix == ".safetensors":
            safetensors.tensor_offsets(path)
    own = [path for path in files if path.parent == folder]
    if not any(path.suffix == ".safetensors" for path in own):
        pickled = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLED)
        only = f", only {pickled[0]}" if pickled else ""
        raise ModelRefused(f"no safetensors weights{only} (pickled weights are never loaded)")
    if not any(path.name == "config.json" for path in own):
        raise ModelRefused("no config.json")
    return files


def at_home(path: Path, folder: Path) -> bool:
    """Whether a file lies in a model's folder, or where a Hugging Face cache keeps its files."""
    home, place = folder.resolve(), path.resolve()
    cached = home.parent.parent
    snapshot = home.parent.name == "snapshots" and cached.name.startswith("models--")
    return place.is_relative_to(home) or (snapshot and place.parent == cached / "blobs")


def refuse_json(path: Path, names: set[str]) -> None:
    """Refuse a configuration that names code, an attention kernel or other files.

    `names` are the files of the folder.
    """
    document = read_json(path)
    indexed = path.name.endswith(".safetensors.index.json")
    if path.name.endswith(".index.json") and not indexed:
        return  # of pickles, which nothing follows
    for key, value in members(document):
        if key in CODE or key.removeprefix("_").startswith("attn_implementation"):
            raise ModelRefused(f"{path.name} sets {key}")
        if key in STEERING and value not in (None, [], {}):
            raise ModelRefused(f"{path.name} sets {key}")
        if key in CLASSES and not plain(value):
            raise ModelRefused(f"{path.name} names code in {key}: {value!r:.80}")
        if key == "weight_map" and indexed:
            if not (
                isinstance(value, dict)
                and all(isinstance(named, str) and named in names for named in value.values())
            ):
                raise ModelRefused(f"{path.name} names a file that is not in the folder")
        elif key.endswith("_file") and key not in STALE and outside(value, names):
            raise ModelRefused(f"{path.name} names another file in {key}: {value!r:.80}")


def plain(classes: object) -> bool:
    """Whether a configuration names classes of the library by plain words, if it names any.

    Numbers are nothing of the sort: a tokenizer's words are members too, and may be any word.
    """
    named = classes if isinstance(classes, list) else [classes]
    return all(CLASS.fullmatch(name) for name in named if isinstance(name, str))


def outside(value: object, names: set[str]) -> bool:
    """Whether a member that would name a file names one that is not in the folder."""
    return isinstance(value, str) and value not in names


def read_json(path: Path) -> object:
    """A configuration file, of bounded size. Raises `ModelRefused`."""
    if path.stat().st_size > CONFIGURATION_LIMIT and path.name != "tokenizer.json":
        raise ModelRefused(f"{path.name} is larger than {CONFIGURATION_LIMIT} bytes")
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ModelRefused(f"{path.name} is not JSON: {error}") from error


def members(document: object) -> Iterator[tuple[str, object]]:
    """Every member of every object in a JSON document, at any depth."""
    waiting = [document]
    while waiting:
        found = waiting.pop()
        if isinstance(found, dict):
            yield from found.items()
            waiting.extend(found.values())
        elif isinstance(found, list):
            waiting.extend(found)


def describe_model(folder: Path) -> dict[str, object]:
    """What a network document says of a model, and what people want to know of it.

    Reads files only, imports no torch: `digest`, and what `described.describe` makes of the
    configurations. Raises `ModelRefused`, also for a family that no task kind can use.
    """
    digest = weights_digest(folder)
    config = configuration(folder, "config.json")
    generation = configuration(folder, "generation_config.json")
    vocoder = configuration(folder / VOCODER, "config.json")
    told = described.describe(config, generation, vocoder)
    if not told["tasks"]:
        raise ModelRefused(refusal(told["family"]))
    return {"digest": digest, **told}


def configuration(folder: Path, name: str) -> Mapping[str, Any]:
    """A configuration file of a folder; empty if it has none. Raises `ModelRefused`."""
    if not (folder / name).exists():
        return {}
    document = read_json(folder / name)
    if not isinstance(document, dict):
        raise ModelRefused(f"{name} is not an object")
    return document
