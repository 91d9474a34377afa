"""Jobs of one model together: each comes to what it comes to alone, or is to run alone."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from executor.determinism.compute_class import KINDS
from executor.engine.music import MusicModel, Request
from executor.engine.musicgen import Song, Steps
from executor.errors import Abstained, RunAlone, TaskFailed
from executor.job import Execution, Job, ModelRef
from executor.models.folders import EMBEDDED, SHIPPED, ModelFolders
from executor.worker import supervisor as supervisor_module
from executor.worker.backends.music import MusicBackend
from executor.worker.ends import End
from executor.worker.messages import (
    JobAbstained,
    JobDone,
    JobOutput,
    JobProgress,
    WorkerMessage,
    WorkerReady,
    decode_message,
)
from executor.worker.runner import TEXT_TO_MUSIC, JobRunner
from executor.worker.supervisor import Order, WorkerSupervisor, job_message
from protocol.wire.messages import Abstention
from tests.executor.conftest import TIMEOUT, copied, job, running
from tests.executor.worker.test_main import reweighted
from tests.executor.worker.test_supervisor import files_in, once, speak

MUSIC = KINDS["music"]
FAKE_MODEL = ModelRef("tiny/model", "1", "0" * 64)


@pytest.fixture(scope="module")
def worker(folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerSupervisor]:
    with running(folders, tmp_path_factory.mktemp("together"), MUSIC) as (supervisor, _):
        yield supervisor


def order(
    model: ModelRef,
    tokens: int = 40,
    progress: Callable[[float], None] = lambda _: None,
    timeout: float = TIMEOUT,
    *,
    seed: int = 1,
    prompt: str = "bells",
    **config: object,
) -> Order:
    generation = {"max_new_tokens": tokens, **config}
    args = {"prompt": prompt, "seed": seed, "generation_config": generation}
    plain = job(model, args)
    proving = Job(plain.task, plain.kind, plain.args, plain.model, proves_work=True)
    return Order(proving, timeout, progress)


def ends_of(worker: WorkerSupervisor, orders: list[Order]) -> list[tuple[int, End]]:
    """The ends in their order, by each job's place."""
    ends: list[tuple[int, End]] = []
    worker.run_together(orders, lambda one, end: ends.append((orders.index(one), end)))
    assert sorted(place for place, _ in ends) == [*range(len(orders))]
    return ends


def content(end: End) -> tuple[Mapping[str, object], list[bytes], object]:
    """An outcome, the bytes of its files, and the digests of its tokens."""
    assert isinstance(end, Execution), end
    return end.outcome, [path.read_bytes() for path in end.files], end.trace["tokens"]


def assert_as_alone(worker: WorkerSupervisor, orders: list[Order], ends: Mapping[int, End]) -> None:
    for place, end in ends.items():
        ((_, alone),) = ends_of(worker, [orders[place]])
        assert content(end) == content(alone)


def assert_all_alone(ends: list[tuple[int, End]]) -> None:
    assert {type(end) for _, end in ends} == {RunAlone}, ends


def reason(end: End | None) -> str:
    assert isinstance(end, Abstained), end
    return str(end)


def test_only_the_engines_songs_run_together(tmp_path: Path) -> None:
    limits = {name: WorkerSupervisor([], tmp_path, kind=kind) for name, kind in KINDS.items()}
    assert {name: one.max_together for name, one in limits.items()} == {
        "music": 4,
        "piano": 1,
        "transformers": 1,
    }


@pytest.mark.parametrize("args", [{}, {"quantize_bits": 8}], ids=str)
def test_songs_have_the_bytes_that_they_have_alone(
    worker: WorkerSupervisor, embedded: ModelRef, args: dict[str, Any]
) -> None:
    orders = [
        order(embedded, 400),
        order(embedded, 70, seed=2, prompt="a slow sad piano", num_return_sequences=2),
        order(embedded, 130, seed=3, guidance_scale=1.0),
        order(embedded, 9, seed=4, do_sample=False),
    ]
    for one in orders:
        one.job.args.update(args)  # type: ignore[attr-defined]
    ends = ends_of(worker, orders)
    assert [place for place, _ in ends] == [3, 1, 2, 0], "a shorter one does not wait"
    assert_as_alone(worker, orders, dict(ends))


def test_progress_is_told_of_each(worker: WorkerSupervisor, embedded: ModelRef) -> None:
    shares: list[list[float]] = [[], []]
    orders = [order(embedded, n, shares[i].append) for i, n in enumerate((900, 1400))]
    ends_of(worker, orders)
    for told in shares:
        assert told == sorted(told)
        assert told[-1] == 1.0
        assert len(told) > 2


