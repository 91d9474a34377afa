from typing import Any

import pytest

from protocol.constants import TRACE_LIMIT
from protocol.errors import Rejection
from protocol.wire import codec, messages
from protocol.wire.encoding import Document, canonical, parse
from protocol.wire.messages import Abstain, Abstention, Commit, Reveal, Task, Withdraw
from protocol.wire.signing import Envelope, sign
from tests.protocol.rejections import reason_of, rejected
from tests.support import fixtures

NET = fixtures.network()
TASK = fixtures.task(NET, requester=0)
PEER = fixtures.peer(0)
SENT: dict[str, messages.Message] = {
    "task": TASK,
    "commit": fixtures.commit(NET, TASK, PEER),
    "reveal": fixtures.reveal(NET, TASK, PEER, {fixtures.peer(1): "ab" * 32}),
    "abstain": fixtures.abstain(NET, TASK, PEER, "timeout"),
    "withdraw": fixtures.withdraw(NET, TASK, requester=0),
}
KINDS = sorted(SENT)


def decode_body(body: Document) -> messages.Message:
    return codec.decode(sign(body, fixtures.key(0)).encode(), NET.id)


def body_of(kind: str, /, **changes: Any) -> dict[str, Any]:
    return {**SENT[kind].envelope.body, **changes}


# Decoding


def test_task_is_decoded_completely() -> None:
    task = codec.decode(TASK.envelope.encode(), NET.id)
    assert isinstance(task, Task)
    assert task == TASK
    assert (task.kind, task.compute_class) == ("text-to-music", fixtures.CLASS)
    assert task.args == fixtures.args()


def test_commit_is_decoded_completely() -> None:
    commit = codec.decode(SENT["commit"].envelope.encode(), NET.id)
    assert isinstance(commit, Commit)
    assert (commit.task, commit.attempt, commit.signer) == (TASK.id, 0, PEER)
    assert commit.commitment == fixtures.commitment_of(TASK, PEER, fixtures.outcome())


def test_reveal_is_decoded_completely() -> None:
    reveal = codec.decode(SENT["reveal"].envelope.encode(), NET.id)
    assert isinstance(reveal, Reveal)
    assert (reveal.task, reveal.attempt, reveal.signer) == (TASK.id, 0, PEER)
    assert reveal.outcome == fixtures.outcome()
    assert reveal.commitment == fixtures.commitment_of(TASK, PEER, fixtures.outcome())
    assert reveal.commits == {fixtures.peer(1): "ab" * 32}
    assert reveal.trace == {"seconds": 1}


def test_abstention_is_decoded_completely() -> None:
    abstain = codec.decode(SENT["abstain"].envelope.encode(), NET.id)
    assert isinstance(abstain, Abstain)
    assert (abstain.task, abstain.attempt, abstain.reason) == (TASK.id, 0, Abstention.TIMEOUT)


def test_withdrawal_is_decoded_completely() -> None:
    withdrawal = codec.decode(SENT["withdraw"].envelope.encode(), NET.id)
    assert isinstance(withdrawal, Withdraw)
    assert (withdrawal.task, withdrawal.signer) == (TASK.id, PEER)


@pytest.mark.parametrize("reason", ["withdrawn", "no-space"])
def test_abstention_has_the_reasons_of_version_2(reason: str) -> None:
    abstain = decode_body(body_of("abstain", reason=reason))
    assert isinstance(abstain, Abstain)
    assert abstain.reason == reason


@pytest.mark.parametrize("kind", KINDS)
def test_json_spelling_does_not_change_the_message(kind: str) -> None:
    text = SENT[kind].envelope.encode()
    spaced = text.replace(b'":', b'" :\n').replace(b',"', b' , "')
    assert codec.decode(spaced.replace(b'"attempt" :\n0', b'"attempt":0.0'), NET.id) == SENT[kind]


# Rejections


@pytest.mark.parametrize("kind", KINDS)
def test_every_prefix_and_added_byte_is_malformed(kind: str) -> None:
    text = SENT[kind].envelope.encode()
    for end in range(len(text)):
        with rejected(Rejection.MALFORMED):
            codec.decode(text[:end], NET.id)
    with rejected(Rejection.MALFORMED):
        codec.decode(text + b"}", NET.id)


