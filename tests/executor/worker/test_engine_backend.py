"""Jobs in a worker of the engine's class: without torch, and with the bytes of a direct call."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from executor.audio.manifest import canonical_frames
from executor.determinism.compute_class import WorkerKind
from executor.engine import library
from executor.engine.matrices import Kind
from executor.engine.music import MusicModel
from executor.errors import Abstained
from executor.job import Execution, ModelRef
from executor.models.folders import EMBEDDED, SHIPPED
from executor.tasks.arguments import sequence_seeds
from executor.worker.engine_backend import watched
from executor.worker.supervisor import WorkerStatus, WorkerSupervisor
from tests.executor.conftest import PROMPT, TIMEOUT, digests, job

MUSIC = WorkerKind("helium", task="text-to-music")


@pytest.fixture(scope="module")
def engine(
    folders: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[WorkerSupervisor, WorkerStatus]]:
    supervisor = WorkerSupervisor([folders], tmp_path_factory.mktemp("engine"), kind=MUSIC)
    yield supervisor, supervisor.start(TIMEOUT)
    supervisor.close()


@pytest.fixture
def worker(engine: tuple[WorkerSupervisor, WorkerStatus]) -> WorkerSupervisor:
    return engine[0]


def run(worker: WorkerSupervisor, model: ModelRef, **args: Any) -> Execution:
    full = {"prompt": PROMPT, "seed": 1, "generation_config": {"max_new_tokens": 40}, **args}
    return worker.run(job(model, full), timeout=TIMEOUT, progress=lambda _: None)


def samples(execution: Execution, place: int = 0) -> np.ndarray[Any, Any]:
    return np.frombuffer(execution.files[place].read_bytes(), "<f4")


def test_the_runtime_names_no_processor_and_no_c_library(
    engine: tuple[WorkerSupervisor, WorkerStatus],
) -> None:
    _, status = engine
    assert status.ok
    assert set(status.runtime) == {"engine", "arithmetic", "task", "tokenizers", "probe"}
    assert status.runtime["engine"] == "helium"
    assert status.runtime["arithmetic"] == library.ARITHMETIC_VERSION


def test_the_worker_maps_no_library_of_torch(worker: WorkerSupervisor, embedded: ModelRef) -> None:
    run(worker, embedded)
    maps = Path(f"/proc/{worker.pid}/maps").read_text()
    assert "libhelium_engine" in maps
    assert "torch" not in maps


def test_the_sound_is_that_of_a_direct_call(worker: WorkerSupervisor, embedded: ModelRef) -> None:
    """Of each sequence, of which all but the first have a derived seed."""
    config = {"max_new_tokens": 70, "num_return_sequences": 3}
    execution = run(worker, embedded, seed=9, generation_config=config)
    model = MusicModel(SHIPPED / EMBEDDED, Kind.FLOAT32)
    request = model.request(PROMPT, sequence_seeds(9, 3), {"max_new_tokens": 70})
    for place, tokens in enumerate(model.generate(request).tokens):
        expected = canonical_frames(model.decode(tokens)).reshape(-1)
        assert samples(execution, place).tobytes() == expected.tobytes()


def test_threads_change_no_byte(
    worker: WorkerSupervisor, embedded: ModelRef, tmp_path: Path
) -> None:
    two = WorkerSupervisor([], tmp_path, kind=MUSIC, threads=2)
    try:
        assert digests(run(two, embedded)) == digests(run(worker, embedded))
    finally:
        two.close()


@pytest.mark.parametrize(
    "args", [{"dtype": "bfloat16"}, {"quantize_bits": 8}, {"quantize_bits": 4}]
)
def test_each_precision_has_bytes_of_its_own(
    worker: WorkerSupervisor, embedded: ModelRef, args: dict[str, object]
) -> None:
    assert digests(run(worker, embedded, **args)) != digests(run(worker, embedded))
    assert digests(run(worker, embedded, **args)) == digests(run(worker, embedded, **args))


def test_sequences_are_single_generations(worker: WorkerSupervisor, embedded: ModelRef) -> None:
    config = {"max_new_tokens": 40, "num_return_sequences": 3}
    three = digests(run(worker, embedded, seed=11, generation_config=config))
    seeds = sequence_seeds(11, 3)
    assert three == [digests(run(worker, embedded, seed=seed))[0] for seed in seeds]


def test_tokens_are_traced_as_by_the_other_engine(
    worker: WorkerSupervisor, embedded: ModelRef
) -> None:
    """The shape of a trace: one digest for each 64 steps, one byte for each step."""
    config = {"max_new_tokens": 66, "num_return_sequences": 2}
    trace: Any = run(worker, embedded, generation_config=config).trace
    assert [[len(digest) for digest in blocks] for blocks in trace["tokens"]] == [[16, 16]] * 2
    assert [[len(steps) for steps in blocks] for blocks in trace["steps"]] == [[128, 4]] * 2
    assert trace["tokens"][0] != trace["tokens"][1]


def test_a_job_of_another_kind_is_abstained_from(
    worker: WorkerSupervisor, embedded: ModelRef
) -> None:
    with pytest.raises(Abstained, match="does not run pop2piano") as caught:
        worker.run(
            replace(job(embedded, {"seed": 1}), kind="pop2piano"),
            timeout=TIMEOUT,
            progress=lambda _: None,
        )
    assert caught.value.reason == "model-missing"


def test_a_stop_ends_a_song_between_two_steps_and_the_worker_stays(
    worker: WorkerSupervisor, embedded: ModelRef
) -> None:
    pid, stop = worker.pid, threading.Event()
    stopping = threading.Thread(target=lambda: worker.stop(stop))

    def on_progress(share: float) -> None:
        if not stopping.is_alive() and not stop.is_set():
            stopping.start()

    long = {"max_new_tokens": 2000, "num_return_sequences": 4}
    args = {"prompt": PROMPT, "seed": 1, "generation_config": long}
    with pytest.raises(Abstained) as caught:
        worker.run(job(embedded, args), timeout=TIMEOUT, progress=on_progress, stop=stop)
    stopping.join()
    assert caught.value.reason == "timeout"
    assert worker.pid == pid


def test_progress_rises_to_one(worker: WorkerSupervisor, embedded: ModelRef) -> None:
    shares: list[float] = []
    args = {"prompt": PROMPT, "seed": 3, "generation_config": {"max_new_tokens": 900}}
    worker.run(job(embedded, args), timeout=TIMEOUT, progress=shares.append)
    assert shares == sorted(shares)
    assert len(shares) > 2
    assert shares[-1] == 1.0


def test_what_a_report_raises_stops_the_call_and_is_raised() -> None:
    def report(share: float) -> None:
        raise Abstained("timeout", f"at {share}")  # type: ignore[arg-type]

    with pytest.raises(Abstained, match=r"at 0\.5"), watched(report, lambda _: 0.5) as control:
        deadline = time.monotonic() + TIMEOUT
        while not control.stop.value:
            assert time.monotonic() < deadline
