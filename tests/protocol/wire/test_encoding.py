import hashlib
from typing import Any

import pytest

from protocol.wire.encoding import canonical, document_hash, domain, tagged_hash


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"b": 1, "a": 2}, '{"a":2,"b":1}'),
        ({"": 0, "A": 0, "a": 0, "_": 0}, '{"":0,"A":0,"_":0,"a":0}'),
        ([1, [2, {}], []], "[1,[2,{}],[]]"),
        ([True, False, None], "[true,false,null]"),
        ("é€", '"é€"'),
        ('"\\/\b\f\n\r\t', '"\\"\\\\/\\b\\f\\n\\r\\t"'),
        ("\x00\x0b\x1f\x7f", '"\\u0000\\u000b\\u001f\x7f"'),
        (2**53 - 1, "9007199254740991"),
        (0.5, "0.5"),
        (1.0, "1"),
        (-0.0, "0"),
        (1e-6, "0.000001"),
        (1e-7, "1e-7"),
        (5e-324, "5e-324"),
        (333333333.33333329, "333333333.3333333"),
        (4.5, "4.5"),
        (2e-3, "0.002"),
        (123456789012345.6, "123456789012345.6"),
    ],
)
def test_canonical_bytes_are_those_of_rfc_8785(value: Any, text: str) -> None:
    assert canonical(value) == text.encode()


def test_members_are_sorted_by_utf_16_code_units() -> None:
    """RFC 8785, section 3.2.3: the surrogates of an emoji come before U+FB33."""
    names = ["\u20ac", "\r", "\ufb33", "1", "\U0001f600", "\u0080", "\u00f6"]
    order = ["\r", "1", "\u0080", "\u00f6", "\u20ac", "\U0001f600", "\ufb33"]
    text = canonical(dict.fromkeys(names, 0)).decode()
    assert [text.index(n if n != "\r" else "\\r") for n in order] == sorted(
        text.index(n if n != "\r" else "\\r") for n in order
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**53, -(2**53), "\ud800"])
def test_what_has_no_canonical_form_is_our_own_mistake(value: Any) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # the package's own words
        canonical([value])


def test_a_tagged_hash_is_the_specifications() -> None:
    expected = hashlib.sha256(b"helium/1/task\x00{}")
    assert tagged_hash("task", b"{}") == expected.digest()
    assert document_hash("task", {}) == expected.hexdigest()
    assert domain("task") == b"helium/1/task\x00"


def test_a_document_is_hashed_in_its_canonical_form() -> None:
    assert document_hash("task", {"b": 1.0, "a": "é"}) == (
        hashlib.sha256(b'helium/1/task\x00{"a":"\xc3\xa9","b":1}').hexdigest()
    )


def test_tags_separate() -> None:
    tags = ("network", "task", "outcome", "commitment", "committee", "evidence", "envelope")
    assert len({document_hash(tag, {}) for tag in tags}) == len(tags)
    assert tagged_hash("task", b"x") != tagged_hash("tas", b"kx")
