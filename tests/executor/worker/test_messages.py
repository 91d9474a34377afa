"""Messages of a worker that was taken over: each is refused, whatever its bytes are."""

import json
import math
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from executor.worker.messages import (
    MESSAGE_LIMIT,
    PARSERS,
    TEXT_CHARACTERS,
    JobAbstained,
    JobDeferred,
    JobDifferent,
    JobDone,
    JobFailed,
    JobOutput,
    JobProgress,
    WorkerMessage,
    WorkerReady,
    decode_message,
    encode_message,
    message_text,
)
from protocol.errors import Rejected, Rejection
from protocol.wire.messages import Abstention

HASH = "0" * 64
WAVEFORM: dict[str, Any] = {
    "media": "audio/f32",
    "sampling_rate": 16_000,
    "frames": 2,
    "channels": 1,
    "sha256": HASH,
    "size": 8,
    "chunks": [HASH],
}
MESSAGES: dict[str, WorkerMessage] = {
    "ready": WorkerReady(
        {"device": "cpu", "threads": 1, "onednn": False}, True, "", {"files": "x"}
    ),
    "progress": JobProgress(0.5),
    "output": JobOutput(8),
    "abstained": JobAbstained(Abstention.OUT_OF_MEMORY, "too little"),
    "different": JobDifferent(1, 64, 3),
    "deferred": JobDeferred(2),
    "failed": JobFailed("no-notes", "IndexError: 7", {"seconds": 1.5}),
    "done": JobDone({"result": {"outputs": [WAVEFORM]}}, {"tokens": [["ab"]], "seconds": 1.5}),
}


def document(kind: str) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(encode_message(MESSAGES[kind]))
    return parsed


def refused(content: bytes) -> Rejection:
    with pytest.raises(Rejected) as caught:
        decode_message(content)
    return caught.value.reason


@pytest.mark.parametrize("message", [*MESSAGES.values(), JobProgress(0), JobProgress(1.0)])
def test_message_survives_encoding(message: WorkerMessage) -> None:
    assert decode_message(encode_message(message)) == message


def test_every_kind_of_message_is_covered_here() -> None:
    assert MESSAGES.keys() == PARSERS.keys()


# Not one JSON document of bounded size and depth


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", Rejection.MALFORMED),
        (b"{", Rejection.MALFORMED),
        (encode_message(JobProgress(0.5))[:-1], Rejection.MALFORMED),
        (encode_message(JobProgress(0.5)) * 2, Rejection.MALFORMED),
        (b'{"kind": "progress", "share": NaN}', Rejection.MALFORMED),
        (b'{"kind": "progress", "share": Infinity}', Rejection.MALFORMED),
        (b'{"kind": "progress", "share": 1e999}', Rejection.MALFORMED),
        (b'{"kind": "progress", "share": 0.%s}' % (b"1" * 100), Rejection.MALFORMED),
        (b'{"kind": "progress", "share": 0, "share": 1}', Rejection.MALFORMED),
        (b'{"kind": "\xff"}', Rejection.MALFORMED),
        (rb'{"kind": "abstained", "detail": "\ud800"}', Rejection.MALFORMED),
        (b"[" * 100_000, Rejection.TOO_DEEP),
        (b'{"kind":' + b"[" * 17 + b"]" * 17 + b"}", Rejection.TOO_DEEP),
        (b" " * (MESSAGE_LIMIT + 1), Rejection.TOO_LARGE),
        (b"17", Rejection.INVALID_FIELD),
        (b"null", Rejection.INVALID_FIELD),
        (b"[]", Rejection.INVALID_FIELD),
        (b"{}", Rejection.INVALID_FIELD),
        (b'{"kind": "else"}', Rejection.INVALID_FIELD),
        (b'{"kind": ["progress"]}', Rejection.INVALID_FIELD),
        (b'{"kind": null}', Rejection.INVALID_FIELD),
    ],
    ids=lambda value: repr(value)[:40],
)  # fmt: skip
def test_bytes_that_are_no_message(content: bytes, reason: Rejection) -> None:
    assert refused(content) is reason


@pytest.mark.parametrize("kind", MESSAGES)
def test_truncated_message_is_refused(kind: str) -> None:
    content = encode_message(MESSAGES[kind])
    for length in range(len(content)):
        refused(content[:length])


# A field that is not what its schema allows

WRONG: tuple[Any, ...] = (
    "",
    "x",
    "x\x00",
    0,
    -1,
    1.5,
    2**53 - 1,
    True,
    None,
    [],
    {},
    [[]],
    {"a": {"b": {}}},
)
TOO_LONG = "x" * (TEXT_CHARACTERS + 1)
DEEP: Any = [[[["x"]]]]


@pytest.mark.parametrize("kind", MESSAGES)
def test_each_field_is_required_and_no_other_is_allowed(kind: str) -> None:
    """But for a job's place, which a worker of one job need not say."""
    for name in document(kind).keys() - {"job"}:
        without = document(kind)
        del without[name]
        assert refused(json.dumps(without).encode()) is Rejection.INVALID_FIELD
    surplus = document(kind) | {"surprise": 1}
    assert refused(json.dumps(surplus).encode()) is Rejection.INVALID_FIELD


