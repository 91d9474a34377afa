"""Limits on inbound requests: the rate of submissions and the number of concurrent requests.

Rejections are counted for the operator.
"""

import math
from collections import Counter
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from typing import Literal

from node.admission.rate_limits import ConcurrencyLimit, TokenBuckets
from node.admission.task_policy import TaskPolicy
from node.config.limits import Limits
from node.errors import Busy
from protocol.wire.messages import Task

MINUTE = 60.0  # seconds
# A requester may submit ten seconds' worth of tasks at once: an album, or a batch of a script.
SUBMISSION_BURST_SECONDS = 10.0

# Concurrent requests: the first number is for one slot key, the second for all together that are
# not roster members. Members have slots of their own.
# Three quarters of the streams that a peer may open; a watch takes 10 kB of memory.
PEER_WATCHES, MAX_WATCHES = 48, 1024
# Blobs, and as many answers about tasks. A blob holds a file descriptor, an answer up to 1 MiB;
# with the connections they stay below the usual limit of 1,024 descriptors.
PEER_READS, MAX_READS = 8, 64
# Each upload holds a file descriptor.
PEER_UPLOADS, MAX_UPLOADS = 4, 32
# An answer with envelopes takes up to 1 MiB of memory, and a page of a feed some of the database's
# time; an honest reader requests one at a time.
PEER_FEEDS, MAX_FEEDS = 2, 32

LimitedRequest = Literal["submit", "task", "watch", "blob", "feed", "envelopes"]
"""The requests that hold a slot; for "submit" it is the upload of its inputs."""


class RequestLimiter:
    """What requests cost beyond their stream: slots, and the tasks that they submit.

    The rate limit of submissions is per `rate_limit_key`, that of concurrent requests per
    `slot_key`: both words are defined in `node.transport.interface`. Keys of `members`, the roster,
    are not free to make: each member has slots of its own, however many share an address and
    however many strangers there are. `now` is a monotonic clock in seconds.
    """

    def __init__(
        self,
        task_policy: TaskPolicy,
        limits: Limits,
        members: Container[str],
        now: Callable[[], float],
        counts: Counter[str],
    ) -> None:
        self._task_policy, self._members, self._counts = task_policy, members, counts
        rate = limits.submissions_per_minute / MINUTE
        self._submissions = TokenBuckets(rate, SUBMISSION_BURST_SECONDS, now)
        self._slots: dict[LimitedRequest, ConcurrencyLimit] = {
            "submit": ConcurrencyLimit(PEER_UPLOADS, MAX_UPLOADS),
            # As many as for blobs: a client asks about all its tasks at once.
            "task": ConcurrencyLimit(PEER_READS, MAX_READS),
            "watch": ConcurrencyLimit(PEER_WATCHES, MAX_WATCHES),
            "blob": ConcurrencyLimit(PEER_READS, MAX_READS),
            "feed": ConcurrencyLimit(PEER_FEEDS, MAX_FEEDS),
            "envelopes": ConcurrencyLimit(PEER_FEEDS, MAX_FEEDS),
        }

    def slot_key(self, peer: str, rate_limit_key: str) -> str:
        """Return whose slots a peer takes: a member's own, or those of its address."""
        return peer if peer in self._members else rate_limit_key

    def count_submission(self, rate_limit_key: str) -> None:
        """Count a submission against its rate limit. Raises Busy."""
        seconds = self._submissions.try_take(rate_limit_key)
        if seconds:
            self._counts["submissions-refused"] += 1
            raise Busy(f"too many submissions; try again in {math.ceil(seconds)} s")

    def check_task(self, task: Task) -> None:
        """Raise TaskNotServed if the task policy rejects the task."""
        refusal = self._task_policy.check(task)
        if refusal is not None:
            self._counts["tasks-unserved"] += 1
            raise refusal

    @contextmanager
    def slot(self, request: LimitedRequest, key: str) -> Iterator[None]:
        """Hold a slot while a request is served. Raises Busy."""
        limit = self._slots[request]
        with limit.slot(key, counts_to_total=key not in self._members) as held:
            if not held:
                self._counts["requests-refused"] += 1
                raise Busy("too many concurrent requests; try again when one has ended")
            yield
