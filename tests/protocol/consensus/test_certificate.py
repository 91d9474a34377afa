from base64 import urlsafe_b64encode
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.consensus import certificate
from protocol.consensus.certificate import assemble, compatible, verify, verify_bytes
from protocol.consensus.committee import committees
from protocol.errors import Rejection
from protocol.network import Network
from protocol.wire.encoding import canonical, parse
from protocol.wire.messages import Reveal, Task
from protocol.wire.signing import sign
from tests.protocol.certificates import certificate_document, commitments, reveals
from tests.protocol.rejections import PROPERTY, reason_of, rejected
from tests.support import fixtures

NET = fixtures.network(5, committee_size=3, committee_max=5)
TASK = fixtures.task(NET)
COMMITTEE, LARGER = committees(NET, TASK)
A, B, C = sorted(COMMITTEE)
D, E = sorted(set(LARGER) - set(COMMITTEE))
VOTES = reveals(NET, TASK)
VALID = certificate_document(NET, TASK, VOTES)
LIE = fixtures.outcome("lie")
FORGED = urlsafe_b64encode(bytes(64)).rstrip(b"=").decode()


def vote(member: str, listing: list[str], outcome: Any = None, **changes: Any) -> Reveal:
    """Return a reveal that lists the honest commitments of some members, with changes."""
    body = fixtures.reveal(NET, TASK, member, commitments(TASK, listing), outcome).envelope.body
    signed = fixtures.signed_by(NET, {**body, **changes}, member)
    assert isinstance(signed, Reveal)
    return signed


# Valid certificates


def test_certificate_of_whole_committee_is_valid() -> None:
    certified = verify(VALID, NET)
    assert certified.document == VALID
    assert certified.task == TASK
    assert certified.attempt == 0
    assert certified.votes == tuple(VOTES)
    assert certified.signers == (A, B, C)
    assert certified.outcome == fixtures.outcome()
    assert certified.encode() == canonical(VALID)
    assert verify_bytes(certified.encode(), NET) == certified


@pytest.mark.parametrize("pair", [(A, B), (A, C), (B, C)])
def test_certificate_of_bare_quorum_is_valid(pair: tuple[str, str]) -> None:
    votes = [vote(member, list(pair)) for member in pair]
    assert verify(certificate_document(NET, TASK, votes), NET).signers == pair


def test_certificate_of_later_attempt_is_valid() -> None:
    votes = reveals(NET, TASK, attempt=1)
    certified = verify(certificate_document(NET, TASK, votes, attempt=1), NET)
    assert (certified.attempt, certified.signers) == (1, tuple(sorted(LARGER)))


def test_certificate_of_error_outcome_is_valid() -> None:
    votes = reveals(NET, TASK, {"error": "non-finite-output"})
    assert verify(certificate_document(NET, TASK, votes), NET).outcome == {
        "error": "non-finite-output"
    }


def test_traces_and_lists_of_non_signers_may_differ() -> None:
    """Traces, and list entries of members that did not sign."""
    votes = [
        vote(A, [A, B], trace={"seconds": 9, "tokens": ["ab"]}),
        vote(
            B,
            [A, B],
            commits=commitments(TASK, [A, B]) | {C: "ab" * 32, fixtures.peer(60): "cd" * 32},
        ),
    ]
    verify(certificate_document(NET, TASK, votes), NET)


def test_validity_does_not_depend_on_time() -> None:
    old = fixtures.task(NET, now=1, deadline=1)
    verify(certificate_document(NET, old, reveals(NET, old)), NET)


# Violations of each clause of section 4


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"type": "evidence"}, "type"),
        ({"version": 1}, "version"),
        ({"version": True}, "version"),
        ({"attempt": -1}, "attempt"),
        ({"attempt": 64}, "attempt"),
        ({"attempt": False}, "attempt"),
        ({"votes": []}, "votes"),
        ({"votes": VALID["votes"] * 11}, "votes"),
        ({"extra": 1}, "extra"),
        ({"network": "x"}, "network"),
    ],
)
def test_error_names_wrong_field(changes: dict[str, Any], field: str) -> None:
    with rejected(Rejection.INVALID_FIELD, field):
        verify({**VALID, **changes}, NET)


@pytest.mark.parametrize("field", sorted(VALID))
def test_error_names_missing_field(field: str) -> None:
    with rejected(Rejection.INVALID_FIELD, f"{field}: is missing"):
        verify({name: value for name, value in VALID.items() if name != field}, NET)


