"""Vectors of certificates and evidence."""

from typing import Any

from protocol.consensus import certificate, evidence
from protocol.consensus.committee import committees
from protocol.consensus.evidence import Evidence
from protocol.errors import Rejection
from protocol.wire.encoding import canonical
from protocol.wire.messages import Message, Reveal, Vote
from tests.protocol.certificates import certificate_document, commitments, reveals
from tests.support import fixtures
from tests.vectors.entries import Entry, Vectors, refused

DOCUMENT = fixtures.network_document(5, committee_max=5)
NET = fixtures.network(5, committee_max=5)
TASK, OTHER = fixtures.task(NET), fixtures.task(NET, nonce=1)
COMMITTEE, LARGER = committees(NET, TASK)
A, B, C = sorted(COMMITTEE)
D = min(set(LARGER) - set(COMMITTEE))
LIE = fixtures.outcome("lie")
ERROR = {"error": "non-finite-output"}
VOTES = reveals(NET, TASK)


def certificates() -> Vectors:
    """Valid certificates, and one that breaks each clause."""
    pair = [_vote(A, [A, B]), _vote(B, [A, B], trace={"seconds": 2.5})]
    valid = {
        "all of a committee": certificate_document(NET, TASK, VOTES),
        "a quorum of it, with different traces": certificate_document(NET, TASK, pair),
        "a later attempt": certificate_document(NET, TASK, reveals(NET, TASK, None, 1), 1),
        "an error": certificate_document(NET, TASK, reveals(NET, TASK, ERROR)),
    }
    return {
        "description": "Section 4. Against `network` (a network document) each `certificate`"
        " (canonical text) of `valid` is valid, with these signers and this outcome; each text of"
        " `invalid` is refused for `reason`.",
        "network": DOCUMENT,
        "valid": [_certificate(name, document) for name, document in valid.items()],
        "invalid": [
            refused(name, reason, canonical(document), lambda t: certificate.verify_bytes(t, NET))
            for name, (reason, document) in _invalid().items()
        ]
        + [
            refused(
                "a space at the end",
                Rejection.NOT_CANONICAL,
                canonical(certificate_document(NET, TASK, VOTES)) + b" ",
                lambda t: certificate.verify_bytes(t, NET),
            )
        ],
    }


def _vote(member: str, listing: list[str], **changes: Any) -> Reveal:
    body = fixtures.reveal(NET, TASK, member, commitments(TASK, listing)).envelope.body
    vote = fixtures.signed_by(NET, {**body, **changes}, member)
    assert isinstance(vote, Reveal)
    return vote


def _certificate(name: str, document: Entry) -> Entry:
    verified = certificate.verify(document, NET)
    return {
        "name": name,
        "certificate": verified.encode().decode(),
        "task": verified.task.id,
        "attempt": verified.attempt,
        "signers": list(verified.signers),
        "outcome": verified.outcome,
    }


def _invalid() -> dict[str, tuple[Rejection, Entry]]:
    mixed = commitments(TASK, [A, B]) | commitments(TASK, [C], LIE)
    differing = [fixtures.reveal(NET, TASK, m, mixed, LIE if m == C else None) for m in (A, B, C)]
    forged = [v.envelope.document() for v in VOTES]
    strangers = sorted([A, B, D])
    unlisted = fixtures.task(NET, model="no/such")
    never = [
        fixtures.reveal(NET, TASK, m, commitments(TASK, [A, B], None, 2), None, 2) for m in (A, B)
    ]
    wrong_commitment = {
        **commitments(TASK, [A]),
        B: fixtures.commitment_of(TASK, B, fixtures.outcome(), 1),
    }
    good = certificate_document(NET, TASK, VOTES)
    return {
        "another version": (Rejection.INVALID_FIELD, {**good, "version": 2}),
        "an unknown member": (Rejection.INVALID_FIELD, {**good, "extra": 1}),
        "no votes": (Rejection.INVALID_FIELD, {**good, "votes": []}),
        "another network": (Rejection.WRONG_NETWORK, {**good, "network": fixtures.network().id}),
        "a task that nobody signed": (
            Rejection.BAD_SIGNATURE,
            {**good, "task": {**TASK.envelope.document(), "signature": "A" * 86}},
        ),
        "a task of a model that is not listed": (
            Rejection.UNKNOWN_MODEL,
            certificate_document(NET, unlisted, reveals(NET, unlisted)),
        ),
        "a commit for a task": (
            Rejection.INVALID_FIELD,
            certificate_document(NET, fixtures.commit(NET, TASK, A), VOTES),
        ),
        "votes for another task": (Rejection.WRONG_TASK, certificate_document(NET, OTHER, VOTES)),
        "votes for another attempt": (Rejection.WRONG_TASK, {**good, "attempt": 1}),
        "an attempt that never comes": (
            Rejection.NO_SUCH_ATTEMPT,
            certificate_document(NET, TASK, never, 2),
        ),
        "a vote under another's name": (
            Rejection.BAD_SIGNATURE,
            {**good, "votes": [{**forged[0], "signer": B}, *forged[1:]]},
        ),
        "a commit among the votes": (
            Rejection.INVALID_FIELD,
            certificate_document(NET, TASK, [*VOTES[:2], fixtures.commit(NET, TASK, C)]),
        ),
        "votes out of order": (
            Rejection.UNSORTED_VOTES,
            certificate_document(NET, TASK, VOTES[::-1]),
        ),
        "a vote twice": (
            Rejection.UNSORTED_VOTES,
            certificate_document(NET, TASK, [VOTES[0], *VOTES]),
        ),
        "a signer of the next attempt's committee": (
            Rejection.NOT_A_MEMBER,
            certificate_document(NET, TASK, [_vote(m, strangers) for m in strangers]),
        ),
        "too few votes": (
            Rejection.TOO_FEW_VOTES,
            certificate_document(NET, TASK, [_vote(A, [A])]),
        ),
        "outcomes that differ": (
            Rejection.OUTCOMES_DIFFER,
            certificate_document(NET, TASK, differing),
        ),
        "a list without another signer": (
            Rejection.COMMITMENT_MISSING,
            certificate_document(NET, TASK, [_vote(A, [A]), _vote(B, [A, B])]),
        ),
        "a list without its own signer": (
            Rejection.COMMITMENT_MISSING,
            certificate_document(NET, TASK, [_vote(A, [B]), _vote(B, [A, B])]),
        ),
        "a list with another commitment": (
            Rejection.COMMITMENT_MISSING,
            certificate_document(
                NET, TASK, [_vote(A, [], commits=wrong_commitment), _vote(B, [A, B])]
            ),
        ),
        "a salt that opens nothing": (
            Rejection.COMMITMENT_MISSING,
            certificate_document(NET, TASK, [_vote(A, [A, B]), _vote(B, [A, B], salt="00" * 32)]),
        ),
    }


