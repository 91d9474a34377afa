"""The message of a violation: field, value and what is allowed, in bounded length."""

import copy
from typing import Any

import pytest

import schemas
from schemas import SchemaViolation
from schemas.errors import describe_value
from tests.schemas.examples import documents
from tests.support import fixtures


def _error(name: str, document: object, at: str = "") -> SchemaViolation:
    with pytest.raises(SchemaViolation) as raised:
        schemas.check(name, document, at=at)
    return raised.value


def _music(**changes: object) -> dict[str, Any]:
    return {"model": "a/b", "prompt": "x", "seed": 1, **changes}


SENTENCES = [
    (
        _music(seed=4294967296),
        "seed: 4294967296 is not allowed: must be at most 4294967295",
    ),
    (_music(seed=-1), "seed: -1 is not allowed: must be at least 0"),
    (_music(seed="1"), 'seed: "1" is not allowed: must be an integer'),
    (_music(seed=True), "seed: true is not allowed: must be an integer"),
    (
        {"model": "a/b", "prompt": "x"},
        "seed: is missing: required, must be an integer from 0 to 4294967295",
    ),
    (
        _music(sed=1),
        "sed: is unknown: known members are "
        "model, prompt, generation_config, seed, dtype, quantize_bits",
    ),
    (
        _music(model="a/b\n"),
        'model: "a/b\\n" is not allowed: '
        "must be a Hugging Face model id (name or owner/name, without '..')",
    ),
    (
        _music(dtype="int8"),
        'dtype: "int8" is not allowed: '
        'must be one of "float16", "bfloat16", "float32", "auto", null',
    ),
    (
        _music(generation_config=5),
        "generation_config: 5 is not allowed: must be an object or null",
    ),
    (
        _music(generation_config={"top_p": 2}),
        "generation_config.top_p: 2 is not allowed: must be at most 1",
    ),
    (
        _music(generation_config={"temperature": float("nan")}),
        "generation_config.temperature: NaN is not allowed: must be a number or null",
    ),
    ([], "the document: an array of 0 items is not allowed: must be an object"),
]


@pytest.mark.parametrize(("document", "sentence"), SENTENCES)
def test_message_for_text_to_music_task(document: object, sentence: str) -> None:
    assert str(_error("text-to-music", document)) == sentence


def _in(name: str, *path: str | int, value: object) -> Any:
    document: Any = copy.deepcopy(documents()[name])
    node = document
    for step in path[:-1]:
        node = node[step]
    node[path[-1]] = value
    return document


DEEPER = [
    (
        "outcome",
        _in("outcome", "result", "outputs", 1, "chunks", 0, value="0"),
        'result.outputs[1].chunks[0]: "0" is not allowed: must be 64 lowercase hex characters',
    ),
    (
        "outcome",
        _in("outcome", "result", "outputs", 1, "media", value="audio/mp3"),
        "result.outputs[1]: an object of 7 members is not allowed: "
        "must be an output with the media audio/f32 or audio/midi",
    ),
    (
        "outcome",
        {},
        "the document: an object of 0 members is not allowed: "
        "must be an outcome: exactly one of result and error, and work only beside result",
    ),
    *[
        (
            "outcome",
            document,
            f"the document: an object of {len(document)} members is not allowed: "
            "must be an outcome: exactly one of result and error, and work only beside result",
        )
        for document in (
            {"work": "ab" * 32},
            {"error": "no-notes", "work": "ab" * 32},
            {**fixtures.outcome(), "error": "no-notes"},
            {**fixtures.proven(), "error": "no-notes"},
        )
    ],
    (
        "outcome",
        {"error": "busy"},
        'error: "busy" is not allowed: must be one of "input-undecodable", '
        '"generation-rejected", "non-finite-output", "no-notes"',
    ),
    (
        "certificate",
        _in("certificate", "votes", 1, "signer", value="anna"),
        'votes[1].signer: "anna" is not allowed: '
        "must be a peer id (12D3KooW and 44 base58 characters)",
    ),
    (
        "certificate",
        _in("certificate", "version", value=1),
        "version: 1 is not allowed: must be 2",
    ),
    (
        "task-answer",
        _in("task-answer", "certificate", "attempt", value=64),
        "certificate.attempt: 64 is not allowed: must be at most 63",
    ),
    (
        "task-answer",
        _in("task-answer", "certificate", value=5),
        "certificate: 5 is not allowed: must be a certificate or null",
    ),
    (
        "network",
        _in("network", "parameters", "commit_grace_seconds", value=0),
        "parameters.commit_grace_seconds: 0 is not allowed: must be greater than 0",
    ),
    (
        "network",
        _in("network", "models", 0, "tasks", value=["pop2piano", "pop2piano"]),
        "models[0].tasks: an array of 2 items is not allowed: must not hold the same item twice",
    ),
    (
        "reveal",
        _in("reveal", "commits", "anna", value="0" * 64),
        'commits: "anna" is not allowed: '
        "a member's name must be a peer id (12D3KooW and 44 base58 characters)",
    ),
    (
        "reveal",
        _in("reveal", "task", value="0" * 63),
        f'task: "{"0" * 44}... is not allowed: must be 64 lowercase hex characters',
    ),
]


