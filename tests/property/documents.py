"""Parsers of JSON and of the protocol's documents."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import strategies as st

from node.explain import trace
from node.explain.findings import compare, find_reference
from protocol.consensus import certificate, evidence
from protocol.consensus.certificate import Certificate
from protocol.consensus.committee import committees, quorum
from protocol.constants import DOCUMENT_LIMIT, ENVELOPE_LIMIT, MAX_DEPTH, MAX_INTEGER, TRACE_LIMIT
from protocol.errors import Rejected, Rejection
from protocol.manifest import blobs_of
from protocol.model_limits import UPPER_BOUNDS
from protocol.network import Network
from protocol.wire import codec, encoding
from protocol.wire.encoding import Json, canonical
from protocol.wire.messages import Reveal, Task, outcome_digest, task_id
from protocol.work import parse_tokens, tokens_blob
from tests.property import envelopes, strategies
from tests.property.envelopes import NET
from tests.property.parsers import Parser

EXPLAINED = envelopes.revealed(
    {
        "runtime": {"device": "cpu", "torch": "2.13.1", "threads": 1},
        "weights": "d" * 64,
        "tokens": [["0" * 16, "1" * 16], ["2" * 16]],
        "steps": [["00" * 64, "01" * 9], ["02" * 3]],
        "tokens_complete": True,
        "seconds": 1.5,
    }
)
EXPLAINED_INPUTS = strategies.encoded(envelopes.resigned(EXPLAINED.envelope.document()))
TOKENS_INPUTS = st.builds(tokens_blob, st.integers(0, 20), st.binary(max_size=80)) | st.builds(
    lambda steps, columns: tokens_blob(steps, bytes(4 * steps * columns)),
    st.integers(0, 70),
    st.integers(0, 9),
)
DOCUMENTS: tuple[Json, ...] = ({"a": [1, 1.5, "é", None, True, {"b": []}], "c": -1e-7}, [], "x", 0)


def depth(value: object) -> int:
    match value:
        case dict():
            return 1 + max(map(depth, value.values()), default=0)
        case list():
            return 1 + max(map(depth, value), default=0)
    return 0


def numbers(value: object) -> list[float]:
    match value:
        case dict():
            return [n for v in value.values() for n in numbers(v)]
        case list():
            return [n for v in value for n in numbers(v)]
        case bool():
            return []
        case int() | float():
            return [value]
    return []


JSON_INPUTS = strategies.near((*DOCUMENTS, *envelopes.ENVELOPES))


def check_json(content: bytes) -> None:
    value = encoding.parse(content, ENVELOPE_LIMIT)
    assert len(content) <= ENVELOPE_LIMIT
    assert depth(value) <= MAX_DEPTH
    assert all(math.isfinite(n) and abs(n) <= MAX_INTEGER for n in numbers(value))
    assert value == json.loads(content), "the json module parses another value"
    encoded = canonical(value)
    assert encoding.parse(encoded, 10 * len(content)) == value
    assert canonical(encoding.parse(encoded, 10 * len(content))) == encoded


def check_message(content: bytes) -> None:
    message = codec.decode(content, NET.id)
    encoded = message.envelope.encode()
    assert codec.decode(encoded, NET.id) == message
    assert canonical(encoding.parse(encoded, ENVELOPE_LIMIT)) == encoded
    assert len(encoded) <= ENVELOPE_LIMIT
    assert message.envelope.body["network"] == NET.id
    message.envelope.verify()
    if isinstance(message, Task):
        assert message.id == task_id(message.envelope.body)
        assert message.envelope.body["requester"] == message.envelope.signer
    if isinstance(message, Reveal):
        assert message.digest == outcome_digest(message.outcome)
        assert len(canonical(message.trace)) <= TRACE_LIMIT
        for blob in blobs_of(message.outcome):
            if blob.chunks:
                assert 0 <= blob.size - 262_144 * (len(blob.chunks) - 1) <= 262_144
            else:
                assert blob.size in range(4, 16_777_217, 4)


def check_task(content: bytes) -> None:
    task = codec.decode(content, NET.id)
    assert isinstance(task, Task)
    NET.admit(task)
    model = NET.models[task.model]
    assert task.kind in model.tasks
    assert task.deadline <= NET.parameters.max_deadline_seconds
    config = task.args.get("generation_config") or {}
    assert isinstance(config, dict)
    limits: Mapping[str, Any] = model.limits
    assert all((config.get(name) or 0) <= limits.get(name, math.inf) for name in UPPER_BOUNDS)
    assert config.get("top_p") is None or "top_p" in limits.get("generation_config", ["top_p"])
    assert sum(named.size for named in task.inputs) <= NET.parameters.max_input_bytes
    assert all(len(bytes.fromhex(named.sha256)) == 32 for named in task.inputs)
    assert committees(NET, task)


def check_signers(parsed: Certificate) -> None:
    """Check what a certificate proves on its parts."""
    committee = committees(NET, parsed.task)[parsed.attempt]
    assert len(set(parsed.signers)) == len(parsed.votes) >= quorum(len(committee))
    assert set(parsed.signers) <= set(committee)
    assert list(parsed.signers) == sorted(parsed.signers)
    assert len({vote.digest for vote in parsed.votes}) == 1
    NET.check_outcome(parsed.task, parsed.outcome)
    assert "error" in parsed.outcome or NET.proves_work(parsed.task) is ("work" in parsed.outcome)
    for vote in parsed.votes:
        vote.envelope.verify()
        assert (vote.task, vote.attempt) == (parsed.task.id, parsed.attempt)


def check_certificate(content: bytes) -> None:
    parsed = certificate.verify(encoding.parse(content, DOCUMENT_LIMIT), NET)
    check_signers(parsed)
    check_file(content, parsed.encode(), lambda text: certificate.verify_bytes(text, NET))


def check_file(content: bytes, encoded: bytes, verify: Callable[[bytes], object]) -> None:
    """A proof has one encoding in a file. `verify` rejects all others."""
    verify(encoded)
    if content.removesuffix(b"\n") == encoded:
        verify(content)
        return
    with pytest.raises(Rejected, match=Rejection.NOT_CANONICAL):
        verify(content)


def check_tokens(content: bytes) -> None:
    steps, columns, tokens = parse_tokens(content)
    assert tokens_blob(steps, tokens) == content
    assert len(tokens) == 4 * steps * columns


def check_evidence(content: bytes) -> None:
    parsed = evidence.verify(encoding.parse(content, DOCUMENT_LIMIT), NET.id)
    check_file(content, parsed.encode(), lambda text: evidence.verify_bytes(text, NET))
    bodies = [canonical(e["body"]) for e in parsed.document["envelopes"]]  # type: ignore[union-attr, index, call-overload]
    assert bodies[0] != bodies[1]


def check_explained(content: bytes) -> None:
    """Findings about a dissenter contain no terminal control characters."""
    vote = codec.decode(content, NET.id)
    assert isinstance(vote, Reveal)
    reference = find_reference([], envelopes.ASSEMBLED)
    assert reference is not None
    diverging = replace(reference, tokens=trace.parse_trace(EXPLAINED.trace).tokens)
    for finding in compare(envelopes.TASK, NET, diverging, vote):
        assert finding.detail.isprintable()
        assert len(finding.detail) < 4096


def check_network(content: bytes) -> None:
    parsed = Network.parse(content)
    encoded = Network.parse(canonical(parsed.document))
    assert encoded.id == parsed.id
    assert encoded == parsed
    assert parsed.parameters.committee_size <= parsed.parameters.committee_max
    assert all(set(member.classes) <= set(parsed.classes) for member in parsed.roster.values())
    assert len(parsed.roster) == len(parsed.document["roster"])  # type: ignore[arg-type]


PARSERS = (
    Parser("json", JSON_INPUTS, check_json, (Rejected,)),
    Parser("message", envelopes.envelopes, check_message, (Rejected,)),
    Parser("task", envelopes.tasks, check_task, (Rejected,)),
    Parser("certificate", envelopes.certificates, check_certificate, (Rejected,)),
    Parser("tokens", TOKENS_INPUTS, check_tokens, (Rejected,)),
    Parser("evidence", envelopes.proofs, check_evidence, (Rejected,)),
    Parser("explained", EXPLAINED_INPUTS, check_explained, (Rejected,)),
    Parser(
        "network",
        strategies.near([NET.document]) | strategies.encoded(strategies.from_schema("network")),
        check_network,
        (Rejected,),
    ),
)
