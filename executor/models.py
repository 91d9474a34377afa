"""Listed models in local folders: where they are, what may be loaded, and the digest of it.

A model's folder is `<folder>/<org>/<name>@<revision>` or `<folder>/<org>/<name>`; the digest in the
network document, not the path, says whether it is the right one. What counts as *loaded*, and so
goes into the weights digest (specification, section 8), is every regular file directly in the
folder whose name ends in one of `LOADED`: safetensors weights, configurations, tokenizers. Nothing
else in it is ever read by the loader: pickles are not, code is not, subfolders are not.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from pathlib import Path

import rfc8785

from executor.errors import Abstained, ModelRefused
from executor.fingerprint import tagged

SHIPPED = Path(__file__).resolve().parent / "shipped"
EMBEDDED = "helium/embedded-music"

LOADED = (".safetensors", ".json", ".model", ".txt", ".jinja")
# Each would bring in weights or code that the digest does not cover.
FOREIGN = ("adapter_config.json",)
PART = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
ID = re.compile(rf"{PART}(/{PART})?")
REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
CONFIGURATION_LIMIT = 4_194_304  # bytes; an index of a large model has some hundred thousand

Seen = tuple[int, int, int, int]  # device, inode, size, mtime in nanoseconds


class ModelFolders:
    """The folders in which models are looked for, in order; the shipped ones come last."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = (*folders, SHIPPED)
        self._hashes: dict[Seen, str] = {}

    def locate(self, model_id: str, revision: str) -> Path:
        """The folder of a model. Raises `Abstained("model-missing")`."""
        if not (ID.fullmatch(model_id) and REVISION.fullmatch(revision)) or ".." in model_id:
            raise Abstained(
                "model-missing", f"not a model id and revision: {model_id!r}, {revision!r}"
            )
        for folder in self._folders:
            for path in (folder / f"{model_id}@{revision}", folder / model_id):
                if path.is_dir():
                    return path
        raise Abstained("model-missing", f"{model_id} {revision} is in none of the model folders")

    def digest(self, folder: Path) -> str:
        """Its weights digest; a file's hash is kept while its inode, size and mtime stay."""
        return weights_digest(folder, self._hashes)

    def find(self, model_id: str, revision: str, digest: str) -> Path:
        """The folder whose content is the listed one. Raises `Abstained("model-missing")`."""
        folder = self.locate(model_id, revision)
        try:
            found = self.digest(folder)
        except ModelRefused as refusal:
            raise Abstained("model-missing", str(refusal)) from refusal
        if found != digest:
            raise Abstained(
                "model-missing", f"{folder} has digest {found}, not the listed {digest}"
            )
        return folder


def weights_digest(folder: Path, seen: MutableMapping[Seen, str] | None = None) -> str:
    """H("weights", canonical({file name: sha256})) over the loaded files (section 8), 64 hex.

    `seen` keeps the hashes of files between calls. Raises `ModelRefused` for a folder that must not
    be loaded.
    """
    known = {} if seen is None else seen
    hashes = {path.name: file_hash(path, known) for path in loaded_files(folder)}
    return tagged("weights", rfc8785.dumps(hashes))


def file_hash(path: Path, seen: MutableMapping[Seen, str]) -> str:
    """The SHA-256 of a file, from `seen` if it has not changed."""
    stat = path.stat()
    key = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)
    if key not in seen:
        with path.open("rb") as file:
            seen[key] = hashlib.file_digest(file, "sha256").hexdigest()
    return seen[key]


def loaded_files(folder: Path) -> list[Path]:
    """The files that loading may read, by name, after checking that nothing else could be drawn in.

    Raises `ModelRefused`.
    """
    files = sorted(
        path for path in folder.iterdir() if path.name.endswith(LOADED) and path.exists()
    )
    home = folder.resolve()
    for path in files:
        if not path.is_file() or not path.resolve().is_relative_to(home):
            raise ModelRefused(f"{path.name} is not a file of the model's own folder")
        if path.name in FOREIGN:
            raise ModelRefused(f"{path.name} would load weights from elsewhere")
        if path.suffix == ".json":
            refuse_json(path, {file.name for file in files})
    if not any(path.suffix == ".safetensors" for path in files):
        raise ModelRefused("no safetensors weights (pickled weights are never loaded)")
    if not any(path.name == "config.json" for path in files):
        raise ModelRefused("no config.json")
    return files


def refuse_json(path: Path, names: set[str]) -> None:
    """Refuse a configuration that names code, an attention kernel or files outside."""
    document = read_json(path)
    for key, value in members(document):
        if key == "auto_map" or key.removeprefix("_").startswith("attn_implementation"):
            raise ModelRefused(f"{path.name} sets {key}")
        indexed = key == "weight_map" and path.name.endswith(".safetensors.index.json")
        if indexed and not (isinstance(value, dict) and names.issuperset(value.values())):
            raise ModelRefused(f"{path.name} names a file that is not in the folder")


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


def describe(folder: Path) -> dict[str, object]:
    """What a network document says of a model, and what people want to know of it.

    Reads files only, imports no torch. `digest` and `limits` (`max_new_tokens`: the decoder's
    positions, where it tells them) as in the network document; `architecture`; `sampling_rate` in
    Hz and `frame_rate` in frames per second, where the configuration tells them. Raises
    `ModelRefused`.
    """
    digest = weights_digest(folder)
    config = read_json(folder / "config.json")
    if not isinstance(config, dict):
        raise ModelRefused("config.json is not an object")
    decoder, codec = part(config, "decoder"), part(config, "audio_encoder")
    described: dict[str, object] = {"digest": digest, "architecture": config.get("model_type")}
    positions = decoder.get("max_position_embeddings", config.get("max_position_embeddings"))
    described["limits"] = {"max_new_tokens": positions} if isinstance(positions, int) else {}
    rate, ratios = codec.get("sampling_rate"), codec.get("upsampling_ratios")
    if isinstance(rate, int):
        described["sampling_rate"] = rate
        if isinstance(ratios, list) and ratios:
            described["frame_rate"] = math.ceil(rate / math.prod(ratios))
    return described


def part(config: Mapping[str, object], name: str) -> Mapping[str, object]:
    """A part of a composite model's configuration; empty if there is none."""
    found = config.get(name)
    return found if isinstance(found, dict) else {}
