"""Covers in a worker of the engine's class for Pop2Piano: without torch, librosa and numba."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import schemas
from executor.audio.manifest import TOKENS_SUFFIX
from executor.determinism import profile
from executor.determinism.compute_class import KINDS
from executor.errors import ProfileViolated, TokensDiffer
from executor.job import Difference, Execution, Job, ModelRef
from executor.models.folders import EMBEDDED_PIANO, SHIPPED, weights_digest
from executor.worker.supervisor import WorkerStatus, WorkerSupervisor
from protocol import work
from tests.executor.conftest import TIMEOUT, running
from tests.executor.delivery import delivered

PIANO = KINDS["piano"]
SAMPLED = {"do_sample": True, "temperature": 1.2, "top_k": 20, "max_new_tokens": 70}


@pytest.fixture(scope="module")
def engine(
    folders: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[WorkerSupervisor, WorkerStatus]]:
    with running(folders, tmp_path_factory.mktemp("piano"), PIANO) as started:
        yield started


@pytest.fixture
def worker(engine: tuple[WorkerSupervisor, WorkerStatus]) -> WorkerSupervisor:
    return engine[0]


def cover(
    worker: WorkerSupervisor,
    *inputs: Path,
    tokens: tuple[Path, ...] = (),
    limits: Mapping[str, object] | None = None,
    **args: Any,
) -> Execution:
    """Cover songs with the shipped model, and prove the work."""
    audio = [
        {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "size": path.stat().st_size}
        for path in inputs
    ]
    full = {"model": EMBEDDED_PIANO, "seed": 1, "audio": audio, **args}
    digest = weights_digest(SHIPPED / EMBEDDED_PIANO)
    model = ModelRef(EMBEDDED_PIANO, "1", digest, limits or {})
    order = Job("task", "pop2piano", delivered(full), model, inputs, True, tokens)
    return worker.run(order, timeout=TIMEOUT, progress=lambda _: None)


def error(execution: Execution) -> object:
    return execution.outcome.get("error")


def test_the_runtime_names_what_computes_features(
    engine: tuple[WorkerSupervisor, WorkerStatus],
) -> None:
    _, status = engine
    assert status.ok
    assert status.runtime["task"] == "pop2piano"
    libraries = {"essentia", "numpy", "resampy", "soundfile", "soxr", "libc"}
    assert libraries <= status.runtime.keys()
    assert not {"torch", "transformers", "librosa", "numba"} & status.runtime.keys()


def test_a_cover_needs_neither_torch_nor_a_compiler(
    worker: WorkerSupervisor, songs: Mapping[str, Path]
) -> None:
    assert "result" in cover(worker, songs["mono"]).outcome
    maps = Path(f"/proc/{worker.pid}/maps").read_text()
    assert "libhelium_engine" in maps
    assert not any(name in maps for name in ("torch", "llvmlite", "numba"))


def test_an_outcome_has_work_and_a_replay_comes_to_it(
    worker: WorkerSupervisor, songs: Mapping[str, Path]
) -> None:
    inputs = songs["mono"], songs["stereo"]
    execution = cover(worker, *inputs, generation_config=SAMPLED)
    assert "result" in execution.outcome, execution.trace
    schemas.check("outcome", execution.outcome)
    suffixes = [path.suffix for path in execution.files]
    assert suffixes == [".mid", ".f32", TOKENS_SUFFIX] * 2
    tokens = tuple(path for path in execution.files if path.suffix == TOKENS_SUFFIX)
    replay = cover(worker, *inputs, tokens=tokens, generation_config=SAMPLED)
    assert replay.outcome == execution.outcome
    for blob in tokens:
        steps, rows, _ = work.parse_tokens(blob.read_bytes())
        assert 1 <= steps <= 70
        assert rows > 1


def test_a_replay_tells_another_seed_and_shorter_tokens(
    worker: WorkerSupervisor, songs: Mapping[str, Path], tmp_path: Path
) -> None:
    song = songs["mono"]
    execution = cover(worker, song, generation_config=SAMPLED)
    (blob,) = (path for path in execution.files if path.suffix == TOKENS_SUFFIX)
    with pytest.raises(TokensDiffer) as caught:
        cover(worker, song, tokens=(blob,), seed=2, generation_config=SAMPLED)
    assert caught.value.difference.step < 70
    steps, rows, tokens = work.parse_tokens(blob.read_bytes())
    shorter = tmp_path / "shorter"
    shorter.write_bytes(work.tokens_blob(steps - 1, tokens[: 4 * rows * (steps - 1)]))
    with pytest.raises(TokensDiffer) as caught:
        cover(worker, song, tokens=(shorter,), generation_config=SAMPLED)
    assert caught.value.difference.step == steps - 1
    garbage = tmp_path / "garbage"
    garbage.write_bytes(b"\xff\xff")
    with pytest.raises(TokensDiffer) as caught:
        cover(worker, song, tokens=(garbage,), generation_config=SAMPLED)
    assert caught.value.difference == Difference(0, 0, 0)


def test_the_composer_is_checked_first_and_files_before_features(
    worker: WorkerSupervisor, songs: Mapping[str, Path]
) -> None:
    text, second = songs["text"], songs["second"]
    assert error(cover(worker, text, composer="x")) == "generation-rejected"
    assert error(cover(worker, second, text)) == "input-undecodable"
    assert error(cover(worker, second)) == "no-notes"
    for config in ({"max_new_tokens": 20_000}, {"num_beams": 2}):
        assert error(cover(worker, text, generation_config=config)) == "generation-rejected"


def test_the_limits_of_the_listed_model_decide(
    worker: WorkerSupervisor, songs: Mapping[str, Path]
) -> None:
    mono = songs["mono"]
    assert error(cover(worker, mono, limits={"input_seconds": 7})) == "input-undecodable"
    assert error(cover(worker, mono, limits={"output_seconds": 1})) == "generation-rejected"


def test_the_profile_of_numpy_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in profile.NUMERIC.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("OPENBLAS_CORETYPE")
    with pytest.raises(ProfileViolated, match="OPENBLAS_CORETYPE is None"):
        profile.check_numpy()
