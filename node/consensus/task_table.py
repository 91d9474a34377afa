"""The tasks that a node holds in memory: agreements, timers, sources and eviction.

    state    in memory                      leaves it when
    absent   nothing, or only the expiry    the task is accepted, or a late vote needs it again
    open     the agreement                  it ends, or a write to the journal fails
    ended    the agreement, for late votes  it is evicted, or a write to the journal fails
    lost     the time of the next rebuild   it was rebuilt, or proves never to have been journalled

The asyncio loop changes the table. The gossip validator reads it on the transport's thread.
"""

import threading
from collections import Counter
from collections.abc import Container

from protocol.consensus.agreement import Agreement


class TaskTable:
    """Tasks by id. All times are Unix seconds.

    `lock` guards the table and the agreements in it: the loop holds it while it changes them, the
    validator while it reads them. It is never held during a commit to disk, so that a slow disk
    does not hold up the transport.
    """

    def __init__(self, max_open: int, members: Container[str]) -> None:
        """`max_open` bounds the open tasks; `members`, the roster, may have any share of them."""
        self.lock = threading.RLock()
        self.max_open = max_open
        self._members = members
        self._agreements: dict[str, Agreement] = {}
        # Who is charged for a task, where that is known. A restart forgets it.
        self._sources: dict[str, str] = {}
        # The tasks that are open or lost, by id with their source, and their number by source.
        self._counted: dict[str, str] = {}
        self._places: Counter[str] = Counter()
        # Of every accepted task until it has expired, so that an evicted one is not taken for new.
        self._expiries: dict[str, float] = {}
        self._rebuilds: dict[str, float] = {}
        # When each task is due. Asking 1,000 open agreements takes 10 ms. Only the loop uses it.
        self._timers: dict[str, float] = {}
        # The tasks that have not ended: their number is asked for each task that is gossiped.
        self._open: set[str] = set()

    def get(self, task: str) -> Agreement | None:
        """Return a task's agreement, if it is in memory."""
        return self._agreements.get(task)

    def add(self, agreement: Agreement, now: float, source: str = "") -> None:
        """Hold a task in memory, charged to `source`, and evict tasks that have ended."""
        task = agreement.task
        with self.lock:
            self._agreements[task.id] = agreement
            self._expiries[task.id] = task.expires_at
            if source:
                self._sources[task.id] = source
            self.update(agreement)
            self._evict(agreement, now)

    def lose(self, task: str, rebuild_at: float) -> None:
        """Forget a task's agreement, which may be ahead of the journal; rebuild it later."""
        with self.lock:
            self._agreements.pop(task, None)
            self._timers.pop(task, None)
            self._open.discard(task)
            self._rebuilds[task] = rebuild_at
            self._count(task)

    def is_lost(self, task: str) -> bool:
        """Return whether a task waits to be rebuilt from the journal."""
        return task in self._rebuilds

    def set_rebuilt(self, task: str) -> None:
        """Note that a lost task is in memory again."""
        with self.lock:
            del self._rebuilds[task]
            self._count(task)

    def forget(self, task: str) -> None:
        """Forget a lost task that never was journalled, so that it is new if it comes again."""
        with self.lock:
            del self._rebuilds[task]
            self._expiries.pop(task, None)
            self._sources.pop(task, None)
            self._count(task)

    def source(self, task: str) -> str:
        """Return who is charged for a task, "" if unknown."""
        return self._sources.get(task, "")

    def voters(self) -> frozenset[str]:
        """Return the members of the committees of the open tasks, those to come left out."""
        with self.lock:
            agreements = [self._agreements[task] for task in self._open]
            committees = [a.vote_sets[a.attempt].committee for a in agreements]
        return frozenset(peer for committee in committees for peer in committee)

    # Limits

    def is_known(self, task: str) -> bool:
        """Return whether a task was accepted and has not expired since."""
        return task in self._expiries

    def is_full(self) -> bool:
        """Return whether no further open task is accepted."""
        with self.lock:
            return len(self._open) + len(self._rebuilds) >= self.max_open  # a lost task comes back

    def has_full_share(self, source: str) -> bool:
        """Return whether a source outside the roster holds half of the places for open tasks.

        One source cannot take all of them, then. Members forward the tasks of many requesters, and
        may be the only way in which a node hears of them: they have no such limit.
        """
        if not source or source in self._members:
            return False
        return self._places[source] >= max(1, self.max_open // 2)

    # Changes and timers

    def update(self, agreement: Agreement) -> None:
        """Note whether a task is open, and when it is due; called after each change of it."""
        task, at = agreement.task.id, agreement.wake_at()
        is_held = self._agreements.get(task) is agreement
        if at is None or not is_held:
            self._timers.pop(task, None)
        else:
            self._timers[task] = at
        if is_held and not agreement.state.terminal:
            self._open.add(task)
        else:
            self._open.discard(task)
        self._count(task)

    def _count(self, task: str) -> None:
        """Count a task for its source while it is open or lost; called after each change of that.

        Each task that is submitted or gossiped asks for the count: a scan of all would take longer
        the more are open.
        """
        counted = self._counted.pop(task, "")
        if counted:
            self._places[counted] -= 1
            if not self._places[counted]:  # sources are free to make
                del self._places[counted]
        source = self.source(task)
        if source and (task in self._open or task in self._rebuilds):
            self._counted[task] = source
            self._places[source] += 1

    def wake_at(self) -> float | None:
        """Return when a task is due next."""
        return min([*self._timers.values(), *self._rebuilds.values()], default=None)

    def due(self, now: float) -> list[str]:
        """Return the ids of the tasks that are due: lost ones first."""
        rebuilds = [task for task, at in self._rebuilds.items() if at <= now]
        return rebuilds + [task for task, at in self._timers.items() if at <= now]

    def _evict(self, added: Agreement, now: float) -> None:
        """Drop expiries that have passed, and the oldest ended tasks: the journal has them."""
        for task, expiry in list(self._expiries.items()):
            if expiry < now and task not in self._agreements:
                del self._expiries[task]
        # An open task always has a timer; one that has ended still has one until its reveal.
        ended = [a for task, a in self._agreements.items() if task not in self._timers]
        expired = [a for a in ended if a.task.expires_at < now]
        # Late votes come for tasks that have not expired: those stay, up to `max_open`.
        for agreement in expired or ended[: max(0, len(ended) - self.max_open)]:
            if agreement is not added:
                del self._agreements[agreement.task.id]
                self._sources.pop(agreement.task.id, None)
                self._count(agreement.task.id)
