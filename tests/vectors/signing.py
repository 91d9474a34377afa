"""Vectors of envelopes and commitments."""

from base64 import urlsafe_b64decode
from typing import Any

from protocol import manifest
from protocol.consensus.committee import committees
from protocol.errors import Rejection
from protocol.wire import messages
from protocol.wire.encoding import Document, canonical, domain
from protocol.wire.messages import Abstention, Message, Task
from tests.protocol import certificates
from tests.support import fixtures
from tests.vectors.entries import Entry, Vectors

NET = fixtures.network()
TASK = fixtures.task(NET, generation_config={"max_new_tokens": 256, "temperature": 0.7})
A, B, C = committees(NET, TASK)[0]
ERROR = {"error": "generation-rejected"}


def envelopes() -> Vectors:
    """One of each message, with everything on the way to its bytes."""
    seen = certificates.commitments(TASK, [A, B, C])
    sent: dict[str, Message] = {
        "a task": TASK,
        "a task in other characters": fixtures.task(
            NET, prompt='é "quoted"\n€ 😀', seed=4294967295
        ),
        "a commit": fixtures.commit(NET, TASK, A),
        "a commit in a later attempt": fixtures.commit(NET, TASK, B, attempt=1),
        "a reveal of a result": fixtures.reveal(NET, TASK, A, seen),
        "a reveal of an error": fixtures.reveal(
            NET, TASK, B, certificates.commitments(TASK, [B], ERROR), ERROR
        ),
        "a reveal with a score": fixtures.signed_by(NET, _score_body(), C),
        **{
            f"an abstention, {reason}": fixtures.abstain(NET, TASK, C, str(reason))
            for reason in Abstention
        },
        "a withdrawal": fixtures.withdraw(NET, TASK),
    }
    return {
        "description": "Sections 2.4 and 4.1 to 4.3. `envelopes`: the signer has the secret key"
        " `secret` (hex). `signed` is the hex of the bytes that `signature` (hex) is over: ASCII"
        " 'helium/2/envelope', a zero byte, the canonical body. `envelope` is the canonical text"
        " that travels, and `id` its id. `task` is the id of a task. Reading `envelope` for the"
        " network id `network` must be accepted. `withdrawals`: with the task of the envelope"
        " `task` accepted, the envelope `withdrawal` is accepted if `reason` is null, else rejected"
        " for it.",
        "network": NET.id,
        "envelopes": [_envelope(name, message) for name, message in sent.items()],
        "withdrawals": [
            _withdrawal("by its requester", 1000),
            _withdrawal("by another", 1001),
            _withdrawal("by a member", fixtures.index_of(A)),
        ],
    }


def _score_body() -> Document:
    body = fixtures.reveal(NET, TASK, C, certificates.commitments(TASK, [C])).envelope.body
    score = manifest.score_entry(b"MThd".ljust(300_000, b"."), notes=37_493)
    (sound,) = fixtures.outcome()["result"]["outputs"]
    outcome: Any = {"result": {"outputs": [score, sound | {"sampling_rate": 44_100}]}}
    trace = {
        "runtime": {"device": "cpu", "cores": 2, "avx": True},
        "weights": "d" * 64,
        "tokens": [["0123456789abcdef"]],
        "tokens_complete": False,
        "steps": [["ab" * 64]],
        "seconds": 0.125,
    }
    return {**body, "outcome": outcome, "trace": trace}


def _withdrawal(name: str, signer: int) -> Entry:
    withdrawal = fixtures.withdraw(NET, TASK, signer)
    is_requester = withdrawal.signer == TASK.requester
    return {
        "name": name,
        "task": TASK.envelope.encode().decode(),
        "withdrawal": withdrawal.envelope.encode().decode(),
        "reason": None if is_requester else str(Rejection.NOT_THE_REQUESTER),
    }


def _envelope(name: str, message: Message) -> Entry:
    envelope = message.envelope
    key = fixtures.key_of(envelope.signer)
    entry = {
        "name": name,
        "secret": key.private_bytes_raw().hex(),
        "body": envelope.body,
        "signed": (domain("envelope") + canonical(envelope.body)).hex(),
        "signature": urlsafe_b64decode(envelope.signature + "==").hex(),
        "envelope": envelope.encode().decode(),
        "id": envelope.id,
    }
    return entry | ({"task": message.id} if isinstance(message, Task) else {})


def commitments() -> Vectors:
    """Outcome digests, and what binds a member to them."""
    cases = [
        (A, 0, fixtures.outcome()),
        (A, 1, fixtures.outcome()),
        (B, 0, fixtures.outcome()),
        (B, 258, fixtures.outcome("another")),
        (C, 0, ERROR),
        (C, 63, {"error": "non-finite-output"}),
    ]
    return {
        "description": "Sections 4.4 and 4.5. `digest` = H('outcome', canonical `outcome`); "
        " `preimage` (hex) = the task id, the attempt as 4 bytes big-endian, the peer id in ASCII,"
        " the digest and the salt, hashes as raw bytes; `commitment` = H('commitment', preimage).",
        "commitments": [_commitment(*case) for case in cases],
    }


def _commitment(peer: str, attempt: int, outcome: Entry) -> Entry:
    digest, salt = messages.outcome_digest(outcome), fixtures.salt(peer, attempt)
    preimage = TASK.id + attempt.to_bytes(4, "big").hex() + peer.encode().hex() + digest + salt
    return {
        "task": TASK.id,
        "attempt": attempt,
        "peer": peer,
        "outcome": outcome,
        "digest": digest,
        "salt": salt,
        "preimage": preimage,
        "commitment": messages.commitment(TASK.id, attempt, peer, digest, salt),
    }