def test_a_stopped_song_ends_at_once_and_the_others_go_on(
    worker: WorkerSupervisor, embedded: ModelRef
) -> None:
    pid, stopping = worker.pid, list[threading.Thread]()

    def stop() -> None:
        stopping.append(threading.Thread(target=worker.stop, args=(orders[1].stop,)))
        stopping[0].start()

    orders = [order(embedded, 600, once(stop)), order(embedded, 2000, seed=2)]
    ends = dict(ends_of(worker, orders))
    stopping[0].join()
    assert reason(ends.pop(1)) == "timeout: the job was stopped"
    assert worker.pid == pid
    assert_as_alone(worker, orders, ends)


def test_a_song_that_is_stopped_before_is_not_begun(
    worker: WorkerSupervisor, embedded: ModelRef
) -> None:
    shares: list[float] = []
    orders = [order(embedded), order(embedded, 2000, shares.append), order(embedded, seed=3)]
    worker.stop(orders[1].stop)
    ends = dict(ends_of(worker, orders))
    assert reason(ends.pop(1)) == "timeout: the job was stopped"
    assert shares == []
    assert_as_alone(worker, orders, ends)


def test_each_song_has_a_time_of_its_own(worker: WorkerSupervisor, embedded: ModelRef) -> None:
    orders = [order(embedded, 1500), order(embedded, 2000, timeout=0.2, seed=2)]
    ends = ends_of(worker, orders)
    assert [place for place, _ in ends] == [1, 0]
    assert reason(ends[0][1]) == "timeout: the job ran past its deadline"
    assert_as_alone(worker, orders, {0: ends[1][1]})


def test_a_song_that_is_not_finite_is_to_run_alone_and_the_others_go_on(
    worker: WorkerSupervisor, folders: Path
) -> None:
    """Of a model whose logits are so large that much guidance makes them infinite."""

    def enlarge(folder: Path) -> None:
        reweighted(folder, "decoder.lm_heads.0.weight", lambda x: x.astype(np.float32) * 1e25)

    model = copied(folders, "large", enlarge)
    orders = [order(model), order(model, guidance_scale=2**53 - 1), order(model, 60, seed=2)]
    for one in orders:
        one.job.args.update({"dtype": "float32"})  # type: ignore[attr-defined]
    ends = dict(ends_of(worker, orders))
    assert isinstance(ends.pop(1), RunAlone)
    assert content(dict(ends_of(worker, [orders[1]]))[0])[0] == {"error": "non-finite-output"}
    assert "result" in content(ends[0])[0]
    assert_as_alone(worker, orders, ends)


@pytest.mark.parametrize(
    "fault",
    [{"tokens": 5000}, {"tokens": 2000, "num_return_sequences": 64}],
    ids=["too long", "its caches do not fit"],
)
def test_a_song_that_cannot_run_beside_others_is_to_run_alone(
    worker: WorkerSupervisor, embedded: ModelRef, fault: dict[str, Any]
) -> None:
    pid = worker.pid
    orders = [order(embedded, 1500), order(embedded, **fault), order(embedded, seed=2)]
    ends = dict(ends_of(worker, orders))
    assert isinstance(ends.pop(1), RunAlone)
    assert_as_alone(worker, orders, ends)
    assert worker.pid == pid


def test_songs_of_other_precisions_run_alone(worker: WorkerSupervisor, embedded: ModelRef) -> None:
    orders = [order(embedded, 60), order(embedded)]
    orders[1].job.args.update({"quantize_bits": 4})  # type: ignore[attr-defined]
    assert_all_alone(ends_of(worker, orders))


@pytest.mark.parametrize(
    ("error", "left"),
    [(TaskFailed("generation-rejected"), {}), (Abstained(Abstention.TIMEOUT), {1: None})],
    ids=["failed", "stopped"],
)
def test_a_prompt_that_is_not_read_ends_its_own_job_only(
    embedded: ModelRef, monkeypatch: pytest.MonkeyPatch, error: Exception, left: dict[int, None]
) -> None:
    backend = MusicBackend(1)
    backend.prepare()
    model = backend.load(TEXT_TO_MUSIC, SHIPPED / EMBEDDED, "float32", None)
    read = MusicModel.song

    def song(self: MusicModel, request: Request, *rest: Any) -> Song:
        if request.seeds == (7,):
            raise error
        return read(self, request, *rest)

    monkeypatch.setattr(MusicModel, "song", song)
    messages = [
        job_message(order(embedded, 30, seed=seed).job, str(seed), TIMEOUT) for seed in (1, 7, 3)
    ]
    reports: list[Callable[[float], None]] = [lambda _: None] * 3
    ends = dict(backend.compute_together(model, messages, reports))
    assert {place: steps for place, steps in ends.items() if steps is None} == left
    assert ends.keys() - left == {0, 2}


