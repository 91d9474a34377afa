"""The execution queue in front of an executor that runs several jobs of a model together."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from executor.errors import RunAlone
from executor.job import Execution, Job
from node.errors import Busy
from node.execution.fair_queue import QueuedTask
from node.execution.queue import ExecutionQueue, Readiness
from tests.node.execution.test_queue import NET, SECONDS, FakeExecutor, Test, run_test
from tests.support import fixtures

LONG = "long"  # the prompt of a task of twice the time


class Together(FakeExecutor):
    """It runs up to four sequences together, and notes when each job begins and ends."""

    def __init__(self) -> None:
        super().__init__()
        self.max_together = 4
        self.begun: list[tuple[float, str]] = []
        self.ended: list[tuple[float, str]] = []

    async def run(self, job: Job, seconds: float, progress: Callable[[float], None]) -> Execution:
        loop = asyncio.get_running_loop()
        self.begun.append((loop.time(), job.task))
        if job.args["prompt"] == LONG:
            await asyncio.sleep(SECONDS)
        execution = await super().run(job, seconds, progress)
        self.ended.append((loop.time(), job.task))
        return execution

    def groups(self) -> list[list[str]]:
        """The tasks that began at the same time, group by group."""
        groups: dict[float, list[str]] = {}
        for begun, name in self.begun:
            groups.setdefault(begun, []).append(name)
        return [*groups.values()]


def queued(
    number: int,
    *,
    requester: int = 1000,
    source: str = "",
    seconds: float = 600,
    **changes: Any,
) -> QueuedTask:
    task = fixtures.task(NET, nonce=number, requester=requester, **changes)
    return QueuedTask(task, fixtures.START + seconds, source)


def tokens(sequences: int) -> dict[str, int]:
    return {"max_new_tokens": 100, "num_return_sequences": sequences}


def run(test: Test, executor: FakeExecutor | None = None) -> None:
    run_test(test, executor or Together(), max_queue=20)


async def groups_of(
    queue: ExecutionQueue, executor: FakeExecutor, tasks: list[QueuedTask]
) -> list[list[int]]:
    """Add tasks at once; return the places of those that began together."""
    assert isinstance(executor, Together)
    for one in tasks:
        executor.add(queue, one)
    await asyncio.sleep(len(tasks) * 3 * SECONDS)
    places = {one.task.id: place for place, one in enumerate(tasks)}
    return [[places[name] for name in group] for group in executor.groups()]


@pytest.mark.parametrize(
    ("sources", "groups"),
    [
        ("ffffff", [[0, 1, 2, 3], [4, 5]]),
        ("abcdef", [[0, 1, 2, 3], [4, 5]]),
        # A flood gives one task of its own to each of others.
        ("ffffffab", [[0, 6, 7], [1, 2, 3, 4], [5]]),
        ("ffffffaaa", [[0, 6], [1, 7], [2, 8], [3, 4, 5]]),
    ],
)
def test_tasks_of_one_source_run_together_or_one_of_each(
    sources: str, groups: list[list[int]]
) -> None:
    async def test(queue: ExecutionQueue, executor: FakeExecutor) -> None:
        tasks = [queued(n, source=one, requester=2000 + n) for n, one in enumerate(sources)]
        assert await groups_of(queue, executor, tasks) == groups

    run(test)


class Small(Together):
    """It has no room for prompts of the letter x beside others."""

    async def run(self, job: Job, seconds: float, progress: Callable[[float], None]) -> Execution:
        begun = asyncio.get_running_loop().time()
        self.begun.append((begun, job.task))
        await asyncio.sleep(0.5)
        if job.args["prompt"] == "x" and len(self.groups()[-1]) > 1:
            raise RunAlone("the worker could not run it beside the others")
        return await FakeExecutor.run(self, job, seconds, progress)


def test_what_does_not_fit_runs_alone_afterwards_and_has_its_whole_time() -> None:
    executor = Small()

    async def test(queue: ExecutionQueue, executor: FakeExecutor) -> None:
        asked = [queued(0), queued(1, prompt="x"), queued(2), queued(3, prompt="x"), queued(4)]
        groups = await groups_of(queue, executor, asked)
        assert groups == [[0, 1, 2, 3], [1], [3], [4]]
        assert len(executor.events_of("executed")) == 5
        seconds = {NET.attempt_seconds(one.task) for one in asked}
        assert {given for _, given in executor.jobs} == seconds

    run(test, executor)


def test_what_is_to_run_alone_can_be_removed() -> None:
    executor = Small()

    async def test(queue: ExecutionQueue, executor: FakeExecutor) -> None:
        asked = [queued(0), queued(1, prompt="x")]
        for one in asked:
            executor.add(queue, one)
        await asyncio.sleep(1)  # it waits again, and the other one runs
        assert queue.remove_waiting(asked[1].task.id)
        await asyncio.sleep(5 * SECONDS)
        assert executor.events_of("executed") == [("executed", asked[0].task.id)]

    run(test, executor)


def test_a_task_does_not_wait_for_others_and_none_joins_it_later() -> None:
    async def test(queue: ExecutionQueue, executor: FakeExecutor) -> None:
        assert isinstance(executor, Together)
        executor.add(queue, queued(0))
        await asyncio.sleep(0.5)
        assert len(executor.begun) == 1
        for number in (1, 2):
            executor.add(queue, queued(number))
        await asyncio.sleep(5 * SECONDS)
        assert [len(group) for group in executor.groups()] == [1, 2]

    run(test)


@pytest.mark.parametrize(
    ("tasks", "groups"),
    [
        ([{}, {"generation_config": tokens(2)}, {}, {}], [[0, 1, 2], [3]]),
        ([{"generation_config": tokens(4)}, {}], [[0], [1]]),
        ([{}, {"generation_config": tokens(4)}, {}], [[0, 2], [1]]),
        ([{}, {"dtype": "bfloat16"}, {}, {"quantize_bits": 8}], [[0, 2], [1], [3]]),
    ],
    ids=["sequences", "the first is full", "a smaller one fits", "other precisions"],
)
def test_what_runs_together_has_one_model_in_memory_and_few_sequences(
    tasks: list[dict[str, Any]], groups: list[list[int]]
) -> None:
    async def test(queue: ExecutionQueue, executor: FakeExecutor) -> None:
        asked = [queued(number, **changes) for number, changes in enumerate(tasks)]
        assert await groups_of(queue, executor, asked) == groups

    run(test)


def test_an_executor_that_cannot_runs_one_at_a_time() -> None:
    executor = Together()
    executor.max_together = 1

    async def test(queue: ExecutionQueue, executor: FakeExecutor) -> None:
        assert await groups_of(queue, executor, [queued(0), queued(1)]) == [[0], [1]]

    run(test, executor)


def test_nobody_joins_a_task_that_would_then_run_out_of_time() -> None:
    """Estimates of this network are 24 s for the longest task: see `CostEstimates`."""

    async def test(queue: ExecutionQueue, executor: FakeExecutor) -> None:
        long: Any = {"generation_config": {"max_new_tokens": 1503, "num_return_sequences": 1}}
        tasks = [queued(0, seconds=28, **long), *(queued(n, **long) for n in (1, 2))]
        assert await groups_of(queue, executor, tasks) == [[0, 1], [2]]

    run(test)


def test_a_long_prompt_joins_nobody() -> None:
    """It is read before the first step of all."""

    async def test(queue: ExecutionQueue, executor: FakeExecutor) -> None:
        tasks = [queued(0), queued(1, prompt="\N{MUSICAL SYMBOL G CLEF}" * 513), queued(2)]
        assert await groups_of(queue, executor, tasks) == [[0, 2], [1]]

    run(test)


def test_what_ran_beside_others_counts_until_all_have_ended() -> None:
    """They may run one after another, so the end of one says nothing of the others'."""

    async def test(queue: ExecutionQueue, executor: FakeExecutor) -> None:
        executor.add(queue, queued(9))
        await asyncio.sleep(SECONDS + 1)  # measured now: each task is to take SECONDS
        for one in (queued(0, prompt=LONG), queued(1), queued(2)):
            executor.add(queue, one)
        await asyncio.sleep(1.5 * SECONDS)  # the long one runs alone
        assert len(queue._running) == 1
        task = fixtures.task(NET, now=queue._clock.now(), deadline=int(2 * SECONDS))
        with pytest.raises(Busy, match=r"after 15\.0 s for tasks before it"):
            queue.check_deadline(task, "")

    run(test)


