"""Models are warmed up before their first task, and hello lists those that are warm."""

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from executor.errors import Abstained
from executor.job import Execution, Job
from executor.models.folders import SHIPPED, weights_digest
from executor.worker.supervisor import WorkerSupervisor
from node.execution.fair_queue import QueuedTask
from node.execution.queue import IDLE_SECONDS, ExecutionQueue, Readiness
from node.execution.queues import ExecutionQueues
from node.execution.staging import InputStaging
from node.execution.warm_up import warm_up_jobs
from node.execution.worker import Worker
from protocol.network import Model, Network
from protocol.wire.encoding import canonical
from protocol.wire.messages import Abstention, Task
from tests.simulation import virtual_loop
from tests.support import fixtures

QUICK, SLOW, BROKEN = "acme/quick", "acme/slow", "acme/broken"
WARM_SECONDS = {QUICK: 1.0, SLOW: 100.0, BROKEN: 1.0}
RESULT = Execution({"error": "generation-rejected"}, (), {})


def network_of(*names: str, classes: tuple[str, ...] = (fixtures.CLASS,)) -> Network:
    document = fixtures.network_document(1, committee_size=1)
    [model] = document["models"]
    document["models"] = [{**model, "id": name} for name in names]
    document["classes"] = {name: {"device": name} for name in classes}
    document["roster"][0]["classes"] = list(classes)
    return Network.parse(canonical(document))


NET = network_of(QUICK, SLOW, BROKEN)


class FakeExecutor:
    """Takes the time of `WARM_SECONDS` to warm up a model, and 10 s for a job."""

    max_together = 1

    def __init__(self, readiness: Readiness | None = None) -> None:
        self.readiness = readiness or Readiness(True)
        self.events: list[tuple[str, str]] = []
        self.raises: Abstained | None = None
        self.alive = True

    async def start(self) -> Readiness:
        return self.readiness

    async def warm(self, model: Model) -> None:
        await asyncio.sleep(WARM_SECONDS[model.id])
        if model.id == BROKEN:
            raise Abstained(Abstention.MODEL_MISSING, "another digest")
        self.events.append(("warm", model.id))

    def is_alive(self) -> bool:
        return self.alive

    async def run(self, job: Job, seconds: float, progress: Callable[[float], None]) -> Execution:
        self.events.append(("run", job.model.id))
        await asyncio.sleep(10)
        if self.raises is not None:
            raise self.raises
        return RESULT

    async def close(self) -> None:
        return


async def no_inputs(task: Task, source: str) -> tuple[Path, ...]:
    return ()


def queue_of(executor: FakeExecutor, models: tuple[str, ...], net: Network = NET) -> ExecutionQueue:
    clock = virtual_loop.VirtualClock(asyncio.get_running_loop(), fixtures.START)
    return ExecutionQueue(net, executor, clock, 8, lambda task, share: None, Counter(), models)


def queued(model: str, nonce: int = 0) -> QueuedTask:
    return QueuedTask(fixtures.task(NET, nonce=nonce, model=model), fixtures.START + 3600)


def play(
    test: Callable[[ExecutionQueue, FakeExecutor], object],
    *models: str,
    executor: FakeExecutor | None = None,
) -> None:
    async def main() -> None:
        fake = executor or FakeExecutor()
        queue = queue_of(fake, models)

        async def record(task: Task, result: Execution | Abstention) -> None:
            name = "executed" if result is RESULT else str(result)
            fake.events.append((name, task.model))

        running = asyncio.create_task(queue.run(record))
        try:
            await test(queue, fake)  # type: ignore[misc]  # a coroutine function
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running

    virtual_loop.run(main)


def test_models_are_warmed_up_in_order_and_listed_once_warm() -> None:
    async def test(queue: ExecutionQueue, executor: FakeExecutor) -> None:
        assert list(queue.warm_models) == []
        await asyncio.sleep(1.5)
        assert list(queue.warm_models) == [QUICK]
        assert queue.why_not_ready() == ()
        await asyncio.sleep(IDLE_SECONDS + 99)
        assert list(queue.warm_models) == [QUICK]
        await asyncio.sleep(1)
        assert list(queue.warm_models) == [QUICK, SLOW]

    play(test, QUICK, SLOW)


def test_a_task_of_a_cold_model_waits_for_its_warm_up_only() -> None:
    async def test(queue: ExecutionQueue, executor: FakeExecutor) -> None:
        await asyncio.sleep(0.5)
        queue.add(queued(BROKEN))
        queue.add(queued(SLOW))
        queue.add(queued(QUICK))
        await asyncio.sleep(300)
        assert executor.events == [
            ("warm", QUICK),
            ("run", QUICK),
            ("executed", QUICK),
            ("warm", SLOW),
            ("run", SLOW),
            ("executed", SLOW),
            ("run", BROKEN),  # the run gives the reason of its abstention
            ("executed", BROKEN),
        ]

    play(test, QUICK, SLOW, BROKEN)


def test_a_task_of_a_warm_model_comes_before_further_warm_ups() -> None:
    async def test(queue: ExecutionQueue, executor: FakeExecutor) -> None:
        await asyncio.sleep(IDLE_SECONDS)
        queue.add(queued(QUICK))
        await asyncio.sleep(12)
        assert executor.events == [("warm", QUICK), ("run", QUICK), ("executed", QUICK)]

    play(test, QUICK, SLOW)


