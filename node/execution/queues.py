"""The execution queues of a member, one for each compute class, and the staging before them."""

import asyncio
from collections.abc import Mapping
from itertools import pairwise

from node.execution.fair_queue import QueuedTask
from node.execution.queue import ExecutionQueue, RecordResult
from node.execution.staging import InputStaging
from node.rpc.hello import ServingStatus
from protocol.wire.messages import Task


class ExecutionQueues:
    """Gives each task to the queue of its class. A node outside the roster has no queue."""

    def __init__(self, queues: Mapping[str, ExecutionQueue], staging: InputStaging) -> None:
        """`queues` are the queues by class."""
        self._queues, self._staging = queues, staging

    async def run(self, record: RecordResult) -> None:
        """Run all queues, forever; `record` takes each result."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._staging.run(self._add_staged, record))
            for queue in self._queues.values():
                group.create_task(queue.run(record))
            group.create_task(self._demand_another())

    async def _demand_another(self) -> None:
        """Start the next class where one that was started cannot serve: a node has to be ready.

        Clients give tasks to nodes that are ready for a model, so none would start it.
        """
        for queue, following in pairwise(self._queues.values()):
            await queue.unfit.wait()
            following.demand()

    def add(self, queued: QueuedTask) -> Task | None:
        """Queue a task of one of the member's classes, and return the one that is evicted.

        A task with inputs is staged first, unless it is to abstain at once.
        """
        queue = self._queues[queued.task.compute_class]
        if not queued.task.inputs or queue.abstains:
            return queue.add(queued)
        return self._staging.add(queued)

    def _add_staged(self, queued: QueuedTask) -> Task | None:
        return self._queues[queued.task.compute_class].add(queued)

    def check_deadline(self, task: Task, source: str) -> None:
        """Raise `Busy` if a task of a class of this node would expire before it had run it."""
        queue = self._queues.get(task.compute_class)
        if queue is not None:
            queue.check_deadline(task, source)

    def remove_waiting(self, task: str) -> bool:
        """Forget a task that has not begun; return whether it was waiting."""
        removed = [queue.remove_waiting(task) for queue in self._queues.values()]
        return self._staging.remove(task) or any(removed)

    def remove(self, task: str) -> None:
        """Forget a task, stopping it if it runs."""
        self._staging.remove(task)
        for queue in self._queues.values():
            queue.remove(task)

    def status(self) -> ServingStatus:
        """Return what this node can execute now."""
        models = {name: queue.warm_models for name, queue in self._queues.items()}
        reasons = [
            f"class {name}: {reason}"
            for name, queue in self._queues.items()
            for reason in queue.why_not_ready()
        ]
        return ServingStatus(models, () if any(models.values()) else reasons)
