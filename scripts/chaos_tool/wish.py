"""What was asked for on the command line."""

from dataclasses import dataclass
from pathlib import Path

SCENES = ("kills", "stops", "proxy", "partitions", "liars")


@dataclass(frozen=True, slots=True)
class Wish:
    """How many of which faults; seconds where it says so."""

    nodes: int
    kills: int  # at random moments
    commit_kills: int  # that meet a member between its commit and its reveal
    stops: int  # SIGSTOP, later SIGCONT
    cuts: int  # faults of single links: cut, held, slow
    partitions: int
    liars: int
    liar_tasks: int
    fault_seconds: float  # the longest single stop or fault of a link
    partition_seconds: float
    seed: int
    scenes: frozenset[str]
    real: bool  # the real executor instead of the light one
    out: Path