@pytest.mark.parametrize("kind", KINDS)
def test_error_names_missing_or_unknown_field(kind: str) -> None:
    body = body_of(kind)
    for field in sorted(set(body) - {"type", "network"}):
        with rejected(Rejection.INVALID_FIELD, f"body.{field}: is missing"):
            decode_body({name: body[name] for name in body if name != field})
    for field in ("type", "network"):
        with rejected(Rejection.INVALID_FIELD, field):
            decode_body({name: body[name] for name in body if name != field})
    with rejected(Rejection.INVALID_FIELD, "body.extra: is unknown"):
        decode_body({**body, "extra": 1})


HEX = "ab" * 32
WRONG: list[tuple[str, str, Any]] = [
    ("task", "kind", "text-to-speech"),
    ("task", "kind", None),
    ("task", "args", []),
    ("task", "class", ""),
    ("task", "class", "a b"),
    ("task", "class", "c" * 65),
    ("task", "created", -1),
    ("task", "created", 1.5),
    ("task", "created", "1"),
    ("task", "created", True),
    ("task", "deadline", 0),
    ("task", "deadline", 86_401),
    ("task", "deadline", 0.5),
    ("task", "nonce", "f" * 31),
    ("task", "nonce", "f" * 33),
    ("task", "nonce", "F" * 32),
    ("task", "nonce", "f" * 31 + "\n"),
    ("commit", "task", HEX[:-1]),
    ("commit", "task", HEX.upper()),
    ("commit", "task", HEX + "\n"),
    ("commit", "attempt", -1),
    ("commit", "attempt", 64),
    ("commit", "attempt", 0.5),
    ("commit", "attempt", "0"),
    ("commit", "attempt", False),
    ("commit", "attempt", None),
    ("commit", "commitment", HEX[1:]),
    ("commit", "commitment", None),
    ("reveal", "task", 1),
    ("reveal", "attempt", 64),
    ("reveal", "salt", HEX[2:]),
    ("reveal", "salt", HEX.upper()),
    ("reveal", "outcome", {}),
    ("reveal", "outcome", {"error": "out-of-memory"}),
    ("reveal", "outcome", {"error": "no-notes", "result": {"outputs": []}}),
    ("reveal", "outcome", {"result": {"outputs": []}}),
    ("reveal", "outcome", {"other": 1}),
    ("reveal", "commits", []),
    ("reveal", "commits", {"peer": HEX}),
    ("reveal", "commits", {PEER: HEX[1:]}),
    ("reveal", "commits", {fixtures.peer(i): HEX for i in range(32)}),
    ("reveal", "trace", []),
    ("reveal", "trace", {"a b": 1}),
    ("reveal", "trace", {"a": {"b": {"c": {}}}}),
    ("reveal", "trace", {"a": "x" * 1025}),
    ("abstain", "task", ""),
    ("abstain", "attempt", 64),
    ("abstain", "reason", "tired"),
    ("abstain", "reason", None),
    ("task", "requester", None),
    ("task", "requester", "12D3"),
    ("task", "requester", PEER + "\n"),
    ("withdraw", "task", HEX[:-1]),
    ("withdraw", "task", HEX + "\n"),
]


@pytest.mark.parametrize(("kind", "field", "value"), WRONG)
def test_error_names_wrong_field(kind: str, field: str, value: Any) -> None:
    with rejected(Rejection.INVALID_FIELD, f"body.{field}"):
        decode_body(body_of(kind, **{field: value}))


@pytest.mark.parametrize("kind", ["certificate", "Task", "", None, 1, ["task"]])
def test_unknown_type_is_rejected(kind: Any) -> None:
    with rejected(Rejection.INVALID_FIELD, "body.type"):
        decode_body(body_of("commit", type=kind))


def test_signature_is_bound_to_type() -> None:
    """The body of an abstention with the type of a commit does not fit its schema."""
    with rejected(Rejection.INVALID_FIELD):
        decode_body(body_of("abstain", type="commit"))


