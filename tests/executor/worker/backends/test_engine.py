"""Jobs in a worker of the engine's class: without torch, and with the bytes of a direct call."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import schemas
from executor.audio.manifest import TOKENS_SUFFIX, canonical_frames
from executor.determinism.compute_class import KINDS
from executor.engine import library
from executor.engine.matrices import Kind
from executor.engine.music import MusicModel
from executor.errors import Abstained, TokensDiffer
from executor.job import Difference, Execution, ModelRef
from executor.models.folders import EMBEDDED, SHIPPED
from executor.sandbox.confine import CPU_SECONDS
from executor.tasks.arguments import sequence_seeds
from executor.worker.backends.engine import watched
from executor.worker.supervisor import WorkerStatus, WorkerSupervisor
from protocol import work
from protocol.wire.messages import Abstention
from tests.executor.conftest import PROMPT, TIMEOUT, digests, job, running

MUSIC = KINDS["music"]


@pytest.fixture(scope="module")
def engine(
    folders: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[WorkerSupervisor, WorkerStatus]]:
    with running(folders, tmp_path_factory.mktemp("engine"), MUSIC) as started:
        yield started


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
        # The kernel counts the seconds of all threads together.
        limits = Path(f"/proc/{two.pid}/limits").read_text()
    finally:
        two.close()
    (line,) = (line for line in limits.splitlines() if line.startswith("Max cpu time"))
    assert int(line.split()[3]) >= 2 * CPU_SECONDS


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
        raise Abstained(Abstention.TIMEOUT, f"at {share}")

    def wait_for_stop() -> None:
        with watched(report, lambda _: 0.5) as control:
            deadline = time.monotonic() + TIMEOUT
            while not control.stop.value:
                assert time.monotonic() < deadline

    with pytest.raises(Abstained, match=r"at 0\.5"):
        wait_for_stop()


def test_too_little_memory_is_raised_whatever_a_report_raises() -> None:
    def report(share: float) -> None:
        raise Abstained(Abstention.TIMEOUT)

    def fail_when_stopped() -> None:
        with suppress(Abstained), watched(report, lambda _: 0.5) as control:
            deadline = time.monotonic() + TIMEOUT
            while not control.stop.value:
                assert time.monotonic() < deadline
            raise MemoryError

    with pytest.raises(MemoryError):
        fail_when_stopped()


def proven(worker: WorkerSupervisor, model: ModelRef, **args: Any) -> Execution:
    """Return what a job that proves work came to."""
    full = {"prompt": PROMPT, "seed": 1, "generation_config": {"max_new_tokens": 70}, **args}
    return worker.run(
        replace(job(model, full), proves_work=True), timeout=TIMEOUT, progress=lambda _: None
    )


def replayed(
    worker: WorkerSupervisor, model: ModelRef, tokens: list[Path], **args: Any
) -> Execution | Difference:
    """Return what a replay of tokens blobs came to."""
    full = {"prompt": PROMPT, "seed": 1, "generation_config": {"max_new_tokens": 70}, **args}
    order = replace(job(model, full), proves_work=True, tokens=tuple(tokens))
    try:
        return worker.run(order, timeout=TIMEOUT, progress=lambda _: None)
    except TokensDiffer as different:
        return different.difference


def tokens_of(execution: Execution) -> list[Path]:
    return [path for path in execution.files if path.suffix == TOKENS_SUFFIX]


TWO = {"max_new_tokens": 70, "num_return_sequences": 2}


def test_an_outcome_has_work_over_its_tokens_and_logits(
    worker: WorkerSupervisor, embedded: ModelRef
) -> None:
    execution = proven(worker, embedded, generation_config=TWO)
    model = MusicModel(SHIPPED / EMBEDDED, Kind.FLOAT32)
    steps = model.generate(model.request(PROMPT, sequence_seeds(1, 2), {"max_new_tokens": 70}))
    sequences = [
        work.Sequence(70, tokens.astype("<i4").tobytes(), logits.astype("<f4").tobytes())
        for tokens, logits in zip(steps.tokens, steps.logits, strict=True)
    ]
    assert [logits.shape for logits in steps.logits] == [(2, 4, 512)] * 2  # steps 63 and 69
    assert execution.outcome["work"] == work.work_digest(sequences)
    blobs = [path.read_bytes() for path in tokens_of(execution)]
    assert blobs == [work.tokens_blob(70, sequence.tokens) for sequence in sequences]
    schemas.check("outcome", execution.outcome)


@pytest.mark.parametrize("args", [{}, {"dtype": "bfloat16"}, {"quantize_bits": 8}], ids=str)
def test_a_replay_of_an_outcome_comes_to_it(
    worker: WorkerSupervisor, embedded: ModelRef, args: dict[str, Any]
) -> None:
    execution = proven(worker, embedded, generation_config=TWO, **args)
    replay = replayed(worker, embedded, tokens_of(execution), generation_config=TWO, **args)
    assert isinstance(replay, Execution)
    assert replay.outcome == execution.outcome
    assert [path.read_bytes() for path in replay.files] == [
        path.read_bytes() for path in execution.files
    ]


@pytest.mark.parametrize("bits", [4, 8])
def test_work_tells_a_quantised_model_that_draws_the_same_tokens(
    worker: WorkerSupervisor, embedded: ModelRef, bits: int
) -> None:
    """The embedded model is so sure of itself that the sound may be equal too."""
    execution = proven(worker, embedded)
    assert proven(worker, embedded, quantize_bits=bits).outcome["work"] != execution.outcome["work"]


def blob_of(tokens: Any) -> bytes:
    return work.tokens_blob(len(tokens), np.ascontiguousarray(tokens, "<i4").tobytes())


def changed(step: int, column: int, value: int) -> Callable[[Any], bytes]:
    def change(tokens: Any) -> bytes:
        tokens[step, column] = value
        return blob_of(tokens)

    return change


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (changed(41, 2, 512), (41, 2)),
        (changed(41, 2, -1), (41, 2)),
        (changed(69, 3, 2**31 - 1), (69, 3)),
        (lambda tokens: blob_of(tokens[:50]), (50, 0)),
        (lambda tokens: blob_of(np.concatenate([tokens, tokens])), (70, 0)),
        (lambda tokens: blob_of(tokens[:, :3]), (0, 3)),
        (lambda tokens: blob_of(np.concatenate([tokens, tokens], 1)), (0, 4)),
        (lambda _: b"", (0, 0)),
        (lambda _: b"\xff" * 7, (0, 0)),
        (lambda _: bytes(4), (0, 0)),
    ],
)
def test_a_replay_names_the_first_token_that_differs(
    worker: WorkerSupervisor,
    embedded: ModelRef,
    tmp_path: Path,
    change: Callable[[Any], bytes],
    place: tuple[int, int],
) -> None:
    """In the second sequence; the first one is right."""
    execution = proven(worker, embedded, generation_config=TWO)
    first, second = tokens_of(execution)
    steps, columns, tokens = work.parse_tokens(second.read_bytes())
    array = np.frombuffer(tokens, "<i4").reshape(steps, columns).copy()
    forged = tmp_path / "forged"
    forged.write_bytes(change(array))
    found = replayed(worker, embedded, [first, forged], generation_config=TWO)
    assert found == Difference(1, *place)


def test_a_replay_names_a_missing_and_a_surplus_sequence(
    worker: WorkerSupervisor, embedded: ModelRef
) -> None:
    first, second = tokens_of(proven(worker, embedded, generation_config=TWO))
    found = replayed(worker, embedded, [first], generation_config=TWO)
    assert found == Difference(1, 0, 0)
    found = replayed(worker, embedded, [first, second, second], generation_config=TWO)
    assert found == Difference(2, 0, 0)


@pytest.mark.parametrize(
    "lie",
    [
        {"seed": 2},
        {"prompt": "another song"},
        {"generation_config": {"max_new_tokens": 70, "top_k": 2}},
        {"generation_config": {"max_new_tokens": 70, "temperature": 1.4}},
        {"generation_config": {"max_new_tokens": 70, "guidance_scale": 5.0}},
    ],
    ids=str,
)
def test_a_replay_tells_tokens_of_another_task(
    worker: WorkerSupervisor, tiny: dict[str, ModelRef], lie: dict[str, Any]
) -> None:
    """Of an untrained model: a trained one is too sure of itself to heed each argument."""
    execution = proven(worker, tiny["musicgen"], **lie)
    found = replayed(worker, tiny["musicgen"], tokens_of(execution))
    assert isinstance(found, Difference)
    assert found.step < 70
