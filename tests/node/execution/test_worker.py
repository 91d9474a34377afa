"""The adapter to the worker: with one real process, then with a fake supervisor."""

import asyncio
import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from executor.errors import Abstained
from executor.job import Execution, Job, ModelRef
from executor.models.folders import EMBEDDED, SHIPPED, weights_digest
from executor.worker.ends import End
from executor.worker.supervisor import Order, WorkerStatus, WorkerSupervisor
from node.execution.worker import Worker
from protocol.wire.encoding import Document
from protocol.wire.messages import Abstention

TIMEOUT = 60.0


def job(task: str, tokens: int = 40, **config: int) -> Job:
    model = ModelRef(EMBEDDED, "1", weights_digest(SHIPPED / EMBEDDED))
    generation = {"max_new_tokens": tokens, **config}
    args = {"model": EMBEDDED, "prompt": "bells", "seed": 1, "generation_config": generation}
    return Job(task, "text-to-music", args, model)


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_file()]


# With the real process


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch")


@pytest.fixture(scope="module")
def supervisor(scratch: Path) -> Iterator[WorkerSupervisor]:
    supervisor = WorkerSupervisor([SHIPPED], scratch)
    yield supervisor
    supervisor.close()


@pytest.fixture(scope="module")
def runtime(supervisor: WorkerSupervisor) -> Document:
    ready = supervisor.start(TIMEOUT)
    assert ready.ok, ready.reason
    return cast("Document", ready.runtime)


async def test_a_worker_of_its_own_class_is_ready_and_runs(
    supervisor: WorkerSupervisor, runtime: Document
) -> None:
    worker, shares = Worker(supervisor, runtime), list[float]()
    readiness = await worker.start()
    assert readiness.ok, readiness.reasons
    assert readiness.reasons == ()
    on_loop: list[bool] = []

    def progress(share: float) -> None:
        shares.append(share)
        on_loop.append(threading.current_thread() is threading.main_thread())

    execution = await worker.run(job("one"), TIMEOUT, progress)
    (path,) = execution.files
    outputs: Any = execution.outcome["result"]
    assert outputs["outputs"][0]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    path.unlink()
    await asyncio.sleep(0)
    assert shares[-1] == 1.0
    assert shares == sorted(shares)
    assert all(on_loop), "progress is told on the loop's thread"


async def test_a_worker_of_another_class_reports_the_differences(
    supervisor: WorkerSupervisor, runtime: Document
) -> None:
    class_runtime: Mapping[str, Any] = {**runtime, "torch": "0.0.1", "threads": 64}
    readiness = await Worker(supervisor, class_runtime).start()
    assert not readiness.ok
    assert not readiness.retry
    assert [reason.split(":")[:2] for reason in readiness.reasons] == [
        ["runtime", " threads"],
        ["runtime", " torch"],
    ]
    assert "theirs '0.0.1'" in readiness.reasons[1]


async def test_cancelling_stops_the_job_and_keeps_the_worker(
    supervisor: WorkerSupervisor, runtime: Document, scratch: Path
) -> None:
    worker, started = Worker(supervisor, runtime), asyncio.Event()
    running = asyncio.create_task(
        worker.run(job("endless", 2000, num_return_sequences=16), TIMEOUT, lambda _: started.set())
    )
    async with asyncio.timeout(TIMEOUT):
        await started.wait()
        pid = supervisor.pid
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    assert pid is not None
    assert supervisor.pid == pid
    assert worker.is_alive()
    assert files_in(scratch) == [], "nothing is left behind"


async def test_a_cancellation_before_the_job_has_begun_is_not_lost(
    supervisor: WorkerSupervisor, runtime: Document
) -> None:
    worker, release, shares = Worker(supervisor, runtime), threading.Event(), list[float]()
    worker._thread.submit(release.wait, TIMEOUT)  # the job waits for the thread
    running = asyncio.create_task(
        worker.run(job("endless", 2000, num_return_sequences=16), TIMEOUT, shares.append)
    )
    await asyncio.sleep(0)
    running.cancel()
    await asyncio.sleep(0)
    release.set()
    async with asyncio.timeout(TIMEOUT):
        with pytest.raises(asyncio.CancelledError):
            await running
    assert shares == []
    assert worker.is_alive()


# With a fake supervisor


@dataclass
class Script:
    """A fake supervisor whose results the test sets."""

    ready: WorkerStatus = field(
        default_factory=lambda: WorkerStatus({"device": "cpu"}, True, "", 1.0)
    )
    ends: Future[Execution] = field(default_factory=Future)
    begun: threading.Event = field(default_factory=threading.Event)
    stops: list[threading.Event] = field(default_factory=list)
    stopped: list[threading.Event] = field(default_factory=list)
    timeouts: list[float] = field(default_factory=list)
    calls: list[list[str]] = field(default_factory=list)
    closed: bool = False

    def start(self, timeout: float) -> WorkerStatus:
        self.timeouts.append(timeout)
        return self.ready

    def run_together(self, orders: Sequence[Order], on_end: Callable[[Order, End], None]) -> None:
        self.calls.append([order.job.task for order in orders])
        for order in orders:
            self.timeouts.append(order.timeout)
            self.stops.append(order.stop)
            order.progress(0.5)
        self.begun.set()
        for order in reversed(orders):
            on_end(order, self.ends.result(TIMEOUT))

    def stop(self, stop: threading.Event) -> None:
        self.stopped.append(stop)
        self.ends.set_exception(Abstained(Abstention.TIMEOUT, "it was cancelled"))

    def close(self) -> None:
        self.closed = True


