"""Where requests are let in or turned away, and what was turned away is counted."""

import math
from collections import Counter
from collections.abc import Callable, Container, Iterator
from contextlib import AbstractContextManager, contextmanager

from node.admission.rate_limits import Places, TokenBuckets
from node.admission.task_policy import TaskPolicy
from node.config.limits import Limits
from node.errors import Busy
from protocol.wire.messages import Task

MINUTE = 60.0  # seconds
SUBMISSION_SECONDS = 10.0  # so much may come at once


class RequestLimiter:
    """What requests cost beyond their stream: places, and the tasks that they bring.

    The rate limit of submissions is per `rate_limit_key`, that of concurrent requests per
    `slot_key`: both words are defined in `node.transport.interface`. Keys of `members`, the roster,
    are not free to make: each member has slots of its own, however many share an address and
    however many strangers there are. `now` is a monotonic clock in seconds.
    """

    def __init__(
        self,
        admission: TaskPolicy,
        limits: Limits,
        members: Container[str],
        now: Callable[[], float],
        counts: Counter[str],
    ) -> None:
        self._task_policy, self._members, self._counts = admission, members, counts
        self._submissions = TokenBuckets(limits.peer_submissions / MINUTE, SUBMISSION_SECONDS, now)
        self._watches = Places(limits.peer_watches, limits.max_watches)
        self._reads = Places(limits.peer_reads, limits.max_reads)
        self._uploads = Places(limits.peer_uploads, limits.max_uploads)
        self._feeds = Places(limits.peer_feeds, limits.max_feeds)
        # As many as blobs, not as feeds: a client asks about all its tasks at once.
        self._looks = Places(limits.peer_reads, limits.max_reads)

    def slot_key(self, peer: str, rate_limit_key: str) -> str:
        """Return whose places a peer takes: a member's own, or its address's."""
        return peer if peer in self._members else rate_limit_key

    def submitting(self, rate_limit_key: str) -> None:
        """Count a submission. Raises Busy."""
        seconds = self._submissions.try_take(rate_limit_key)
        if seconds:
            self._counts["submissions-refused"] += 1
            raise Busy(f"too many submissions; try again in {math.ceil(seconds)} s")

    def admit(self, task: Task) -> None:
        """Raise TaskNotServed if the task is not one to be served here."""
        unserved = self._task_policy.decide(task)
        if unserved is not None:
            self._counts["tasks-unserved"] += 1
            raise unserved

    def watching(self, slot_key: str) -> AbstractContextManager[None]:
        """Hold a place among those who watch tasks. Raises Busy."""
        return self._place(self._watches, slot_key)

    def reading(self, slot_key: str) -> AbstractContextManager[None]:
        """Hold a place among those who read blobs. Raises Busy."""
        return self._place(self._reads, slot_key)

    def asking(self, slot_key: str) -> AbstractContextManager[None]:
        """Hold a place among those who read the feed. Raises Busy."""
        return self._place(self._feeds, slot_key)

    def looking(self, slot_key: str) -> AbstractContextManager[None]:
        """Hold a place among those who read what there is of a task. Raises Busy."""
        return self._place(self._looks, slot_key)

    def uploading(self, rate_limit_key: str) -> AbstractContextManager[None]:
        """Hold a place among those who hand inputs over. Raises Busy."""
        return self._place(self._uploads, rate_limit_key)

    @contextmanager
    def _place(self, places: Places, slot_key: str) -> Iterator[None]:
        with places.one(slot_key, counted=slot_key not in self._members) as held:
            if not held:
                self._counts["requests-refused"] += 1
                raise Busy("too many requests at a time; try again when one has ended")
            yield
