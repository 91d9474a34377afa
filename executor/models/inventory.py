"""Which models lie in the model folders, whether or not any network lists them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from executor.errors import Abstained, ModelRefused
from executor.models.folders import ID, REVISION, SHIPPED, require_inside, weights_digest

CACHED = "models--"  # how a Hugging Face cache begins a model's folder: models--<org>--<name>


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
    """Every model in the folders and the shipped ones, digested: seconds for a large one."""
    places = dict.fromkeys([*folders, SHIPPED])
    return [examined(folder, *model) for folder in places for model in models(folder)]


def models(folder: Path) -> Iterator[tuple[str, str, Path]]:
    """The id, revision and folder of whatever is named as a model is, in order of the names."""
    for owner in listed(folder):
        if owner.name.startswith(CACHED):
            name = owner.name.removeprefix(CACHED).replace("--", "/", 1)
            for snapshot in listed(owner / "snapshots"):
                yield name, snapshot.name, snapshot
        elif (owner / "config.json").exists():
            yield named(owner.name, owner)
        else:
            for path in listed(owner):
                yield named(f"{owner.name}/{path.name}", path)


def named(name: str, folder: Path) -> tuple[str, str, Path]:
    """What a folder's name says: `<id>` or `<id>@<revision>`."""
    id_, _, revision = name.partition("@")
    return id_, revision, folder


def listed(folder: Path) -> list[Path]:
    """The folders in a folder, by name; none if there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir())


def examined(place: Path, id_: str, revision: str, folder: Path) -> InstalledModel:
    """One model, looked into."""
    if not (ID.fullmatch(id_) and (revision == "" or REVISION.fullmatch(revision))):
        return InstalledModel(id_, revision, folder, "", "its folder's name is no model id")
    try:
        return InstalledModel(
            id_, revision, folder, weights_digest(require_inside(folder, place)), ""
        )
    except (Abstained, ModelRefused, OSError) as error:
        return InstalledModel(id_, revision, folder, "", str(error))
