"""Certificate documents made by hand, valid and invalid; `assemble` makes only valid ones."""

from collections.abc import Iterable, Sequence
from typing import Any

from protocol.consensus.committee import committees
from protocol.network import Network
from protocol.wire.messages import Message, Reveal, Task
from tests.support import fixtures


def commitments(
    task: Task, members: Iterable[str], outcome: dict[str, Any] | None = None, attempt: int = 0
) -> dict[str, str]:
    """Return the commitments of members to one outcome, by peer id."""
    committed: Any = fixtures.outcome() if outcome is None else outcome
    return {member: fixtures.commitment_of(task, member, committed, attempt) for member in members}


def reveals(
    net: Network, task: Task, outcome: dict[str, Any] | None = None, attempt: int = 0
) -> list[Reveal]:
    """Return the reveals of a whole committee that agrees, sorted by signer."""
    committee = committees(net, task)[attempt]
    commits = commitments(task, committee, outcome, attempt)
    return [
        fixtures.reveal(net, task, member, commits, outcome, attempt)
        for member in sorted(committee)
    ]


def certificate_document(
    net: Network, task: Message, votes: Sequence[Message], attempt: int = 0, **changes: Any
) -> dict[str, Any]:
    """Return the document of a certificate, valid or not."""
    return {
        "type": "certificate",
        "version": 2,
        "network": net.id,
        "task": task.envelope.document(),
        "attempt": attempt,
        "votes": [vote.envelope.document() for vote in votes],
        **changes,
    }