def worker_of(script: Script, runtime: Document | None = None) -> Worker:
    return Worker(cast("WorkerSupervisor", script), runtime or {"device": "cpu"})


async def test_a_failed_self_test_is_a_reason() -> None:
    script = Script(WorkerStatus({}, False, "the worker died, exit code -9", 1.0))
    readiness = await worker_of(script).start()
    assert not readiness.ok
    assert readiness.reasons == ("self-test: the worker died, exit code -9",)
    assert readiness.retry


async def test_the_supervisor_gets_the_time_limit_and_its_result_is_returned() -> None:
    script, shares = Script(), list[float]()
    done = Execution({"error": "no-notes"}, (), {})
    script.ends.set_result(done)
    assert await worker_of(script).run(job("t"), 12.5, shares.append) is done
    await asyncio.sleep(0)
    assert (script.timeouts, shares) == ([12.5], [0.5])


@pytest.mark.parametrize("error", [Abstained(Abstention.OUT_OF_MEMORY), RuntimeError("a bug")])
async def test_exceptions_of_the_supervisor_are_raised(error: Exception) -> None:
    script = Script()
    script.ends.set_exception(error)
    with pytest.raises(type(error)) as raised:
        await worker_of(script).run(job("t"), 1.0, lambda _: None)
    assert raised.value is error


async def test_cancelling_waits_for_the_end_of_the_job() -> None:
    script = Script()
    worker = worker_of(script)
    running = asyncio.create_task(worker.run(job("t"), 1.0, lambda _: None))
    await asyncio.to_thread(script.begun.wait, TIMEOUT)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert script.stopped == script.stops
    assert script.ends.done()


async def test_outputs_that_a_cancelled_job_still_gave_are_removed(tmp_path: Path) -> None:
    """Its last message and the cancellation may cross."""
    output = tmp_path / "output"
    output.touch()

    class Late(Script):
        def stop(self, stop: threading.Event) -> None:
            self.ends.set_result(Execution({"error": "no-notes"}, (output,), {}))

    script = Late()
    running = asyncio.create_task(worker_of(script).run(job("t"), 1.0, lambda _: None))
    await asyncio.to_thread(script.begun.wait, TIMEOUT)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not output.exists()


async def test_closing_closes_the_supervisor() -> None:
    script = Script()
    worker = worker_of(script)
    await worker.start()
    await worker.close()
    assert script.closed


async def test_jobs_that_are_asked_for_at_once_run_together() -> None:
    script = Script()
    worker, ends = worker_of(script), list[str]()
    script.ends.set_result(Execution({"error": "no-notes"}, (), {}))

    async def run(task: str) -> None:
        await worker.run(job(task), 1.0, lambda _: None)
        ends.append(task)

    async with asyncio.TaskGroup() as group:
        for task in ("a", "b", "c"):
            group.create_task(run(task))
    await run("d")
    assert script.calls == [["a", "b", "c"], ["d"]]
    assert ends == ["c", "b", "a", "d"], "each ends when it has ended"


async def test_cancelling_one_of_several_stops_only_that_one() -> None:
    class Partly(Script):
        """Ends a job that is stopped, and the others then."""

        def run_together(
            self, orders: Sequence[Order], on_end: Callable[[Order, End], None]
        ) -> None:
            self.begun.set()
            orders[1].stop.wait(TIMEOUT)
            on_end(orders[1], Abstained(Abstention.TIMEOUT))
            for order in (orders[0], orders[2]):
                assert not order.stop.is_set()
                on_end(order, self.ends.result(TIMEOUT))

        def stop(self, stop: threading.Event) -> None:
            stop.set()

    script = Partly()
    worker, done = worker_of(script), Execution({"error": "no-notes"}, (), {})
    runs = [asyncio.create_task(worker.run(job(t), 1.0, lambda _: None)) for t in "abc"]
    await asyncio.to_thread(script.begun.wait, TIMEOUT)
    runs[1].cancel()
    with pytest.raises(asyncio.CancelledError):
        await runs[1]
    assert not runs[0].done()
    script.ends.set_result(done)
    assert [await runs[0], await runs[2]] == [done, done]


async def test_a_fault_after_the_end_of_one_is_raised_by_the_others() -> None:
    class Broken(Script):
        def run_together(
            self, orders: Sequence[Order], on_end: Callable[[Order, End], None]
        ) -> None:
            on_end(orders[0], Execution({"error": "no-notes"}, (), {}))
            raise RuntimeError("a bug")

    worker = worker_of(Broken())
    runs = [asyncio.create_task(worker.run(job(t), 1.0, lambda _: None)) for t in "ab"]
    assert (await runs[0]).outcome == {"error": "no-notes"}
    with pytest.raises(RuntimeError, match="a bug"):
        await runs[1]