@pytest.mark.parametrize("document", [None, [], "certificate", 1])
def test_document_that_is_not_an_object_is_rejected(document: Any) -> None:
    with rejected(Rejection.INVALID_FIELD):
        verify(document, NET)


def test_certificate_of_another_network_is_rejected() -> None:
    other_network = fixtures.network(4)
    with rejected(Rejection.WRONG_NETWORK, other_network.id):
        verify(VALID, other_network)
    with rejected(Rejection.WRONG_NETWORK, "network"):
        verify({**VALID, "network": other_network.id}, NET)


def test_task_or_vote_of_another_network_is_rejected() -> None:
    other_network = fixtures.network(4)
    with rejected(Rejection.WRONG_NETWORK, "body.network"):
        verify(certificate_document(NET, fixtures.task(other_network), VOTES), NET)
    foreign = fixtures.reveal(other_network, TASK, A, commitments(TASK, [A, B]))
    with rejected(Rejection.WRONG_NETWORK, "body.network"):
        verify(certificate_document(NET, TASK, [foreign, *VOTES[1:]]), NET)


def test_forged_task_signature_is_rejected() -> None:
    with rejected(Rejection.BAD_SIGNATURE, TASK.envelope.signer):
        verify({**VALID, "task": {**VALID["task"], "signature": FORGED}}, NET)


def test_task_member_must_be_a_task() -> None:
    with rejected(Rejection.INVALID_FIELD, "task: is not the envelope of a task"):
        verify(certificate_document(NET, VOTES[0], VOTES), NET)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model": "no/such"}, Rejection.UNKNOWN_MODEL),
        ({"seed": -1}, Rejection.INVALID_FIELD),
        ({"generation_config": {"max_new_tokens": 1504}}, Rejection.OVER_LIMIT),
        ({"deadline": 3601}, Rejection.OVER_LIMIT),
        ({"kind": "pop2piano"}, Rejection.UNSUPPORTED_KIND),
    ],
)
def test_task_not_admitted_by_the_network_is_rejected(changes: Any, reason: Rejection) -> None:
    task = fixtures.task(NET, **changes)
    with rejected(reason):
        verify(certificate_document(NET, task, reveals(NET, task)), NET)


def test_votes_for_another_task_are_rejected() -> None:
    other_task = fixtures.task(NET, nonce=1)
    with rejected(Rejection.WRONG_TASK, A):
        verify(certificate_document(NET, other_task, VOTES), NET)


def test_votes_for_another_attempt_are_rejected() -> None:
    with rejected(Rejection.WRONG_TASK, A):
        verify({**VALID, "attempt": 1}, NET)
    stray = reveals(NET, TASK, attempt=1)[-1]
    with rejected(Rejection.WRONG_TASK, stray.signer):
        verify(certificate_document(NET, TASK, [*VOTES, stray]), NET)


def test_nonexistent_attempt_is_rejected() -> None:
    votes = [
        fixtures.reveal(NET, TASK, m, commitments(TASK, [A, B], None, 2), None, 2) for m in (A, B)
    ]
    with rejected(Rejection.NO_SUCH_ATTEMPT, "attempt: 2, this task has 2"):
        verify(certificate_document(NET, TASK, votes, attempt=2), NET)


def test_forged_vote_signature_is_rejected() -> None:
    for at in range(3):
        votes: list[Any] = [dict(v) for v in VALID["votes"]]
        votes[at]["signature"] = FORGED
        with rejected(Rejection.BAD_SIGNATURE, votes[at]["signer"]):
            verify({**VALID, "votes": votes}, NET)


def test_vote_with_replaced_signer_is_rejected() -> None:
    stolen = {**VALID["votes"][0], "signer": B}
    with rejected(Rejection.BAD_SIGNATURE, B):
        verify({**VALID, "votes": [stolen, *VALID["votes"][2:]]}, NET)


def test_vote_that_is_not_a_reveal_is_rejected() -> None:
    for stray in (fixtures.commit(NET, TASK, C), fixtures.abstain(NET, TASK, C), TASK):
        with rejected(Rejection.INVALID_FIELD, "votes: one is not a reveal"):
            verify(certificate_document(NET, TASK, [*VOTES[:2], stray]), NET)


def test_unsorted_signers_are_rejected() -> None:
    with rejected(Rejection.UNSORTED_VOTES):
        verify(certificate_document(NET, TASK, VOTES[::-1]), NET)


