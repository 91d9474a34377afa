"""The models in the model folders, whether or not a network lists them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from executor.errors import Abstained, ModelRefused
from executor.models.folders import ID, REVISION, SHIPPED, require_inside, weights_digest

# The start of a model's folder in a Hugging Face cache: models--<org>--<name>.
CACHE_PREFIX = "models--"


@dataclass(frozen=True, slots=True)
class InstalledModel:
    """A model on this disk. `revision` is "" where its folder names none.

    Either `digest` is its weights digest, or `refused` says why it must not be loaded.
    """

    id: str
    revision: str
    folder: Path
    digest: str
    refused: str


def inventory(folders: Sequence[Path]) -> list[InstalledModel]:
    """Return every model in the folders and the shipped ones.

    Hashing takes seconds for a large model.
    """
    searched = dict.fromkeys([*folders, SHIPPED])
    return [examine(folder, *model) for folder in searched for model in find_models(folder)]


def find_models(folder: Path) -> Iterator[tuple[str, str, Path]]:
    """Yield id, revision and folder of everything named like a model, in order of the names."""
    for owner in subfolders(folder):
        if owner.name.startswith(CACHE_PREFIX):
            name = owner.name.removeprefix(CACHE_PREFIX).replace("--", "/", 1)
            for snapshot in subfolders(owner / "snapshots"):
                yield name, snapshot.name, snapshot
        elif (owner / "config.json").exists():
            yield split_name(owner.name, owner)
        else:
            for path in subfolders(owner):
                yield split_name(f"{owner.name}/{path.name}", path)


def split_name(name: str, folder: Path) -> tuple[str, str, Path]:
    """Return id and revision of a name `<id>` or `<id>@<revision>`, and the folder."""
    model_id, _, revision = name.partition("@")
    return model_id, revision, folder


def subfolders(folder: Path) -> list[Path]:
    """Return the folders in a folder, by name; none if it does not exist."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir())


def examine(models_folder: Path, model_id: str, revision: str, folder: Path) -> InstalledModel:
    """Return one model with its digest, or the reason why it is refused."""
    digest, refused = "", ""
    if not (ID.fullmatch(model_id) and (revision == "" or REVISION.fullmatch(revision))):
        refused = "its folder's name is no model id"
    else:
        try:
            digest = weights_digest(require_inside(folder, models_folder))
        except (Abstained, ModelRefused, OSError) as error:
            refused = str(error)
    return InstalledModel(model_id, revision, folder, digest, refused)
