"""What is found in model folders, by the names that `locate` understands."""

import shutil
from pathlib import Path

from executor.models.folders import DEFAULTS, EMBEDDED, SHIPPED, ModelFolders, weights_digest
from executor.models.inventory import inventory


def placed(folder: Path) -> Path:
    return Path(shutil.copytree(SHIPPED / EMBEDDED, folder))


def test_inventory_finds_every_layout_of_folders(tmp_path: Path) -> None:
    placed(tmp_path / "alone")
    placed(tmp_path / "org" / "name")
    placed(tmp_path / "org" / "name@v2")
    placed(tmp_path / "models--hub--music-small" / "snapshots" / "abc")
    listed = inventory([tmp_path])
    assert [(model.id, model.revision) for model in listed] == [
        ("alone", ""),
        ("hub/music-small", "abc"),
        ("org/name", ""),
        ("org/name", "v2"),
        *((id_, "") for id_ in DEFAULTS),
    ]
    folders = ModelFolders([tmp_path])
    for model in listed:
        assert folders.locate(model.id, model.revision or "main") == model.folder
        assert (model.digest, model.refused) == (weights_digest(model.folder), "")


def test_inventory_reports_why_a_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "org" / "empty").mkdir(parents=True)
    (tmp_path / "org" / "..odd").mkdir()
    (tmp_path / "org" / "file").touch()
    refused = {model.id: model.refused for model in inventory([tmp_path])}
    assert refused == {
        "org/empty": "no safetensors weights (pickled weights are never loaded)",
        "org/..odd": "its folder's name is no model id",
        **dict.fromkeys(DEFAULTS, ""),
    }


def test_missing_folder_has_no_models(tmp_path: Path) -> None:
    assert [model.id for model in inventory([tmp_path / "absent"])] == [*DEFAULTS]
