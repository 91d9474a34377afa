"""The options of one chaos run."""

import random
from dataclasses import dataclass
from pathlib import Path

# In the order in which they are injected. The last kind needs a network of its own.
FAULT_KINDS = ("kills", "stops", "proxy", "partitions", "liars")


@dataclass(frozen=True, slots=True)
class ChaosOptions:
    """How many faults of each kind to inject, and for how long. Durations are in seconds."""

    nodes: int
    kills: int  # SIGKILL at random moments
    commit_kills: int  # SIGKILL of a member between its commit and its reveal
    stops: int  # SIGSTOP, later SIGCONT
    cuts: int  # faults of single links: cut, held, delayed or throttled
    partitions: int
    liars: int
    liar_tasks: int  # tasks to certify in the network with liars
    fault_seconds: float  # the longest SIGSTOP and the longest fault of a link
    partition_seconds: float
    seed: int
    kinds: frozenset[str]  # which of FAULT_KINDS to inject
    real: bool  # use the real executor instead of the light one
    out: Path

    def rng(self, purpose: str) -> random.Random:
        """Return a generator for one purpose, so that its draws do not shift those of another."""
        return random.Random(f"{self.seed} {purpose}")
