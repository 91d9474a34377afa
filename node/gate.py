"""Where requests are let in or turned away, and what was turned away is counted."""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from node.admission import Admission
from node.coordinator import Busy
from node.limits import Buckets, Places
from protocol.messages import Task

WATCHES = (48, 1024)  # of one payer, in all: three quarters of a peer's streams; 10 KB each
READS = (8, 64)  # of blobs: each holds a file open, of the process's 1,024
UPLOADS = (4, 32)  # the same
FEEDS = (2, 64)  # answers under way, of up to 1 MiB each; an honest reader has one at a time
MINUTE = 60.0  # seconds
SUBMISSION_SECONDS = 10.0  # so much may come at once


class Gate:
    """What requests cost beyond their stream: places, and the tasks that they bring.

    `a_minute` are the submissions of one payer, which is a peer, or all of an address; `now` is a
    monotonic clock in seconds.
    """

    def __init__(
        self,
        admission: Admission,
        a_minute: float,
        now: Callable[[], float],
        counts: Counter[str],
    ) -> None:
        self._admission, self._counts = admission, counts
        self._submissions = Buckets(a_minute / MINUTE, SUBMISSION_SECONDS, now)
        self._watches, self._reads = Places(*WATCHES), Places(*READS)
        self._uploads, self._feeds = Places(*UPLOADS), Places(*FEEDS)

    def submitting(self, payer: str) -> None:
        """Count a submission. Raises Busy."""
        seconds = self._submissions.take(payer)
        if seconds:
            self._counts["submissions-refused"] += 1
            raise Busy(f"too many submissions; try again in {math.ceil(seconds)} s")

    def admit(self, task: Task) -> None:
        """Raise Unserved if the task is not one to be served here."""
        unserved = self._admission.decide(task)
        if unserved is not None:
            self._counts["tasks-unserved"] += 1
            raise unserved

    def watching(self, payer: str) -> AbstractContextManager[None]:
        """Hold a place among those who watch tasks. Raises Busy."""
        return self._place(self._watches, payer)

    def reading(self, payer: str) -> AbstractContextManager[None]:
        """Hold a place among those who read blobs. Raises Busy."""
        return self._place(self._reads, payer)

    def asking(self, payer: str) -> AbstractContextManager[None]:
        """Hold a place among those who read the feed. Raises Busy."""
        return self._place(self._feeds, payer)

    def uploading(self, payer: str) -> AbstractContextManager[None]:
        """Hold a place among those who hand inputs over. Raises Busy."""
        return self._place(self._uploads, payer)

    @contextmanager
    def _place(self, places: Places, payer: str) -> Iterator[None]:
        with places.one(payer) as held:
            if not held:
                self._counts["requests-refused"] += 1
                raise Busy("too many requests at a time; try again when one has ended")
            yield
