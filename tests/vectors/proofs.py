"""Vectors of certificates and evidence."""

from typing import Any

from protocol.consensus import certificate, evidence
from protocol.consensus.committee import committees
from protocol.consensus.evidence import Evidence
from protocol.errors import Rejection
from protocol.network import Network
from protocol.wire.encoding import canonical
from protocol.wire.messages import Message, Reveal, Task, Vote
from protocol.wire.signing import Envelope, sign
from tests.protocol.certificates import certificate_document, commitments, reveals
from tests.support import fixtures
from tests.vectors import signatures
from tests.vectors.entries import Entry, Vectors, refused


def _document() -> Entry:
    document = fixtures.network_document(5, committee_max=5, max_output_bytes=1_000_000)
    (model,) = document["models"]
    document["models"].append({**model, "id": fixtures.PIANO, "tasks": ["pop2piano"], "limits": {}})
    return document


DOCUMENT = _document()
NET = Network.of(DOCUMENT)
TASK, OTHER = fixtures.task(NET), fixtures.task(NET, nonce=1)
COMMITTEE, LARGER = committees(NET, TASK)
A, B, C = sorted(COMMITTEE)
D = min(set(LARGER) - set(COMMITTEE))
LIE = fixtures.outcome("lie")
ERROR = {"error": "non-finite-output"}
VOTES = reveals(NET, TASK)
GOOD = certificate_document(NET, TASK, VOTES)
MOST = NET.parameters.max_output_bytes
OLD = fixtures.task(NET, now=1.0)
LONG = fixtures.task(NET, generation_config={"max_new_tokens": 1504})


def _sounds(number: int, **changes: Any) -> Entry:
    (sound,) = fixtures.outcome()["result"]["outputs"]
    return {"result": {"outputs": [sound | changes] * number}}


