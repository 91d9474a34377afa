"""What an agreement asks of the node; the coordinator journals it, then the daemon carries it out.

The journal turns each `SignAndSend` into a `Publish`. All other effects pass through unchanged.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from protocol.consensus.certificate import Certificate
from protocol.consensus.evidence import Evidence
from protocol.wire.encoding import Document
from protocol.wire.messages import Message, Task


class State(StrEnum):
    """How a task stands at one node; those from AGREED on are terminal (specification 6.7)."""

    WAITING = "waiting"
    EXECUTING = "executing"
    COMMITTED = "committed"
    REVEALED = "revealed"
    ABSTAINED = "abstained"
    AGREED = "agreed"
    AGREED_ERROR = "agreed-error"
    INCONCLUSIVE = "inconclusive"
    EXPIRED = "expired"

    @property
    def terminal(self) -> bool:
        """Whether the task has ended here. A valid certificate still replaces the last two."""
        return self in _TERMINAL

    @property
    def certified(self) -> bool:
        """Whether a certificate stands behind the state."""
        return self in (State.AGREED, State.AGREED_ERROR)


_TERMINAL = frozenset((State.AGREED, State.AGREED_ERROR, State.INCONCLUSIVE, State.EXPIRED))


@dataclass(frozen=True, slots=True)
class Execute:
    """Run the task until `until` (Unix seconds) at the latest; report `executed` or `failed`."""

    task: Task
    until: float


@dataclass(frozen=True, slots=True)
class StopExecution:
    """The outcome of a running execution is of no use any more; `task` is the task's id."""

    task: str


@dataclass(frozen=True, slots=True)
class SignAndSend:
    """Sign this body, write it to the journal, then send it. Never another of its kind."""

    body: Document


@dataclass(frozen=True, slots=True)
class Publish:
    """Gossip a message, which is in the journal already."""

    message: Message


@dataclass(frozen=True, slots=True)
class StateChanged:
    """The state or the attempt of the task (an id) changed: ask the agreement for them."""

    task: str


@dataclass(frozen=True, slots=True)
class Certified:
    """A valid certificate was assembled; a second one for the task is a conflict."""

    certificate: Certificate


@dataclass(frozen=True, slots=True)
class EquivocationProven:
    """A member contradicted itself."""

    evidence: Evidence


Effect: TypeAlias = (
    Execute | StopExecution | SignAndSend | Publish | StateChanged | Certified | EquivocationProven
)
