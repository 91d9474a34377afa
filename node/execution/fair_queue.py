"""Weighted fair queueing of tasks in seconds of worker time, by source and then by requester.

Requester keys cost nothing, so scheduling by requester alone would let one attacker take every
turn. A task therefore waits for its *source* first, the peer or address that sent it here
(`node.transport.interface`), and then for its requester. A requester is charged whichever sources
bring its tasks.

Each key has a *tag*: the seconds of worker time that it was charged. The task with the least tag
after it has run goes next, so that a cheap task passes heavy ones. A task is charged its estimate
when it begins, and the difference when it ends. Tasks that run together are charged the time of
the whole run, each its share. A key that comes, or comes back, starts at its
clock: the seconds that each key has had by then, if all that waited shared them. So it gains
nothing by being new, and owes nothing for the time before. All sources have one clock, and the
requesters of each source have another.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from node.admission.lru_dict import LruDict
from protocol.wire.messages import Task


@dataclass(frozen=True, slots=True)
class QueuedTask:
    """A task to execute until `until` (Unix seconds) at the latest, charged to `source`.

    `inputs` are the files that its args name, in their order. `alone`: it runs beside no other.
    """

    task: Task
    until: float
    source: str = ""
    inputs: tuple[Path, ...] = ()
    alone: bool = False

    @property
    def requester(self) -> str:
        """The peer id that signed the task."""
        return self.task.envelope.signer


@dataclass(frozen=True, slots=True)
class Turn:
    """A task that runs, and what it was charged.

    `sources` waited or ran when it began, and so many `requesters` of its source.
    """

    queued: QueuedTask
    seconds: float
    sources: int
    requesters: int


class FairQueue:
    """The tasks that wait, and the turns of those that run together."""

    def __init__(self, estimate: Callable[[Task], float]) -> None:
        """`estimate` returns the seconds that a task will run."""
        self._estimate = estimate
        self._waiting: dict[str, QueuedTask] = {}  # by task id, in the order of arrival
        self._turns: list[Turn] = []
        self._put_back: list[Turn] = []  # those of the turns whose tasks wait again
        self._clear()

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, task: str) -> bool:
        return task in self._waiting

    @property
    def models(self) -> frozenset[str]:
        """The ids of the models of the waiting tasks."""
        return frozenset(queued.task.model for queued in self._waiting.values())

    def add(self, queued: QueuedTask) -> None:
        """Let a task wait."""
        active = self._active()
        source, requester = queued.source, queued.requester
        if source not in {other.source for other in active}:
            self._source_tags[source] = max(self._source_tags.get(source, 0.0), self._clock)
        if requester not in {other.requester for other in active}:
            clock = self._clocks.get(source, 0.0)
            self._requester_tags[requester] = max(self._requester_tags.get(requester, 0.0), clock)
        self._waiting[queued.task.id] = queued

    def remove(self, task: str) -> bool:
        """Forget a waiting task; return whether it was waiting."""
        return self._waiting.pop(task, None) is not None

    def begin(self, is_startable: Callable[[QueuedTask], bool]) -> QueuedTask | None:
        """Remove the next task and charge its estimate; None if no waiting task is startable."""
        queued = self._next(is_startable)
        if queued is None:
            return None
        active = self._active()
        del self._waiting[queued.task.id]
        sources = {other.source for other in active}
        requesters = {other.requester for other in active if other.source == queued.source}
        seconds = self._estimate(queued.task)
        turn = Turn(queued, seconds, len(sources), len(requesters))
        self._turns.append(turn)
        self._charge(turn, turn.seconds)
        return queued

    def put_back(self, queued: QueuedTask) -> None:
        """Let a task that began wait again: alone, and before all others; see `end`."""
        turn = next(turn for turn in self._turns if turn.queued.task.id == queued.task.id)
        self._put_back.append(turn)
        earlier = {task: other for task, other in self._waiting.items() if other.alone}
        self._waiting = earlier | {queued.task.id: replace(queued, alone=True)} | self._waiting

    def end(self, seconds: float) -> None:
        """Charge the seconds that the tasks that began really took together.

        Each has the share that its estimate has in all estimates. One that was put back has none,
        unless all were: else a source whose tasks end no run would have its time for nothing.
        """
        turns, put_back = self._turns, self._put_back
        self._turns, self._put_back = [], []
        payers = [turn for turn in turns if turn not in put_back] or turns
        estimated = sum(turn.seconds for turn in payers)
        for turn in turns:
            share = turn.seconds / estimated if estimated else 1 / len(payers)
            self._charge(turn, seconds * share * (turn in payers) - turn.seconds)
        if not self._waiting:  # nobody is owed anything
            self._clear()

    def evict(self) -> Task:
        """Remove and return the task to drop."""
        evicted = newest_of_largest([*self._waiting.values()], self._estimate)
        del self._waiting[evicted.task.id]
        return evicted.task

    def wait_seconds(self, task: Task, source: str) -> float:
        """Return the estimated seconds that the tasks before a new one will take, at most.

        All of its own source and requester come before it; of another source no more than its own
        seconds do, or one task that is longer.
        """
        own = self._estimate(task)
        wait, others = 0.0, dict[str, float]()
        for queued in self._waiting.values():
            seconds = self._estimate(queued.task)
            if source == queued.source or task.requester == queued.requester:
                wait += seconds
            else:
                others[queued.source] = others.get(queued.source, 0.0) + seconds
        return wait + sum(min(seconds, own) for seconds in others.values())

    def _clear(self) -> None:
        self._source_tags: LruDict[str, float] = LruDict()
        self._requester_tags: LruDict[str, float] = LruDict()
        self._clock = 0.0  # of the sources
        self._clocks: LruDict[str, float] = LruDict()  # of the requesters, by source

    def _active(self) -> list[QueuedTask]:
        """Return the tasks that wait and those that run."""
        return [*(turn.queued for turn in self._turns), *self._waiting.values()]

    def _charge(self, turn: Turn, seconds: float) -> None:
        source, requester = turn.queued.source, turn.queued.requester
        self._source_tags[source] = self._source_tag(source) + seconds
        self._clock += seconds / turn.sources
        self._requester_tags[requester] = self._requester_tag(requester) + seconds
        self._clocks[source] = self._clocks.get(source, 0.0) + seconds / turn.requesters

    # A key that was evicted from its bounded table starts again at the clock.

    def _source_tag(self, source: str) -> float:
        return self._source_tags.get(source, self._clock)

    def _requester_tag(self, requester: str) -> float:
        return self._requester_tags.get(requester, 0.0)

    def _next(self, is_startable: Callable[[QueuedTask], bool]) -> QueuedTask | None:
        oldest: dict[tuple[str, str], QueuedTask] = {}
        for queued in self._waiting.values():
            if is_startable(queued):
                oldest.setdefault((queued.source, queued.requester), queued)
        by_source: dict[str, list[QueuedTask]] = {}
        for (source, _), queued in oldest.items():
            by_source.setdefault(source, []).append(queued)
        firsts = [min(tasks, key=self._requester_end) for tasks in by_source.values()]
        return min(firsts, key=self._end, default=None)

    def _requester_end(self, queued: QueuedTask) -> float:
        return self._requester_tag(queued.requester) + self._estimate(queued.task)

    def _end(self, queued: QueuedTask) -> tuple[float, float]:
        """Return the later end of a task's source and requester, and its requester's.

        With the later one, neither a new requester key for each task nor many nodes that forward
        the tasks of one requester gain time.
        """
        requester = self._requester_end(queued)
        source = self._source_tag(queued.source) + self._estimate(queued.task)
        return max(source, requester), requester


def newest_of_largest(tasks: Sequence[QueuedTask], cost: Callable[[Task], float]) -> QueuedTask:
    """Return the task to evict, of tasks in the order of arrival: so a flood evicts its own.

    It is the newest task of the source that asks for the most. Within that source, the requester
    that asks for the most loses its newest task.
    """
    sources, requesters = dict[str, float](), dict[str, float]()
    for queued in tasks:
        costs = cost(queued.task)
        sources[queued.source] = sources.get(queued.source, 0.0) + costs
        requesters[queued.requester] = requesters.get(queued.requester, 0.0) + costs
    # Of equal ones, `max` returns the first.
    return max(reversed(tasks), key=lambda q: (sources[q.source], requesters[q.requester]))
