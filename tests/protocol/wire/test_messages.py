import dataclasses
import hashlib

import pytest

from protocol.wire import messages
from protocol.wire.encoding import canonical
from protocol.wire.messages import Abstention
from schemas import load
from tests.support import fixtures

NET = fixtures.network()
TASK = fixtures.task(NET)
PEER = fixtures.peer(0)
DIGEST, SALT = "11" * 32, "22" * 32


def tagged_hash(tag: bytes, payload: bytes) -> str:
    return hashlib.sha256(b"helium/2/" + tag + b"\x00" + payload).hexdigest()


def test_task_id_is_hash_of_body() -> None:
    assert TASK.id == messages.task_id(TASK.envelope.body)
    assert TASK.id == tagged_hash(b"task", canonical(TASK.envelope.body))


def test_task_id_covers_the_requester() -> None:
    other = fixtures.task(NET, requester=1001)
    assert other.id != TASK.id
    assert other.envelope.body == {**TASK.envelope.body, "requester": fixtures.peer(1001)}
    assert (TASK.requester, other.requester) == (fixtures.peer(1000), fixtures.peer(1001))
    assert fixtures.task(NET, nonce=1).id != TASK.id


def test_task_properties() -> None:
    task = fixtures.task(NET, now=1000.5, deadline=30)
    assert (task.created, task.deadline, task.expires_at) == (1_000_500, 30, 1030.5)
    assert task.model == fixtures.MODEL
    assert task.compute_class == fixtures.CLASS


def test_outcome_digest_matches_section_4() -> None:
    assert messages.outcome_digest({"error": "no-notes"}) == tagged_hash(
        b"outcome", b'{"error":"no-notes"}'
    )


def test_commitment_matches_section_4() -> None:
    payload = bytes.fromhex(TASK.id) + b"\x00\x00\x01\x02" + PEER.encode()
    payload += bytes.fromhex(DIGEST) + bytes.fromhex(SALT)
    assert messages.commitment(TASK.id, 0x102, PEER, DIGEST, SALT) == tagged_hash(
        b"commitment", payload
    )


def test_commitment_depends_on_every_argument() -> None:
    arguments = (TASK.id, 0, PEER, DIGEST, SALT)
    replacements = ("33" * 32, 1, fixtures.peer(1), "33" * 32, "33" * 32)
    changed = [
        (*arguments[:i], replacement, *arguments[i + 1 :])
        for i, replacement in enumerate(replacements)
    ]
    commitments = {messages.commitment(*args) for args in (arguments, *changed)}  # type: ignore[arg-type]
    assert len(commitments) == 6


def test_reveal_commitment_is_recomputed() -> None:
    reveal = fixtures.reveal(NET, TASK, PEER, {})
    assert reveal.digest == messages.outcome_digest(fixtures.outcome())
    assert reveal.commitment == fixtures.commit(NET, TASK, PEER).commitment
    later = fixtures.reveal(NET, TASK, PEER, {}, attempt=1)
    assert later.commitment == fixtures.commit(NET, TASK, PEER, attempt=1).commitment
    assert later.commitment != reveal.commitment


def test_reveal_failure_gives_code_and_detail() -> None:
    failed = {"error": "no-notes"}
    explained = fixtures.reveal(NET, TASK, PEER, {}, failed, trace={"detail": "no beat"})
    assert explained.failure == ("no-notes", "no beat")
    unexplained = fixtures.reveal(NET, TASK, PEER, {}, failed)
    assert unexplained.failure == ("no-notes", None)
    assert (explained.digest, explained.commitment) == (unexplained.digest, unexplained.commitment)
    succeeded = fixtures.reveal(NET, TASK, PEER, {}, trace={"detail": "all is well"})
    assert succeeded.failure == (None, None)


def test_bodies_match_section_4() -> None:
    common = {"network": "n", "task": "t", "attempt": 2}
    assert messages.task_body("n", "text-to-music", {"seed": 1}, "cpu", 5, 6, "ff", "p") == {
        "type": "task",
        "network": "n",
        "kind": "text-to-music",
        "args": {"seed": 1},
        "class": "cpu",
        "created": 5,
        "deadline": 6,
        "nonce": "ff",
        "requester": "p",
    }
    assert messages.commit_body("n", "t", 2, "c") == {"type": "commit", **common, "commitment": "c"}
    assert messages.reveal_body("n", "t", 2, {"error": "e"}, "s", {"p": "c"}, {"seconds": 1}) == {
        "type": "reveal",
        **common,
        "outcome": {"error": "e"},
        "salt": "s",
        "commits": {"p": "c"},
        "trace": {"seconds": 1},
    }
    abstain = messages.abstain_body("n", "t", 2, Abstention.OUT_OF_MEMORY)
    assert abstain == {"type": "abstain", **common, "reason": "out-of-memory"}
    assert type(abstain["reason"]) is str


def test_abstention_reasons_match_the_schema() -> None:
    assert load("abstain")["properties"]["reason"]["enum"] == [str(a) for a in Abstention]


def test_messages_are_immutable() -> None:
    for message in (TASK, fixtures.commit(NET, TASK, PEER), fixtures.reveal(NET, TASK, PEER, {})):
        with pytest.raises(dataclasses.FrozenInstanceError):
            message.envelope = TASK.envelope  # type: ignore[misc]


def test_vote_signer_is_the_envelope_signer() -> None:
    assert fixtures.commit(NET, TASK, PEER).signer == PEER
    assert fixtures.abstain(NET, TASK, fixtures.peer(2)).signer == fixtures.peer(2)
