"""What a machine asks of the world; the coordinator and the daemon carry it out."""

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from protocol.consensus.certificate import Certificate
from protocol.consensus.evidence import Evidence
from protocol.wire.encoding import Document


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
    """Run the task; report `executed` or `failed`."""


@dataclass(frozen=True, slots=True)
class StopExecution:
    """The outcome of a running execution is of no use any more."""


@dataclass(frozen=True, slots=True)
class SignAndSend:
    """Sign this body, write it to the journal, then send it. Never another of its kind."""

    body: Document


@dataclass(frozen=True, slots=True)
class StateChanged:
    """The state or the attempt is another one than before: ask the agreement for them."""


@dataclass(frozen=True, slots=True)
class Certified:
    """A valid certificate was assembled; a second one for the task is a conflict."""

    certificate: Certificate


@dataclass(frozen=True, slots=True)
class EquivocationProven:
    """A member contradicted itself."""

    evidence: Evidence


Effect: TypeAlias = (
    Execute | StopExecution | SignAndSend | StateChanged | Certified | EquivocationProven
)
