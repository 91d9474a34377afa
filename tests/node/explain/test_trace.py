"""What a trace tells, from whoever signed it, and where two generations part."""

from typing import Any

import pytest

from node.explain.trace import (
    FirstDifference,
    Tokens,
    Trace,
    first_difference,
    most_common_tokens,
    read,
    runtime_differences,
)

DIGEST = "0123456789abcdef"


def digests(*labels: int) -> tuple[str, ...]:
    return tuple(f"{label:016x}" for label in labels)


def tokens(*labels: int, complete: bool = True) -> Tokens:
    return Tokens((digests(*labels),), (), complete)


def test_a_whole_trace_is_read() -> None:
    told: dict[str, Any] = {
        "runtime": {"device": "cpu", "threads": 1, "onednn": True},
        "weights": "a" * 64,
        "tokens": [[DIGEST, DIGEST], []],
        "steps": [["00ff"], []],
        "seconds": 1.5,
    }
    runtime = {"device": "cpu", "threads": 1, "onednn": True}
    expected = Tokens(((DIGEST, DIGEST), ()), (("00ff",), ()), complete=True)
    assert read(told) == Trace(runtime, "a" * 64, expected)


def test_what_was_left_out_is_known_to_be() -> None:
    found = read({"tokens": [[DIGEST]], "tokens_complete": False}).tokens
    assert found == Tokens(((DIGEST,),), (), complete=False)


@pytest.mark.parametrize(
    "value",
    [None, 1, "text", {}, [], [[]], [1], ["text"], [[1]], [[DIGEST, "x" * 16]], [[DIGEST + "\n"]]],
)
def test_tokens_of_no_known_shape_are_not_told(value: Any) -> None:
    assert read({"tokens": value}).tokens is None


@pytest.mark.parametrize("value", [None, 1, "text", {"a": "b"}, [["0"]], [["g0"]], [["00" * 65]]])
def test_steps_of_no_known_shape_are_not_told(value: Any) -> None:
    found = read({"tokens": [[DIGEST]], "steps": value}).tokens
    assert found == Tokens(((DIGEST,),), (), complete=True)


@pytest.mark.parametrize("value", [None, [], {}, "text", {"a": []}, {"a": {"b": 1}}, {"a": None}])
def test_a_runtime_of_no_known_shape_is_not_told(value: Any) -> None:
    assert read({"runtime": value}).runtime is None


@pytest.mark.parametrize("value", [None, 1, "a" * 63, "A" * 64, "a" * 64 + "\n"])
def test_weights_of_no_known_shape_are_not_told(value: Any) -> None:
    assert read({"weights": value}).weights is None


def test_the_usual_tokens_are_most_traces() -> None:
    found = [Trace(None, None, t) for t in (tokens(1), tokens(2), None, tokens(2))]
    assert most_common_tokens(found) == tokens(2)
    assert most_common_tokens([Trace(None, None, None)]) is None


def test_runtimes_differ_field_by_field() -> None:
    theirs = {"torch": "2.12.0", "threads": 1, "own": "x", "onednn": True}
    defined = {"torch": "2.13.0", "threads": 1, "device": "cpu", "onednn": 1}
    assert runtime_differences(theirs, defined) == [
        "device is nothing, the class has 'cpu'",
        "onednn is True, the class has 1",
        "own is 'x', the class has nothing",
        "torch is '2.12.0', the class has '2.13.0'",
    ]


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
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
def test_generations_part_in_a_block(
    ours: Tokens, theirs: Tokens, expected: FirstDifference
) -> None:
    assert first_difference(ours, theirs) == first_difference(theirs, ours) == expected


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        ("aabbcc", "aaddcc", FirstDifference(0, 66, 66, ended=False)),
        ("aabbcc", "aabb", FirstDifference(0, 67, 67, ended=True)),
        (
            "aabbcc",
            "aabbcc",
            FirstDifference(0, 65, 128, ended=False),
        ),  # one byte may be equal by chance
        ("aabbcc", "", FirstDifference(0, 65, 128, ended=False)),
    ],
)
def test_generations_part_at_a_step_where_both_tell(
    ours: str, theirs: str, expected: FirstDifference
) -> None:
    first = "00" * 64
    one, other = (
        Tokens((digests(1, label),), ((first, text) if text else (first,),), complete=True)
        for label, text in ((2, ours), (3, theirs))
    )
    assert first_difference(one, other) == first_difference(other, one) == expected
