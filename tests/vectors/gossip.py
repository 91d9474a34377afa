"""Vectors of messages on gossip: their ids, and the verdict on each (specification 7.2)."""

import hashlib
import json

from protocol.consensus.committee import committees
from protocol.wire.messages import Message
from tests.support import fixtures
from tests.vectors import proofs
from tests.vectors.entries import Entry, Vectors

DOCUMENT = fixtures.network_document(5, committee_max=5)
NET = fixtures.network(5, committee_max=5)
KNOWN, NEW = fixtures.task(NET), fixtures.task(NET, nonce=1)
NOW = int(fixtures.START * 1000)
FIRST, LAST = committees(NET, KNOWN)
MEMBER, STRANGER = FIRST[0], LAST[-1]
VOTE = fixtures.commit(NET, KNOWN, MEMBER)


def gossip() -> Vectors:
    """Messages with their topics, ids and verdicts."""
    return {
        "description": "Section 7.2. A node of the network document `network` has accepted the task"
        " `known` (the text of an envelope) and no other, and holds no vote for it. Its Unix time"
        " is `now`, in milliseconds. `verdict` is its verdict on the data `text` on the topic"
        " `topic`, and `id` the message id (hex). Each message is judged as if it were the first.",
        "network": DOCUMENT,
        "known": KNOWN.envelope.encode().decode(),
        "now": NOW,
        "messages": [*_accepted(), *_ignored(), *_rejected()],
    }


def _accepted() -> list[Entry]:
    return [
        _entry("a task", "tasks", NEW, "accept"),
        _entry("a commit", "votes", VOTE, "accept"),
        _entry("an abstention", "votes", fixtures.abstain(NET, KNOWN, MEMBER), "accept"),
        _entry("a reveal before its commit", "votes", _reveal(), "accept"),
        _entry(
            "a commit for a coming attempt",
            "votes",
            fixtures.commit(NET, KNOWN, STRANGER, attempt=1),
            "accept",
        ),
        _entry("a withdrawal", "votes", fixtures.withdraw(NET, KNOWN), "accept"),
    ]


def _ignored() -> list[Entry]:
    return [
        _entry("the known task", "tasks", KNOWN, "ignore"),
        _entry("the known task on the topic for votes", "votes", KNOWN, "ignore"),
        _entry("a task ahead", "tasks", fixtures.task(NET, now=fixtures.START + 61), "ignore"),
        _entry("an expired task", "tasks", fixtures.task(NET, now=fixtures.START - 600), "ignore"),
        _entry("a vote for an unknown task", "votes", fixtures.commit(NET, NEW, MEMBER), "ignore"),
        _entry("a withdrawal of an unknown task", "votes", fixtures.withdraw(NET, NEW), "ignore"),
    ]


def _rejected() -> list[Entry]:
    text = VOTE.envelope.encode()
    spellings = proofs.other_spellings(text) | {
        "a line feed at the end": text + b"\n",
        "another order of members": _reordered(VOTE),
    }
    stale = fixtures.task(NET, now=fixtures.START - 600).envelope.encode()
    return [
        *(_spelled(name, "votes", changed, "reject") for name, changed in spellings.items()),
        _spelled("a task with a space at the end", "tasks", NEW.envelope.encode() + b" ", "reject"),
        _spelled("an expired task with a space at the end", "tasks", stale + b" ", "reject"),
        _entry("a task on the topic for votes", "votes", NEW, "reject"),
        _entry("a vote on the topic for tasks", "tasks", VOTE, "reject"),
        _entry(
            "a withdrawal on the topic for tasks", "tasks", fixtures.withdraw(NET, KNOWN), "reject"
        ),
        _entry("a task over a limit", "tasks", fixtures.task(NET, deadline=3601), "reject"),
        _entry(
            "a vote for an attempt that the task does not have",
            "votes",
            fixtures.commit(NET, KNOWN, MEMBER, attempt=2),
            "reject",
        ),
        _entry(
            "a vote of a member outside the attempt's committee",
            "votes",
            fixtures.commit(NET, KNOWN, STRANGER),
            "reject",
        ),
        _entry(
            "a withdrawal by another than the requester",
            "votes",
            fixtures.withdraw(NET, KNOWN, 1001),
            "reject",
        ),
        _entry(
            "a reveal whose manifest does not fit the task",
            "votes",
            fixtures.reveal(NET, KNOWN, MEMBER, {}, _two_sounds()),
            "reject",
        ),
    ]


def _reveal() -> Message:
    return fixtures.reveal(NET, KNOWN, MEMBER, {})


def _two_sounds() -> Entry:
    return {"result": {"outputs": fixtures.outcome()["result"]["outputs"] * 2}}


def _reordered(message: Message) -> bytes:
    document = dict(reversed([*message.envelope.document().items()]))
    return json.dumps(document, separators=(",", ":")).encode()


def _entry(name: str, topic: str, message: Message, verdict: str) -> Entry:
    return _spelled(name, topic, message.envelope.encode(), verdict)


def _spelled(name: str, topic: str, text: bytes, verdict: str) -> Entry:
    path = f"/helium/2/{NET.id}/{topic}"
    return {
        "name": name,
        "topic": path,
        "text": text.decode(),
        "id": hashlib.sha256(path.encode() + b"\0" + text).digest()[:20].hex(),
        "verdict": verdict,
    }