@pytest.mark.parametrize("kind", KINDS)
def test_message_of_another_network_is_rejected(kind: str) -> None:
    other_id = fixtures.network(5).id
    with rejected(Rejection.WRONG_NETWORK, NET.id):
        codec.decode(SENT[kind].envelope.encode(), other_id)
    with rejected(Rejection.WRONG_NETWORK, other_id):
        decode_body(body_of(kind, network=other_id))


def test_task_signed_by_another_than_its_requester_is_rejected() -> None:
    """A copied body under another key; the forged signature is not even looked at."""
    copied = sign(TASK.envelope.body, fixtures.key(1))
    for envelope in (copied, Envelope(copied.body, copied.signer, "A" * 86)):
        with rejected(Rejection.NOT_THE_REQUESTER, fixtures.peer(1)):
            codec.decode(envelope.encode(), NET.id)
    with rejected(Rejection.NOT_THE_REQUESTER):
        decode_body(body_of("task", requester=fixtures.peer(1)))


def test_network_id_of_16_characters_is_rejected() -> None:
    """People see 16; messages have all 64, with nothing after them."""
    for network in (NET.id[:16], NET.id + "0", NET.id + "\n", NET.id.upper()):
        with rejected(Rejection.INVALID_FIELD, "network"):
            decode_body(body_of("commit", network=network))


MANIFEST_FAULTS: dict[str, dict[str, Any]] = {
    "size of other frames": {"frames": 17},
    "size of other channels": {"channels": 2},
    "a chunk too many": {"chunks": ["ab" * 32] * 2},
    "no chunk": {"chunks": []},
    "no frame": {"frames": 0, "size": 0, "chunks": []},
    "sampling rate 0": {"sampling_rate": 0},
    "sampling rate over 384,000": {"sampling_rate": 384_001},
}


@pytest.mark.parametrize("changes", MANIFEST_FAULTS.values(), ids=list(MANIFEST_FAULTS))
def test_reveal_with_a_manifest_that_contradicts_itself_is_rejected(
    changes: dict[str, Any],
) -> None:
    outcome = {"result": {"outputs": [{**OUTPUT, **changes}]}}
    with rejected(Rejection.INVALID_FIELD, "outcome"):
        decode_body(body_of("reveal", outcome=outcome))


def test_signature_is_checked_last() -> None:
    envelope = Envelope(body_of("commit", network="0" * 64), PEER, "A" * 86)
    with rejected(Rejection.WRONG_NETWORK):
        codec.decode(envelope.encode(), NET.id)
    forged = Envelope(body_of("commit"), PEER, "A" * 86)
    with rejected(Rejection.BAD_SIGNATURE):
        codec.decode(forged.encode(), NET.id)


@pytest.mark.parametrize(
    "text",
    [b"[]", b"1", b"null", b'"a"', b"{}", b'{"body":{},"signer":"","signature":""}'],
)
def test_text_that_is_not_an_envelope_is_rejected(text: bytes) -> None:
    with rejected(Rejection.INVALID_FIELD):
        codec.decode(text, NET.id)


def test_envelope_with_other_members_is_rejected() -> None:
    document = SENT["commit"].envelope.document()
    with rejected(Rejection.INVALID_FIELD, "extra: is unknown"):
        codec.decode(canonical({**document, "extra": 1}), NET.id)
    for field in ("body", "signer", "signature"):
        with rejected(Rejection.INVALID_FIELD, f"{field}: is missing"):
            codec.decode(canonical({k: v for k, v in document.items() if k != field}), NET.id)


@pytest.mark.parametrize(
    ("field", "value"), [("signer", "12D3"), ("signer", "Qm" + "a" * 50), ("signature", "A" * 85)]
)
def test_error_names_wrong_signer_or_signature(field: str, value: str) -> None:
    document = {**SENT["commit"].envelope.document(), field: value}
    with rejected(Rejection.INVALID_FIELD, f"{field}:"):
        codec.decode(canonical(document), NET.id)


# Limits


