"""Which tasks this node executes: by requester, and by the rate of each requester."""

import math
from collections.abc import Callable

from node.admission.lru_dict import LruDict
from node.admission.rate_limits import TokenBuckets
from protocol.wire.messages import Task
from schemas.errors import HeliumError

HOUR = 3600.0  # seconds


class TaskNotServed(HeliumError):
    """This node's policy rejects the task; other nodes may accept it.

    `reason` travels in the refusal (specification 7.10). `retry_after` is set, in
    seconds, when waiting helps.
    """

    def __init__(self, reason: str, detail: str, retry_after: float | None = None) -> None:
        super().__init__(detail)
        self.reason, self.retry_after = reason, retry_after


class TaskPolicy:
    """Decides about each task, whether a client submitted it or another node gossiped it.

    `submitters` are the peer ids of the requesters that are served; if empty, all are.
    `tasks_per_hour` is the rate limit of each requester, 0 for none. `now` is a monotonic clock in
    seconds.
    """

    def __init__(
        self, submitters: frozenset[str], tasks_per_hour: int, now: Callable[[], float]
    ) -> None:
        self._submitters, self._tasks_per_hour = submitters, tasks_per_hour
        self._quota = TokenBuckets(tasks_per_hour / HOUR, HOUR, now) if tasks_per_hour else None
        self._accepted: LruDict[str, None] = LruDict()  # task ids

    def check(self, task: Task) -> TaskNotServed | None:
        """Return why the task is rejected, or None; an accepted task counts once."""
        # A task arrives several times: submitted, by gossip and by feeds.
        if task.id in self._accepted:
            return None
        requester = task.envelope.signer
        if self._submitters and requester not in self._submitters:
            return TaskNotServed("requester-not-served", f"this node does not serve {requester}")
        wait = self._quota.try_take(requester) if self._quota else 0.0
        if wait:
            limit = f"the limit is {self._tasks_per_hour} tasks an hour"
            return TaskNotServed("over-quota", f"{limit}; try again in {math.ceil(wait)} s", wait)
        self._accepted[task.id] = None
        return None
