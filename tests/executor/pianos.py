"""A tiny Pop2Piano, how to cover songs with it, and changed copies of it."""

import hashlib
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import schemas
from executor.job import Execution, Job, ModelRef
from executor.models.folders import weights_digest
from executor.worker.supervisor import WorkerSupervisor
from tests.executor.conftest import TIMEOUT, rewritten

ROOT = Path(__file__).resolve().parents[2]
NAME = "tiny/pop2piano"


def build(folders: Path) -> ModelRef:
    """Build it into a models folder, in a process of its own: it takes some 5 s."""
    script = ROOT / "scripts" / "build_tiny_models"
    build = [sys.executable, str(script), "pop2piano", str(folders)]
    subprocess.run(build, check=True, capture_output=True)
    return ModelRef(NAME, "1", weights_digest(folders / NAME))


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


def perform(
    supervisor: WorkerSupervisor,
    model: ModelRef,
    paths: Sequence[Path],
    args: Mapping[str, Any],
    progress: Callable[[float], None] = lambda _: None,
) -> Execution:
    """Cover songs: seed 1 and nothing else set, unless `args` says otherwise."""
    full = {"model": model.id, "audio": [named(path) for path in paths], "seed": 1, **args}
    schemas.check("pop2piano", full)
    job = Job("task", "pop2piano", full, model, tuple(paths))
    return supervisor.run(job, timeout=TIMEOUT, progress=progress)


def named(path: Path) -> dict[str, object]:
    """A file as a task names it."""
    content = path.read_bytes()
    return {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