def roomy(size: int) -> bytes:
    """Return a task envelope of exactly `size` bytes."""
    bare = len(sign(body_of("task", args={"x": ""}), fixtures.key(0)).encode())
    return sign(body_of("task", args={"x": "a" * (size - bare)}), fixtures.key(0)).encode()


def test_envelope_size_limit_is_65536_bytes() -> None:
    assert isinstance(codec.decode(roomy(65_536), NET.id), Task)
    with rejected(Rejection.TOO_LARGE, "65537"):
        codec.decode(roomy(65_537), NET.id)


def test_envelope_inside_document_has_the_same_limit() -> None:
    with rejected(Rejection.TOO_LARGE, "65537"):
        codec.decode_document(parse(roomy(65_537), 100_000), NET.id)
    codec.decode_document(parse(roomy(65_536), 100_000), NET.id)


def traced(size: int) -> Document:
    """Return the body of a reveal whose trace has exactly `size` canonical bytes."""
    parts: list[Any] = ["x" * 1000] * (size // 1003)
    bare = len(canonical({"a": [*parts, ""]}))
    return body_of("reveal", trace={"a": [*parts, "x" * (size - bare)]})


def test_trace_size_limit_is_8192_bytes() -> None:
    within = decode_body(traced(8192))
    assert isinstance(within, Reveal)
    assert len(canonical(within.trace)) == 8192
    with rejected(Rejection.OVER_LIMIT, "body.trace: 8193 bytes"):
        decode_body(traced(8193))


def test_depth_limit_counts_the_envelope() -> None:
    """Two of the 16 levels are the envelope and its body."""
    for levels, reason in ((13, None), (14, Rejection.TOO_DEEP)):
        nested: Any = 1
        for _ in range(levels):
            nested = {"x": nested}
        body = body_of("task", args={"x": nested})
        if reason is None:
            decode_body(body)
        else:
            with rejected(reason):
                decode_body(body)


# Messages that this node signs


@pytest.mark.parametrize("kind", KINDS)
def test_built_message_equals_decoded_message(kind: str) -> None:
    envelope = SENT[kind].envelope
    assert codec.build_message(envelope) == codec.decode(envelope.encode(), NET.id)


def _trace_of(size: int) -> dict[str, Any]:
    """Return a trace of `size` canonical bytes."""
    lines = ["x" * 1000] * 7
    rest = size - len(canonical({"lines": [*lines, ""]}))
    return {"lines": [*lines, "x" * rest]}


OUTPUT = fixtures.outcome()["result"]["outputs"][0]
UNCHECKED: dict[str, dict[str, Any]] = {
    "a valid reveal": {},
    "the longest trace": {"trace": _trace_of(TRACE_LIMIT)},
    "a trace one byte longer": {"trace": _trace_of(TRACE_LIMIT + 1)},
    "an empty detail": {"trace": {"detail": ""}},
    "a noncharacter": {"trace": {"text": "\ufdd0"}},
    "a noncharacter of another plane": {"trace": {"text": "\U0001ffff"}},
    "an integral number": {"trace": {"n": 2.0}},
    "an unknown error": {"outcome": {"error": "no-such-error"}},
    "sixteen outputs": {"outcome": {"result": {"outputs": [OUTPUT] * 16}}},
    "seventeen outputs": {"outcome": {"result": {"outputs": [OUTPUT] * 17}}},
    "a large envelope": {
        "outcome": {"result": {"outputs": [{**OUTPUT, "chunks": ["0" * 64] * 1000}]}}
    },
}


@pytest.mark.parametrize("changes", UNCHECKED.values(), ids=list(UNCHECKED))
def test_check_body_rejects_exactly_what_decode_rejects(
    changes: dict[str, Any],
) -> None:
    body = body_of("reveal", **changes)
    unsigned = reason_of(lambda: codec.check_body(body, PEER))
    assert unsigned == reason_of(lambda: decode_body(body))


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 2**53], ids=str)
def test_body_without_canonical_bytes_is_malformed(number: float) -> None:
    body = body_of("reveal", trace={"n": number})
    with rejected(Rejection.MALFORMED):
        codec.check_body(body, PEER)