def test_the_model_of_a_waiting_task_is_warmed_up_first() -> None:
    async def test(queue: ExecutionQueue, executor: FakeExecutor) -> None:
        queue.add(queued(SLOW))
        await asyncio.sleep(300)
        assert executor.events[:2] == [("warm", SLOW), ("run", SLOW)]

    play(test, QUICK, SLOW)


def test_a_model_that_cannot_be_warmed_up_is_not_listed() -> None:
    async def test(queue: ExecutionQueue, executor: FakeExecutor) -> None:
        await asyncio.sleep(10)
        assert list(queue.warm_models) == []
        failed = "failed, the next one is in"
        why = "model-missing: another digest"
        assert queue.why_not_ready() == (f"{BROKEN}: warm-up 1 {failed} 10 s: {why}",)
        await asyncio.sleep(20)
        assert queue.why_not_ready() == (f"{BROKEN}: warm-up 2 {failed} 20 s: {why}",)

    play(test, BROKEN)


def test_a_node_without_listed_models_says_so() -> None:
    async def test(queue: ExecutionQueue, executor: FakeExecutor) -> None:
        await asyncio.sleep(1)
        assert queue.why_not_ready() == ("no listed model is on disk",)

    play(test)


def test_models_are_cold_again_when_the_worker_has_ended() -> None:
    async def test(queue: ExecutionQueue, executor: FakeExecutor) -> None:
        await asyncio.sleep(2)
        executor.raises, executor.alive = Abstained(Abstention.WORKER_DIED, "killed"), False
        queue.add(queued(QUICK))
        await asyncio.sleep(10.5)
        assert list(queue.warm_models) == []
        assert queue.why_not_ready() == (f"warming up: {QUICK}",)
        await asyncio.sleep(2)
        assert list(queue.warm_models) == [QUICK]

    play(test, QUICK)


def test_models_are_cold_again_when_a_stopped_job_has_ended_the_worker() -> None:
    async def test(queue: ExecutionQueue, executor: FakeExecutor) -> None:
        await asyncio.sleep(2)
        task = queued(QUICK)
        queue.add(task)
        await asyncio.sleep(1)
        executor.alive = False
        queue.remove(task.task.id)
        await asyncio.sleep(0.5)
        assert list(queue.warm_models) == []

    play(test, QUICK)


def test_nothing_is_warmed_up_by_an_executor_that_is_not_ready() -> None:
    async def test(queue: ExecutionQueue, executor: FakeExecutor) -> None:
        queue.add(queued(QUICK))
        await asyncio.sleep(10)
        assert executor.events == [("busy", QUICK)]
        assert list(queue.warm_models) == []
        assert queue.why_not_ready() == ("runtime: torch",)

    play(test, QUICK, executor=FakeExecutor(Readiness(False, ("runtime: torch",))))


def test_each_class_has_a_queue_and_a_readiness_of_its_own() -> None:
    async def main() -> None:
        net = network_of(QUICK, classes=("cpu", "gpu"))
        cpu, gpu = FakeExecutor(), FakeExecutor(Readiness(False, ("runtime: libc",)))
        queues = ExecutionQueues(
            {
                "cpu": queue_of(cpu, (QUICK,), net),
                "gpu": queue_of(gpu, (QUICK,), net),
            },
            InputStaging(no_inputs, 8, Counter()),
        )
        results: list[tuple[str, object]] = []

        async def record(task: Task, result: Execution | Abstention) -> None:
            results.append((task.compute_class, result))

        assert queues.status().reasons == [
            "class cpu: starting: the executor has not tested itself yet",
            "class gpu: starting: the executor has not tested itself yet",
        ]
        running = asyncio.create_task(queues.run(record))
        for name in ("cpu", "gpu"):
            task = fixtures.task(net, model=QUICK, compute_class=name)
            assert queues.add(QueuedTask(task, fixtures.START + 600)) is None
        await asyncio.sleep(20)
        assert sorted(results, key=str) == [("cpu", RESULT), ("gpu", Abstention.BUSY)]
        assert queues.status().models == {"cpu": (QUICK,), "gpu": ()}
        assert queues.status().reasons == ()
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running

    virtual_loop.run(main)


@pytest.mark.parametrize(
    ("limits", "config"),
    [
        ({}, {"max_new_tokens": 8}),
        ({"max_new_tokens": 3}, {"max_new_tokens": 3}),
        ({"generation_config": ["max_new_tokens"]}, {"max_new_tokens": 8}),
        ({"generation_config": []}, None),
    ],
)
def test_a_warm_up_job_keeps_to_the_limits_of_its_model(
    limits: dict[str, object], config: object, tmp_path: Path
) -> None:
    model = Model("acme/voice", "1", "d" * 64, ("text-to-music",), limits, None)  # type: ignore[arg-type]
    [job] = warm_up_jobs(model, tmp_path)
    assert job.args.get("generation_config") == config
    assert job.inputs == ()


async def test_a_real_worker_is_warm_for_the_shipped_models(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    worker = Worker(WorkerSupervisor([SHIPPED], scratch), {})
    try:
        assert not (await worker.start()).ok  # no runtime was given
        for name, kind in (
            ("helium/embedded-music", "text-to-music"),
            ("helium/embedded-pop2piano", "pop2piano"),
        ):
            digest = weights_digest(SHIPPED / name)
            await worker.warm(Model(name, "1", digest, (kind,), {}, None))
            with pytest.raises(Abstained):
                await worker.warm(Model(name, "1", "0" * 64, (kind,), {}, None))
        assert [path for path in scratch.iterdir() if path.is_file()] == []
    finally:
        await worker.close()
