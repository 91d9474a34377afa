"""Workers, models and jobs that the tests of the executor share.

A worker's start takes about ten seconds of processor time, and a model's build as much. So one
worker serves all tests of a process, the tiny models are built once per test run, also by the
several processes of pytest-xdist, and a job that has run already is not run again unless a test
says `again=True`: whether the same job gives the same bytes is tested where that is the subject.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from executor.determinism.compute_class import TRANSFORMERS, WorkerKind
from executor.job import Execution, Job, ModelRef
from executor.models.folders import EMBEDDED, SHIPPED, weights_digest
from executor.worker.supervisor import WorkerStatus, WorkerSupervisor
from tests.executor.delivery import delivered
from tests.support.numba_cache import shared_kernels
from tests.support.tiny_models.built import built_models

FOLDER = Path(__file__).parent
PROMPT = "a slow sad piano"
# Only a hang meets it, so it leaves room for a machine under load.
TIMEOUT = 600.0
# The tiny models, by family; MusicGen has a stereo one too.
CLASSES: Mapping[str, str] = MappingProxyType(
    {
        "musicgen": "musicgen",
        "musicgen_stereo": "musicgen",
        "musicgen_melody": "musicgen_melody",
        "bark": "bark",
        "csm": "csm",
        "seamless_m4t": "seamless_m4t",
        "seamless_m4t_v2": "seamless_m4t_v2",
        "speecht5": "speecht5",
        "vits": "vits",
        "fastspeech2_conformer": "fastspeech2_conformer",
        "fastspeech2_conformer_with_hifigan": "fastspeech2_conformer_with_hifigan",
    }
)
PIANO = "pop2piano"

Doctor = Callable[[Path], None]
Run = Callable[..., Execution]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Group the tests that share a worker, and order them so that it loads each model once.

    Covers have a group of their own: with an empty cache, their first one compiles for 25 seconds.
    """
    places = [n for n, item in enumerate(items) if FOLDER in item.path.parents]
    own_items = sorted((items[n] for n in places), key=model_of)
    for place, item in zip(places, own_items, strict=True):
        items[place] = item
        fixtures: set[str] = set(getattr(item, "fixturenames", ()))
        if fixtures & {"cover", "piano", "documented"}:
            item.add_marker(pytest.mark.xdist_group("worker-pop2piano"))
        elif "started" in fixtures:
            item.add_marker(pytest.mark.xdist_group("worker-text-to-music"))


def model_of(item: pytest.Item) -> int:
    """Return the place of the tiny model that a test is parametrised by; 0 for other tests."""
    callspec = getattr(item, "callspec", None)
    name = str(callspec.params.get("name")) if callspec else ""
    return 1 + list(CLASSES).index(name) if name in CLASSES else 0


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built_models(tmp_path_factory)


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models folder of the shared worker; tests put changed models there."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scratch folder of the shared worker."""
    return tmp_path_factory.mktemp("scratch")


@contextmanager
def running(
    folders: Path, scratch: Path, kind: WorkerKind = TRANSFORMERS
) -> Iterator[tuple[WorkerSupervisor, WorkerStatus]]:
    """Give a worker that was started, and what it says of itself."""
    supervisor = WorkerSupervisor([folders], scratch, kind=kind)
    try:
        yield supervisor, supervisor.start(TIMEOUT)
    finally:
        supervisor.close()


@pytest.fixture(scope="session")
def started(folders: Path, scratch: Path) -> Iterator[tuple[WorkerSupervisor, WorkerStatus]]:
    (scratch / "home").mkdir()
    (scratch / "home" / "torch.py").write_text("raise SystemExit('planted code ran')")
    with running(folders, scratch) as worker:
        yield worker


@pytest.fixture(scope="session")
def second(
    folders: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[WorkerSupervisor, WorkerStatus]]:
    """A second worker with another history: its bytes must be those of the shared one."""
    with running(folders, tmp_path_factory.mktemp("second")) as worker:
        yield worker


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


