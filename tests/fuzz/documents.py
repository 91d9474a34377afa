"""Targets: JSON, and all documents of the protocol."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from node.explain import trace
from node.explain.findings import compare, find_reference
from protocol.consensus import certificate, evidence
from protocol.consensus.certificate import Certificate
from protocol.consensus.committee import committees, quorum
from protocol.constants import DOCUMENT_LIMIT, ENVELOPE_LIMIT, MAX_DEPTH, MAX_INTEGER, TRACE_LIMIT
from protocol.errors import Rejected, Rejection
from protocol.model_limits import UPPER_BOUNDS
from protocol.network import Network
from protocol.wire import codec, encoding
from protocol.wire.encoding import Json, canonical
from protocol.wire.messages import Reveal, Task, outcome_digest, task_id
from tests.fuzz import mutation, papers
from tests.fuzz.papers import NET
from tests.fuzz.target import Target

EXPLAINED = papers.revealed(
    {
        "runtime": {"device": "cpu", "torch": "2.13.1", "threads": 1},
        "weights": "d" * 64,
        "tokens": [["0" * 16, "1" * 16], ["2" * 16]],
        "steps": [["00" * 64, "01" * 9], ["02" * 3]],
        "tokens_complete": True,
        "seconds": 1.5,
    }
)
ANYTHING: tuple[Json, ...] = ({"a": [1, 1.5, "é", None, True, {"b": []}], "c": -1e-7}, [], "x", 0)


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


def check_json(content: bytes) -> None:
    value = encoding.parse(content, ENVELOPE_LIMIT)
    assert len(content) <= ENVELOPE_LIMIT
    assert depth(value) <= MAX_DEPTH
    assert all(math.isfinite(n) and abs(n) <= MAX_INTEGER for n in numbers(value))
    assert value == json.loads(content), "another parser reads something else"
    again = canonical(value)
    assert encoding.parse(again, 10 * len(content)) == value
    assert canonical(encoding.parse(again, 10 * len(content))) == again


def make_json(dice: Random) -> bytes:
    return mutation.spoilt((*ANYTHING, *papers.ENVELOPES), dice)


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
    if isinstance(message, Reveal):
        assert message.digest == outcome_digest(message.outcome)
        assert len(canonical(message.trace)) <= TRACE_LIMIT


def check_task(content: bytes) -> None:
    task = codec.decode(content, NET.id)
    assert isinstance(task, Task)
    NET.admit(task)
    model = NET.models[task.model]
    assert task.kind in model.tasks
    assert task.deadline <= NET.parameters.max_deadline_seconds
    asked = task.args.get("generation_config") or {}
    assert isinstance(asked, dict)
    limits: Mapping[str, Any] = model.limits
    assert all((asked.get(name) or 0) <= limits.get(name, math.inf) for name in UPPER_BOUNDS)
    assert asked.get("top_p") is None or "top_p" in limits.get("generation_config", ["top_p"])
    assert sum(named.size for named in task.inputs) <= NET.parameters.max_input_bytes
    assert all(len(bytes.fromhex(named.sha256)) == 32 for named in task.inputs)
    assert committees(NET, task)


def valid(found: Certificate) -> None:
    """What a certificate proves, asked of its parts."""
    committee = committees(NET, found.task)[found.attempt]
    assert len(set(found.signers)) == len(found.votes) >= quorum(len(committee))
    assert set(found.signers) <= set(committee)
    assert list(found.signers) == sorted(found.signers)
    assert len({vote.digest for vote in found.votes}) == 1
    for vote in found.votes:
        vote.envelope.verify()
        assert (vote.task, vote.attempt) == (found.task.id, found.attempt)


def check_certificate(content: bytes) -> None:
    found = certificate.verify(encoding.parse(content, DOCUMENT_LIMIT), NET)
    valid(found)
    check_file(content, found.encode(), lambda text: certificate.verify_bytes(text, NET))


def check_file(content: bytes, encoded: bytes, verify: Callable[[bytes], object]) -> None:
    """A proof has one spelling in a file; `verify` refuses every other."""
    verify(encoded)
    if content.removesuffix(b"\n") == encoded:
        verify(content)
        return
    with pytest.raises(Rejected, match=Rejection.NOT_CANONICAL):
        verify(content)


def check_evidence(content: bytes) -> None:
    found = evidence.verify(encoding.parse(content, DOCUMENT_LIMIT), NET.id)
    check_file(content, found.encode(), lambda text: evidence.verify_bytes(text, NET))
    bodies = [canonical(e["body"]) for e in found.document["envelopes"]]  # type: ignore[union-attr, index, call-overload]
    assert bodies[0] != bodies[1]


def make_explained(dice: Random) -> bytes:
    """A reveal that tells of its outcome what it likes."""
    return mutation.bytes_of(papers.resigned(EXPLAINED.envelope.document(), dice), dice)


def check_explained(content: bytes) -> None:
    """Whatever a dissenter says of itself, the sentences about it can be shown on a terminal."""
    vote = codec.decode(content, NET.id)
    assert isinstance(vote, Reveal)
    ours = find_reference([], papers.ASSEMBLED)
    assert ours is not None
    theirs = replace(ours, tokens=trace.parse_trace(EXPLAINED.trace).tokens)
    for finding in compare(papers.TASK, NET, theirs, vote):
        assert finding.detail.isprintable()
        assert len(finding.detail) < 4096


def check_network(content: bytes) -> None:
    found = Network.parse(content)
    again = Network.parse(canonical(found.document))
    assert again.id == found.id
    assert again == found
    assert found.parameters.committee_size <= found.parameters.committee_max
    assert all(member.compute_class in found.classes for member in found.roster.values())
    assert len(found.roster) == len(found.document["roster"])  # type: ignore[arg-type]


TARGETS = (
    Target("json", make_json, check_json, (Rejected,)),
    Target("message", papers.envelope, check_message, (Rejected,)),
    Target("task", papers.task, check_task, (Rejected,)),
    Target("certificate", papers.certificate, check_certificate, (Rejected,)),
    Target("evidence", papers.proof, check_evidence, (Rejected,)),
    Target("explained", make_explained, check_explained, (Rejected,)),
    Target(
        "network",
        lambda dice: mutation.spoilt([NET.document], dice),
        check_network,
        (Rejected,),
    ),
)
