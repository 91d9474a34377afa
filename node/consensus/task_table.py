"""The tasks that a node holds in memory: agreements, timers, sources and eviction.

    state    in memory                      leaves it when
    absent   nothing, or only the expiry    the task is accepted, or a late vote needs it again
    open     the agreement                  it ends, or a write to the journal fails
    ended    the agreement, for late votes  it is evicted, or a write to the journal fails
    lost     the time of the next rebuild   it was rebuilt, or proves never to have been journalled

The asyncio loop changes the table. The gossip validator reads it on the transport's thread.
"""

import threading
from collections import Counter, OrderedDict
from collections.abc import Container, Sequence
from itertools import islice

from node.consensus.schedule import Schedule
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
        # Those among them that are not in memory: the others are kept as long as they are.
        self._absent = Schedule()
        self._rebuilds = Schedule()
        # When each task is due. Asking 1,000 open agreements takes 10 ms. Only the loop uses it.
        self._timers = Schedule()
        # The tasks that have not ended: their number is asked for each task that is gossiped. Each
        # with its current committee, and how many of these each member is in.
        self._open: dict[str, Sequence[str]] = {}
        self._voters: Counter[str] = Counter()
        # The tasks in memory that are due no more, in the order in which they ended, and by
        # deadline. An ended task is due until it has revealed.
        self._ended: OrderedDict[str, None] = OrderedDict()
        self._ended_by_deadline = Schedule()

    def get(self, task: str) -> Agreement | None:
        """Return a task's agreement, if it is in memory."""
        return self._agreements.get(task)

    def add(self, agreement: Agreement, now: float, source: str = "") -> None:
        """Hold a task in memory, charged to `source`, and evict tasks that have ended."""
        task = agreement.task
        with self.lock:
            self._agreements[task.id] = agreement
            self._expiries[task.id] = task.expires_at
            self._absent.remove(task.id)
            if source:
                self._sources[task.id] = source
            self.update(agreement)
            self._evict(agreement, now)

    def lose(self, task: str, rebuild_at: float) -> None:
        """Forget a task's agreement, which may be ahead of the journal; rebuild it later."""
        with self.lock:
            self._agreements.pop(task, None)
            self._timers.remove(task)
            self._set_open(task, None)
            self._set_ended(task, None)
            if task in self._expiries:
                self._absent.set(task, self._expiries[task])
            self._rebuilds.set(task, rebuild_at)
            self._count(task)

    def is_lost(self, task: str) -> bool:
        """Return whether a task waits to be rebuilt from the journal."""
        return task in self._rebuilds

    def set_rebuilt(self, task: str) -> None:
        """Note that a lost task is in memory again."""
        with self.lock:
            self._rebuilds.remove(task)
            self._count(task)

    def forget(self, task: str) -> None:
        """Forget a lost task that never was journalled, so that it is new if it comes again."""
        with self.lock:
            self._rebuilds.remove(task)
            self._expiries.pop(task, None)
            self._absent.remove(task)
            self._sources.pop(task, None)
            self._count(task)

    def drop(self, task: str) -> None:
        """Forget a task that ended long ago, and all that was kept of it."""
        with self.lock:
            self.lose(task, 0.0)
            self.forget(task)

    def source(self, task: str) -> str:
        """Return who is charged for a task, "" if unknown."""
        return self._sources.get(task, "")

    def voters(self) -> frozenset[str]:
        """Return the members of the committees of the open tasks, those to come left out."""
        with self.lock:
            return frozenset(self._voters)

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
        task, at = agreement.task, agreement.wake_at()
        is_held = self._agreements.get(task.id) is agreement
        if at is None or not is_held:
            self._timers.remove(task.id)
        else:
            self._timers.set(task.id, at)
        self._set_ended(task.id, task.expires_at if at is None and is_held else None)
        is_open = is_held and not agreement.state.terminal
        current = agreement.vote_sets[agreement.attempt]
        self._set_open(task.id, current.committee if is_open else None)
        self._count(task.id)

    def _set_open(self, task: str, committee: Sequence[str] | None) -> None:
        """Note the current committee of an open task; None for one that is not open."""
        earlier = self._open.get(task)
        if earlier is committee:
            return
        for peer in committee or ():
            self._voters[peer] += 1
        for peer in earlier or ():
            self._voters[peer] -= 1
            if not self._voters[peer]:
                del self._voters[peer]
        if committee is None:
            del self._open[task]
        else:
            self._open[task] = committee

    def _set_ended(self, task: str, deadline: float | None) -> None:
        """Note the deadline of a task in memory that is due no more; None for any other task."""
        if deadline is None:
            self._ended.pop(task, None)
            self._ended_by_deadline.remove(task)
        else:
            self._ended.setdefault(task)
            self._ended_by_deadline.set(task, deadline)

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
        timer, rebuild = self._timers.first(), self._rebuilds.first()
        return min((at for at in (timer, rebuild) if at is not None), default=None)

    def due(self, now: float) -> list[str]:
        """Return the ids of the tasks that are due, lost ones first, each by its time."""
        return self._rebuilds.until(now) + self._timers.until(now)

    def _evict(self, added: Agreement, now: float) -> None:
        """Drop expiries that have passed, and ended tasks: the journal has them.

        Those that have expired, then the first to end of more than `max_open`: late votes come for
        tasks that have not expired.
        """
        for task in self._absent.pop_until(now):
            del self._expiries[task]
        for task in self._ended_by_deadline.until(now):
            self._drop(task, added)
        for task in list(islice(self._ended, max(0, len(self._ended) - self.max_open))):
            self._drop(task, added)

    def _drop(self, task: str, added: Agreement) -> None:
        if task == added.task.id:  # it is wanted now
            return
        del self._agreements[task]
        self._sources.pop(task, None)
        self._set_ended(task, None)
        self._absent.set(task, self._expiries[task])
        self._count(task)
