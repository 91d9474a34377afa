"""What peers that keep to the protocol sign: the valid documents from which mutation starts."""

from random import Random
from typing import Any

from protocol.consensus.certificate import assemble
from protocol.consensus.committee import committees
from protocol.consensus.evidence import Evidence
from protocol.wire.encoding import Document
from protocol.wire.messages import Message, Reveal
from protocol.wire.signing import sign
from tests.fuzz import mutation
from tests.protocol.papers import reveals
from tests.support import fixtures

NET = fixtures.piano_network()
TASK = fixtures.task(
    NET,
    generation_config={"max_new_tokens": 500, "temperature": 0.7, "num_return_sequences": 2},
    dtype="auto",
    quantize_bits=8,
)
PIANO = fixtures.signed(
    NET,
    dict(TASK.envelope.body)
    | {"kind": "pop2piano", "args": fixtures.piano_args(b"song", b"song two")},
    1001,
)
COMMITTEE = committees(NET, TASK)[0]
REVEALS = reveals(NET, TASK)
COMMITS = [fixtures.commit(NET, TASK, member) for member in COMMITTEE]
MESSAGES: tuple[Message, ...] = (
    TASK,
    PIANO,
    *COMMITS,
    *REVEALS,
    fixtures.abstain(NET, TASK, COMMITTEE[0]),
)
ENVELOPES: list[Document] = [message.envelope.document() for message in MESSAGES]
ASSEMBLED = assemble(TASK, 0, REVEALS, NET)
CERTIFICATE = ASSEMBLED.document
EVIDENCE = Evidence.from_votes(
    COMMITS[0], fixtures.commit(NET, TASK, COMMITTEE[0], fixtures.outcome("other"))
).document

KEYS = {fixtures.peer(i): fixtures.key(i) for i in (*range(4), 1000, 1001)}


def resigned(envelope: Any, dice: Random, most: int = 3) -> Any:
    """An envelope whose body is another, signed by the same key, if such a body can be signed."""
    body = mutation.tree(envelope["body"], dice, most)
    try:
        return dict(sign(body, KEYS[envelope["signer"]]).document())
    except (ValueError, TypeError):  # no I-JSON: the old signature stands under it
        return dict(envelope) | {"body": body}


def envelope(dice: Random) -> bytes:
    """The bytes of a message: two of three times signed as they are, so that only rules refuse."""
    if dice.random() < 0.66:
        return mutation.bytes_of(resigned(dice.choice(ENVELOPES), dice), dice)
    return mutation.spoilt(ENVELOPES, dice)


def task(dice: Random) -> bytes:
    """The bytes of a task with other arguments, always signed."""
    found = dice.choice([TASK, PIANO])
    body = dict(found.envelope.body)
    body["args"] = mutation.tree(body["args"], dice, 2)
    try:
        return sign(body, KEYS[found.envelope.signer]).encode()
    except (ValueError, TypeError):
        return mutation.bytes_of(dict(found.envelope.document()) | {"body": body}, dice)


def _bundle(document: Any, dice: Random, places: list[tuple[Any, Any]]) -> bytes:
    """A document with one of the envelopes in it changed and signed again."""
    holder, key = dice.choice(places)
    holder[key] = resigned(holder[key], dice, 1)
    return mutation.bytes_of(document, dice)


def certificate(dice: Random) -> bytes:
    """A certificate's bytes."""
    if dice.random() < 0.5:
        return mutation.spoilt([CERTIFICATE], dice)
    document: Any = dict(CERTIFICATE)
    document["votes"] = list(document["votes"])
    places = [(document, "task"), *((document["votes"], i) for i in range(len(REVEALS)))]
    return _bundle(document, dice, places)


def proof(dice: Random) -> bytes:
    """The bytes of evidence."""
    if dice.random() < 0.5:
        return mutation.spoilt([EVIDENCE], dice)
    document: Any = dict(EVIDENCE)
    document["envelopes"] = list(document["envelopes"])
    return _bundle(document, dice, [(document["envelopes"], 0), (document["envelopes"], 1)])


def revealed(trace: Document) -> Reveal:
    """The reveal of a dissenter, with a trace."""
    body = dict(REVEALS[0].envelope.body) | {"trace": trace, "outcome": fixtures.outcome("other")}
    vote = fixtures.signed_by(NET, body, REVEALS[0].signer)
    assert isinstance(vote, Reveal)
    return vote
