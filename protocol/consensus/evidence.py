"""Evidence: two envelopes of one signer that contradict each other (specification 4.8).

`equivocation` is two votes of one attempt that an honest member never both signs. `inconstancy` is
two reveals of different attempts with different outcomes; memory that flips a bit can cause it. A
dissent is no evidence: a reveal that differs from the certificate may come from broken hardware.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from protocol.constants import DOCUMENT_LIMIT
from protocol.errors import Rejected, Rejection
from protocol.network import Network
from protocol.wire.codec import check_canonical, check_schema, decode_document
from protocol.wire.encoding import Document, Json, canonical, document_hash, parse
from protocol.wire.messages import Commit, Reveal, Task, Vote, Withdraw


class EvidenceKind(StrEnum):
    """What evidence proves (specification 4.8)."""

    EQUIVOCATION = "equivocation"
    INCONSTANCY = "inconstancy"


@dataclass(frozen=True, slots=True)
class Evidence:
    """Two valid envelopes of one signer, for one task, that contradict each other.

    `attempts` are those of the two envelopes: one attempt twice for an equivocation.
    """

    document: Document
    kind: EvidenceKind
    signer: str
    task: str
    attempts: tuple[int, int]
    types: tuple[str, str]  # of the two envelopes: commit, reveal or abstain

    @staticmethod
    def from_votes(a: Vote, b: Vote) -> "Evidence":
        """Return the evidence of two contradicting votes. Raises Rejected(NO_CONTRADICTION)."""
        kind = EvidenceKind.EQUIVOCATION if a.attempt == b.attempt else EvidenceKind.INCONSTANCY
        document: Document = {
            "type": "evidence",
            "kind": str(kind),
            "envelopes": [a.envelope.document(), b.envelope.document()],
        }
        return _checked(document, kind, a, b)

    @property
    def id(self) -> str:
        """The tagged hash of the document, which names the evidence."""
        return document_hash("evidence", self.document)

    def encode(self) -> bytes:
        """Return the canonical bytes."""
        return canonical(self.document)


def same_body(a: Vote, b: Vote) -> bool:
    """Return whether two votes have one body.

    The canonical bytes are compared, because `True == 1` in Python while JSON tells them apart.
    """
    return a.envelope.body_bytes == b.envelope.body_bytes


def is_equivocation(a: Vote, b: Vote) -> bool:
    """Return whether two votes of one signer in one round contradict each other."""
    if type(a) is type(b):
        return not same_body(a, b)
    # Of different types, only a commit and a reveal that does not open it are evidence
    # (specification 4.8); an abstention conflicts with neither.
    match a, b:
        case (Commit() as commit, Reveal() as reveal) | (Reveal() as reveal, Commit() as commit):
            return commit.commitment != reveal.commitment
    return False


def is_inconstancy(a: Vote, b: Vote) -> bool:
    """Return whether two votes of one signer reveal different outcomes in different attempts."""
    match a, b:
        case Reveal(), Reveal():
            return a.attempt != b.attempt and a.digest != b.digest
    return False


def verify(document: Json, network: str) -> Evidence:
    """Return the evidence if both envelopes are valid and contradict each other.

    `network` is the network id. Raises Rejected, as `codec.decode_document` does or with
    NO_CONTRADICTION.
    """
    check_schema("evidence", document)
    assert isinstance(document, Mapping)  # noqa: S101  # the schema says so
    fields: Mapping[str, Any] = document
    a, b = (decode_document(envelope, network) for envelope in fields["envelopes"])
    if isinstance(a, Task | Withdraw) or isinstance(b, Task | Withdraw):
        raise Rejected(Rejection.NO_CONTRADICTION, "envelopes: one is no vote")
    return _checked(document, EvidenceKind(fields["kind"]), a, b)


def verify_bytes(text: bytes, network: Network) -> Evidence:
    """Return the evidence in a file's bytes if it is valid. Raises Rejected.

    The signer must be in the roster, because anyone can contradict itself with a new key; and the
    bytes must be canonical (specification 4.8).
    """
    evidence = verify(parse(text, DOCUMENT_LIMIT), network.id)
    if evidence.signer not in network.roster:
        raise Rejected(Rejection.NOT_A_MEMBER, f"{evidence.signer} is not in the roster")
    check_canonical(text, evidence.encode(), "evidence")
    return evidence


def _checked(document: Document, kind: EvidenceKind, a: Vote, b: Vote) -> Evidence:
    if kind is EvidenceKind.EQUIVOCATION:
        contradict = a.attempt == b.attempt and is_equivocation(a, b)
    else:
        contradict = is_inconstancy(a, b)
    if (a.signer, a.task) != (b.signer, b.task) or not contradict:
        raise Rejected(
            Rejection.NO_CONTRADICTION, "envelopes: the two do not contradict each other"
        )
    types = str(a.envelope.body["type"]), str(b.envelope.body["type"])
    return Evidence(document, kind, a.signer, a.task, (a.attempt, b.attempt), types)
