"""One started supervisor for the whole folder, for its start costs seconds."""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from executor.job import Execution, Job, ModelRef
from executor.models.folders import EMBEDDED, SHIPPED, weights_digest
from executor.worker.supervisor import WorkerStatus, WorkerSupervisor

PROMPT = "a slow sad piano"
TIMEOUT = 60.0

Doctor = Callable[[Path], None]
Run = Callable[..., Execution]


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models that the shared supervisor searches."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def started(
    folders: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[WorkerSupervisor, WorkerStatus]]:
    scratch = tmp_path_factory.mktemp("scratch")
    (scratch / "home").mkdir()
    (scratch / "home" / "torch.py").write_text("raise SystemExit('planted code ran')")
    supervisor = WorkerSupervisor([folders], scratch)
    yield supervisor, supervisor.start(TIMEOUT)
    supervisor.close()


@pytest.fixture
def supervisor(started: tuple[WorkerSupervisor, WorkerStatus]) -> WorkerSupervisor:
    return started[0]


@pytest.fixture
def ready(started: tuple[WorkerSupervisor, WorkerStatus]) -> WorkerStatus:
    return started[1]


@pytest.fixture(scope="session")
def embedded() -> ModelRef:
    return ModelRef(
        EMBEDDED,
        "1",
        weights_digest(SHIPPED / EMBEDDED),
        MappingProxyType({"max_new_tokens": 2048}),
    )


@pytest.fixture
def run(supervisor: WorkerSupervisor, embedded: ModelRef) -> Run:
    """Execute on the shared supervisor, 40 tokens unless `generation` says otherwise."""

    def execute(
        *,
        generation: Mapping[str, object] | None = None,
        model: ModelRef = embedded,
        **args: object,
    ) -> Execution:
        config = {"max_new_tokens": 40, **(generation or {})}
        full = {"prompt": PROMPT, "seed": 1, "generation_config": config, **args}
        return supervisor.run(job(model, full), timeout=TIMEOUT, progress=lambda _: None)

    return execute


def job(model: ModelRef, args: Mapping[str, object], task: str = "task") -> Job:
    return Job(task, "text-to-music", {"model": model.id, **args}, model)


def digests(execution: Execution) -> list[str]:
    """The SHA-256 of each output."""
    result = execution.outcome["result"]
    assert isinstance(result, dict)
    return [output["sha256"] for output in result["outputs"]]


def copied(folders: Path, name: str, doctor: Doctor) -> ModelRef:
    """A doctored copy of the embedded model, as a listed model of the shared supervisor."""
    folder = folders / "doctored" / name
    shutil.copytree(SHIPPED / EMBEDDED, folder)
    doctor(folder)
    return ModelRef(f"doctored/{name}", "1", weights_digest(folder))


def rewritten(path: Path, **changes: object) -> None:
    """Change members of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture(scope="session")
def tiny(folders: Path) -> dict[str, ModelRef]:
    """A tiny model of each class, by name, in the folder of the shared supervisor."""
    from tests.executor.tiny import build

    return build(folders)


@pytest.fixture(scope="session")
def piano(folders: Path) -> ModelRef:
    """A tiny Pop2Piano in the folder of the shared supervisor."""
    from tests.executor.pianos import build

    return build(folders)


@pytest.fixture(scope="session")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Songs to cover, and what is none, by name."""
    from tests.executor.songs import recorded

    return recorded(tmp_path_factory.mktemp("songs"))


@pytest.fixture
def cover(supervisor: WorkerSupervisor, piano: ModelRef, songs: Mapping[str, Path]) -> Run:
    """Cover on the shared supervisor; the song is `mono` unless others are named."""
    from tests.executor.pianos import perform

    def execute(
        *names: str, model: ModelRef = piano, supervisor: WorkerSupervisor = supervisor, **args: Any
    ) -> Execution:
        return perform(supervisor, model, [songs[name] for name in names or ["mono"]], args)

    return execute


@pytest.fixture(scope="session")
def own(
    started: tuple[WorkerSupervisor, WorkerStatus], piano: ModelRef, songs: Mapping[str, Path]
) -> list[str]:
    """The digests of what the model makes of `mono` where the task leaves out everything."""
    from tests.executor.pianos import perform

    return digests(perform(started[0], piano, [songs["mono"]], {}))
