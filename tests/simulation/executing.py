"""What a node of a history makes of a task: the right result, another, an abstention, or none."""

import random
from collections.abc import Mapping

from node.consensus.commands import Run
from protocol.wire.encoding import Document
from protocol.wire.messages import Abstention, Task
from tests.simulation.scenario import Scenario
from tests.simulation.sound import manifest, waveform

Given = Document | Abstention


def outcome(args: Mapping[str, object], label: str = "honest") -> Document:
    """The outcome of a task; each label but "honest" gives another one."""
    if str(args.get("prompt")).startswith("fail"):
        return {"error": "non-finite-output"} if label == "honest" else {"error": "no-notes"}
    return {"result": manifest(waveform(args, label))}


class Bench:
    """One executor: one job at a time, in the order in which they came."""

    def __init__(self, scenario: Scenario, dice: random.Random, label: str) -> None:
        """`label`: "silent" never ends; "honest@4" takes four seconds; see `outcome`."""
        self._scenario, self._dice = scenario, dice
        self._label, _, fixed = label.partition("@")
        self._fixed = float(fixed) if fixed else None
        self.waiting: dict[str, Run] = {}
        self._running: tuple[int, Task, Given] | None = None
        self._number = 0

    def clear(self) -> None:
        """Forget everything: the process is gone."""
        self.waiting.clear()
        self._running = None

    def waits_for(self, task: str) -> bool:
        """Whether a task is queued or running."""
        running = self._running is not None and self._running[1].id == task
        return running or task in self.waiting

    def remove(self, task: str) -> None:
        """Forget a task, stopping it if it runs."""
        self.waiting.pop(task, None)
        if self._running is not None and self._running[1].id == task:
            self._running = None

    def begin(self, now: float) -> tuple[float, int] | None:
        """Start the next job, if one can: how long it takes, and its number."""
        if self._running is not None or not self.waiting:
            return None
        run = self.waiting.pop(next(iter(self.waiting)))
        left = max(0.0, run.until - now)
        takes = self._seconds()
        self._number += 1
        if takes > left:
            self._running = (self._number, run.task, Abstention.TIMEOUT)
            return left, self._number
        self._running = (self._number, run.task, self._gives(run.task))
        return takes, self._number

    def end(self, number: int) -> tuple[str, Given] | None:
        """End a job; None if it was stopped before."""
        if self._running is None or self._running[0] != number:
            return None
        _, task, given = self._running
        self._running = None
        return task.id, given

    def _seconds(self) -> float:
        if self._label == "silent":
            return 1e6
        return self._dice.uniform(*self._scenario.execution) if self._fixed is None else self._fixed

    def _gives(self, task: Task) -> Given:
        if self._dice.random() < self._scenario.abstains:
            return self._dice.choice((Abstention.OUT_OF_MEMORY, Abstention.WORKER_DIED))
        return outcome(task.args, self._label)
