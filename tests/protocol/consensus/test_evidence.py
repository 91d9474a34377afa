from typing import Any

import pytest

from protocol.consensus import evidence
from protocol.consensus.evidence import Evidence
from protocol.errors import Rejection
from protocol.wire import messages
from protocol.wire.encoding import canonical, document_hash
from protocol.wire.messages import Vote
from tests.protocol.rejections import rejected
from tests.support import fixtures

NET = fixtures.network()
TASK, OTHER = fixtures.task(NET), fixtures.task(NET, nonce=1)
A, B = fixtures.peer(0), fixtures.peer(1)

HONEST = fixtures.commit(NET, TASK, A)
LIE = fixtures.outcome("lie")


def revealed(**changes: Any) -> Vote:
    body = {**fixtures.reveal(NET, TASK, A, {}).envelope.body, **changes}
    return fixtures.signed_by(NET, body, A)


CONTRADICTIONS: list[tuple[Vote, Vote]] = [
    (HONEST, fixtures.commit(NET, TASK, A, LIE)),
    (fixtures.reveal(NET, TASK, A, {}), fixtures.reveal(NET, TASK, A, {}, LIE)),
    (revealed(), revealed(trace={"seconds": 2})),
    (revealed(), revealed(commits={B: "ab" * 32})),
    (revealed(), revealed(trace={"seconds": True})),
    (fixtures.abstain(NET, TASK, A, "busy"), fixtures.abstain(NET, TASK, A, "timeout")),
    (HONEST, fixtures.reveal(NET, TASK, A, {}, LIE)),
    (HONEST, revealed(salt="00" * 32)),
]

CONSISTENT: list[tuple[Vote, Vote]] = [
    (HONEST, HONEST),
    (HONEST, fixtures.reveal(NET, TASK, A, {})),
    (revealed(), revealed()),
    (HONEST, fixtures.abstain(NET, TASK, A)),
    (revealed(), fixtures.abstain(NET, TASK, A)),
]

UNRELATED: list[tuple[Vote, Vote]] = [
    (HONEST, fixtures.commit(NET, TASK, B, LIE)),
    (HONEST, fixtures.commit(NET, OTHER, A, LIE)),
    (HONEST, fixtures.commit(NET, TASK, A, LIE, attempt=1)),
    (HONEST, fixtures.reveal(NET, TASK, A, {}, attempt=1)),
    (HONEST, fixtures.reveal(NET, TASK, A, {}, LIE, attempt=1)),
    (revealed(), fixtures.reveal(NET, TASK, A, {}, attempt=1)),
    (revealed(), fixtures.reveal(NET, TASK, A, {}, attempt=1, trace={"seconds": 2})),
    (revealed(), fixtures.reveal(NET, OTHER, A, {}, LIE, attempt=1)),
    (revealed(), fixtures.reveal(NET, TASK, B, {}, LIE, attempt=1)),
    (revealed(), fixtures.reveal(NET, TASK, B, {}, LIE)),
]


def document(
    a: messages.Message, b: messages.Message, kind: str = "equivocation"
) -> dict[str, Any]:
    return {
        "type": "evidence",
        "kind": kind,
        "envelopes": [a.envelope.document(), b.envelope.document()],
    }


@pytest.mark.parametrize("pair", CONTRADICTIONS)
def test_conflicting_votes_are_evidence_in_either_order(pair: tuple[Vote, Vote]) -> None:
    for a, b in (pair, pair[::-1]):
        assert evidence.is_equivocation(a, b)
        proof = Evidence.from_votes(a, b)
        assert proof.document == document(a, b)
        assert (proof.signer, proof.task, proof.attempts) == (A, TASK.id, (0, 0))
        assert evidence.verify(document(a, b), NET.id) == proof


@pytest.mark.parametrize("pair", CONSISTENT)
def test_consistent_votes_are_not_evidence(pair: tuple[Vote, Vote]) -> None:
    for a, b in (pair, pair[::-1]):
        assert not evidence.is_equivocation(a, b)
        with rejected(Rejection.NO_CONTRADICTION):
            Evidence.from_votes(a, b)
        with rejected(Rejection.NO_CONTRADICTION):
            evidence.verify(document(a, b), NET.id)


@pytest.mark.parametrize("pair", UNRELATED)
def test_votes_of_different_signers_tasks_or_attempts_are_not_evidence(
    pair: tuple[Vote, Vote],
) -> None:
    for a, b in (pair, pair[::-1]):
        with rejected(Rejection.NO_CONTRADICTION):
            Evidence.from_votes(a, b)
        for kind in evidence.EvidenceKind:
            with rejected(Rejection.NO_CONTRADICTION):
                evidence.verify(document(a, b, kind), NET.id)


