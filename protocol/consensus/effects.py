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
    """The state of a task at one node; those from AGREED on are terminal (specification 6.7)."""

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
        """Whether the task has ended here.

        A valid certificate still replaces INCONCLUSIVE and EXPIRED (specification 6.7).
        """
        return self in _TERMINAL

    @property
    def certified(self) -> bool:
        """Whether the state rests on a certificate."""
        return self in (State.AGREED, State.AGREED_ERROR)


_TERMINAL = frozenset((State.AGREED, State.AGREED_ERROR, State.INCONCLUSIVE, State.EXPIRED))


@dataclass(frozen=True, slots=True)
class Execute:
    """Run the task until `until` (Unix seconds) at the latest; report `executed` or `failed`."""

    task: Task
    until: float


@dataclass(frozen=True, slots=True)
class StopExecution:
    """Stop the running execution: its outcome is not needed any more. `task` is the task's id."""

    task: str


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """The requester withdrew the task (an id): report `failed` unless its execution has begun."""

    task: str


@dataclass(frozen=True, slots=True)
class SignAndSend:
    """Sign this body, write the envelope to the journal, then send it.

    The agreement asks at most once per task, attempt and type: a second one is an equivocation.
    """

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
    """Store a certificate that was assembled; a second one for the task is a conflict."""

    certificate: Certificate


@dataclass(frozen=True, slots=True)
class MisconductProven:
    """Store the evidence that a member equivocated or was inconstant."""

    evidence: Evidence


Effect: TypeAlias = (
    Execute
    | StopExecution
    | Withdrawn
    | SignAndSend
    | Publish
    | StateChanged
    | Certified
    | MisconductProven
)
