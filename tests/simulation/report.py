"""Counts of simulated runs: final states, injected faults, adversaries."""

import json
from collections import Counter
from dataclasses import dataclass, field

from tests.support import fixtures


class Violation(AssertionError):
    """An invariant does not hold. `name` identifies it."""

    def __init__(self, name: str, detail: str) -> None:
        super().__init__(f"{name}: {detail}")
        self.name, self.detail = name, detail

    def __reduce__(self) -> tuple[type["Violation"], tuple[str, str]]:
        return type(self), (self.name, self.detail)


@dataclass
class Report:
    """Counts over one or many runs."""

    ends: Counter[str] = field(default_factory=Counter)  # final states of tasks at honest nodes
    faults: Counter[str] = field(default_factory=Counter)
    adversaries: Counter[str] = field(default_factory=Counter)
    members: Counter[int] = field(default_factory=Counter)  # networks by number of members
    evidence: int = 0  # pieces stored by honest nodes

    def add(self, other: "Report") -> None:
        """Add another report's counts."""
        self.ends += other.ends
        self.faults += other.faults
        self.adversaries += other.adversaries
        self.members += other.members
        self.evidence += other.evidence


def describe_envelope(payload: bytes) -> str:
    """Describe an envelope in one line."""
    try:
        document = json.loads(payload)
        body = document["body"]
        about = body.get("task", "")[:8]
        signer = fixtures.index_of(document["signer"])
        return f"{body['type']} {about} attempt {body.get('attempt', '-')} signed {signer}"
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration, RecursionError):
        return f"{len(payload)} bytes, not an envelope"
