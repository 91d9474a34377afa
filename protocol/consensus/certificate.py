"""Certificates: assembled by any node, verified offline by anyone (specification 4.7).

Nothing is consulted but the certificate and the network document. Rules:
1. A `Certificate` is valid by type: only `verify` and `assemble` make one.
2. `verify` trusts nothing: it parses and checks every envelope in the document.
3. `assemble` takes messages that are valid by type, since only `codec` makes them. It checks how
   they relate to each other, but no signature a second time.

    certificate = verify_bytes(path.read_bytes(), network)
    certificate.outcome, certificate.signers
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from protocol.consensus.committee import committees, quorum
from protocol.constants import CERTIFICATE_LIMIT, VERSION
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
    _encoded: bytes = field(repr=False, compare=False)

    @property
    def outcome(self) -> Document:
        """What the signers agree on: `{"result": manifest}` or `{"error": code}`."""
        return self.votes[0].outcome

    @property
    def signers(self) -> tuple[str, ...]:
        """The peer ids of the members that signed the outcome, sorted."""
        return tuple(vote.signer for vote in self.votes)

    def operators(self, network: Network) -> frozenset[str]:
        """Return the operators of the signers: how many parties stand behind the outcome."""
        return frozenset(network.roster[signer].operator for signer in self.signers)

    def encode(self) -> bytes:
        """Return the canonical bytes."""
        return self._encoded


def verify_bytes(text: bytes, network: Network) -> Certificate:
    """Return the certificate in a file's bytes if it is valid. Raises Rejected.

    Errors are those of `verify`, and NOT_CANONICAL if the bytes are not the canonical ones
    (specification 4.7), so that no byte of a file can be changed without failing verification.
    """
    certificate = verify(parse(text, CERTIFICATE_LIMIT), network)
    check_canonical(text, certificate.encode(), "certificate")
    return certificate


def verify(document: Json, network: Network) -> Certificate:
    """Return the certificate if it is valid against the network document. Raises Rejected.

    The `reason` of Rejected says which check of specification 4.7 does not hold. The order of the
    checks is part of the behaviour: the first clause that fails is reported.
    """
    # Specification 4.7, 1: its members and their forms, in schemas/certificate.json.
    check_schema("certificate", document)
    assert isinstance(document, Mapping)  # noqa: S101  # the schema says so
    fields: Mapping[str, Any] = document
    encoded = canonical(document)
    if len(encoded) > CERTIFICATE_LIMIT:
        raise Rejected(Rejection.TOO_LARGE, f"a certificate of {len(encoded)} bytes")
    if fields["network"] != network.id:
        raise Rejected(Rejection.WRONG_NETWORK, f"network: {fields['network']} is not {network.id}")
    # Specification 4.7, 2: valid for the document, whatever the time.
    task = _decode_task(fields["task"], network)
    # Specification 4.7, 3: every vote is a valid reveal for that task and attempt.
    attempt: int = fields["attempt"]
    votes = tuple(_decode_reveal(vote, task, attempt, network) for vote in fields["votes"])
    _check_signers(votes, _committee(task, attempt, network))
    _check_agreement(votes)
    return Certificate(document, task, attempt, votes, encoded)


def assemble(task: Task, attempt: int, reveals: Sequence[Reveal], network: Network) -> Certificate:
    """Return the certificate of reveals that agree, of a task that the network has admitted.

    Raises Rejected as `verify` does if the reveals make no certificate.
    """
    votes = tuple(sorted(reveals, key=lambda vote: vote.signer))
    for vote in votes:
        _check_round(vote, task, attempt)
    committee = _committee(task, attempt, network)
    _check_signers(votes, committee)
    _check_agreement(votes)
    encoded = _encode(task, attempt, votes, network)
    # Specification 4.7: over the size limit, a bare quorum of the votes makes the certificate.
    if len(encoded) > CERTIFICATE_LIMIT:
        votes = votes[: quorum(len(committee))]
        encoded = _encode(task, attempt, votes, network)
    document = _document(task, attempt, votes, network)
    return Certificate(document, task, attempt, votes, encoded)


def compatible(a: Reveal, b: Reveal) -> bool:
    """Return whether two reveals can stand in one certificate.

    They can if their signers differ, their outcomes are equal and each lists the other.
    """
    return a.signer != b.signer and a.digest == b.digest and lists(a, b) and lists(b, a)


def lists(a: Reveal, b: Reveal) -> bool:
    """Return whether `a` had the commitment that `b` opens when it closed its list."""
    return a.commits.get(b.signer) == b.commitment


def _document(task: Task, attempt: int, votes: Sequence[Reveal], network: Network) -> Document:
    return {
        "type": "certificate",
        "version": VERSION,
        "network": network.id,
        "task": task.envelope.document(),
        "attempt": attempt,
        "votes": [vote.envelope.document() for vote in votes],
    }


def _encode(task: Task, attempt: int, votes: Sequence[Reveal], network: Network) -> bytes:
    """Return the canonical bytes of `_document`, of which the envelopes' are known."""
    return (
        b'{"attempt":%d,"network":"%b","task":%b,"type":"certificate","version":%d,"votes":[%b]}'
        % (
            attempt,
            network.id.encode(),
            task.envelope.encode(),
            VERSION,
            b",".join(vote.envelope.encode() for vote in votes),
        )
    )