@pytest.mark.parametrize(("name", "document", "sentence"), DEEPER)
def test_message_for_nested_document(name: str, document: object, sentence: str) -> None:
    assert str(_error(name, document)) == sentence


def test_violation_has_field_value_and_allowed() -> None:
    error = _error("text-to-music", _music(seed=-5), at="args")
    assert (error.field, error.value, error.allowed) == ("args.seed", -5, "must be at least 0")


def test_violation_of_the_document_itself_has_no_field() -> None:
    assert _error("task", 1).field == ""
    assert str(_error("task", 1, at="body")).startswith("body: 1 is not allowed")


@pytest.mark.parametrize(
    "document",
    [
        _music(prompt="\u266b" * 100_000),
        _music(prompt="\x7f\x9b\r\n"),
        _music(**{"x" * 100_000: 1}),
        _music(**{"\u266b\x1b[31m" * 1000: 1}),
        _music(**{f"unknown{number}": 0 for number in range(10_000)}),
        _music(seed=10**4299),
        _music(seed=-(10**4299)),
        _music(seed={"x": "y" * 100_000}),
        {"\ud800": "\ud800" * 1000},
    ],
)
def test_message_is_bounded_printable_ascii(document: object) -> None:
    sentence = str(_error("text-to-music", document, at="a" * 1000))
    schemas.check("failure", {"reason": "invalid", "detail": sentence})
    assert sentence.isascii()
    assert sentence.isprintable()


def test_field_is_bounded_on_long_path() -> None:
    trace = {"a" * 64: {"b" * 64: "\x00"}}
    error = _error("reveal", _in("reveal", "trace", value=trace), at="envelopes[3].body")
    assert len(error.field) == 96
    assert error.field.startswith("envelopes[3].body.trace.aaaa")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (False, "false"),
        (-0.0, "-0.0"),
        (2**64, "18446744073709551616"),
        (-(2**200), "an integer of 201 bits"),
        ("é", '"\\u00e9"'),
        ({"a": 1}, "an object of 1 members"),
        ((1, 2), "an array of 2 items"),
        (object(), "a value of type object"),
    ],
)
def test_shown_values(value: object, text: str) -> None:
    assert describe_value(value) == text


ODD_NAMES = [
    (
        "reveal",
        {"trace": {"tokens": [{"1": ["x"]}]}},
        "trace.tokens[0].1: an array of 1 items is not allowed: "
        "must be true or false or a number or a string or null",
    ),
    (
        "reveal",
        {"trace": {"": {"": {"": 2**60}}}},
        "trace: an object of 1 members is not allowed: must be at most 9007199254740991",
    ),
    (
        "network",
        {"classes": {"cpu": {"1": []}}},
        "classes.cpu.1: an array of 0 items is not allowed: "
        "must be true or false or an integer or a string",
    ),
    (
        "network",
        {"classes": {"": {"device": ["cpu"]}}},
        "classes.device: an array of 1 items is not allowed: "
        "must be true or false or an integer or a string",
    ),
    ("task", {"": 1}, '[""]: is unknown: known members are type, network, '),
]


@pytest.mark.parametrize(("name", "changes", "sentence"), ODD_NAMES)
def test_members_named_like_indices_or_empty(
    name: str, changes: dict[str, Any], sentence: str
) -> None:
    """The validator's path differs from the document's here; it once caused a KeyError."""
    assert str(_error(name, documents()[name] | changes)).startswith(sentence)