def _long_sound(frames: int) -> Entry:
    size = 4 * frames
    return _sounds(1, frames=frames, size=size, chunks=["ab" * 32] * -(-size // 262_144))


def _song() -> Task:
    body = fixtures.task(NET, kind="pop2piano").envelope.body
    message = fixtures.signed(NET, {**body, "args": fixtures.piano_args(b"a", b"b")}, 1000)
    assert isinstance(message, Task)
    return message


def _piano() -> Entry:
    (sound,) = fixtures.outcome()["result"]["outputs"]
    score = {"media": "audio/midi", "notes": 1, "size": 64, **_hashes(sound)}
    return {"result": {"outputs": [score, sound] * 2}}


def _hashes(sound: Entry) -> Entry:
    return {"sha256": sound["sha256"], "chunks": sound["chunks"]}


SONG, PIANO = _song(), _piano()


def oversized(size: int) -> Envelope:
    """Return a reveal of so many canonical bytes that fits its schema and rules 1 to 4 of 8.2.

    Its outputs are more than `max_output_bytes` may allow. Every hash of a chunk is 67 bytes, and
    the trace fills up what is left.
    """
    sound = _long_sound(400 * 65_536)["result"]["outputs"][0]
    short = _long_sound(50 * 65_536)["result"]["outputs"][0]
    body: Entry = {
        **VOTES[0].envelope.body,
        "outcome": {"result": {"outputs": [sound, sound, short]}},
        "trace": {f"t{n}": "x" * 1000 for n in range(7)},
    }
    missing = size - len(sign(body, fixtures.key_of(A)).encode())
    body["trace"]["t"] = "x" * (missing - len('"t":"",'))
    return sign(body, fixtures.key_of(A))


def _with_vote(document: Entry, vote: Envelope) -> Entry:
    return {**document, "votes": [vote.document(), *document["votes"][1:]]}


def _with_outcome(document: Entry, outcome: Any) -> Entry:
    return _with_vote(
        document, sign({**VOTES[0].envelope.body, "outcome": outcome}, fixtures.key_of(A))
    )


def certificates() -> Vectors:
    """Valid certificates, and one that breaks each clause."""
    nameless = commitments(TASK, [A, B]) | {signatures.NO_PEER: "ab" * 32}
    pair = [_vote(A, [A, B]), _vote(B, [A, B], trace={"seconds": 2.5})]
    valid = {
        "all of a committee": certificate_document(NET, TASK, VOTES),
        "a quorum of it, with different traces": certificate_document(NET, TASK, pair),
        "a later attempt": certificate_document(NET, TASK, reveals(NET, TASK, None, 1), 1),
        "an error": certificate_document(NET, TASK, reveals(NET, TASK, ERROR)),
        "a name in commits that is not of the committee": certificate_document(
            NET, TASK, [_vote(A, [A, B, D]), _vote(B, [A, B])]
        ),
        "a name in commits that is no peer id": certificate_document(
            NET, TASK, [_vote(A, [], commits=nameless), _vote(B, [A, B])]
        ),
        "a task with a longer past": certificate_document(NET, OLD, reveals(NET, OLD)),
        "a task for pop2piano": certificate_document(NET, SONG, reveals(NET, SONG, PIANO)),
    }
    return {
        "description": "Section 4.7. Each `certificate` of `valid` is the text of a file with a"
        " certificate that is valid against `network` (a network document), with these signers and"
        " this outcome. Each text of `invalid` is a file that is rejected for `reason`. With"
        " `padded_to`, spaces are added to that many bytes first.",
        "network": DOCUMENT,
        "valid": [
            *(_certificate(name, canonical(document)) for name, document in valid.items()),
            _certificate("a line feed at the end", canonical(GOOD) + b"\n"),
        ],
        "invalid": [
            refused(name, reason, canonical(document), lambda t: certificate.verify_bytes(t, NET))
            for name, (reason, document) in _invalid().items()
        ]
        + [
            refused(name, Rejection.NOT_CANONICAL, text, lambda t: certificate.verify_bytes(t, NET))
            for name, text in other_spellings(canonical(GOOD)).items()
        ]
        + [
            _padded("padded with spaces to the limit", 983_040, Rejection.NOT_CANONICAL),
            _padded("too large", 983_041, Rejection.TOO_LARGE),
        ],
    }


def _padded(name: str, size: int, reason: Rejection) -> Entry:
    text = canonical(GOOD)
    entry = refused(name, reason, text.ljust(size), lambda t: certificate.verify_bytes(t, NET))
    return entry | {"text": text.decode(), "padded_to": size}


def _vote(member: str, listing: list[str], **changes: Any) -> Reveal:
    body = fixtures.reveal(NET, TASK, member, commitments(TASK, listing)).envelope.body
    vote = fixtures.signed_by(NET, {**body, **changes}, member)
    assert isinstance(vote, Reveal)
    return vote


def other_spellings(text: bytes) -> dict[str, bytes]:
    """Return texts of the same JSON document that are not its canonical bytes."""
    assert b'"attempt":0' in text
    return {
        "two line feeds at the end": text + b"\n\n",
        "a space at the end": text + b" ",
        "a carriage return and a line feed at the end": text + b"\r\n",
        "a line feed at the start": b"\n" + text,
        "a space within": text.replace(b'"attempt":', b'"attempt": ', 1),
        "another spelling of a number": text.replace(b'"attempt":0', b'"attempt":0.0', 1),
        "an escape that is not needed": text.replace(b'"type"', b'"\\u0074ype"', 1),
    }


def _certificate(name: str, text: bytes) -> Entry:
    verified = certificate.verify_bytes(text, NET)
    return {
        "name": name,
        "certificate": text.decode(),
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
    good = GOOD
    return {
        "version 1": (Rejection.INVALID_FIELD, {**good, "version": 1}),
        "an attempt that is no integer": (Rejection.INVALID_FIELD, {**good, "attempt": 0.5}),
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
        "a task by another than its requester": (
            Rejection.NOT_THE_REQUESTER,
            {**good, "task": sign(TASK.envelope.body, fixtures.key(1001)).document()},
        ),
        "a task over the model's limit": (
            Rejection.OVER_LIMIT,
            certificate_document(NET, LONG, reveals(NET, LONG)),
        ),
        "an output more than the task asks for": (
            Rejection.INVALID_FIELD,
            certificate_document(NET, TASK, reveals(NET, TASK, _sounds(2))),
        ),
        "an output of another media": (
            Rejection.INVALID_FIELD,
            certificate_document(NET, TASK, reveals(NET, TASK, PIANO)),
        ),
        "outputs over max_output_bytes": (
            Rejection.INVALID_FIELD,
            certificate_document(NET, TASK, reveals(NET, TASK, _long_sound(MOST // 4 + 1))),
        ),
        "an output whose size is not that of its frames": (
            Rejection.INVALID_FIELD,
            _with_outcome(good, _sounds(1, size=68)),
        ),
        "a vote of 65,537 bytes": (Rejection.TOO_LARGE, _with_vote(good, oversized(65_537))),
        "a vote of 65,536 bytes, with more outputs than any network allows": (
            Rejection.INVALID_FIELD,
            _with_vote(good, oversized(65_536)),
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
        "a reveal and a commit that it does not open": (_vote(A, [], salt="00" * 32), commit),
        "two commits of an attempt that the task does not have": (
            fixtures.commit(NET, TASK, A, attempt=63),
            fixtures.commit(NET, TASK, A, LIE, 63),
        ),
        "two commits of a member outside the committee": (
            fixtures.commit(NET, TASK, D),
            fixtures.commit(NET, TASK, D, LIE),
        ),
        "a reveal of more outputs than any network allows": (
            fixtures.signed_by(NET, oversized(65_536).body, A),
            _vote(A, [A]),
        ),
    }
    inconstant: dict[str, tuple[Vote, Vote]] = {
        "reveals of two attempts with different outcomes": (
            _vote(A, [A]),
            fixtures.reveal(NET, TASK, A, {}, LIE, 1),
        ),
        "a result and an error": (
            fixtures.reveal(NET, TASK, A, {}, ERROR, 5),
            _vote(A, [A]),
        ),
    }
    nothing: dict[str, tuple[Message, Message]] = {
        "one commit twice": (commit, commit),
        "a commit and the reveal that opens it": (commit, _vote(A, [A])),
        "a commit and an abstention": (commit, fixtures.abstain(NET, TASK, A)),
        "two signers": (commit, fixtures.commit(NET, TASK, B, LIE)),
        "two tasks": (commit, fixtures.commit(NET, OTHER, A, LIE)),
        "two attempts": (commit, fixtures.commit(NET, TASK, A, LIE, 1)),
        "an abstention and a reveal": (fixtures.abstain(NET, TASK, A), _vote(A, [A])),
        "a task": (TASK, OTHER),
        "a task twice": (TASK, TASK),
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
        "one reveal twice, called an inconstancy": (_vote(A, [A]), _vote(A, [A])),
        "two signers, called an inconstancy": (
            _vote(A, [A]),
            fixtures.reveal(NET, TASK, B, {}, LIE, 1),
        ),
        "a commit and a reveal of two attempts": (
            commit,
            fixtures.reveal(NET, TASK, A, {}, LIE, 1),
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
    good = canonical(_evidence(*proven["two commits"]))
    larger = _evidence(*proven["two reveals"])
    larger["envelopes"][1] = dict(oversized(65_537).document())
    broken = _evidence(*proven["two reveals"])
    broken["envelopes"][1] = dict(
        sign(
            {**VOTES[0].envelope.body, "outcome": _sounds(1, size=68)}, fixtures.key_of(A)
        ).document()
    )
    alone = _evidence(*proven["two commits"])
    alone["envelopes"].pop()
    other_kind = _evidence(*proven["two commits"]) | {"kind": "dissent"}
    return {
        "description": "Section 4.8. Each `evidence` of `proven` is the text of a file with"
        " evidence of this `kind` against `signer`, for the network document `network`; `attempts`"
        " are those of the two envelopes. Each text of `refused` is a file that is rejected for"
        " `reason`.",
        "network": DOCUMENT,
        "proven": [
            *(_proof(name, canonical(_evidence(*pair))) for name, pair in proven.items()),
            *(
                _proof(name, canonical(_evidence(*pair, "inconstancy")))
                for name, pair in inconstant.items()
            ),
            _proof("a line feed at the end", good + b"\n"),
        ],
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
                ("one envelope", Rejection.INVALID_FIELD, alone),
                ("a reveal of 65,537 bytes", Rejection.TOO_LARGE, larger),
                ("a reveal whose size is not that of its frames", Rejection.INVALID_FIELD, broken),
                (
                    "a signer outside the roster",
                    Rejection.NOT_A_MEMBER,
                    _evidence(strange[0], strange[1]),
                ),
            )
        ]
        + [
            refused(name, Rejection.NOT_CANONICAL, text, _verify)
            for name, text in other_spellings(good).items()
        ],
    }


def _evidence(a: Message, b: Message, kind: str = "equivocation") -> Entry:
    envelopes = [dict(a.envelope.document()), dict(b.envelope.document())]
    return {"type": "evidence", "kind": kind, "envelopes": envelopes}


def _proof(name: str, text: bytes) -> Entry:
    proof = _verify(text)
    return {
        "name": name,
        "evidence": text.decode(),
        "kind": str(proof.kind),
        "signer": proof.signer,
        "task": proof.task,
        "attempts": list(proof.attempts),
    }


def _verify(text: bytes) -> Evidence:
    return evidence.verify_bytes(text, NET)