def _decode_task(document: Json, network: Network) -> Task:
    task = decode_document(document, network.id)
    if not isinstance(task, Task):
        raise Rejected(Rejection.INVALID_FIELD, "task: is not the envelope of a task")
    network.admit(task)
    return task


def _decode_reveal(document: Json, task: Task, attempt: int, network: Network) -> Reveal:
    vote = decode_document(document, network.id)
    if not isinstance(vote, Reveal):
        raise Rejected(Rejection.INVALID_FIELD, "votes: one is not a reveal")
    _check_round(vote, task, attempt)
    # Specification 4.7, 3, and 8.2: the outputs are those that the task asks for.
    network.check_outcome(task, vote.outcome)
    return vote


def _check_round(vote: Reveal, task: Task, attempt: int) -> None:
    if (vote.task, vote.attempt) != (task.id, attempt):
        raise Rejected(
            Rejection.WRONG_TASK, f"the vote of {vote.signer} is for another task or attempt"
        )


def _committee(task: Task, attempt: int, network: Network) -> tuple[str, ...]:
    # Specification 4.7, 4, and 5: attempts end when the committee stops growing.
    attempts = committees(network, task)
    if attempt >= len(attempts):
        raise Rejected(
            Rejection.NO_SUCH_ATTEMPT, f"attempt: {attempt}, this task has {len(attempts)}"
        )
    return attempts[attempt]


def _check_signers(votes: Sequence[Reveal], committee: Sequence[str]) -> None:
    signers = [vote.signer for vote in votes]
    # Specification 4.7, 5 to 7: sorted and distinct, …
    if signers != sorted(set(signers)):
        raise Rejected(Rejection.UNSORTED_VOTES, "votes: must be sorted by signer, each once")
    # … members of that attempt's committee, …
    for signer in signers:
        if signer not in committee:
            raise Rejected(Rejection.NOT_A_MEMBER, f"{signer} is not in this attempt's committee")
    # … and a quorum, which is defined in 5.
    needed = quorum(len(committee))
    if len(signers) < needed:
        raise Rejected(
            Rejection.TOO_FEW_VOTES,
            f"votes: {len(signers)} of a committee of {len(committee)}, {needed} are needed",
        )


def _check_agreement(votes: Sequence[Reveal]) -> None:
    # Specification 4.7, 8: all outcomes are equal.
    for vote in votes:
        if vote.digest != votes[0].digest:
            raise Rejected(
                Rejection.OUTCOMES_DIFFER, f"{vote.signer} and {votes[0].signer} do not agree"
            )
    # Specification 4.7, 9: every vote lists every signer's commitment, its own included, equal to
    # the one that `codec` recomputed from salt and outcome.
    for vote in votes:
        for signed in votes:
            if not lists(vote, signed):
                raise Rejected(
                    Rejection.COMMITMENT_MISSING,
                    f"{vote.signer} does not list the commitment that {signed.signer} opens",
                )
