"""Certificates: assembled by anyone, checked offline by anyone (specification 4)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from protocol.consensus.committee import committees, quorum
from protocol.constants import DOCUMENT_LIMIT, VERSION
from protocol.errors import Rejected, Rejection
from protocol.network import Network
from protocol.wire.codec import check_canonical, check_schema, decode_document
from protocol.wire.encoding import Document, Json, canonical, parse
from protocol.wire.messages import Reveal, Task


@dataclass(frozen=True, slots=True)
class Certificate:
    """A valid certificate. Only `verify` and `assemble` make one."""

    document: Document
    task: Task
    attempt: int
    votes: tuple[Reveal, ...]

    @property
    def outcome(self) -> Document:
        """What the signers agree on: `{"result": manifest}` or `{"error": code}`."""
        return self.votes[0].outcome

    @property
    def signers(self) -> tuple[str, ...]:
        """The peers that vouch for the outcome, sorted."""
        return tuple(vote.signer for vote in self.votes)

    def encode(self) -> bytes:
        """Return the canonical bytes."""
        return canonical(self.document)


def verify_bytes(text: bytes, network: Network) -> Certificate:
    """Return the certificate in a file's canonical bytes if it is valid, else raise Rejected."""
    found = verify(parse(text, DOCUMENT_LIMIT), network)
    check_canonical(text, found.encode(), "certificate")
    return found


def verify(document: Json, network: Network) -> Certificate:
    """Return the certificate if it is valid against the network document, else raise Rejected.

    Each step is one clause of specification 4; nothing outside the two documents is consulted.
    """
    check_schema("certificate", document)
    assert isinstance(document, Mapping)  # noqa: S101  # the schema says so
    fields: Mapping[str, Any] = document
    if fields["network"] != network.id:
        raise Rejected(Rejection.WRONG_NETWORK, f"network: {fields['network']} is not {network.id}")
    task = _task(fields["task"], network)
    attempt: int = fields["attempt"]
    votes = tuple(_vote(vote, task, attempt, network) for vote in fields["votes"])
    _check_signers(votes, _committee(task, attempt, network))
    _check_agreement(votes)
    return Certificate(document, task, attempt, votes)


def assemble(task: Task, attempt: int, reveals: Sequence[Reveal], network: Network) -> Certificate:
    """Return the certificate of `compatible` reveals; raises Rejected if they make none."""
    votes = sorted(reveals, key=lambda vote: vote.signer)
    document = _document(task, attempt, votes, network)
    if len(canonical(document)) > DOCUMENT_LIMIT:  # a bare quorum says the same in fewer bytes
        needed = quorum(len(_committee(task, attempt, network)))
        document = _document(task, attempt, votes[:needed], network)
    return verify(document, network)


def compatible(a: Reveal, b: Reveal) -> bool:
    """Whether two reveals can stand in one certificate: equal outcomes, each listing the other."""
    return a.signer != b.signer and a.digest == b.digest and lists(a, b) and lists(b, a)


def lists(a: Reveal, b: Reveal) -> bool:
    """Whether `a` had seen, before it closed its list, the commitment that `b` opens."""
    return a.commits.get(b.signer) == b.commitment


def _document(task: Task, attempt: int, votes: Iterable[Reveal], network: Network) -> Document:
    return {
        "type": "certificate",
        "version": VERSION,
        "network": network.id,
        "task": task.envelope.document(),
        "attempt": attempt,
        "votes": [vote.envelope.document() for vote in votes],
    }


def _task(document: Json, network: Network) -> Task:
    task = decode_document(document, network.id)
    if not isinstance(task, Task):
        raise Rejected(Rejection.INVALID_FIELD, "task: is not the envelope of a task")
    network.admit(task)
    return task


def _vote(document: Json, task: Task, attempt: int, network: Network) -> Reveal:
    vote = decode_document(document, network.id)
    if not isinstance(vote, Reveal):
        raise Rejected(Rejection.INVALID_FIELD, "votes: one is not a reveal")
    if (vote.task, vote.attempt) != (task.id, attempt):
        raise Rejected(Rejection.WRONG_TASK, f"the vote of {vote.signer} is for another round")
    return vote


def _committee(task: Task, attempt: int, network: Network) -> tuple[str, ...]:
    attempts = committees(network, task)
    if attempt >= len(attempts):
        raise Rejected(
            Rejection.NO_SUCH_ATTEMPT, f"attempt: {attempt}, this task has {len(attempts)}"
        )
    return attempts[attempt]


def _check_signers(votes: Sequence[Reveal], committee: Sequence[str]) -> None:
    signers = [vote.signer for vote in votes]
    if signers != sorted(set(signers)):
        raise Rejected(Rejection.UNSORTED_VOTES, "votes: must be sorted by signer, each once")
    for signer in signers:
        if signer not in committee:
            raise Rejected(Rejection.NOT_A_MEMBER, f"{signer} is not in this attempt's committee")
    needed = quorum(len(committee))
    if len(signers) < needed:
        raise Rejected(
            Rejection.TOO_FEW_VOTES,
            f"votes: {len(signers)} of a committee of {len(committee)}, {needed} are needed",
        )


def _check_agreement(votes: Sequence[Reveal]) -> None:
    for vote in votes:
        if vote.digest != votes[0].digest:
            raise Rejected(
                Rejection.OUTCOMES_DIFFER, f"{vote.signer} and {votes[0].signer} do not agree"
            )
    for vote in votes:
        for other in votes:
            if not lists(vote, other):
                raise Rejected(
                    Rejection.COMMITMENT_MISSING,
                    f"{vote.signer} does not list the commitment that {other.signer} opens",
                )