def test_repeated_signer_is_rejected() -> None:
    with rejected(Rejection.UNSORTED_VOTES):
        verify(certificate_document(NET, TASK, [VOTES[0], *VOTES]), NET)
    second_vote = vote(A, [A, B, C], trace={"seconds": 2})
    with rejected(Rejection.UNSORTED_VOTES):
        verify(certificate_document(NET, TASK, [VOTES[0], second_vote]), NET)


@pytest.mark.parametrize("stranger", [D, E, fixtures.peer(40)])
def test_signer_outside_the_committee_is_rejected(stranger: str) -> None:
    """Members of the next attempt's committee included."""
    trio = sorted([A, B, stranger])
    with rejected(Rejection.NOT_A_MEMBER, stranger):
        verify(certificate_document(NET, TASK, [vote(m, trio) for m in trio]), NET)


def test_too_few_signers_are_rejected() -> None:
    with rejected(Rejection.TOO_FEW_VOTES, "1 of a committee of 3, 2 are needed"):
        verify(certificate_document(NET, TASK, [vote(A, [A])]), NET)


def test_half_of_an_even_committee_is_not_a_quorum() -> None:
    net = fixtures.network(4, committee_size=4)
    task = fixtures.task(net)
    pair = sorted(committees(net, task)[0])[:2]
    votes = [fixtures.reveal(net, task, m, commitments(task, pair)) for m in pair]
    with rejected(Rejection.TOO_FEW_VOTES, "2 of a committee of 4, 3 are needed"):
        verify(certificate_document(net, task, votes), net)


def test_different_outcomes_are_rejected() -> None:
    commits = commitments(TASK, [A, B]) | commitments(TASK, [C], LIE)
    votes = [
        fixtures.reveal(NET, TASK, member, commits, LIE if member == C else None)
        for member in (A, B, C)
    ]
    with rejected(Rejection.OUTCOMES_DIFFER, C):
        verify(certificate_document(NET, TASK, votes), NET)
    verify(certificate_document(NET, TASK, votes[:2]), NET)


@pytest.mark.parametrize("blind", [A, B, C])
@pytest.mark.parametrize("unseen", [A, B, C])
def test_list_without_a_signer_is_rejected(blind: str, unseen: str) -> None:
    """A signer must list its own commitment too (specification 4.7, 9)."""
    everyone = [A, B, C]
    votes = [vote(m, [p for p in everyone if m != blind or p != unseen]) for m in everyone]
    with rejected(Rejection.COMMITMENT_MISSING, f"{blind} does not list"):
        verify(certificate_document(NET, TASK, votes), NET)


def test_list_with_wrong_commitment_is_rejected() -> None:
    for wrong in (
        fixtures.commitment_of(TASK, B, LIE),
        fixtures.commitment_of(TASK, B, fixtures.outcome(), attempt=1),
        fixtures.commitment_of(fixtures.task(NET, nonce=1), B, fixtures.outcome()),
        fixtures.commitment_of(TASK, A, fixtures.outcome()),
    ):
        liar = vote(A, [], commits={**commitments(TASK, [A]), B: wrong})
        with rejected(Rejection.COMMITMENT_MISSING, f"{A} does not list the commitment that {B}"):
            verify(certificate_document(NET, TASK, [liar, vote(B, [A, B])]), NET)


def test_number_of_outputs_other_than_the_task_asks_for_is_rejected() -> None:
    """Each reveal is valid by itself; only the task says how many outputs there must be."""
    entry = fixtures.outcome()["result"]["outputs"][0]
    for asked, outputs in ((2, 1), (None, 2), (2, 2)):
        task = fixtures.task(NET, generation_config={"num_return_sequences": asked})
        votes = reveals(NET, task, {"result": {"outputs": [entry] * outputs}})
        text = canonical(certificate_document(NET, task, votes))
        if asked == outputs:
            verify_bytes(text, NET)
            continue
        with rejected(Rejection.INVALID_FIELD, "outcome.result.outputs"):
            verify_bytes(text, NET)


def test_outputs_over_max_output_bytes_are_rejected() -> None:
    for limit, reason in ((64, None), (63, Rejection.INVALID_FIELD)):
        net = fixtures.network(5, max_output_bytes=limit)
        task = fixtures.task(net)
        text = canonical(certificate_document(net, task, reveals(net, task)))
        assert reason_of(lambda net=net, text=text: verify_bytes(text, net)) is reason  # type: ignore[misc]


