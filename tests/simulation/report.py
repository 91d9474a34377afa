"""How histories went: what ended how, what went wrong on purpose, who broke which rule."""

import json
from collections import Counter
from dataclasses import dataclass, field

from tests.support import fixtures


class Violation(AssertionError):
    """An invariant does not hold; `name` says which."""

    def __init__(self, name: str, detail: str) -> None:
        super().__init__(f"{name}: {detail}")
        self.name, self.detail = name, detail

    def __reduce__(self) -> tuple[type["Violation"], tuple[str, str]]:
        return type(self), (self.name, self.detail)


@dataclass
class Report:
    """Counts over one history, or over many."""

    ends: Counter[str] = field(default_factory=Counter)  # of tasks at honest nodes
    faults: Counter[str] = field(default_factory=Counter)
    adversaries: Counter[str] = field(default_factory=Counter)
    members: Counter[int] = field(default_factory=Counter)  # networks of so many
    evidence: int = 0  # kept by honest nodes, each its own
    messages: int = 0  # that gossip carried
    trace: list[str] = field(default_factory=list)

    def add(self, other: "Report") -> None:
        """Count another's histories in; their traces are dropped."""
        self.ends += other.ends
        self.faults += other.faults
        self.adversaries += other.adversaries
        self.members += other.members
        self.evidence += other.evidence
        self.messages += other.messages


def told(payload: bytes) -> str:
    """One line about an envelope."""
    try:
        document = json.loads(payload)
        body = document["body"]
        about = body.get("task", "")[:8]
        signer = fixtures.index_of(document["signer"])
        return f"{body['type']} {about} attempt {body.get('attempt', '-')} signed {signer}"
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration, RecursionError):
        return f"{len(payload)} bytes that are no envelope"
