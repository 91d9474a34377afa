"""Tasks for the tiny Pop2Piano, and changed copies of it."""

import hashlib
import shutil
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import schemas
from executor.job import Job, ModelRef
from executor.models.folders import weights_digest
from tests.executor.conftest import rewritten
from tests.executor.delivery import delivered

NAME = "tiny/pop2piano"


def changed(
    folders: Path, file: str, members: Mapping[str, object], *, without: str = ""
) -> ModelRef:
    """A copy with other members in one of its JSON files, new or old, and one file less."""
    name = f"changed/{uuid.uuid4().hex}"
    folder = folders / name
    shutil.copytree(folders / NAME, folder)
    if without:
        (folder / without).unlink()
        (folder / file).write_text("{}")
    rewritten(folder / file, **members)
    return ModelRef(name, "1", weights_digest(folder))


def cover_job(model: ModelRef, paths: Sequence[Path], args: Mapping[str, Any]) -> Job:
    """A task that covers songs: seed 1 and nothing else set, unless `args` says otherwise."""
    full = {"model": model.id, "audio": [named(path) for path in paths], "seed": 1, **args}
    schemas.check("pop2piano", full)
    return Job("task", "pop2piano", delivered(full), model, tuple(paths))


def named(path: Path) -> dict[str, object]:
    """A file as a task names it."""
    content = path.read_bytes()
    return {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
