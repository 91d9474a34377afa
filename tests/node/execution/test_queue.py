"""The execution queue: order, eviction, removal and results."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest

from executor.errors import Abstained
from executor.job import Execution, Job, ModelRef
from node.errors import Busy
from node.execution.fair_queue import QueuedTask
from node.execution.queue import DISK_RETRY_SECONDS, ExecutionQueue, Readiness
from node.execution.queues import ExecutionQueues
from node.execution.staging import InputStaging
from protocol.network import Model
from protocol.wire.messages import Abstention, Task
from tests.simulation import virtual_loop
from tests.support import fixtures

NET = fixtures.network()
RESULT = Execution({"error": "generation-rejected"}, (), {"seconds": 1})
SECONDS = 10.0  # that a job takes, in virtual time


class FakeExecutor:
    """An executor that records its jobs, and the results that the queue gives."""

    def __init__(self) -> None:
        self.readiness = Readiness(True)
        self.max_together = 1
        self.raises: BaseException | None = None
        self.alive = True
        self.starts: list[float] = []  # when they ended
        self.jobs: list[tuple[Job, float]] = []
        self.events: list[tuple[str, object]] = []
        self.counts: Counter[str] = Counter()

    async def start(self) -> Readiness:
        await asyncio.sleep(1)
        self.starts.append(asyncio.get_running_loop().time())
        return self.readiness

    async def warm(self, model: Model) -> None:
        """Every model is warm at once."""
        self.events.append(("warm", model.id))

    def is_alive(self) -> bool:
        return self.alive

    async def run(self, job: Job, seconds: float, progress: Callable[[float], None]) -> Execution:
        self.jobs.append((job, seconds))
        self.events.append(("run", job.task))
        try:
            progress(0.5)
            await asyncio.sleep(SECONDS)
        except asyncio.CancelledError:
            self.events.append(("cancelled", job.task))
            raise
        if self.raises is not None:
            raise self.raises
        return RESULT

    async def close(self) -> None:
        return

    async def record(self, task: Task, result: Execution | Abstention) -> None:
        if isinstance(result, Abstention):
            self.events.append((str(result), task.id))
            return
        assert result is RESULT
        await asyncio.sleep(1)  # files are moved
        self.events.append(("executed", task.id))

    def progressed(self, task: str, fraction: float) -> None:
        self.events.append(("progressed", (task, fraction)))

    def add(self, queue: ExecutionQueue, queued: QueuedTask) -> None:
        evicted = queue.add(queued)
        if evicted is not None:
            self.events.append(("busy", evicted.id))

    def events_of(self, *kinds: str) -> list[tuple[str, object]]:
        return [(kind, what) for kind, what in self.events if kind in kinds]


Test = Callable[[ExecutionQueue, FakeExecutor], Awaitable[None]]


def task(number: int, requester: int = 1000) -> Task:
    return fixtures.task(NET, nonce=number, requester=requester)


def queued_task(number: int, seconds: float = 600, requester: int = 1000) -> QueuedTask:
    return QueuedTask(task(number, requester), fixtures.START + seconds)


@asynccontextmanager
async def working(
    queue: ExecutionQueue, executor: FakeExecutor
) -> AsyncIterator[asyncio.Task[None]]:
    worker = asyncio.create_task(queue.run(executor.record))
    try:
        yield worker
    finally:
        worker.cancel()
        with suppress(asyncio.CancelledError):
            await worker


def queue_of(
    executor: FakeExecutor,
    max_queue: int = 2,
    models: tuple[str, ...] = (),
    disk_fault: Callable[[], str | None] = lambda: None,
    *,
    on_demand: bool = False,
) -> ExecutionQueue:
    clock = virtual_loop.VirtualClock(asyncio.get_running_loop(), fixtures.START)
    return ExecutionQueue(
        NET,
        executor,
        clock,
        max_queue,
        executor.progressed,
        executor.counts,
        models,
        disk_fault,
        on_demand=on_demand,
    )


def run_test(
    test: Test,
    executor: FakeExecutor | None = None,
    max_queue: int = 2,
    models: tuple[str, ...] = (),
) -> None:
    async def main() -> None:
        fake = executor or FakeExecutor()
        queue = queue_of(fake, max_queue, models=models)
        async with working(queue, fake):
            await asyncio.sleep(1.5)
            await test(queue, fake)

    virtual_loop.run(main)


def test_tasks_of_one_requester_run_one_at_a_time_in_order() -> None:
    async def test(queue: ExecutionQueue, executor: FakeExecutor) -> None:
        numbers = [3, 1, 2]
        for number in numbers:
            executor.add(queue, queued_task(number))
        await asyncio.sleep(60)
        ids = [task(number).id for number in numbers]
        expected = [event for id_ in ids for event in (("run", id_), ("executed", id_))]
        assert executor.events_of("run", "executed") == expected

    run_test(test, max_queue=3)


def test_requesters_are_scheduled_round_robin() -> None:
    async def test(queue: ExecutionQueue, executor: FakeExecutor) -> None:
        expected_order = [
            (1, 1000),
            (2, 1000),
            (3, 1000),
            (4, 1000),
            (5, 1001),
            (6, 1002),
            (7, 1001),
        ]
        for number, requester in expected_order:
            executor.add(queue, queued_task(number, requester=requester))
        await asyncio.sleep(100)
        turns = [(1, 1000), (5, 1001), (6, 1002), (2, 1000), (7, 1001), (3, 1000), (4, 1000)]
        expected = [("run", task(number, requester).id) for number, requester in turns]
        assert executor.events_of("run") == expected

    run_test(test, max_queue=9)


def test_a_full_queue_evicts_the_newest_task_of_the_largest_requester() -> None:
    async def test(queue: ExecutionQueue, executor: FakeExecutor) -> None:
        for number in range(1, 5):  # one runs, two wait
            executor.add(queue, queued_task(number))
            await asyncio.sleep(0.1)
        executor.add(queue, queued_task(5, requester=1001))
        executor.add(queue, queued_task(6, requester=1001))
        assert executor.events_of("busy") == [
            ("busy", task(4).id),
            ("busy", task(3).id),
            ("busy", task(6, 1001).id),
        ]

    run_test(test)


def test_the_job_is_built_from_the_task_and_the_network_document() -> None:
    async def test(queue: ExecutionQueue, executor: FakeExecutor) -> None:
        files = (Path("song.wav"),)
        executor.add(queue, replace(queued_task(1, seconds=101.5), inputs=files))
        await asyncio.sleep(1)
        ((job, seconds),) = executor.jobs
        limits = MappingProxyType({"max_new_tokens": 1503, "num_return_sequences": 4})
        model = ModelRef(fixtures.MODEL, "main", "d" * 64, limits)
        assert job == Job(task(1).id, "text-to-music", fixtures.args(), model, files)
        assert seconds == pytest.approx(100)
        assert executor.events_of("progressed") == [("progressed", (task(1).id, 0.5))]

    run_test(test)


def test_a_task_is_queued_and_run_once() -> None:
    async def test(queue: ExecutionQueue, executor: FakeExecutor) -> None:
        for number in (1, 2):
            executor.add(queue, queued_task(number))
        await asyncio.sleep(1)
        for number in (1, 2):  # the one runs, the other waits
            executor.add(queue, queued_task(number))
        await asyncio.sleep(60)
        assert len(executor.jobs) == 2
        executor.add(queue, queued_task(1))  # a third attempt at it is a new run
        await asyncio.sleep(60)
        assert len(executor.jobs) == 3

    run_test(test)


def test_a_task_evicted_from_a_full_queue_is_returned() -> None:
    async def test(queue: ExecutionQueue, executor: FakeExecutor) -> None:
        executor.add(queue, queued_task(0))
        await asyncio.sleep(1)  # it runs; two may wait
        for number in (1, 2, 3):
            executor.add(queue, queued_task(number))
        assert executor.events_of("busy") == [("busy", task(3).id)]
        await asyncio.sleep(60)
        assert [job.task for job, _ in executor.jobs] == [task(n).id for n in (0, 1, 2)]

    run_test(test)


def test_a_removed_task_is_not_run() -> None:
    async def test(queue: ExecutionQueue, executor: FakeExecutor) -> None:
        for number in (1, 2):
            executor.add(queue, queued_task(number))
        await asyncio.sleep(1)
        queue.remove(task(2).id)
        queue.remove(task(9).id)  # never heard of
        await asyncio.sleep(60)
        assert [job.task for job, _ in executor.jobs] == [task(1).id]
        assert executor.events_of("executed", "cancelled") == [("executed", task(1).id)]

    run_test(test)


def test_removing_the_running_task_cancels_it_and_runs_the_next() -> None:
    async def test(queue: ExecutionQueue, executor: FakeExecutor) -> None:
        for number in (1, 2):
            executor.add(queue, queued_task(number))
        await asyncio.sleep(1)
        queue.remove(task(1).id)
        await asyncio.sleep(60)
        first, second = task(1).id, task(2).id
        assert executor.events_of("run", "cancelled", "executed", *Abstention) == [
            ("run", first),
            ("cancelled", first),
            ("run", second),
            ("executed", second),
        ]

    run_test(test)


@pytest.mark.parametrize("reason", list(Abstention))
def test_every_abstention_is_recorded_and_the_next_task_runs(reason: Abstention) -> None:
    async def test(queue: ExecutionQueue, executor: FakeExecutor) -> None:
        executor.raises = Abstained(reason, "in detail")
        executor.add(queue, queued_task(1))
        await asyncio.sleep(SECONDS + 1)
        executor.raises = None
        executor.add(queue, queued_task(2))
        await asyncio.sleep(SECONDS + 2)
        assert executor.events_of("executed", *Abstention) == [
            (reason, task(1).id),
            ("executed", task(2).id),
        ]

    run_test(test)


def test_a_task_whose_time_passed_in_the_queue_is_not_run() -> None:
    async def test(queue: ExecutionQueue, executor: FakeExecutor) -> None:
        executor.add(queue, queued_task(1))
        executor.add(queue, queued_task(2, seconds=5))
        await asyncio.sleep(60)
        assert [job.task for job, _ in executor.jobs] == [task(1).id]
        assert executor.events_of("timeout") == [("timeout", task(2).id)]

    run_test(test)


def test_an_executor_that_is_not_ready_runs_nothing() -> None:
    async def test(queue: ExecutionQueue, executor: FakeExecutor) -> None:
        assert queue.readiness == Readiness(False, ("runtime: torch: ours 1, theirs 2",))
        executor.add(queue, queued_task(1))
        await asyncio.sleep(1)
        assert executor.events_of("busy") == [("busy", task(1).id)]
        assert not executor.jobs

    executor = FakeExecutor()
    executor.readiness = Readiness(False, ("runtime: torch: ours 1, theirs 2",))
    run_test(test, executor)


def test_tasks_wait_for_the_self_test_of_the_executor() -> None:
    async def main() -> None:
        executor = FakeExecutor()
        queue = queue_of(executor)
        assert not queue.readiness.ok
        assert "starting" in queue.readiness.reasons[0]
        async with working(queue, executor):
            executor.add(queue, queued_task(1))
            await asyncio.sleep(0.5)
            assert not executor.events
            await asyncio.sleep(1)
            assert executor.events_of("run")
            assert queue.readiness.ok

    virtual_loop.run(main)


def test_an_executor_on_demand_starts_with_the_first_task() -> None:
    async def main() -> None:
        executor = FakeExecutor()
        queue = queue_of(executor, models=(fixtures.MODEL,), on_demand=True)
        async with working(queue, executor):
            await asyncio.sleep(3600)
            assert not executor.events
            assert queue.why_not_ready() == ("idle: the executor starts with the first task",)
            assert not queue.abstains
            executor.add(queue, queued_task(1, seconds=7200))
            await asyncio.sleep(0.5)
            assert "starting" in queue.why_not_ready()[0]
            await asyncio.sleep(60)
            assert executor.events_of("run") == [("run", task(1).id)]
            assert queue.warm_models == (fixtures.MODEL,)

    virtual_loop.run(main)


def test_a_class_that_cannot_serve_lets_the_next_one_start() -> None:
    """Clients give tasks to nodes that are ready: else no task would ever start the other."""

    async def main() -> None:
        unfit, fit, idle = FakeExecutor(), FakeExecutor(), FakeExecutor()
        unfit.readiness = Readiness(False, ("runtime: torch: ours 1, theirs 2",))
        queues = {
            "first": queue_of(unfit, models=(fixtures.MODEL,)),
            "second": queue_of(fit, models=(fixtures.MODEL,), on_demand=True),
            "third": queue_of(idle, models=(fixtures.MODEL,), on_demand=True),
        }
        fetched: dict[str, str] = {}
        staging = InputStaging(lambda *_: fetched, 8, Counter())  # type: ignore[arg-type]
        executing = ExecutionQueues(queues, staging)
        running = asyncio.create_task(executing.run(fit.record))
        await asyncio.sleep(60)
        status = executing.status()
        assert status.models == {"first": (), "second": (fixtures.MODEL,), "third": ()}
        assert not status.reasons
        assert not idle.events
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running

    virtual_loop.run(main)


def test_an_executor_on_demand_warms_only_models_of_waiting_tasks() -> None:
    async def main() -> None:
        executor = FakeExecutor()
        queue = queue_of(executor, models=(fixtures.MODEL, "acme/other"), on_demand=True)
        async with working(queue, executor):
            executor.add(queue, queued_task(1, seconds=7200))
            await asyncio.sleep(3600)
            assert queue.warm_models == (fixtures.MODEL,)

    virtual_loop.run(main)


def test_a_withdrawn_task_does_not_start_an_executor_on_demand() -> None:
    async def main() -> None:
        executor = FakeExecutor()
        queue = queue_of(executor, on_demand=True)
        async with working(queue, executor):
            executor.add(queue, queued_task(1))
            queue.remove(task(1).id)
            await asyncio.sleep(60)
            assert "idle" in queue.why_not_ready()[0]

    virtual_loop.run(main)


@pytest.mark.parametrize("fault", [RuntimeError("a bug"), OSError("no space left")])
def test_an_unexpected_exception_ends_the_queue(fault: BaseException) -> None:
    async def main() -> None:
        executor = FakeExecutor()
        executor.raises = fault
        queue = queue_of(executor)
        executor.add(queue, queued_task(1))
        with pytest.raises(type(fault), match=str(fault)):
            await queue.run(executor.record)
        assert executor.events_of("executed", *Abstention) == []

    virtual_loop.run(main)


def test_cancelling_the_queue_cancels_the_running_job() -> None:
    async def main() -> None:
        executor = FakeExecutor()
        queue = queue_of(executor)
        async with working(queue, executor):
            executor.add(queue, queued_task(1))
            await asyncio.sleep(3)
        assert executor.events_of("cancelled") == [("cancelled", task(1).id)]

    virtual_loop.run(main)


# Fairness by source, then by requester


def queued_from(number: int, source: str, requester: int = 1000) -> QueuedTask:
    return replace(queued_task(number, requester=requester), source=source)


async def started_tasks(executor: FakeExecutor, count: int) -> list[str]:
    """Run `count` jobs in virtual time; return their tasks in order."""
    await asyncio.sleep(count * (SECONDS + 1))
    return [job.task for job, _ in executor.jobs[:count]]


def test_new_requester_keys_gain_a_source_no_turns() -> None:
    async def test(queue: ExecutionQueue, executor: FakeExecutor) -> None:
        for number in range(8):
            executor.add(queue, queued_from(number, "flooder", requester=2000 + number))
        for number in (50, 51):
            executor.add(queue, queued_from(number, "honest"))
        started = await started_tasks(executor, 6)
        assert started == [
            task(0, 2000).id,
            task(50).id,
            task(1, 2001).id,
            task(51).id,
            task(2, 2002).id,
            task(3, 2003).id,
        ]

    run_test(test, max_queue=20)


def test_requesters_of_one_source_are_scheduled_round_robin() -> None:
    async def test(queue: ExecutionQueue, executor: FakeExecutor) -> None:
        for number in range(4):
            executor.add(queue, queued_from(number, "member"))
        executor.add(queue, queued_from(9, "member", requester=1001))
        assert (await started_tasks(executor, 3))[1] == task(9, 1001).id

    run_test(test, max_queue=20)


def test_more_sources_gain_a_requester_no_turns() -> None:
    async def test(queue: ExecutionQueue, executor: FakeExecutor) -> None:
        for number in range(8):
            executor.add(queue, queued_from(number, f"member {number % 3}"))
        for number in (50, 51):
            executor.add(queue, queued_from(number, "honest", requester=1001))
        assert {task(50, 1001).id, task(51, 1001).id} <= {*await started_tasks(executor, 4)}

    run_test(test, max_queue=20)


def test_a_new_source_does_not_overtake_waiting_tasks() -> None:
    async def test(queue: ExecutionQueue, executor: FakeExecutor) -> None:
        executor.add(queue, queued_from(1, "known"))
        executor.add(queue, queued_from(2, "known"))
        await asyncio.sleep(1)  # the first is running
        for number in range(10, 15):
            executor.add(queue, queued_from(number, f"new {number}"))
        assert (await started_tasks(executor, 2))[1] == task(2).id

    run_test(test, max_queue=20)


def test_a_full_queue_evicts_the_newest_task_of_the_largest_source() -> None:
    async def test(queue: ExecutionQueue, executor: FakeExecutor) -> None:
        for number in range(4):
            executor.add(queue, queued_from(number, "flooder", requester=2000 + number))
        for number in (50, 51):
            executor.add(queue, queued_from(number, "honest"))  # of one requester, who has most
        assert executor.events_of("busy") == [
            ("busy", task(3, 2003).id),
            ("busy", task(2, 2002).id),
        ]
        assert executor.counts == {"tasks-evicted": 2}

    run_test(test, max_queue=4)


# Cost


def test_a_job_runs_for_the_attempt_seconds_of_its_model_at_most() -> None:
    async def test(queue: ExecutionQueue, executor: FakeExecutor) -> None:
        for number in (1, 2):  # the second one waits, and has as long from its start
            executor.add(queue, queued_task(number, seconds=3000))
        await asyncio.sleep(30)
        assert [seconds for _, seconds in executor.jobs] == [NET.parameters.attempt_seconds] * 2

    run_test(test)


def test_a_cheap_task_passes_the_heavy_tasks_of_an_outsider() -> None:
    async def test(queue: ExecutionQueue, executor: FakeExecutor) -> None:
        heavy = [
            QueuedTask(costly_task(number, 1000), fixtures.START + 3000, "outsider")
            for number in range(8)
        ]
        for queued in heavy:
            executor.add(queue, queued)
        await asyncio.sleep(1)  # the first one runs
        executor.add(queue, QueuedTask(costly_task(50, 10, 1001), fixtures.START + 3000, "honest"))
        assert (await started_tasks(executor, 2))[1] == costly_task(50, 10, 1001).id

    run_test(test, max_queue=20)


def costly_task(number: int, tokens: int, requester: int = 1000) -> Task:
    config = {"max_new_tokens": tokens}
    return fixtures.task(NET, nonce=number, requester=requester, generation_config=config)


def test_a_deadline_shorter_than_the_estimate_is_refused_with_both_numbers() -> None:
    async def test(queue: ExecutionQueue, executor: FakeExecutor) -> None:
        brief = fixtures.task(NET, nonce=50, deadline=25)
        queue.check_deadline(brief, "client")  # nothing is measured yet
        executor.add(queue, queued_task(1))
        await asyncio.sleep(SECONDS + 2)
        left = brief.expires_at - fixtures.START - 13.5  # the start took 1 s, the test began then
        assert left == pytest.approx(25 - 13.5)
        queue.check_deadline(brief, "client")
        executor.add(queue, queued_task(2))
        await asyncio.sleep(2)
        with pytest.raises(
            Busy, match=r"expires in 9\.5 s; .* about 10\.0 s for it, after 8\.0 s for tasks before"
        ):
            queue.check_deadline(brief, "client")

    run_test(test)


def test_models_are_warmed_up_again_only_if_a_stopped_job_has_ended_its_worker() -> None:
    async def test(queue: ExecutionQueue, executor: FakeExecutor) -> None:
        for alive, warm_ups in ((True, 1), (False, 2)):
            executor.add(queue, queued_task(1))
            await asyncio.sleep(1)
            executor.alive = alive
            queue.remove(task(1).id)
            await asyncio.sleep(1)
            assert len(executor.events_of("warm")) == warm_ups

    run_test(test, models=(fixtures.MODEL,))


def test_a_start_that_fails_is_tried_again_with_back_off_and_tasks_abstain_meanwhile() -> None:
    async def main() -> None:
        executor = FakeExecutor()
        why = "self-test: the worker died, exit code -9"
        executor.readiness = Readiness(False, (why,), retry=True)
        queue, clock = queue_of(executor), asyncio.get_running_loop()
        async with working(queue, executor):
            await asyncio.sleep(2)
            assert queue.why_not_ready() == (f"{why}; start 1 failed, the next one is in 10 s",)
            executor.add(queue, queued_task(1))
            await asyncio.sleep(1)
            assert executor.events_of("busy") == [("busy", task(1).id)]
            await asyncio.sleep(60)
            starts = [1.0, 12.0, 33.0]  # a start takes 1 s; the pauses are 10 and 20 s, then 40
            assert [round(ended, 3) for ended in executor.starts] == starts
            executor.readiness = Readiness(True)
            await asyncio.sleep(15)
            assert queue.readiness.ok
            executor.add(queue, queued_task(2))
            await asyncio.sleep(SECONDS + 2)
            assert executor.events_of("executed") == [("executed", task(2).id)]
            assert clock.time() < 100

    virtual_loop.run(main)


def test_a_machine_of_another_class_is_not_started_again() -> None:
    async def test(queue: ExecutionQueue, executor: FakeExecutor) -> None:
        await asyncio.sleep(5000)
        assert len(executor.starts) == 1

    executor = FakeExecutor()
    executor.readiness = Readiness(False, ("runtime: torch: ours 1, theirs 2",))
    run_test(test, executor)


FULL = "the disk is full"


def test_a_full_disk_delays_the_start_and_every_task_abstains_for_no_space() -> None:
    async def main() -> None:
        executor, faults = FakeExecutor(), [FULL]
        queue = queue_of(executor, disk_fault=lambda: faults[0] if faults else None)
        async with working(queue, executor):
            for number in (1, 2):
                executor.add(queue, queued_task(number))
                await asyncio.sleep(1)
            assert executor.events == [("no-space", task(1).id), ("no-space", task(2).id)]
            await asyncio.sleep(100)
            assert executor.starts == []
            faults.clear()
            await asyncio.sleep(DISK_RETRY_SECONDS + 1)
            executor.add(queue, queued_task(3))
            await asyncio.sleep(SECONDS + 2)
            assert executor.events_of("executed") == [("executed", task(3).id)]

    virtual_loop.run(main)


def test_no_model_is_warmed_up_while_the_disk_is_full() -> None:
    async def main() -> None:
        executor, faults = FakeExecutor(), list[str]()
        queue = queue_of(
            executor, models=(fixtures.MODEL,), disk_fault=lambda: next(iter(faults), None)
        )
        async with working(queue, executor):
            await asyncio.sleep(5)
            assert executor.events == [("warm", fixtures.MODEL)]
            executor.alive = False  # the next job finds its worker dead: all models are cold
            executor.add(queue, queued_task(1))
            await asyncio.sleep(5)
            faults.append(FULL)
            await asyncio.sleep(SECONDS + 100)
            assert executor.events_of("warm") == [("warm", fixtures.MODEL)]
            executor.add(queue, queued_task(2))
            await asyncio.sleep(1)
            assert executor.events_of("no-space") == [("no-space", task(2).id)]
            faults.clear()
            await asyncio.sleep(DISK_RETRY_SECONDS + 1)
            assert executor.events_of("warm") == [("warm", fixtures.MODEL)] * 2

    virtual_loop.run(main)