def test_a_shorter_task_ends_first_and_can_come_again() -> None:
    async def test(queue: ExecutionQueue, executor: FakeExecutor) -> None:
        assert isinstance(executor, Together)
        short = queued(1)
        for one in (queued(0, prompt=LONG), short):
            executor.add(queue, one)
        await asyncio.sleep(SECONDS + 1.5)
        assert executor.events_of("executed") == [("executed", short.task.id)]
        executor.add(queue, short)  # its next attempt
        await asyncio.sleep(4 * SECONDS)
        assert [name for _, name in executor.ended].count(short.task.id) == 2

    run(test)


def test_removing_one_stops_only_that_one() -> None:
    async def test(queue: ExecutionQueue, executor: FakeExecutor) -> None:
        assert isinstance(executor, Together)
        tasks = [queued(number) for number in range(3)]
        for one in tasks:
            executor.add(queue, one)
        await asyncio.sleep(1)
        queue.remove(tasks[1].task.id)
        await asyncio.sleep(1)
        assert executor.events_of("cancelled") == [("cancelled", tasks[1].task.id)]
        await asyncio.sleep(2 * SECONDS)
        ids = [tasks[0].task.id, tasks[2].task.id]
        assert sorted(what for _, what in executor.events_of("executed")) == sorted(ids)  # type: ignore[type-var]

    run(test)


def test_tasks_abstain_from_an_executor_that_is_not_ready() -> None:
    executor = Together()
    executor.readiness = Readiness(False, ("another class",))

    async def test(queue: ExecutionQueue, executor: FakeExecutor) -> None:
        assert await groups_of(queue, executor, [queued(0), queued(1)]) == []
        assert len(executor.events_of("busy")) == 2

    run(test, executor)


def test_the_estimate_of_a_task_stays_that_of_one_alone() -> None:
    async def test(queue: ExecutionQueue, executor: FakeExecutor) -> None:
        config = {"max_new_tokens": 100}
        executor.add(queue, queued(0, generation_config=config))  # takes 10 s
        await asyncio.sleep(2 * SECONDS)
        for number in range(1, 5):  # take 20 s together
            executor.add(queue, queued(number, prompt=LONG, generation_config=config))
        await asyncio.sleep(0.5)

        def check(seconds: int) -> None:
            now = queue._clock.now()
            task = fixtures.task(NET, now=now, deadline=seconds, generation_config=config)
            queue.check_deadline(task, "client")

        # It takes 10 s, after at most 40 s less what has passed.
        check(50)
        with pytest.raises(Busy, match=r"needs about 10\.0 s for it, after 39\.5 s"):
            check(49)
        await asyncio.sleep(3 * SECONDS)
        check(11)
        with pytest.raises(Busy, match=r"about 10\.0 s for it, after 0\.0 s"):
            check(9)

    run(test)
