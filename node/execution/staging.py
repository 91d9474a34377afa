"""Tasks that wait for their inputs: each joins its execution queue once they are here.

An input that nobody serves is asked for during half of an attempt. The executor runs other tasks
meanwhile. A staged task takes no part in the fair queue: it is not charged for the wait, and its
source and requester gain nothing by it.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from executor.errors import Abstained
from node.execution.fair_queue import QueuedTask, newest_of_largest
from node.execution.queue import RecordResult
from node.log import get_logger
from protocol.wire.messages import Abstention, Task

log = get_logger("staging")

FetchInputs: TypeAlias = Callable[[Task, str], Awaitable[tuple[Path, ...]]]


class InputStaging:
    """Fetches the inputs of tasks, and passes each task on with its files."""

    def __init__(self, fetch: FetchInputs, max_tasks: int, counts: Counter[str]) -> None:
        """`fetch` takes a task and its source, and returns its files or raises `Abstained`.

        At most `max_tasks` are staged; `counts` has how many were evicted.
        """
        self._fetch, self._max_tasks, self._counts = fetch, max_tasks, counts
        self._staged: dict[str, QueuedTask] = {}  # by task id, in the order of arrival
        self._fetches: dict[str, asyncio.Task[None]] = {}
        self._arrivals: asyncio.Queue[QueuedTask] = asyncio.Queue()

    def add(self, queued: QueuedTask) -> Task | None:
        """Stage a task, unless it is; return the one that is evicted if they are too many."""
        if queued.task.id in self._staged:
            return None
        self._staged[queued.task.id] = queued
        self._arrivals.put_nowait(queued)
        if len(self._staged) <= self._max_tasks:
            return None
        evicted = newest_of_largest([*self._staged.values()], _input_bytes).task
        self.remove(evicted.id)
        self._counts["tasks-evicted"] += 1
        return evicted

    def remove(self, task: str) -> bool:
        """Forget a task and stop fetching its inputs; return whether it was staged."""
        if self._staged.pop(task, None) is None:
            return False
        if fetch := self._fetches.pop(task, None):
            fetch.cancel()
        return True

    async def run(self, release: Callable[[QueuedTask], Task | None], record: RecordResult) -> None:
        """Fetch inputs, forever.

        `release` takes each task that has its inputs, and returns one that it evicts; `record`
        takes the abstention of a task that does not get them.
        """
        async with asyncio.TaskGroup() as group:
            while True:
                queued = await self._arrivals.get()
                if self._staged.get(queued.task.id) is queued:  # else it was removed
                    fetching = group.create_task(self._stage(queued, release, record))
                    self._fetches[queued.task.id] = fetching

    async def _stage(
        self,
        queued: QueuedTask,
        release: Callable[[QueuedTask], Task | None],
        record: RecordResult,
    ) -> None:
        task = queued.task
        try:
            inputs = await self._fetch(task, queued.source)
        except Abstained as abstained:
            self._forget(task.id)
            log.warning("abstained", task=task.id, reason=abstained.reason, detail=str(abstained))
            await record(task, abstained.reason)
            return
        self._forget(task.id)
        evicted = release(replace(queued, inputs=inputs))
        if evicted is not None:
            await record(evicted, Abstention.BUSY)

    def _forget(self, task: str) -> None:
        # Before the next `await`: a removal must not cancel what follows.
        del self._staged[task], self._fetches[task]


def _input_bytes(task: Task) -> float:
    return float(sum(blob.size for blob in task.inputs))