@pytest.mark.parametrize("other", [TASK, OTHER, fixtures.withdraw(NET, TASK)])
def test_envelope_that_is_no_vote_is_not_evidence(other: messages.Message) -> None:
    for a, b in ((other, HONEST), (HONEST, other), (TASK, other)):
        with rejected(Rejection.NO_CONTRADICTION, "envelopes: one is no vote"):
            evidence.verify(document(a, b), NET.id)


# Inconstancy


FIRST, SECOND = revealed(), fixtures.reveal(NET, TASK, A, {}, LIE, attempt=2)


def test_reveals_of_two_outcomes_in_two_attempts_are_inconstancy_in_either_order() -> None:
    for a, b in ((FIRST, SECOND), (SECOND, FIRST)):
        proof = Evidence.from_votes(a, b)
        assert (proof.kind, proof.signer, proof.task) == ("inconstancy", A, TASK.id)
        assert proof.attempts == (a.attempt, b.attempt)
        assert proof.document == document(a, b, "inconstancy")
        assert evidence.verify_bytes(proof.encode(), NET) == proof


@pytest.mark.parametrize(
    ("pair", "kind"),
    [
        ((FIRST, SECOND), "equivocation"),
        ((FIRST, fixtures.reveal(NET, TASK, A, {}, LIE)), "inconstancy"),
        ((HONEST, fixtures.commit(NET, TASK, A, LIE)), "inconstancy"),
    ],
)
def test_evidence_of_the_wrong_kind_is_rejected(pair: tuple[Vote, Vote], kind: str) -> None:
    Evidence.from_votes(*pair)
    with rejected(Rejection.NO_CONTRADICTION):
        evidence.verify_bytes(canonical(document(*pair, kind)), NET)


PROOF = document(*CONTRADICTIONS[0])


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"type": "certificate"}, "type"),
        ({"kind": "dissent"}, "kind"),
        ({"envelopes": PROOF["envelopes"][:1]}, "envelopes"),
        ({"envelopes": PROOF["envelopes"] * 2}, "envelopes"),
        ({"extra": 1}, "extra"),
    ],
)
def test_error_names_wrong_field(changes: dict[str, Any], field: str) -> None:
    with rejected(Rejection.INVALID_FIELD, field):
        evidence.verify({**PROOF, **changes}, NET.id)


@pytest.mark.parametrize("index", [0, 1])
def test_both_signatures_are_verified(index: int) -> None:
    envelopes: list[Any] = [dict(e) for e in PROOF["envelopes"]]
    envelopes[index]["signature"] = envelopes[1 - index]["signature"]
    with rejected(Rejection.BAD_SIGNATURE):
        evidence.verify({**PROOF, "envelopes": envelopes}, NET.id)


def test_evidence_of_another_network_is_rejected() -> None:
    with rejected(Rejection.WRONG_NETWORK):
        evidence.verify(PROOF, fixtures.network(5).id)


def test_id_is_hash_of_document() -> None:
    proof = evidence.verify(PROOF, NET.id)
    assert proof.id == document_hash("evidence", PROOF)
    assert proof.encode() == canonical(PROOF)
    assert Evidence.from_votes(*CONTRADICTIONS[1]).id != proof.id


# In a file


KEPT = Evidence.from_votes(HONEST, fixtures.commit(NET, TASK, A, LIE))


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_canonical_bytes_with_optional_line_feed_are_accepted(end: bytes) -> None:
    proof = evidence.verify_bytes(KEPT.encode() + end, NET)
    assert proof == KEPT
    assert proof.types == ("commit", "commit")


@pytest.mark.parametrize("a", CONTRADICTIONS)
def test_every_kind_of_conflict_is_accepted_in_either_order(a: tuple[Vote, Vote]) -> None:
    for pair in (a, a[::-1]):
        proof = Evidence.from_votes(*pair)
        assert evidence.verify_bytes(proof.encode(), NET) == proof
        assert proof.types == tuple(vote.envelope.body["type"] for vote in pair)


@pytest.mark.parametrize("end", [b" ", b"\n\n", b"\r"])
def test_added_byte_is_rejected(end: bytes) -> None:
    with rejected(Rejection.NOT_CANONICAL, "evidence"):
        evidence.verify_bytes(KEPT.encode() + end, NET)


def test_evidence_against_non_member_is_rejected() -> None:
    pair = [
        fixtures.signed(NET, fixtures.commit(NET, TASK, A, outcome).envelope.body, 1000)
        for outcome in (fixtures.outcome(), LIE)
    ]
    with rejected(Rejection.NOT_A_MEMBER, fixtures.peer(1000)):
        evidence.verify_bytes(canonical(document(pair[0], pair[1])), NET)


def test_file_of_another_network_is_rejected() -> None:
    with rejected(Rejection.WRONG_NETWORK, NET.id):
        evidence.verify_bytes(KEPT.encode(), fixtures.network(5))
