"""Which documents are valid, and that an independent validator agrees."""

import copy
import functools
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, ValidationError
from jsonschema.validators import extend
from referencing import Registry, Resource

import schemas
from schemas.documents import registry
from tests.schemas.examples import HASH, PEERS, documents

NAMES = schemas.names()
Path = tuple[str | int, ...]
DELETE = object()


def _pattern(_: Any, pattern: str, instance: object, __: Any) -> Any:
    """Check `pattern` as ECMA-262 defines it, which JSON Schema refers to.

    Its `$` is Python's `\\Z`: Python's own `$` also matches before a final line feed. A pattern
    without `$` may match anywhere, such as the `..` that a model id must not hold.
    """
    ecma = pattern[:-1] + r"\Z" if pattern.endswith("$") else pattern
    if isinstance(instance, str) and not re.search(ecma, instance):
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


@functools.cache
def _reference(name: str) -> Any:
    resources = [(address, Resource.from_contents(schema)) for address, schema in registry()]
    reference: Any = extend(Draft202012Validator, {"pattern": _pattern})  # type: ignore[no-untyped-call]
    return reference(schemas.load(name), registry=Registry().with_resources(resources))


def _accepted(name: str, document: object) -> bool:
    try:
        schemas.check(name, document)
    except schemas.SchemaViolation:
        return False
    return True


def _changed(name: str, path: Path, value: object) -> Any:
    document: Any = copy.deepcopy(documents()[name])
    node = document
    for step in path[:-1]:
        node = node[step]
    if value is DELETE:
        del node[path[-1]]
    elif path:
        node[path[-1]] = value
    else:
        document = value
    return document


def _paths(node: object, at: Path = ()) -> list[Path]:
    members: list[tuple[str | int, Any]] = []
    if isinstance(node, dict):
        members = list(node.items())
    elif isinstance(node, list):
        members = list(enumerate(node))
    return [at, *(path for key, value in members for path in _paths(value, (*at, key)))]


VALUES = (
    st.none()
    | st.booleans()
    | st.sampled_from([0, 1, -1, 31, 32, 63, 64, 2**32 - 1, 2**32, 2**53 - 1, 2**53, 2**64, 10**30])
    | st.sampled_from([0.0, -0.0, 1.0, 1.5, 1e-320, 60.0, 60.5, 1e300, 9007199254740992.0])
    | st.sampled_from(["", "\n", "a/b\n", "a..b", "\x00", "\x7f", "é", "\U0001f3b5", "x" * 5000])
    | st.sampled_from([HASH, HASH + "\n", HASH.upper(), PEERS[0], PEERS[0][:-1] + "0", "float16"])
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.lists(st.integers() | st.text(max_size=3), max_size=3)
    | st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=3), max_size=3)
)


@st.composite
def _mutants(draw: st.DrawFn) -> tuple[str, Any]:
    name = draw(st.sampled_from(NAMES))
    document: Any = copy.deepcopy(documents()[name])
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(_paths(document)))
        node = document
        for step in path[:-1]:
            node = node[step]
        match draw(st.sampled_from(["replace", "delete", "add", "repeat"])):
            case "replace" if path:
                node[path[-1]] = draw(VALUES)
            case "delete" if path:
                del node[path[-1]]
            case "add" if isinstance(node, dict):
                node[draw(st.text(max_size=5) | st.sampled_from(["seed", PEERS[0]]))] = draw(VALUES)
            case "repeat" if isinstance(node, list) and node:
                node.extend(copy.deepcopy(node[:1]) * draw(st.sampled_from([1, 15, 31])))
    return name, document


@given(_mutants())
@settings(max_examples=300, deadline=None)
def test_both_validators_agree(mutant: tuple[str, Any]) -> None:
    name, document = mutant
    assert _accepted(name, document) == _reference(name).is_valid(document)


@pytest.mark.parametrize("name", NAMES)
def test_both_validators_accept_the_example(name: str) -> None:
    schemas.check(name, documents()[name])
    _reference(name).validate(documents()[name])


@pytest.mark.parametrize("name", NAMES)
def test_unknown_member_is_rejected_except_where_another_schema_follows(
    name: str,
) -> None:
    followed = {
        "body",
        "args",
        "envelopes",
        "trace",
        "classes",
        "limits",
        "at",
        "runtime",
        "sandbox",
    }
    for path in _paths(documents()[name]):
        node = documents()[name]
        for step in path:
            node = node[step]  # type: ignore[index]
        if isinstance(node, dict) and not followed & set(path):
            assert not _accepted(name, _changed(name, (*path, "surprise"), 1)), path


