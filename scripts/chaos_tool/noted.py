"""What was seen while faults were done; afterwards, the databases are held against it."""

from collections import Counter
from dataclasses import dataclass, field

Certified = frozenset[tuple[str, str]]  # (task, outcome digest)


@dataclass(slots=True)
class Noted:
    """Grows during a run. Tasks are ids, nodes are names, times are Unix seconds."""

    submitted: set[str] = field(default_factory=set)
    certified: dict[str, str] = field(default_factory=dict)
    """What requesters were shown certificates of: outcome digests by task."""
    unlucky: Counter[str] = field(default_factory=Counter)
    """What requesters met besides certificates."""
    heard: set[bytes] = field(default_factory=set)
    """Every envelope that was gossiped."""
    restarts: list[float] = field(default_factory=list)
    """Seconds from the start of each killed node to its being ready."""
    kept: dict[str, Certified] = field(default_factory=dict)
    """By node, what it held certified at any of its deaths."""
    heals: list[tuple[float, frozenset[str]]] = field(default_factory=list)
    """When a partition healed, and the tasks not certified everywhere then."""
