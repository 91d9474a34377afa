"""What a node is to do after a step of its coordinator, whose journal has it already."""

from dataclasses import dataclass
from typing import TypeAlias

from protocol.wire.messages import Message, Task


@dataclass(frozen=True, slots=True)
class Publish:
    """Send a signed message to all; it stands in the journal already."""

    message: Message


@dataclass(frozen=True, slots=True)
class Run:
    """Execute a task until `until` (Unix seconds) at the latest.

    `source` is who is charged for the task (`node.transport.interface`); "" if not known any more.
    """

    task: Task
    until: float
    source: str = ""


@dataclass(frozen=True, slots=True)
class Stop:
    """Execute a task no longer."""

    task: str


@dataclass(frozen=True, slots=True)
class Notify:
    """A task's state, attempt or certificates changed."""

    task: str


Action: TypeAlias = Publish | Run | Stop | Notify