def test_inconsistent_manifest_is_rejected_even_if_all_signed_it() -> None:
    """Signed by hand, as no encoder of a member makes it."""
    entry = fixtures.outcome()["result"]["outputs"][0] | {"frames": 17}
    outcome = {"result": {"outputs": [entry]}}
    document: Any = parse(canonical(VALID), 100_000)
    commits = commitments(TASK, [A, B, C], outcome)
    for envelope in document["votes"]:
        envelope["body"] |= {"outcome": outcome, "commits": commits}
        signed = sign(envelope["body"], fixtures.key_of(envelope["signer"]))
        envelope["signature"] = signed.signature
    with rejected(Rejection.INVALID_FIELD, "outputs[0].size: is 64, frames and channels: 68"):
        verify_bytes(canonical(document), NET)


def test_certificate_knows_the_operators_of_its_signers() -> None:
    certified = verify(VALID, NET)
    assert certified.operators(NET) == {NET.roster[m].operator for m in (A, B, C)}
    assert len(certified.operators(NET)) == 3


def test_salt_that_does_not_open_the_commitment_is_rejected() -> None:
    liar = vote(B, [A, B], salt="00" * 32)
    with rejected(Rejection.COMMITMENT_MISSING, f"the commitment that {B} opens"):
        verify(certificate_document(NET, TASK, [vote(A, [A, B]), liar]), NET)


# Changed bytes


def test_certificate_over_size_limit_is_rejected() -> None:
    text = canonical(VALID)
    with rejected(Rejection.TOO_LARGE):
        verify_bytes(text + b" " * (983_041 - len(text)), NET)
    with rejected(Rejection.NOT_CANONICAL):
        verify_bytes(text + b" " * (983_040 - len(text)), NET)


def test_certificate_of_an_answer_is_bounded_by_its_canonical_bytes() -> None:
    """It may hold no more than a file may: otherwise one could be sent and not be stored."""
    document: Any = {**VALID, "votes": [vote.envelope.document() for vote in oversized_votes()]}
    assert len(canonical(document)) > 983_040
    with rejected(Rejection.TOO_LARGE, "a certificate of"):
        verify(document, NET)


def test_every_prefix_is_malformed() -> None:
    text = canonical(VALID)
    for end in range(0, len(text), 7):
        with rejected(Rejection.MALFORMED):
            verify_bytes(text[:end], NET)


# Assembling


@pytest.mark.parametrize("signers", [(A, B), (A, C), (B, C), (A, B, C)])
def test_assembled_certificate_passes_verification(signers: tuple[str, ...]) -> None:
    votes = [vote(member, [A, B, C]) for member in signers]
    assembled = assemble(TASK, 0, votes[::-1], NET)
    assert assembled.signers == signers
    assert verify(assembled.document, NET) == assembled
    assert verify_bytes(assembled.encode(), NET) == assembled
    assert assembled.encode() == canonical(assembled.document)
    assert verify(assembled.document, NET).encode() == assembled.encode()


def test_assemble_rejects_reveals_that_make_no_certificate() -> None:
    with rejected(Rejection.TOO_FEW_VOTES):
        assemble(TASK, 0, VOTES[:1], NET)
    with rejected(Rejection.NOT_A_MEMBER):
        assemble(TASK, 0, [*VOTES, vote(D, [A, B, C, D])], NET)
    with rejected(Rejection.WRONG_TASK):
        assemble(TASK, 1, VOTES, NET)
    with rejected(Rejection.NO_SUCH_ATTEMPT):
        assemble(TASK, 2, reveals_of_attempt(2), NET)
    with rejected(Rejection.UNSORTED_VOTES):
        assemble(TASK, 0, [*VOTES, VOTES[0]], NET)
    with rejected(Rejection.OUTCOMES_DIFFER):
        assemble(TASK, 0, [VOTES[0], vote(B, [A, B], LIE)], NET)
    with rejected(Rejection.COMMITMENT_MISSING):
        assemble(TASK, 0, [vote(A, [A]), vote(B, [A, B])], NET)


def reveals_of_attempt(attempt: int) -> list[Reveal]:
    commits = commitments(TASK, [A, B], None, attempt)
    return [fixtures.reveal(NET, TASK, member, commits, None, attempt) for member in (A, B)]


ROOMY_CHUNKS = 608  # as many as `max_output_bytes` can allow


