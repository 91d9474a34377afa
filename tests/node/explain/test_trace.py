"""What a trace states, and where two generations first differ."""

from typing import Any

import pytest

from node.explain.trace import (
    FirstDifference,
    Tokens,
    Trace,
    first_difference,
    most_common_tokens,
    parse_trace,
    runtime_differences,
)

DIGEST = "0123456789abcdef"


def digests(*labels: int) -> tuple[str, ...]:
    return tuple(f"{label:016x}" for label in labels)


def tokens(*labels: int, complete: bool = True) -> Tokens:
    return Tokens((digests(*labels),), (), complete)


def test_a_complete_trace_is_parsed() -> None:
    document: dict[str, Any] = {
        "runtime": {"device": "cpu", "threads": 1, "onednn": True},
        "weights": "a" * 64,
        "tokens": [[DIGEST, DIGEST], []],
        "steps": [["00ff"], []],
        "seconds": 1.5,
    }
    runtime = {"device": "cpu", "threads": 1, "onednn": True}
    expected = Tokens(((DIGEST, DIGEST), ()), (("00ff",), ()), complete=True)
    assert parse_trace(document) == Trace(runtime, "a" * 64, expected)


def test_an_incomplete_trace_is_marked() -> None:
    parsed = parse_trace({"tokens": [[DIGEST]], "tokens_complete": False}).tokens
    assert parsed == Tokens(((DIGEST,),), (), complete=False)


@pytest.mark.parametrize(
    "value",
    [None, 1, "text", {}, [], [[]], [1], ["text"], [[1]], [[DIGEST, "x" * 16]], [[DIGEST + "\n"]]],
)
def test_malformed_tokens_are_ignored(value: Any) -> None:
    assert parse_trace({"tokens": value}).tokens is None


@pytest.mark.parametrize("value", [None, 1, "text", {"a": "b"}, [["0"]], [["g0"]], [["00" * 65]]])
def test_malformed_steps_are_ignored(value: Any) -> None:
    parsed = parse_trace({"tokens": [[DIGEST]], "steps": value}).tokens
    assert parsed == Tokens(((DIGEST,),), (), complete=True)


@pytest.mark.parametrize("value", [None, [], {}, "text", {"a": []}, {"a": {"b": 1}}, {"a": None}])
def test_a_malformed_runtime_is_ignored(value: Any) -> None:
    assert parse_trace({"runtime": value}).runtime is None


@pytest.mark.parametrize("value", [None, 1, "a" * 63, "A" * 64, "a" * 64 + "\n"])
def test_malformed_weights_are_ignored(value: Any) -> None:
    assert parse_trace({"weights": value}).weights is None


def test_most_common_tokens() -> None:
    traces = [Trace(None, None, t) for t in (tokens(1), tokens(2), None, tokens(2))]
    assert most_common_tokens(traces) == tokens(2)
    assert most_common_tokens([Trace(None, None, None)]) is None


def test_runtime_differences_are_listed_by_field() -> None:
    runtime = {"torch": "2.12.0", "threads": 1, "own": "x", "onednn": True}
    definition = {"torch": "2.13.0", "threads": 1, "device": "cpu", "onednn": 1}
    assert runtime_differences(runtime, definition) == [
        "device is nothing, the class has 'cpu'",
        "onednn is True, the class has 1",
        "own is 'x', the class has nothing",
        "torch is '2.12.0', the class has '2.13.0'",
    ]


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (tokens(1, 2, 3), tokens(1, 2, 3), None),
        (tokens(1, 2, 3), tokens(9, 2, 3), FirstDifference(0, 1, 64, ended=False)),
        (tokens(1, 2, 3), tokens(1, 2, 9), FirstDifference(0, 129, 192, ended=False)),
        (tokens(1, 2, 3), tokens(1, 2), FirstDifference(0, 129, 192, ended=True)),
        (tokens(1, 2, 3), tokens(1, 2, complete=False), None),
        (tokens(1, 2, 3), tokens(1, 9, complete=False), FirstDifference(0, 65, 128, ended=False)),
        (
            Tokens((digests(1), digests(2)), (), complete=True),
            Tokens((digests(1), digests(3)), (), complete=True),
            FirstDifference(1, 1, 64, ended=False),
        ),
        (
            Tokens((digests(1), digests(2)), (), complete=True),
            tokens(1),
            FirstDifference(1, 1, 64, ended=True),
        ),
    ],
)
def test_first_difference_is_a_block(a: Tokens, b: Tokens, expected: FirstDifference) -> None:
    assert first_difference(a, b) == first_difference(b, a) == expected


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("aabbcc", "aaddcc", FirstDifference(0, 66, 66, ended=False)),
        ("aabbcc", "aabb", FirstDifference(0, 67, 67, ended=True)),
        # One byte may be equal by chance.
        ("aabbcc", "aabbcc", FirstDifference(0, 65, 128, ended=False)),
        ("aabbcc", "", FirstDifference(0, 65, 128, ended=False)),
    ],
)
def test_first_difference_is_a_step_if_both_traces_have_steps(
    a: str, b: str, expected: FirstDifference
) -> None:
    first = "00" * 64
    tokens_a, tokens_b = (
        Tokens((digests(1, label),), ((first, text) if text else (first,),), complete=True)
        for label, text in ((2, a), (3, b))
    )
    assert first_difference(tokens_a, tokens_b) == first_difference(tokens_b, tokens_a) == expected