@pytest.mark.parametrize("name", NAMES)
def test_only_optional_members_may_be_missing(name: str) -> None:
    optional = {
        "text-to-music": {"generation_config", "dtype", "quantize_bits"},
        "pop2piano": {"composer", "generation_config", "dtype", "quantize_bits"},
        "outcome": set(),
    }
    for member in documents()[name]:
        expected = member in optional.get(name, set())
        assert _accepted(name, _changed(name, (member,), DELETE)) == expected, member


ACCEPTED: list[tuple[str, Path, object]] = [
    ("text-to-music", ("seed",), 0),
    ("text-to-music", ("seed",), 2**32 - 1),
    ("text-to-music", ("generation_config",), None),
    ("text-to-music", ("generation_config",), {}),
    ("text-to-music", ("generation_config", "temperature"), 0),
    ("text-to-music", ("generation_config", "top_p"), 0.0),
    ("text-to-music", ("generation_config", "top_k"), 0),
    ("text-to-music", ("generation_config", "max_new_tokens"), None),
    ("text-to-music", ("generation_config", "do_sample"), None),
    ("text-to-music", ("generation_config", "guidance_scale"), None),
    ("text-to-music", ("dtype",), None),
    ("text-to-music", ("quantize_bits",), None),
    ("text-to-music", ("model",), "gpt2"),
    ("text-to-music", ("model",), "a" * 96 + "/" + "b" * 96),
    ("text-to-music", ("prompt",), "\u266b" * 4096),
    ("pop2piano", ("composer",), None),
    ("pop2piano", ("composer",), "Erik Satie"),
    ("pop2piano", ("audio",), [{"sha256": HASH, "size": 536870912}] * 8),
    ("pop2piano", ("generation_config",), None),
    ("pop2piano", ("generation_config", "num_return_sequences"), None),
    ("pop2piano", ("generation_config", "num_beams"), None),
    ("pop2piano", ("generation_config", "num_beams"), 1),
    ("pop2piano", ("generation_config", "temperature"), 0),
    ("pop2piano", ("quantize_bits",), 4),
    ("network", ("models", 0, "limits"), {}),
    ("network", ("models", 0, "limits", "max_prompt_tokens"), 77),  # of a network that knows more
    ("network", ("models", 0, "limits", "voices"), {"any": ["thing", None]}),
    ("network", ("models", 0, "limits", "generation_config"), []),
    ("network", ("models", 0, "limits", "quantize_bits"), []),
    ("network", ("models", 0, "limits", "dtypes"), ["bfloat16", "float16", "float32"]),
    ("network", ("models", 0, "limits", "frame_rate"), 50),
    ("network", ("models", 0, "limits", "delay"), 0),
    ("network", ("models", 0, "attempt_seconds"), DELETE),
    ("network", ("created",), "2025-01-31T12:00:00.123456Z"),
    ("network", ("roster",), []),
    ("outcome", (), {"error": "no-notes"}),
    ("reveal", ("commits",), {}),
    ("reveal", ("trace",), {}),
    ("reveal", ("trace", "detail"), "ü" * 256),
    ("hello-answer", ("classes",), []),
    ("network", ("roster", 0, "classes"), ["cpu-avx2", "gpu"]),
    ("task", ("requester",), PEERS[1]),  # that it is the signer is for the codec to say
    ("abstain", ("reason",), "withdrawn"),
    ("abstain", ("reason",), "no-space"),
    ("evidence", ("kind",), "inconstancy"),
    ("envelope", ("body", "type"), "withdraw"),
    ("task-answer", ("certificate",), None),
    ("task-answer", ("envelopes",), [{"any": "thing"}]),
    ("envelopes-answer", ("envelopes",), [{"any": "thing"}]),
    ("feed-request", ("wait",), 0),
    ("feed-answer", ("ids",), []),
    ("envelope", ("body", "surprise"), 1),
]


@pytest.mark.parametrize(("name", "path", "value"), ACCEPTED)
def test_valid_document_is_accepted(name: str, path: Path, value: object) -> None:
    schemas.check(name, _changed(name, path, value))


