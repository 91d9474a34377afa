"""Valid signed documents, and strategies that mutate and sign them again."""

from typing import Any

from hypothesis import strategies as st

from protocol.consensus.certificate import assemble
from protocol.consensus.committee import committees
from protocol.consensus.evidence import Evidence
from protocol.network import Network
from protocol.wire.encoding import Document
from protocol.wire.messages import Message, Reveal
from protocol.wire.signing import sign
from tests.property import strategies
from tests.protocol.certificates import reveals
from tests.support import fixtures

NET = Network.of(fixtures.helium_document())
TASK = fixtures.task(
    NET,
    generation_config={"max_new_tokens": 500, "temperature": 0.7, "num_return_sequences": 2},
    dtype="auto",
    quantize_bits=8,
)
PIANO = fixtures.signed(
    NET,
    dict(TASK.envelope.body)
    | {
        "kind": "pop2piano",
        "args": fixtures.piano_args(b"song", b"song two"),
        "requester": fixtures.peer(1001),
    },
    1001,
)
# Its outcome has work and tokens.
PROVING = fixtures.task(NET, compute_class=fixtures.HELIUM, generation_config={"top_k": 250})
PROVING_PIANO = fixtures.signed(
    NET, {**PIANO.envelope.body, "class": fixtures.HELIUM_PIANO, "nonce": "1" * 32}, 1001
)
COMMITTEE = committees(NET, TASK)[0]
# The task asks for two sequences.
SOUNDS = {"result": {"outputs": fixtures.outcome()["result"]["outputs"] * 2}}
REVEALS = reveals(NET, TASK, SOUNDS)
PROOFS = reveals(NET, PROVING, fixtures.proven())
COMMITS = [fixtures.commit(NET, TASK, member, SOUNDS) for member in COMMITTEE]
MESSAGES: tuple[Message, ...] = (
    TASK,
    PIANO,
    PROVING,
    PROVING_PIANO,
    *COMMITS,
    *REVEALS,
    *PROOFS,
    fixtures.abstain(NET, TASK, COMMITTEE[0]),
    fixtures.withdraw(NET, TASK),
)
ENVELOPES: list[Document] = [message.envelope.document() for message in MESSAGES]
ASSEMBLED = assemble(TASK, 0, REVEALS, NET)
CERTIFICATES = (ASSEMBLED.document, assemble(PROVING, 0, PROOFS, NET).document)
EVIDENCE = Evidence.from_votes(
    COMMITS[0], fixtures.commit(NET, TASK, COMMITTEE[0], fixtures.outcome("other"))
).document
INCONSTANCY = Evidence.from_votes(
    REVEALS[0], fixtures.reveal(NET, TASK, REVEALS[0].signer, {}, attempt=1)
).document

KEYS = {fixtures.peer(i): fixtures.key(i) for i in (*range(4), 1000, 1001)}


@st.composite
def resigned(draw: st.DrawFn, envelope: Any, max_changes: int = 3) -> Any:
    """Draw an envelope with a mutated body, signed again if the body can be signed."""
    body = draw(strategies.mutated(envelope["body"], max_changes))
    return _signed(body, envelope)


@st.composite
def from_schema(draw: st.DrawFn) -> Any:
    """Draw a signed envelope whose body satisfies the schema of its type."""
    envelope = draw(st.sampled_from(ENVELOPES))
    body = draw(strategies.from_schema(str(envelope["body"]["type"])))  # type: ignore[index, call-overload]
    # A task's requester is its signer.
    requester = {"requester": envelope["signer"]} if "requester" in body else {}
    return _signed({**body, "network": NET.id, **requester}, envelope)


# Most are signed, so that only the rules behind the signature reject them.
envelopes = st.one_of(
    strategies.encoded(st.sampled_from(ENVELOPES).flatmap(resigned)),
    strategies.encoded(from_schema()),
    strategies.near(ENVELOPES),
)


@st.composite
def _tasks(draw: st.DrawFn) -> Any:
    task = draw(st.sampled_from([TASK, PIANO, PROVING, PROVING_PIANO]))
    kind = str(task.envelope.body["kind"])
    mutations = strategies.mutated(task.envelope.body["args"], 2)
    args = draw(mutations | strategies.from_schema(kind))
    return _signed(dict(task.envelope.body) | {"args": args}, task.envelope.document())


# Signed tasks with other arguments.
tasks = strategies.encoded(_tasks())


@st.composite
def _bundles(draw: st.DrawFn, document: Any, member: str) -> Any:
    """Draw a document in which one of several envelopes is mutated and signed again."""
    envelopes = list(document[member])
    index = draw(st.integers(0, len(envelopes) - 1))
    envelopes[index] = draw(resigned(envelopes[index], 1))
    return {**document, member: envelopes}


@st.composite
def _retasked(draw: st.DrawFn, document: Any) -> Any:
    """Draw a certificate in which the task is mutated and signed again."""
    return {**document, "task": draw(resigned(document["task"], 1))}


certificates = st.one_of(
    strategies.near(CERTIFICATES),
    strategies.encoded(st.sampled_from(CERTIFICATES).flatmap(lambda c: _bundles(c, "votes"))),
    strategies.encoded(st.sampled_from(CERTIFICATES).flatmap(_retasked)),
)
proofs = strategies.near([EVIDENCE, INCONSTANCY]) | strategies.encoded(
    st.sampled_from([EVIDENCE, INCONSTANCY]).flatmap(lambda proof: _bundles(proof, "envelopes"))
)


def _signed(body: Any, envelope: Any) -> Any:
    try:
        return dict(sign(body, KEYS[str(envelope["signer"])]).document())
    except (ValueError, TypeError):  # no I-JSON: the old signature stays
        return {**envelope, "body": body}


def revealed(trace: Document) -> Reveal:
    """Return the reveal of a dissenter with this trace."""
    body = dict(REVEALS[0].envelope.body) | {"trace": trace, "outcome": fixtures.outcome("other")}
    vote = fixtures.signed_by(NET, body, REVEALS[0].signer)
    assert isinstance(vote, Reveal)
    return vote
