"""Tasks that wait for their inputs beside the executor, not in it."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from executor.errors import Abstained
from executor.job import Execution, Job
from node.execution.fair_queue import QueuedTask
from node.execution.queue import ExecutionQueue, Readiness
from node.execution.queues import ExecutionQueues
from node.execution.staging import InputStaging
from protocol.network import Model
from protocol.wire.messages import Abstention, Task
from tests.simulation import virtual_loop
from tests.support import fixtures

NET = fixtures.piano_network()
SECONDS = 10.0  # that a job takes
NEVER = 1e6


class Bench:
    """Queues with staging; the executor, the inputs and the results are made here."""

    max_together = 1

    def __init__(self, max_queue: int = 8) -> None:
        self.seconds: dict[str, float] = {}  # until a task's inputs are here
        self.events: list[tuple[str, str]] = []
        self.files: list[tuple[Path, ...]] = []
        self.readiness = Readiness(True)
        self.counts: Counter[str] = Counter()
        self.fetches = 0
        clock = virtual_loop.VirtualClock(asyncio.get_running_loop(), fixtures.START)
        queue = ExecutionQueue(NET, self, clock, max_queue, lambda task, share: None, self.counts)
        staging = InputStaging(self.fetch, max_queue, self.counts)
        self.queues = ExecutionQueues({fixtures.CLASS: queue}, staging)

    async def fetch(self, task: Task, source: str) -> tuple[Path, ...]:
        self.fetches += 1
        try:
            await asyncio.sleep(self.seconds[task.id])
        except asyncio.CancelledError:
            self.events.append(("fetch cancelled", task.id))
            raise
        if self.seconds[task.id] == 60:
            raise Abstained(Abstention.INPUT_MISSING, "the inputs did not arrive within 60 s")
        return (Path(f"{source}.wav"),)

    async def start(self) -> Readiness:
        return self.readiness

    async def warm(self, model: Model) -> None:
        raise AssertionError

    def is_alive(self) -> bool:
        return True

    async def run(self, job: Job, seconds: float, progress: Callable[[float], None]) -> Execution:
        self.events.append(("run", job.task))
        self.files.append(job.inputs)
        await asyncio.sleep(SECONDS)
        return Execution({"error": "no-notes"}, (), {})

    async def close(self) -> None:
        return

    async def record(self, task: Task, result: Execution | Abstention) -> None:
        name = "executed" if isinstance(result, Execution) else str(result)
        self.events.append((name, task.id))

    def add(self, task: Task, seconds: float = 0.0, source: str = "source") -> str:
        """Queue a task whose inputs arrive after so many seconds; return its id."""
        self.seconds[task.id] = seconds
        evicted = self.queues.add(QueuedTask(task, fixtures.START + 3000, source))
        if evicted is not None:
            self.events.append(("evicted", evicted.id))
        return task.id

    def events_of(self, *names: str) -> list[tuple[str, str]]:
        return [event for event in self.events if event[0] in names]


def cover(number: int, requester: int = 1000) -> Task:
    body: Any = fixtures.task(NET, nonce=number, kind="pop2piano", requester=requester)
    body = {**body.envelope.body, "args": fixtures.piano_args(b"song")}
    task: Any = fixtures.signed(NET, body, requester)
    return task  # type: ignore[no-any-return]


def music(number: int) -> Task:
    return fixtures.task(NET, nonce=number)


@asynccontextmanager
async def running(bench: Bench) -> AsyncIterator[None]:
    queues = asyncio.create_task(bench.queues.run(bench.record))
    await asyncio.sleep(0.5)
    try:
        yield
    finally:
        queues.cancel()
        with suppress(asyncio.CancelledError):
            await queues


def play(test: Callable[[Bench], Awaitable[None]], max_queue: int = 8) -> None:
    async def main() -> None:
        bench = Bench(max_queue)
        async with running(bench):
            await test(bench)

    virtual_loop.run(main)


def test_other_tasks_run_while_one_waits_for_its_inputs() -> None:
    async def test(bench: Bench) -> None:
        slow = bench.add(cover(1), 35)
        others = [bench.add(music(2)), bench.add(cover(3))]
        await asyncio.sleep(2 * SECONDS + 1)
        assert bench.events == [(name, id_) for id_ in others for name in ("run", "executed")]
        await asyncio.sleep(25)
        assert bench.events[4:] == [("run", slow), ("executed", slow)]
        assert bench.files == [(), (Path("source.wav"),), (Path("source.wav"),)]

    play(test)


def test_inputs_that_nobody_has_are_input_missing_and_cost_the_executor_nothing() -> None:
    async def test(bench: Bench) -> None:
        missing = bench.add(cover(1), 60)
        other = bench.add(music(2))
        await asyncio.sleep(59)
        assert bench.events == [("run", other), ("executed", other)]
        await asyncio.sleep(2)
        assert bench.events[2:] == [("input-missing", missing)]

    play(test)


def test_the_wait_for_inputs_is_not_charged_and_gains_nothing() -> None:
    """A task whose inputs came late has the turn that it would have if it had come then."""
    orders = list[list[str]]()

    async def test(bench: Bench, *, waits: bool) -> None:
        late = cover(1, requester=1002)
        if waits:
            bench.add(late, 15, "late")
        for number in range(2, 6):
            bench.add(cover(number), source="busy")
        await asyncio.sleep(12)
        bench.add(cover(7, requester=1001), source="fresh")
        await asyncio.sleep(3)
        if not waits:
            bench.add(late, source="late")
        await asyncio.sleep(60)
        orders.append([id_ for _, id_ in bench.events_of("run")])
        assert orders[-1].index(late.id) == 3, "after the fresh one, before those of one source"

    play(partial(test, waits=True))
    play(partial(test, waits=False))
    assert orders[0] == orders[1]


def test_removal_stops_fetching_and_nothing_is_recorded() -> None:
    async def test(bench: Bench) -> None:
        removed, withdrawn = bench.add(cover(1), NEVER), bench.add(cover(2), NEVER)
        await asyncio.sleep(1)
        bench.queues.remove(removed)
        assert bench.queues.remove_waiting(withdrawn), "it has not begun"
        assert not bench.queues.remove_waiting(withdrawn)
        await asyncio.sleep(100)
        assert bench.events == [("fetch cancelled", removed), ("fetch cancelled", withdrawn)]
        again = bench.add(cover(1), 5)
        await asyncio.sleep(20)
        assert bench.events[2:] == [("run", again), ("executed", again)]

    play(test)


def test_a_task_removed_before_its_fetch_begins_is_not_fetched() -> None:
    async def test(bench: Bench) -> None:
        bench.queues.remove(bench.add(cover(1)))
        await asyncio.sleep(100)
        assert (bench.fetches, bench.events) == (0, [])

    play(test)


def test_a_task_is_staged_once() -> None:
    async def test(bench: Bench) -> None:
        for _ in range(2):
            id_ = bench.add(cover(1), 5)
            await asyncio.sleep(1)
        assert bench.fetches == 1
        await asyncio.sleep(30)
        assert bench.events == [("run", id_), ("executed", id_)]

    play(test)


def test_too_many_staged_tasks_evict_the_newest_of_the_largest_source() -> None:
    async def test(bench: Bench) -> None:
        honest = bench.add(cover(0, requester=1001), 30, "honest")
        flood = [bench.add(cover(number), NEVER, "flooder") for number in range(1, 6)]
        await asyncio.sleep(45)
        assert bench.events_of("evicted") == [("evicted", id_) for id_ in flood[3:]]
        assert bench.events_of("run", "executed") == [("run", honest), ("executed", honest)]
        assert bench.counts == {"tasks-evicted": 2}

    play(test, max_queue=4)


def test_a_task_evicted_by_one_whose_inputs_came_abstains_as_busy() -> None:
    async def test(bench: Bench) -> None:
        bench.add(music(1))
        await asyncio.sleep(1)
        waiting = [bench.add(cover(number)) for number in (2, 3)]
        await asyncio.sleep(1)
        bench.add(cover(4, requester=1001), 1, "another")
        await asyncio.sleep(2)
        assert bench.events_of("busy") == [("busy", waiting[1])]

    play(test, max_queue=2)


def test_no_inputs_are_fetched_for_an_executor_that_did_not_start() -> None:
    async def main() -> None:
        bench = Bench()
        bench.readiness = Readiness(False, ("runtime: torch: ours 1, theirs 2",))
        async with running(bench):
            id_ = bench.add(cover(1), 30)
            await asyncio.sleep(1)
            assert bench.events == [("busy", id_)]
            assert bench.fetches == 0

    virtual_loop.run(main)
