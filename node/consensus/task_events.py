"""What watchers of a task wait for: its progress and its changes. Not durable."""

import asyncio

from node.storage.journal import Journal


class TaskEvents:
    """Progress of running tasks, and one event per watched task. Used on the asyncio loop."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._progress: dict[str, float] = {}
        self._changes: dict[str, asyncio.Event] = {}

    def progress(self, task: str) -> float:
        """Return how far this node's execution of a task is, 0 to 1."""
        fraction = self._progress.get(task)
        if fraction is not None:
            return fraction
        # After an execution, or a restart, only the journal knows.
        return 0.0 if self._journal.outcome(task) is None else 1.0

    def next_change(self, task: str) -> asyncio.Event:
        """Return an event that is set at the task's next change."""
        return self._changes.setdefault(task, asyncio.Event())

    def set_changed(self, task: str) -> None:
        """Wake whoever watches a task."""
        # Popped, because an event stays set, and would wake the next watcher at once.
        event = self._changes.pop(task, None)
        if event is not None:
            event.set()

    def set_progress(self, task: str, fraction: float) -> None:
        """Take the progress of a running job, 0 to 1; watchers are woken at whole percents."""
        percent = round(fraction, 2)
        if self._progress.get(task) != percent:
            self._progress[task] = percent
            self.set_changed(task)

    def clear_progress(self, task: str) -> None:
        """Forget the progress of an execution that ended."""
        self._progress.pop(task, None)
