"""Whose tasks this node takes and executes: anyone's, those of a list, so many an hour."""

import math
from collections.abc import Callable

from node.admission.rate_limits import TokenBuckets, remember
from protocol.wire.messages import Task
from schemas.errors import HeliumError

HOUR = 3600.0  # seconds


class TaskNotServed(HeliumError):
    """A task that other nodes may serve, and this one does not; in `seconds` it may, if not None.

    `reason` travels in the refusal (specification 7, clarification 7e).
    """

    def __init__(self, reason: str, detail: str, seconds: float | None = None) -> None:
        super().__init__(detail)
        self.reason, self.seconds = reason, seconds


class TaskPolicy:
    """Decides about each task, however it comes: submitted, or gossiped by another node.

    `submitters` are the peer ids of requesters, none meaning anyone; `an_hour` is how many tasks
    each may have, 0 meaning any number; `now` is a monotonic clock in seconds.
    """

    def __init__(self, submitters: frozenset[str], an_hour: int, now: Callable[[], float]) -> None:
        self._submitters, self._an_hour = submitters, an_hour
        self._quota = TokenBuckets(an_hour / HOUR, HOUR, now) if an_hour else None
        self._served: dict[str, None] = {}  # tasks, in the order in which they were decided

    def decide(self, task: Task) -> TaskNotServed | None:
        """Return why a task is not served, or None; one that is served counts once."""
        if task.id in self._served:
            return None
        requester = task.envelope.signer
        if self._submitters and requester not in self._submitters:
            return TaskNotServed(
                "requester-not-served", f"{requester} is not among those served here"
            )
        seconds = self._quota.try_take(requester) if self._quota else 0.0
        if seconds:
            detail = f"{self._an_hour} tasks an hour are taken; try again in {math.ceil(seconds)} s"
            return TaskNotServed("over-quota", detail, seconds)
        remember(self._served, task.id, None)
        return None
