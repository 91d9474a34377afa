"""Mutated documents get the verdict of an implementation in another language, reason included."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from protocol.consensus import certificate, evidence
from protocol.constants import ENVELOPE_LIMIT
from protocol.errors import Rejected
from protocol.network import Network
from protocol.wire import codec, encoding
from protocol.wire.messages import Task
from tests.property import documents, envelopes, strategies
from tests.property.envelopes import NET
from tests.vectors.test_other_language import LINE, NODE, run

NETWORKS = strategies.near([NET.document]) | strategies.encoded(strategies.from_schema("network"))
# The examples of each kind of document; `scripts/fuzz` draws more of them for the product alone.
EXAMPLES = 80

pytestmark = pytest.mark.skipif(NODE is None, reason="no node: the Debian package nodejs has it")


def judged(inputs: st.SearchStrategy[bytes], parse: Callable[[bytes], object]) -> list[Any]:
    """Return drawn inputs as vectors, with the product's verdicts."""
    vectors: dict[bytes, Any] = {}

    @settings(max_examples=EXAMPLES, suppress_health_check=[*HealthCheck], phases=[Phase.generate])
    @given(content=inputs)
    def judge(content: bytes) -> None:
        vectors[content] = {"hex": content.hex(), "reason": verdict(parse, content)}

    judge()
    return list(vectors.values())


def verdict(parse: Callable[[bytes], object], content: bytes) -> str | None:
    try:
        parse(content)
    except Rejected as rejected:
        return str(rejected.reason)
    return None


def admit(content: bytes) -> None:
    task = codec.decode(content, NET.id)
    assert isinstance(task, Task)  # `envelopes.tasks` draws nothing else
    NET.admit(task)


def test_mutated_documents_get_the_same_verdict_in_another_language(tmp_path: Path) -> None:
    files: dict[str, dict[str, Any]] = {
        "canonical.json": {
            "refused": judged(
                documents.JSON_INPUTS, lambda text: encoding.parse(text, ENVELOPE_LIMIT)
            )
        },
        "rejections.json": {
            "network": NET.document,
            "envelopes": judged(envelopes.envelopes, lambda text: codec.decode(text, NET.id)),
            "tasks": judged(envelopes.tasks, admit),
        },
        "networks.json": {"refused": judged(NETWORKS, Network.parse)},
        "certificates.json": {
            "network": NET.document,
            "invalid": judged(
                envelopes.certificates, lambda text: certificate.verify_bytes(text, NET)
            ),
        },
        "evidence.json": {
            "network": NET.document,
            "refused": judged(envelopes.proofs, lambda text: evidence.verify_bytes(text, NET)),
        },
    }
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content), encoding="ascii")
    code, output = run(tmp_path)
    assert code == 0, output
    assert sum(int(checks) for _, checks, _ in LINE.findall(output)) > 3 * EXAMPLES