def roomy(task: Task, member: str, commits: dict[str, str], net: Any) -> Reveal:
    size = ROOMY_CHUNKS * 262_144
    entry = fixtures.outcome()["result"]["outputs"][0] | {"size": size, "frames": size // 4}
    entry["chunks"] = ["ab" * 32] * ROOMY_CHUNKS
    return fixtures.reveal(net, task, member, commits, {"result": {"outputs": [entry]}})


def oversized_votes() -> list[Reveal]:
    return [roomy(TASK, A, {}, NET)] * 31


def test_largest_bare_quorum_is_within_the_limit() -> None:
    """16 outputs with tokens have the most hashes, and a committee of 31 has the most commits."""
    most = 159_383_552
    document = fixtures.helium_document(
        31, committee_size=31, committee_max=31, max_output_bytes=most
    )
    document["models"][0]["limits"] = {}
    net = Network.of(document)
    task = fixtures.task(
        net,
        compute_class=fixtures.HELIUM,
        prompt="\U0001f3b5" * 4096,
        generation_config={"num_return_sequences": 16},
    )
    members = sorted(committees(net, task)[0])
    sound = fixtures.outcome()["result"]["outputs"][0] | {"sampling_rate": 384_000}
    tokens = [100_000, *[10_000] * 14, 4]  # the longest sizes that cost no chunk
    sizes = [most - 15 * 262_148 - sum(tokens), *[262_148] * 15]
    outputs = [
        sound
        | {"size": size, "frames": size // 4, "chunks": ["ab" * 32] * -(-size // 262_144)}
        | {"tokens": {"sha256": "ab" * 32, "size": blob}}
        for size, blob in zip(sizes, tokens, strict=True)
    ]
    assert sum(len(output["chunks"]) for output in outputs) == 623
    outcome: Any = {"result": {"outputs": outputs}, "work": "ab" * 32}
    net.check_outcome(task, outcome)
    commits = commitments(task, members, outcome)
    trace = {f"t{n}": "x" * 1014 for n in range(7)} | {"t": "x" * 1000}
    votes = [
        fixtures.reveal(net, task, member, commits, outcome, trace=trace) for member in members
    ]
    assert 8000 < len(canonical(trace)) <= 8192
    assert len(canonical(certificate_document(net, task, votes[:16]))) <= 983_040


def test_oversized_certificate_is_assembled_from_bare_quorum() -> None:
    net = fixtures.network(
        25, committee_size=25, committee_max=25, max_output_bytes=ROOMY_CHUNKS * 262_144
    )
    task = fixtures.task(net)
    members = sorted(committees(net, task)[0])
    outcome: Any = roomy(task, members[0], {}, net).outcome
    commits = commitments(task, members, outcome)
    votes = [roomy(task, member, commits, net) for member in members]
    assert len(canonical(certificate_document(net, task, votes))) > 983_040
    certified = assemble(task, 0, votes, net)
    assert certified.signers == tuple(members[:13])
    assert verify_bytes(certified.encode(), net) == certified


# Compatible reveals


def test_compatible_reveals_can_stand_in_one_certificate() -> None:
    full = [A, B, C]
    assert compatible(vote(A, full), vote(B, full))
    assert compatible(vote(A, [A, B]), vote(B, [A, B]))
    for a, b in (
        (vote(A, full), vote(A, full)),
        (vote(A, full), vote(A, full, trace={})),
        (vote(A, [A, C]), vote(B, full)),
        (vote(A, full), vote(B, full, salt="00" * 32)),
        (
            vote(A, [], commits=commitments(TASK, [A]) | commitments(TASK, [B], LIE)),
            vote(B, [], LIE, commits=commitments(TASK, [A]) | commitments(TASK, [B], LIE)),
        ),
    ):
        assert not compatible(a, b)
        assert not compatible(b, a)


@cache
def reveal_listing(member: str, members: frozenset[str]) -> Reveal:
    return vote(member, sorted(members))


@given(st.lists(st.frozensets(st.sampled_from([A, B, C])), min_size=3, max_size=3))
@PROPERTY
def test_pairwise_compatible_reveals_make_a_certificate(listings: list[frozenset[str]]) -> None:
    votes = [reveal_listing(m, listing) for m, listing in zip((A, B, C), listings, strict=True)]
    pairwise = all(compatible(a, b) for a in votes for b in votes if a is not b)
    pairwise = pairwise and all(certificate.lists(a, a) for a in votes)
    reason = reason_of(lambda: verify(certificate_document(NET, TASK, votes), NET))
    assert reason is (None if pairwise else Rejection.COMMITMENT_MISSING)


def test_lists_compares_the_opened_commitment() -> None:
    assert certificate.lists(vote(A, [B]), vote(B, []))
    assert not certificate.lists(vote(A, [B]), vote(B, [], LIE))
    assert not certificate.lists(vote(A, []), vote(B, [A]))
