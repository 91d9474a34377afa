"""The command line in this process, away from the caller's own settings."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from executor.determinism.compute_class import WorkerKind
from executor.job import Execution, Job
from node.cli.commands.network import measure
from node.cli.main import cli
from protocol.wire.encoding import Document, canonical
from tests.node.cli.certified import Certified, make

Helium = Callable[..., Result]


@pytest.fixture
def helium(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Helium:
    """Call `helium` in an empty folder, without settings."""
    for name in [name for name in os.environ if name.startswith("HELIUM_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object, stdin: str | None = None) -> Result:
        return CliRunner().invoke(cli, [str(a) for a in arguments], input=stdin, prog_name="helium")

    return call


class LoadingWorker:
    """A worker that loads every model at once."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []

    def run(self, job: Job, *, timeout: float, progress: object) -> Execution:
        self.jobs.append(job)
        return Execution({"result": {}}, (), {})


@pytest.fixture
def loading(monkeypatch: pytest.MonkeyPatch) -> LoadingWorker:
    """Let `network create` and `network add` have such a worker, of another class."""
    worker = LoadingWorker()

    @contextmanager
    def start(
        folders: Sequence[Path], kind: WorkerKind
    ) -> Iterator[tuple[LoadingWorker, Document]]:
        yield worker, {"device": "another"}

    monkeypatch.setattr(measure, "local_worker", start)
    return worker


@dataclass(frozen=True, slots=True)
class Files:
    """A certificate's files in the current folder."""

    network: Path
    certificate: Path
    audio: Path


@pytest.fixture(scope="session")
def certified() -> Certified:
    return make()


@pytest.fixture
def files(certified: Certified, tmp_path: Path) -> Files:
    files = Files(tmp_path / "network.json", tmp_path / "c.json", tmp_path / "song.wav")
    files.network.write_bytes(canonical(certified.network.document))
    files.certificate.write_bytes(certified.certificate.encode())
    files.audio.write_bytes(certified.wav)
    return files
