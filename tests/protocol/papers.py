"""Certificates written by hand, right and wrong, where `assemble` would only write right ones."""

from collections.abc import Iterable, Sequence
from typing import Any

from protocol.consensus.committee import committees
from protocol.network import Network
from protocol.wire.messages import Message, Reveal, Task
from tests.support import fixtures


def listed(
    task: Task, members: Iterable[str], found: dict[str, Any] | None = None, attempt: int = 0
) -> dict[str, str]:
    """The commitments of members to one outcome."""
    outcome = fixtures.outcome() if found is None else found
    return {member: fixtures.bound(task, member, outcome, attempt) for member in members}


def reveals(
    net: Network, task: Task, found: dict[str, Any] | None = None, attempt: int = 0
) -> list[Reveal]:
    """The reveals of a whole committee that agrees, sorted by signer."""
    committee = committees(net, task)[attempt]
    commits = listed(task, committee, found, attempt)
    return [
        fixtures.reveal(net, task, member, commits, found, attempt) for member in sorted(committee)
    ]


def paper(
    net: Network, task: Message, votes: Sequence[Message], attempt: int = 0, **changes: Any
) -> dict[str, Any]:
    """A certificate's document, whatever it holds."""
    return {
        "type": "certificate",
        "version": 1,
        "network": net.id,
        "task": task.envelope.document(),
        "attempt": attempt,
        "votes": [vote.envelope.document() for vote in votes],
        **changes,
    }