def test_of_too_little_memory_the_jobs_that_are_left_are_told(
    folders: Path, embedded: ModelRef
) -> None:
    """One has ended, and the others' tokens do not fit any more."""

    class Scarce(MusicBackend):
        def compute_together(self, *arguments: Any) -> Iterator[tuple[int, Steps | None]]:
            yield next(super().compute_together(*arguments))
            raise MemoryError("no more")

    receiver, sender = multiprocessing.Pipe()
    runner = JobRunner(sender, ModelFolders([folders]), Scarce(1))
    runner.prepare()
    jobs = [order(embedded, tokens).job for tokens in (40, 5, 20)]
    runner.run_all([job_message(one, str(place), TIMEOUT) for place, one in enumerate(jobs)])
    ends = dict[int, WorkerMessage]()
    while receiver.poll():
        message = decode_message(receiver.recv_bytes())
        if isinstance(message, JobOutput):
            assert len(os.read(receiver.fileno(), message.size)) == message.size
        elif not isinstance(message, JobProgress | WorkerReady):
            ends[message.job] = message
    assert isinstance(ends.pop(1), JobDone)
    assert ends == {n: JobAbstained(Abstention.OUT_OF_MEMORY, "no more", n) for n in (0, 2)}


# Fake workers


SINGLE = (
    "job = json.loads(job); "
    "prompt = [one['args']['prompt'] for one in job.get('together', [job])]; "
)
DONE = "say(kind='done', outcome={'error': 'no-notes'}, trace={})"
FAILED = "say(kind='failed', code='generation-rejected', error='IndexError: 7', trace={}, job=1)"
TOGETHER = {
    "dies": "os._exit(3)",
    "dies after a result": f"{DONE}; os._exit(3)",
    "sends nonsense": "say(kind='nonsense')",
    "ends a job twice": f"{DONE}; {DONE}",
    "ends an unknown job": "say(kind='done', outcome={'error': 'no-notes'}, trace={}, job=3)",
    "is ready again": "ready()",
    "sends a part of an output": (
        "say(kind='output', size=9, job=1); os.write(connection.fileno(), b'half'); os._exit(3)"
    ),
}


def fake(
    folder: Path, monkeypatch: pytest.MonkeyPatch, together: str, single: str = DONE
) -> WorkerSupervisor:
    """A supervisor whose workers do this with jobs together, and that with a single one."""
    speak(monkeypatch, f"{SINGLE}exec({together!r} if len(prompt) > 1 else {single!r})")
    return WorkerSupervisor([], folder, kind=MUSIC)


@pytest.mark.parametrize("fault", TOGETHER)
def test_a_worker_that_dies_lets_each_job_run_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    supervisor = fake(tmp_path, monkeypatch, TOGETHER[fault])
    orders = [order(FAKE_MODEL), order(FAKE_MODEL), order(FAKE_MODEL)]
    ends = ends_of(supervisor, orders)
    if DONE in TOGETHER[fault]:  # what it said before it died holds
        assert content_of_fake(ends.pop(0)[1]) == {"error": "no-notes"}
    assert_all_alone(ends)
    assert files_in(tmp_path) == []
    assert [content_of_fake(end) for _, end in ends_of(supervisor, orders[:1])] == [
        {"error": "no-notes"}
    ]
    supervisor.close()


def content_of_fake(end: End) -> Mapping[str, object]:
    assert isinstance(end, Execution), end
    return end.outcome


def test_an_error_is_to_be_confirmed_by_single_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor = fake(tmp_path, monkeypatch, f"{FAILED}; {DONE}")
    ends = dict(ends_of(supervisor, [order(FAKE_MODEL), order(FAKE_MODEL)]))
    supervisor.close()
    assert content_of_fake(ends[0]) == {"error": "no-notes"}
    assert str(ends[1]) == "to be confirmed: IndexError: 7"
    assert isinstance(ends[1], RunAlone)


def test_after_too_little_memory_nothing_of_that_worker_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    abstained = "say(kind='abstained', reason='out-of-memory', detail='', job=1)"
    supervisor = fake(tmp_path, monkeypatch, f"{abstained}; {DONE}")
    supervisor.start(TIMEOUT)
    pid = supervisor.pid
    assert pid is not None
    assert_all_alone(ends_of(supervisor, [order(FAKE_MODEL), order(FAKE_MODEL)]))
    assert supervisor.pid is None
    supervisor.close()


@pytest.mark.parametrize("job", [0, 1])
def test_each_job_has_so_many_messages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: int
) -> None:
    shares: list[float] = []
    many = f"[say(kind='progress', share=i / 1000, job={job}) for i in range(300)]; {DONE}"
    supervisor = fake(tmp_path, monkeypatch, many)
    orders = [order(FAKE_MODEL, progress=shares.append) for _ in range(2)]
    assert_all_alone(ends_of(supervisor, orders))
    supervisor.close()
    assert len(shares) == supervisor_module.MAX_MESSAGES - 1


