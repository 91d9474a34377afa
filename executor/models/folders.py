"""Listed models in local folders: where they lie, and the digest of what is loaded.

A model's folder is `<folder>/<org>/<name>@<revision>`, `<folder>/<org>/<name>`, or in a Hugging
Face cache `<folder>/models--<org>--<name>/snapshots/<revision>`. The digest in the network document
(specification, section 8), not the path, decides whether it is the right one.
"""

import hashlib
import re
from collections.abc import MutableMapping, Sequence
from pathlib import Path

from executor.errors import Abstained, ModelRefused
from executor.models import config as model_config
from executor.models import safetensors
from executor.models.families import refusal
from executor.models.file_checks import VOCODER, checked_files, loadable_files
from executor.models.json_files import configuration
from protocol.wire.encoding import document_hash
from protocol.wire.messages import Abstention

SHIPPED = Path(__file__).resolve().parent.parent / "shipped"
EMBEDDED = "helium/embedded-music"  # the model of the self-test
EMBEDDED_PIANO = "helium/embedded-pop2piano"
DEFAULTS = (EMBEDDED, EMBEDDED_PIANO)  # every shipped model, one of each task kind

# As on the Hugging Face hub: a name, or an owner and a name, of at most 96 characters each.
ID_PART = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
ID = re.compile(rf"{ID_PART}(/{ID_PART})?")
REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
COMMIT = re.compile(r"[0-9a-f]{40}")

# Device, inode, size, mtime in nanoseconds: another file, or a changed one, has another stamp.
FileStamp = tuple[int, int, int, int]
FolderStamp = tuple[tuple[str, FileStamp], ...]  # the loadable files by name


class ModelFolders:
    """The folders in which models are searched, in order; the shipped ones come last.

    Hashes and NaN scans of files are cached by `FileStamp`: 2.4 GB take seconds to read.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        # The user's folders first, so that they can replace a shipped model.
        self._folders = (*folders, SHIPPED)
        self._hashes: dict[FileStamp, str] = {}
        self._digests: dict[tuple[Path, FolderStamp], str] = {}
        self._nan_tensors: dict[FileStamp, str] = {}

    def locate(self, model_id: str, revision: str) -> Path:
        """Return the folder of a model. Raises `Abstained` (model-missing)."""
        if not (ID.fullmatch(model_id) and REVISION.fullmatch(revision)) or ".." in model_id:
            raise model_missing(f"not a model id and revision: {model_id!r}, {revision!r}")
        for folder in self._folders:
            for path in candidate_paths(folder, model_id, revision):
                if path.is_dir():
                    return require_inside(path, folder)
        raise model_missing(f"{model_id} {revision} is in none of the model folders")

    def digest(self, folder: Path) -> str:
        """Return a folder's weights digest. Raises `ModelRefused`."""
        try:
            # The folder is hashed again when a file was added, removed or changed.
            stamps = tuple((path.name, file_stamp(path)) for path in loadable_files(folder))
            key = (folder, stamps)
            if key not in self._digests:
                self._digests[key] = weights_digest(folder, self._hashes)
        except OSError as error:
            raise ModelRefused(f"{error.filename}: {error.strerror}") from error
        return self._digests[key]

    def first_nan_tensor(self, folder: Path) -> str:
        """Return the first tensor of a model that holds a NaN, with its file; "" if none does.

        Raises `ModelRefused`.
        """
        for path in loadable_files(folder):
            if path.suffix == ".safetensors":
                stamp = file_stamp(path)
                if stamp not in self._nan_tensors:
                    self._nan_tensors[stamp] = safetensors.first_nan_tensor(path)
                if self._nan_tensors[stamp]:
                    return f"{path.name}: {self._nan_tensors[stamp]}"
        return ""

    def find(self, model_id: str, revision: str, digest: str) -> Path:
        """Return the folder with the listed digest. Raises `Abstained` (model-missing)."""
        folder = self.locate(model_id, revision)
        try:
            actual = self.digest(folder)
        except ModelRefused as refused:
            raise model_missing(str(refused)) from refused
        if actual != digest:
            raise model_missing(f"{folder} has digest {actual}, not the listed {digest}")
        return folder


def model_missing(detail: str) -> Abstained:
    """Return the abstention for a model that is not here or must not be loaded."""
    return Abstained(Abstention.MODEL_MISSING, detail)


def candidate_paths(folder: Path, model_id: str, revision: str) -> list[Path]:
    """Return where a model may lie in one of the folders, in order; both names are checked."""
    cache = folder / f"models--{model_id.replace('/', '--')}"
    commit = revision
    if (reference := cache / "refs" / revision).is_file():
        # The file holds a commit of 40 characters; a larger one is not read to its end.
        with reference.open("rb") as file:
            target = file.read(41).decode("ascii", errors="replace").strip()
        commit = target if COMMIT.fullmatch(target) else revision
    return [folder / f"{model_id}@{revision}", folder / model_id, cache / "snapshots" / commit]


def require_inside(path: Path, folder: Path) -> Path:
    """Return the path. Raises `Abstained` if a link leads from the folder out of it.

    The worker's sandbox would not let it follow such a link.
    """
    if not path.resolve().is_relative_to(folder.resolve()):
        raise model_missing(f"{path} leads out of the model folder {folder}")
    return path


def weights_digest(folder: Path, cache: MutableMapping[FileStamp, str] | None = None) -> str:
    """Return the weights digest of a folder, 64 hex characters (section 8).

    It is H("weights", canonical({file name: sha256})) over the loaded files.

    `cache` keeps the hashes of files between calls. Raises `ModelRefused` for a folder that must
    not be loaded.
    """
    hashes = {} if cache is None else cache
    return document_hash(
        "weights",
        {
            path.relative_to(folder).as_posix(): file_hash(path, hashes)
            for path in checked_files(folder)
        },
    )


def file_stamp(path: Path) -> FileStamp:
    """Return what differs between two files, or between a file and itself after a change."""
    stat = path.stat()
    return (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)


def file_hash(path: Path, cache: MutableMapping[FileStamp, str]) -> str:
    """Return the SHA-256 of a file, from the cache if it has not changed."""
    stamp = file_stamp(path)
    if stamp not in cache:
        with path.open("rb") as file:
            cache[stamp] = hashlib.file_digest(file, "sha256").hexdigest()
    return cache[stamp]


def describe_model(folder: Path) -> dict[str, object]:
    """Return a model's `digest` and what `config.describe` reads from its configurations.

    Reads files only and imports no torch. Raises `ModelRefused`, also for a family that no task
    kind can use.
    """
    digest = weights_digest(folder)
    config = configuration(folder, "config.json")
    generation = configuration(folder, "generation_config.json")
    vocoder = configuration(folder / VOCODER, "config.json")
    description = model_config.describe(config, generation, vocoder)
    if not description["tasks"]:
        raise ModelRefused(f"config.json: {refusal(config.get('model_type'))}")
    return {"digest": digest, **description}