REFUSED: list[tuple[str, Path, object]] = [
    ("text-to-music", ("seed",), -1),
    ("text-to-music", ("seed",), 2**32),
    ("text-to-music", ("seed",), "1"),
    ("text-to-music", ("seed",), True),
    ("text-to-music", ("seed",), None),
    ("text-to-music", ("model",), "a/b\n"),
    ("text-to-music", ("model",), "../etc"),
    ("text-to-music", ("model",), "a/b..c"),
    ("text-to-music", ("model",), "/a"),
    ("text-to-music", ("model",), "a/b/c"),
    ("text-to-music", ("model",), "a" * 97),
    ("text-to-music", ("prompt",), ""),
    ("text-to-music", ("prompt",), "a\x1b[31m"),
    ("text-to-music", ("prompt",), "x" * 4097),
    ("text-to-music", ("generation_config", "max_new_tokens"), 0),
    ("text-to-music", ("generation_config", "max_new_tokens"), 65537),
    ("text-to-music", ("generation_config", "temperature"), -0.1),
    ("text-to-music", ("generation_config", "temperature"), float("nan")),
    ("text-to-music", ("generation_config", "temperature"), float("inf")),
    ("text-to-music", ("generation_config", "top_p"), 1.1),
    ("text-to-music", ("generation_config", "top_k"), -1),
    ("text-to-music", ("generation_config", "num_return_sequences"), 17),
    ("text-to-music", ("generation_config", "num_beams"), 1),
    ("text-to-music", ("dtype",), "int8"),
    ("text-to-music", ("quantize_bits",), 2),
    ("pop2piano", ("audio",), []),
    ("pop2piano", ("audio",), [{"sha256": HASH, "size": 1}] * 9),
    ("pop2piano", ("audio",), HASH),
    ("pop2piano", ("audio", 0, "sha256"), HASH.upper()),
    ("pop2piano", ("audio", 0, "size"), 0),
    ("pop2piano", ("audio", 0, "size"), 536870913),
    ("pop2piano", ("audio", 0, "size"), DELETE),
    ("pop2piano", ("audio", 0, "path"), "song.wav"),
    ("pop2piano", ("composer",), ""),
    ("pop2piano", ("composer",), "x" * 65),
    ("pop2piano", ("composer",), "a\x1b[31m"),
    ("pop2piano", ("composer",), "composer1\n"),
    ("pop2piano", ("prompt",), "a song"),
    ("pop2piano", ("generation_config", "num_return_sequences"), 2),
    ("pop2piano", ("generation_config", "num_beams"), 17),
    ("pop2piano", ("generation_config", "guidance_scale"), 3.0),
    ("pop2piano", ("seed",), DELETE),
    ("network", ("version",), 1),
    ("certificate", ("version",), 1),
    ("commit", ("network",), HASH[:16]),
    ("commit", ("network",), HASH + "\n"),
    ("task", ("requester",), DELETE),
    ("task", ("requester",), PEERS[0] + "\n"),
    ("withdraw", ("task",), HASH[:16]),
    ("withdraw", ("attempt",), 0),
    ("network", ("roster", 0, "classes"), []),
    ("network", ("roster", 0, "classes"), ["cpu-avx2", "cpu-avx2"]),
    ("network", ("roster", 0, "class"), "cpu-avx2"),
    ("evidence", ("kind",), "dissent"),
    ("outcome", ("result", "outputs", 0, "notes"), 0),
    ("outcome", ("result", "outputs", 0, "chunks"), DELETE),
    ("outcome", ("result", "outputs", 0, "chunks"), []),
    ("outcome", ("result", "outputs", 1, "chunks"), []),
    ("outcome", ("result", "outputs", 1, "frames"), 0),
    ("outcome", ("result", "outputs", 1, "sampling_rate"), 0),
    ("outcome", ("result", "outputs", 1, "sampling_rate"), 384_001),
    ("network", ("created",), "2025-01-31T12:00:00"),
    ("network", ("parameters", "committee_size"), 0),
    ("network", ("parameters", "committee_size"), DELETE),
    ("network", ("parameters", "commit_grace_seconds"), 0),
    ("network", ("parameters", "commit_grace_seconds"), 60.5),
    ("network", ("classes", "cpu-avx2"), {}),
    ("network", ("classes", "cpu-avx2", "torch"), None),
    ("network", ("classes", "cpu-avx2", "torch"), ["2.13.0"]),
    ("network", ("classes", "-"), {"a": 1}),
    ("network", ("models", 0, "tasks"), ["text-to-music", "text-to-music"]),
    ("network", ("models", 0, "tasks"), []),
    ("network", ("models", 0, "limits"), None),
    ("network", ("models", 0, "limits", "max_new_tokens"), 0),
    ("network", ("models", 0, "limits", "max_new_tokens"), "1500"),
    ("network", ("models", 0, "limits", "num_return_sequences"), 17),
    ("network", ("models", 0, "limits", "generation_config"), ["beams"]),
    ("network", ("models", 0, "limits", "generation_config"), ["top_k", "top_k"]),
    ("network", ("models", 0, "limits", "generation_config"), None),
    ("network", ("models", 0, "limits", "dtypes"), []),
    ("network", ("models", 0, "limits", "dtypes"), ["auto"]),
    ("network", ("models", 0, "limits", "quantize_bits"), [2]),
    ("network", ("models", 0, "limits", "frame_rate"), 0),
    ("network", ("models", 0, "limits", "frame_rate"), "50"),
    ("network", ("models", 0, "limits", "delay"), -1),
    ("network", ("models", 0, "limits", "delay"), 0.5),
    ("network", ("models", 0, "limits", "no spaces"), 1),
    ("network", ("models", 0, "limits"), {f"limit{number}": 0 for number in range(65)}),
    ("network", ("roster", 0, "peer"), "12D3KooW"),
    ("envelope", ("body",), {"type": "task"}),
    ("envelope", ("body", "type"), "certificate"),
    ("envelope", ("signature",), "A" * 85 + "="),
    ("task", ("kind",), "text-to-speech"),
    ("task", ("deadline",), 0),
    ("task", ("created",), 1.5),
    ("task", ("type",), "commit"),
    ("commit", ("attempt",), 64),
    ("commit", ("commitment",), HASH.upper()),
    ("reveal", ("commits", "peer"), HASH),
    ("reveal", ("commits", PEERS[0]), "0"),
    ("reveal", ("trace",), {str(number): 0 for number in range(101)}),
    ("reveal", ("trace", "detail"), ""),
    ("reveal", ("trace", "detail"), "x" * 257),
    ("reveal", ("trace", "detail"), "two\nlines"),
    ("reveal", ("trace", "detail"), "\x1b[31m"),
    ("reveal", ("trace", "detail"), "\u009b31m"),
    ("reveal", ("trace", "detail"), ["a"]),
    ("reveal", ("trace", "detail"), None),
    ("reveal", ("trace", "a"), [[["too deep"]] * 1, {"b": {"c": []}}]),
    ("abstain", ("reason",), "tired"),
    ("outcome", (), {}),
    ("outcome", (), {**documents()["outcome"], "error": "no-notes"}),
    ("outcome", (), {"error": "busy"}),
    ("outcome", ("result", "outputs"), []),
    ("outcome", ("result", "outputs", 0, "media"), "audio/f32"),
    ("outcome", ("result", "outputs", 1, "channels"), 9),
    ("outcome", ("result", "outputs", 1, "chunks"), [HASH] * 2049),
    ("certificate", ("votes",), []),
    ("certificate", ("votes",), [documents()["envelope"]] * 32),
    ("evidence", ("envelopes",), [documents()["envelope"]]),
    ("hello-answer", ("ready",), 1),
    ("hello-request", ("agent",), "é"),
    ("submit-request", ("blobs",), [0]),
    ("watch-frame", ("progress",), 1.01),
    ("watch-frame", ("state",), "done"),
    ("task-answer", ("certificate",), {}),
    ("feed-request", ("limit",), 0),
    ("feed-answer", ("feed",), ""),
    ("feed-request", ("wait",), 61),
    ("feed-request", ("wait",), -1),
    ("feed-answer", ("ids",), ["0" * 63]),
    ("feed-answer", ("ids",), ["0" * 64] * 2),
    ("feed-answer", ("ids",), [f"{n:064x}" for n in range(1025)]),
    ("envelopes-request", ("ids",), []),
    ("envelopes-request", ("ids",), ["0" * 64] * 2),
    ("envelopes-request", ("ids",), [f"{n:064x}" for n in range(129)]),
    ("envelopes-answer", ("gone",), ["0" * 64] * 2),
    ("envelopes-answer", ("envelopes",), [{}] * 129),
    ("failure", ("reason",), "No"),
    ("failure", ("detail",), "x" * 257),
]