def evidence_vectors() -> Vectors:
    """Contradictions, and what is none."""
    commit = fixtures.commit(NET, TASK, A)
    proven: dict[str, tuple[Vote, Vote]] = {
        "two commits": (commit, fixtures.commit(NET, TASK, A, LIE)),
        "two reveals": (_vote(A, [A]), _vote(A, [A, B])),
        "two reveals that differ in their traces": (_vote(A, [A]), _vote(A, [A], trace={})),
        "two abstentions": (
            fixtures.abstain(NET, TASK, A),
            fixtures.abstain(NET, TASK, A, "timeout"),
        ),
        "a commit and a reveal that does not open it": (commit, _vote(A, [], salt="00" * 32)),
    }
    inconstant: dict[str, tuple[Vote, Vote]] = {
        "reveals of two attempts with different outcomes": (
            _vote(A, [A]),
            fixtures.reveal(NET, TASK, A, {}, LIE, 1),
        ),
    }
    nothing: dict[str, tuple[Message, Message]] = {
        "one commit twice": (commit, commit),
        "a commit and the reveal that opens it": (commit, _vote(A, [A])),
        "a commit and an abstention": (commit, fixtures.abstain(NET, TASK, A)),
        "two signers": (commit, fixtures.commit(NET, TASK, B, LIE)),
        "two tasks": (commit, fixtures.commit(NET, OTHER, A, LIE)),
        "two attempts": (commit, fixtures.commit(NET, TASK, A, LIE, 1)),
        "a task": (TASK, OTHER),
        "a withdrawal": (fixtures.withdraw(NET, TASK), commit),
        "reveals of two attempts, called an equivocation": inconstant[
            "reveals of two attempts with different outcomes"
        ],
    }
    steady = {
        "reveals of one attempt, called an inconstancy": proven["two reveals"],
        "reveals of two attempts with one outcome": (
            _vote(A, [A]),
            fixtures.reveal(NET, TASK, A, {}, attempt=1),
        ),
        "commits of two attempts": (commit, fixtures.commit(NET, TASK, A, LIE, 1)),
        "inconstancy of two tasks": (
            _vote(A, [A]),
            fixtures.reveal(NET, OTHER, A, {}, LIE, 1),
        ),
    }
    forged = _evidence(*proven["two commits"])
    forged["envelopes"][0]["signature"] = "A" * 86
    strange = [fixtures.signed(NET, vote.envelope.body, 1000) for vote in proven["two commits"]]
    spaced = canonical(_evidence(*proven["two commits"])) + b" "
    other_kind = _evidence(*proven["two commits"]) | {"kind": "dissent"}
    return {
        "description": "Section 4. Against `network` (a network document) each `evidence`"
        " (canonical text) of `proven` is evidence against `signer`; each text of `refused` is"
        " refused for `reason`.",
        "network": DOCUMENT,
        "proven": [_proof(name, *pair) for name, pair in (proven | inconstant).items()],
        "refused": [
            refused(name, reason, canonical(document), _verify)
            for name, reason, document in (
                *((n, Rejection.NO_CONTRADICTION, _evidence(*p)) for n, p in nothing.items()),
                *(
                    (n, Rejection.NO_CONTRADICTION, _evidence(*p, "inconstancy"))
                    for n, p in steady.items()
                ),
                ("a signature that is none", Rejection.BAD_SIGNATURE, forged),
                ("a dissent", Rejection.INVALID_FIELD, other_kind),
                (
                    "a signer outside the roster",
                    Rejection.NOT_A_MEMBER,
                    _evidence(strange[0], strange[1]),
                ),
            )
        ]
        + [refused("a space at the end", Rejection.NOT_CANONICAL, spaced, _verify)],
    }


def _evidence(a: Message, b: Message, kind: str = "equivocation") -> Entry:
    envelopes = [dict(a.envelope.document()), dict(b.envelope.document())]
    return {"type": "evidence", "kind": kind, "envelopes": envelopes}


def _proof(name: str, a: Vote, b: Vote) -> Entry:
    proof = Evidence.from_votes(a, b)
    return {
        "name": name,
        "evidence": proof.encode().decode(),
        "kind": str(proof.kind),
        "signer": proof.signer,
        "task": proof.task,
        "attempts": list(proof.attempts),
    }


def _verify(text: bytes) -> None:
    evidence.verify_bytes(text, NET)
