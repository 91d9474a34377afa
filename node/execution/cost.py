"""What a task costs: seconds of worker time, estimated before it runs, measured afterwards.

An estimate orders the queue and refuses clients whose deadline is too short. It never decides
whether a task is valid: the network document does (specification 3.6).
"""

from collections.abc import Mapping
from typing import Any

from protocol.network import Network
from protocol.wire.messages import Task

# `attempt_seconds` of a document are five times the longest task under load (specification 3.3),
# so the first estimate of a model that has not run yet is a fifth of them for the longest task.
ATTEMPT_FACTOR = 5
# New tokens and sequences of a task where neither it nor the model's limits say.
TOKENS, SEQUENCES = 1500, 1
# Weight of the latest job in a model's speed: a few jobs outweigh one that met a busy machine.
LATEST_WEIGHT = 0.3


class CostEstimates:
    """Estimates by each model's own speed: seconds per token and sequence, or per input."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._speeds: dict[tuple[str, str], float] = {}  # by model and kind, of finished jobs

    def seconds(self, task: Task) -> float:
        """Return the estimated seconds of a task."""
        return self._work(task) * self._speed(task)

    def is_measured(self, task: Task) -> bool:
        """Return whether a job of the task's model has finished here."""
        return (task.model, task.kind) in self._speeds

    def observe(self, task: Task, seconds: float, together: int = 1) -> None:
        """Learn from a job that finished after so many seconds, beside others or alone.

        An estimate is of a task that runs alone. Of one that ran beside others only a bound is
        known: alone it takes no more than it took so.
        """
        if together > 1:
            seconds = min(self.seconds(task), seconds)
        speed, key = seconds / self._work(task), (task.model, task.kind)
        known = self._speeds.get(key, speed)
        self._speeds[key] = known + LATEST_WEIGHT * (speed - known)

    def _speed(self, task: Task) -> float:
        measured = self._speeds.get((task.model, task.kind))
        if measured is not None:
            return measured
        longest = self._network.attempt_seconds(task) / ATTEMPT_FACTOR
        return longest / self._longest_work(task)

    def _work(self, task: Task) -> float:
        # The inputs' bytes do not tell their length: a FLAC of 99 bytes may last minutes.
        if task.inputs:
            return len(task.inputs)
        config: Any = task.args.get("generation_config") or {}
        tokens = config.get("max_new_tokens") or self._limit(task, "max_new_tokens", TOKENS)
        return float(tokens * sequences_of(task))

    def _longest_work(self, task: Task) -> float:
        if task.inputs:
            return 1.0
        tokens = self._limit(task, "max_new_tokens", TOKENS)
        return float(tokens * self._limit(task, "num_return_sequences", SEQUENCES))

    def _limit(self, task: Task, name: str, default: int) -> int:
        limits: Mapping[str, Any] = self._network.models[task.model].limits
        return int(limits.get(name, default))


def sequences_of(task: Task) -> int:
    """Return how many sequences a task asks for."""
    config: Any = task.args.get("generation_config") or {}
    return int(config.get("num_return_sequences") or SEQUENCES)