@pytest.mark.parametrize(("name", "path", "value"), REFUSED)
def test_invalid_document_is_rejected(name: str, path: Path, value: object) -> None:
    assert not _accepted(name, _changed(name, path, value))


def _nested(depth: int) -> list[Any]:
    nested: list[Any] = []
    for _ in range(depth):
        nested = [nested]
    return nested


@pytest.mark.parametrize("depth", [16, 300, 100_000])
@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("reveal", ("trace", "a")),
        ("reveal", ("commits",)),
        ("text-to-music", ("seed",)),
        ("text-to-music", ("dtype",)),
        ("network", ("version",)),
        ("network", ("models", 0, "tasks")),
        ("outcome", ("result", "outputs")),
        ("outcome", ("result", "outputs", 0)),
        ("task-answer", ("certificate",)),
    ],
)
def test_deep_nesting_is_rejected_without_recursion(name: str, path: Path, depth: int) -> None:
    document: Any = copy.deepcopy(documents()[name])
    node = document
    for step in path[:-1]:
        node = node[step]
    node[path[-1]] = _nested(depth)
    assert not _accepted(name, document)


@pytest.mark.parametrize("document", [{"a": "\ud800"}, {"\ud800": 1}, {1: 2}, {"a": object()}])
def test_values_that_are_not_json_are_rejected(document: object) -> None:
    assert not _accepted("failure", document)


@pytest.mark.parametrize("name", ["common", "../schemas/task", "", "nothing"])
def test_unknown_schema_name_raises_key_error(name: str) -> None:
    with pytest.raises(KeyError):
        schemas.check(name, {})