def test_a_worker_that_lets_a_job_run_past_its_time_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_module, "STOP_SECONDS", 0.05)
    supervisor = fake(tmp_path, monkeypatch, "threading.Event().wait()")
    supervisor.start(TIMEOUT)
    orders = [order(FAKE_MODEL), order(FAKE_MODEL, timeout=0.1), order(FAKE_MODEL)]
    ends = dict(ends_of(supervisor, orders))
    assert reason(ends.pop(1)) == "timeout: the job ran past its deadline"
    assert_all_alone([*ends.items()])
    assert supervisor.pid is None
    supervisor.close()


def test_a_worker_that_goes_on_with_a_stopped_job_alone_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_module, "STOP_SECONDS", 0.05)
    told = "connection.recv_bytes(); "
    code = f"say(kind='progress', share=0.5); {told}{DONE}; threading.Event().wait()"
    supervisor = fake(tmp_path, monkeypatch, code)
    stopping: list[threading.Thread] = []

    def stop(_: float) -> None:
        stopping.append(threading.Thread(target=supervisor.stop, args=(orders[1].stop,)))
        stopping[0].start()

    orders = [order(FAKE_MODEL, progress=stop), order(FAKE_MODEL)]
    ends = dict(ends_of(supervisor, orders))
    stopping[0].join()
    assert content_of_fake(ends[0]) == {"error": "no-notes"}
    assert reason(ends[1]) == "timeout: the job was stopped"
    assert supervisor.pid is None
    supervisor.close()


def test_progress_does_not_prolong_a_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Job 0 is stopped beside job 1, which ends; then job 0 tells of progress again and again."""
    monkeypatch.setattr(supervisor_module, "STOP_SECONDS", 0.05)
    again = "[say(kind='progress', share=i / 1000) for i in range(150) if not time.sleep(0.01)]"
    code = f"say(kind='progress', share=0); {DONE[:-1]}, job=1); {again}"
    supervisor = fake(tmp_path, monkeypatch, f"import time; {code}")
    shares: list[float] = []

    def stop(share: float) -> None:
        shares.append(share)
        orders[0].stop.set()

    orders = [order(FAKE_MODEL, progress=stop), order(FAKE_MODEL)]
    ends = dict(ends_of(supervisor, orders))
    supervisor.close()
    assert content_of_fake(ends[1]) == {"error": "no-notes"}
    assert reason(ends[0]) == "timeout: the job was stopped"
    assert len(shares) < 50


def test_a_job_that_runs_alone_is_not_deferred(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor = fake(tmp_path, monkeypatch, DONE, "say(kind='deferred')")
    ((_, end),) = ends_of(supervisor, [order(FAKE_MODEL)])
    supervisor.close()
    assert reason(end) == "worker-died: the worker deferred a job that runs alone"


def test_a_worker_that_heeds_no_stop_is_killed_when_no_other_job_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_module, "STOP_SECONDS", 0.05)
    say, told = "say(kind='progress', share={}); ", "connection.recv_bytes(); "
    # It says each of two stops that it was told, and goes on.
    code = say.format(0.5) + told + say.format(0.7) + told + say.format(0.9)
    supervisor = fake(tmp_path, monkeypatch, code + "threading.Event().wait()")
    shares, threads = list[float](), list[threading.Thread]()

    def progress(share: float) -> None:
        shares.append(share)
        for thread in threads:  # it waits for an end that does not come
            thread.join()
        stop = orders[2 - len(threads)].stop
        threads.append(threading.Thread(target=supervisor.stop, args=(stop,)))
        threads[-1].start()

    orders = [order(FAKE_MODEL, progress=progress), order(FAKE_MODEL), order(FAKE_MODEL)]
    ends = dict(ends_of(supervisor, orders))
    assert shares == [0.5, 0.7, 0.9], "the other job ran on"
    assert {reason(end) for end in ends.values()} == {"timeout: the job was stopped"}
    assert supervisor.pid is None
    supervisor.close()


def test_a_busy_worker_takes_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    supervisor = fake(tmp_path, monkeypatch, "", f"say(kind='progress', share=0.5); {DONE}")
    reasons: list[str] = []

    def progress(_: float) -> None:
        ends = ends_of(supervisor, [order(FAKE_MODEL), order(FAKE_MODEL)])
        reasons.extend(reason(end) for _, end in ends)

    ends_of(supervisor, [order(FAKE_MODEL, progress=progress)])
    supervisor.close()
    assert reasons == ["busy", "busy"]