@pytest.mark.parametrize("kind", MESSAGES)
def test_a_wrong_type_is_refused_or_the_field_keeps_its_type(kind: str) -> None:
    """What passes the parser has the types of the dataclass, so nothing behind it can fail."""
    for name in document(kind):
        for value in WRONG:
            content = json.dumps(document(kind) | {name: value}).encode()
            try:
                message = decode_message(content)
            except Rejected:
                continue
            for field in fields(message):
                valid = getattr(MESSAGES[kind], field.name)
                assert type(getattr(message, field.name)) is type(valid), (name, value)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("progress", {"share": -0.001}),
        ("progress", {"share": 1.001}),
        ("progress", {"share": True}),
        ("progress", {"share": "0.5"}),
        ("progress", {"share": 2**53 - 1}),
        ("output", {"size": -1}),
        ("output", {"size": 2**29 + 1}),
        ("output", {"size": 1.5}),
        ("output", {"size": True}),
        ("output", {"size": "8"}),
        ("abstained", {"reason": "busy"}),
        ("abstained", {"reason": "worker-died"}),
        ("abstained", {"reason": "x"}),
        ("abstained", {"reason": ["out-of-memory"]}),
        ("abstained", {"detail": TOO_LONG}),
        ("abstained", {"detail": "\x1b[2J"}),
        ("abstained", {"detail": "two\nlines"}),
        ("ready", {"ok": 1}),
        ("ready", {"ok": "true"}),
        ("ready", {"reason": TOO_LONG}),
        ("ready", {"runtime": {"threads": 1.5}}),
        ("ready", {"runtime": {"threads": None}}),
        ("ready", {"runtime": {"threads": [1]}}),
        ("ready", {"runtime": {"device": "x" * 1025}}),
        ("ready", {"runtime": {"x" * 65: 1}}),
        ("ready", {"runtime": {"": 1}}),
        ("ready", {"runtime": {f"n{i}": 1 for i in range(65)}}),
        ("ready", {"sandbox": {"files": 1}}),
        ("ready", {"sandbox": {"files": "x\x1b"}}),
        ("ready", {"sandbox": {"x" * 33: "y"}}),
        ("ready", {"sandbox": {chr(97 + i): "y" for i in range(17)}}),
        ("done", {"outcome": {}}),
        ("done", {"outcome": {"error": "other"}}),
        ("done", {"outcome": {"error": "no-notes", "result": {"outputs": [WAVEFORM]}}}),
        ("done", {"outcome": {"result": {"outputs": []}}}),
        ("done", {"outcome": {"result": {"outputs": [WAVEFORM] * 17}}}),
        ("done", {"outcome": {"result": {"outputs": [WAVEFORM | {"frames": True}]}}}),
        ("done", {"outcome": {"result": {"outputs": [WAVEFORM | {"frames": 2**40}]}}}),
        ("done", {"outcome": {"result": {"outputs": [WAVEFORM | {"size": -1}]}}}),
        ("done", {"outcome": {"result": {"outputs": [WAVEFORM | {"sha256": "../x"}]}}}),
        ("done", {"outcome": {"result": {"outputs": [WAVEFORM | {"media": "../x"}]}}}),
        ("done", {"outcome": {"result": {"outputs": [WAVEFORM | {"chunks": [HASH] * 2049}]}}}),
        ("done", {"trace": {"detail": "\x1b"}}),
        ("done", {"trace": {"a": DEEP}}),
        ("done", {"trace": {"a": ["x"] * 1025}}),
        ("done", {"trace": {f"n{i}": 1 for i in range(101)}}),
    ],
    ids=lambda value: str(value)[:50],
)
def test_a_field_out_of_its_bounds_is_refused(kind: str, changes: dict[str, Any]) -> None:
    content = json.dumps(document(kind) | changes).encode()
    assert refused(content) is Rejection.INVALID_FIELD


def test_a_number_beyond_the_integers_of_json_is_refused() -> None:
    content = json.dumps(document("ready") | {"runtime": {"threads": 2**53}}).encode()
    refused(content)
    refused(json.dumps(document("ready") | {"runtime": {"threads": 10**50}}).encode())


@pytest.mark.parametrize(
    ("kind", "size"),
    [("progress", 256), ("output", 256), ("abstained", 65_536), ("ready", 1_048_576)],
)
def test_a_padded_message_is_refused(kind: str, size: int) -> None:
    """Only an outcome is large: 200 padded messages would keep the parser busy for minutes."""
    content = encode_message(MESSAGES[kind])
    assert decode_message(content + b" " * (size - len(content))) == MESSAGES[kind]
    assert refused(content + b" " * (size + 1 - len(content))) is Rejection.TOO_LARGE


def test_a_trace_over_its_limit_is_refused() -> None:
    trace = {f"n{i}": "x" * 1000 for i in range(9)}
    content = json.dumps(document("done") | {"trace": trace}).encode()
    assert refused(content) is Rejection.OVER_LIMIT


@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_any_bytes_are_a_message_or_rejected(content: bytes) -> None:
    with pytest.raises(Rejected):
        decode_message(content)


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)  # fmt: skip


@given(st.sampled_from(sorted(MESSAGES)), st.data())
def test_any_field_value_gives_a_message_or_rejected(kind: str, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(document(kind))))
    content = json.dumps(document(kind) | {name: data.draw(JSON)}).encode()
    try:
        message = decode_message(content)
    except Rejected:
        return
    if isinstance(message, JobProgress):
        assert math.isfinite(message.share)
        assert 0 <= message.share <= 1


@given(st.text(st.characters(), max_size=50) | st.just("x" * 10_000))
def test_any_text_fits_into_a_message_after_cleaning(text: str) -> None:
    for dirty in (text, text + "\ud800\n\x00"):
        message = JobAbstained(Abstention.MODEL_MISSING, message_text(dirty))
        assert decode_message(encode_message(message)) == message