class Memory:
    """What jobs came to on the shared worker, so that none runs twice without need."""

    def __init__(self, supervisor: WorkerSupervisor) -> None:
        self._supervisor = supervisor
        self._executions: dict[tuple[object, ...], Execution] = {}

    def run(self, job: Job, *, again: bool = False) -> Execution:
        key = (job.kind, json.dumps(dict(job.args), sort_keys=True), job.model.digest, job.inputs)
        if again or key not in self._executions:
            self._executions[key] = self._supervisor.run(
                job, timeout=TIMEOUT, progress=lambda _: None
            )
        return self._executions[key]


@pytest.fixture(scope="session")
def memory(started: tuple[WorkerSupervisor, WorkerStatus]) -> Memory:
    return Memory(started[0])


@pytest.fixture
def run(memory: Memory, embedded: ModelRef) -> Run:
    """Execute on the shared worker, 40 tokens unless `generation` says otherwise."""

    def execute(
        *,
        generation: Mapping[str, object] | None = None,
        model: ModelRef = embedded,
        again: bool = False,
        **args: object,
    ) -> Execution:
        config = {"max_new_tokens": 40, **(generation or {})}
        full = {"prompt": PROMPT, "seed": 1, "generation_config": config, **args}
        return memory.run(job(model, full), again=again)

    return execute


@pytest.fixture
def execute(memory: Memory) -> Run:
    """Execute a tiny model on the shared worker: only the seed is set, to 1, unless `args` do."""

    def run_tiny(model: ModelRef, *, again: bool = False, **args: object) -> Execution:
        return memory.run(job(model, {"prompt": PROMPT, "seed": 1, **args}), again=again)

    return run_tiny


def job(model: ModelRef, args: Mapping[str, object], task: str = "task") -> Job:
    return Job(task, "text-to-music", delivered({"model": model.id, **args}), model)


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
def tiny(built: Path, folders: Path) -> dict[str, ModelRef]:
    """A tiny model of each class, by name, in the folder of the shared worker."""
    for name in CLASSES:
        shutil.copytree(built / "tiny" / name, folders / "tiny" / name)
    return {name: listed(folders, name) for name in CLASSES}


@pytest.fixture(scope="session")
def piano(built: Path, folders: Path) -> ModelRef:
    """A tiny Pop2Piano in the folder of the shared worker."""
    shutil.copytree(built / "tiny" / PIANO, folders / "tiny" / PIANO)
    return listed(folders, PIANO)


def listed(folders: Path, name: str) -> ModelRef:
    return ModelRef(f"tiny/{name}", "1", weights_digest(folders / "tiny" / name))


@pytest.fixture(scope="session")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Songs to cover, and what is none, by name."""
    from tests.executor.songs import recorded

    return recorded(tmp_path_factory.mktemp("songs"))


@pytest.fixture(scope="session")
def first_cover(
    memory: Memory,
    piano: ModelRef,
    songs: Mapping[str, Path],
    scratch: Path,
    pytestconfig: pytest.Config,
) -> Execution:
    """A cover of `mono`: after it the shared worker has all compiled kernels."""
    from tests.executor.pianos import cover_job

    with shared_kernels(pytestconfig, scratch):
        return memory.run(cover_job(piano, [songs["mono"]], {}))


@pytest.fixture
def cover(
    memory: Memory, piano: ModelRef, songs: Mapping[str, Path], first_cover: Execution
) -> Run:
    """Cover songs on the shared worker; the song is `mono` unless others are named."""
    from tests.executor.pianos import cover_job

    def run_cover(
        *names: str, model: ModelRef = piano, again: bool = False, **args: Any
    ) -> Execution:
        paths = [songs[name] for name in names or ["mono"]]
        return memory.run(cover_job(model, paths, args), again=again)

    return run_cover


@pytest.fixture
def own(cover: Run) -> list[str]:
    """The digests of what the model makes of `mono` where the task leaves out everything."""
    return digests(cover())
