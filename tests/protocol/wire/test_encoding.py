import hashlib
import json
import string
import time
from collections.abc import Callable
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import Rejected, Rejection
from protocol.wire.encoding import (
    canonical,
    document_hash,
    domain,
    parse,
    parse_form,
    tagged_hash,
)
from tests.protocol.rejections import PROPERTY, reason_of, rejected

LIMIT = 65_536
MAX_INTEGER = 2**53 - 1

NONCHARACTERS = [0xFDD0, 0xFDEF, 0xFFFE, 0xFFFF, 0x1FFFE, 0x1FFFF, 0xFFFFE, 0x10FFFE, 0x10FFFF]
NEIGHBOURS = [0xFDCF, 0xFDF0, 0xFFFD, 0x10000, 0x1FFFD, 0x20000, 0x10FFFD, 0xD7FF, 0xE000]


def typed_text(value: Any) -> str:
    """Return the value as text with its types: True is not 1, and 1 is not 1.0."""
    return repr(value)


# Canonical bytes and hashes


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
def test_canonical_bytes_match_rfc_8785(value: Any, text: str) -> None:
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
def test_value_without_canonical_form_raises_value_error(value: Any) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # the package's own words
        canonical([value])


def test_tagged_hash_matches_section_2() -> None:
    expected = hashlib.sha256(b"helium/2/task\x00{}")
    assert tagged_hash("task", b"{}") == expected.digest()
    assert document_hash("task", {}) == expected.hexdigest()
    assert domain("task") == b"helium/2/task\x00"


def test_document_hash_uses_canonical_bytes() -> None:
    assert document_hash("task", {"b": 1.0, "a": "é"}) == (
        hashlib.sha256(b'helium/2/task\x00{"a":"\xc3\xa9","b":1}').hexdigest()
    )


def test_different_tags_give_different_hashes() -> None:
    tags = ("network", "task", "outcome", "commitment", "committee", "evidence", "envelope")
    assert len({document_hash(tag, {}) for tag in tags}) == len(tags)
    assert tagged_hash("task", b"x") != tagged_hash("tas", b"kx")


# Parsing: size


def test_size_limit_is_inclusive() -> None:
    text = b'"' + b"a" * 98 + b'"'
    assert parse(text, 100) == "a" * 98
    with rejected(Rejection.TOO_LARGE, "100 bytes, at most 99"):
        parse(text, 99)


def test_size_is_checked_first() -> None:
    with rejected(Rejection.TOO_LARGE):
        parse(b"\xff" * 11, 10)
    with rejected(Rejection.TOO_LARGE):
        parse(b"[" * 50, 49)


# Depth


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_depth_limit_is_16(opening: bytes, closing: bytes) -> None:
    parse(opening * 16 + b"1" + closing * 16, LIMIT)
    with rejected(Rejection.TOO_DEEP, "16"):
        parse(opening * 17 + b"1" + closing * 17, LIMIT)


def test_depth_is_checked_before_parsing() -> None:
    with rejected(Rejection.TOO_DEEP):
        parse(b"[" * 17 + b"\xff", LIMIT)


def test_sibling_containers_do_not_add_depth() -> None:
    assert parse(b"[" + b",".join([b"[]"] * 100) + b"]", LIMIT) == [[]] * 100


@pytest.mark.parametrize(
    "text",
    [b'"' + b"[" * 40 + b'"', rb'"\"' + b"{" * 40 + b'"', rb'["\\\"' + b"[" * 40 + b'"]'],
)
def test_brackets_in_strings_do_not_add_depth(text: bytes) -> None:
    parse(text, LIMIT)


def test_escaped_backslash_at_string_end_does_not_hide_brackets() -> None:
    with rejected(Rejection.TOO_DEEP):
        parse(rb'["\\",' + b"[" * 16 + b"]" * 17, LIMIT)


def test_surplus_closing_brackets_do_not_lower_depth() -> None:
    with rejected(Rejection.MALFORMED):
        parse(b"[]" + b"]" * 40 + b"[" * 40 + b"]" * 40, LIMIT)


# Text


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b" ",
        b"nul",
        b"True",
        b"'a'",
        b"[1,]",
        b"[,1]",
        b'{"a":1,}',
        b'{"a" 1}',
        b"{1:1}",
        b"{a:1}",
        b"01",
        b"+1",
        b".5",
        b"1.",
        b"1e",
        b"0x10",
        b"1_000",
        b"- 1",
        b"[1] x",
        b"[1][1]",
        b"1 2",
        b"// c\n1",
        b'"\t"',
        b'"\n"',
        b'"\x00"',
        b'"\x1f"',
        b'"\\x41"',
        b'"\\u12"',
        b'"\\u00zz"',
        b"\x0b1",
        b"1\x00",
        b"\xc2\xa01",
        b"\xef\xbb\xbf1",
        b"\xff\xfe1\x00",
    ],
)
def test_invalid_json_is_malformed(text: bytes) -> None:
    with rejected(Rejection.MALFORMED):
        parse(text, LIMIT)


@pytest.mark.parametrize(
    "text",
    [
        b'"\xff"',
        b'"\xc3"',
        b'"\xc0\xaf"',
        b'"\xe0\x80\xaf"',
        b'"\xed\xa0\x80"',
        b'"\xed\xa0\xbd\xed\xb8\x80"',
        b'"\xf4\x90\x80\x80"',
        b'"\x80"',
    ],
)
def test_invalid_utf_8_is_malformed(text: bytes) -> None:
    with rejected(Rejection.MALFORMED, "not UTF-8 at byte 1"):
        parse(text, LIMIT)


def test_surrounding_white_space_is_accepted() -> None:
    assert parse(b" \t\r\n[ 1 , 2 ] \t\r\n", LIMIT) == [1, 2]


def test_every_prefix_of_a_document_is_malformed() -> None:
    text = '{"a":[1,{"b":"é\\n\\ud83d\\ude00"},-0.5,true,false,null],"c":{}}'.encode()
    parse(text, LIMIT)
    for end in range(len(text)):
        with rejected(Rejection.MALFORMED):
            parse(text[:end], LIMIT)


def test_trailing_bytes_other_than_white_space_are_rejected() -> None:
    for byte in range(256):
        if byte in b" \t\r\n":
            assert parse(b"{}" + bytes((byte,)), LIMIT) == {}
        else:
            with pytest.raises(Rejected):
                parse(b"{}" + bytes((byte,)), LIMIT)


@given(st.binary(max_size=40))
@PROPERTY
def test_arbitrary_bytes_raise_only_rejected(text: bytes) -> None:
    reason = reason_of(lambda: parse(text, LIMIT))
    assert reason in (None, Rejection.MALFORMED, Rejection.TOO_DEEP)
    if reason is None:
        canonical(parse(text, LIMIT))


# Members


@pytest.mark.parametrize(
    "text",
    [
        b'{"a":1,"a":1}',
        b'{"a":1,"b":2,"\\u0061":1}',
        b'{"x":{"a":1,"a":2}}',
        b'[{"":1,"":2}]',
        '{"é":1,"\\u00e9":1}'.encode(),
    ],
)
def test_duplicate_member_is_rejected(text: bytes) -> None:
    with rejected(Rejection.MALFORMED, "duplicate member"):
        parse(text, LIMIT)


def test_same_name_in_different_objects_is_accepted() -> None:
    assert parse(b'{"a":{"a":1},"b":[{"a":2},{"a":3}]}', LIMIT) == {
        "a": {"a": 1},
        "b": [{"a": 2}, {"a": 3}],
    }


# Numbers


@pytest.mark.parametrize("text", ["1.0", "1e0", "10e-1", "0.1e1", "1.000", "100E-2", "1e+0"])
def test_spellings_of_one_parse_to_int(text: str) -> None:
    assert typed_text(parse(text.encode(), LIMIT)) == "1"


@pytest.mark.parametrize("text", ["0", "-0", "0.0", "-0.0", "0e9", "-0e-9", "1e-400"])
def test_spellings_of_zero_parse_to_int(text: str) -> None:
    assert typed_text(parse(text.encode(), LIMIT)) == "0"


@pytest.mark.parametrize("text", ["9007199254740991", "9007199254740991.0", "9.007199254740991e15"])
def test_largest_integer_is_accepted(text: str) -> None:
    assert typed_text(parse(text.encode(), LIMIT)) == str(MAX_INTEGER)
    assert typed_text(parse(b"-" + text.encode(), LIMIT)) == str(-MAX_INTEGER)


@pytest.mark.parametrize(
    "text", ["9007199254740992", "9007199254740993", "9007199254740992.0", "1e16", "1e400", "1e999"]
)
def test_numbers_beyond_largest_integer_are_rejected(text: str) -> None:
    for sign in ("", "-"):
        with rejected(Rejection.MALFORMED, "beyond 2^53-1"):
            parse((sign + text).encode(), LIMIT)


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity"])
def test_nan_and_infinity_are_rejected(text: str) -> None:
    for document in (text, f"[{text}]", f'{{"a":{text}}}'):
        with rejected(Rejection.MALFORMED, "no JSON number"):
            parse(document.encode(), LIMIT)


def test_number_of_over_64_characters_is_rejected() -> None:
    assert parse(b"0." + b"1" * 62, LIMIT) == pytest.approx(1 / 9)
    for text in (b"0." + b"1" * 63, b"9" * 60_000):
        with rejected(Rejection.MALFORMED, "characters"):
            parse(text, LIMIT)


def test_booleans_are_not_integers() -> None:
    assert typed_text(parse(b"[true,false,1,0]", LIMIT)) == "[True, False, 1, 0]"


# Strings


@pytest.mark.parametrize("escape", ["\\ud800", "\\udfff", "\\ud83dx", "\\ude00\\ud83d", "\\uDBFF"])
def test_lone_surrogates_are_rejected_everywhere(escape: str) -> None:
    for text in (f'"{escape}"', f'["{escape}"]', f'{{"{escape}":1}}', f'{{"a":[["{escape}"]]}}'):
        with rejected(Rejection.MALFORMED, "surrogate"):
            parse(text.encode(), LIMIT)


def test_surrogate_pair_is_one_character() -> None:
    assert parse(b'"\\ud83d\\ude00"', LIMIT) == "\U0001f600"


@pytest.mark.parametrize("point", NONCHARACTERS)
def test_noncharacters_are_rejected_everywhere(point: int) -> None:
    c = chr(point)
    for text in (f'"{c}"', f'["a{c}"]', f'{{"{c}":1}}', f'[[{{"a":"{c}"}}]]', f'{{"a":["{c}"]}}'):
        with rejected(Rejection.MALFORMED, "noncharacter"):
            parse(text.encode(), LIMIT)


@pytest.mark.parametrize("point", NEIGHBOURS)
def test_neighbours_of_noncharacters_are_accepted(point: int) -> None:
    assert parse(f'["{chr(point)}"]'.encode(), LIMIT) == [chr(point)]


# Parsed values

CHARACTERS = st.characters(
    exclude_categories=["Cs"],
    exclude_characters=[
        c
        for c in map(chr, range(0x110000))
        if 0xFDD0 <= ord(c) <= 0xFDEF or ord(c) & 0xFFFE == 0xFFFE
    ],
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-MAX_INTEGER, MAX_INTEGER)
    | st.floats(-MAX_INTEGER, MAX_INTEGER)
    | st.text(CHARACTERS, max_size=8)
    | st.text(string.printable, max_size=8)
)
DOCUMENTS = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(CHARACTERS, max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(DOCUMENTS)
@PROPERTY
def test_canonical_bytes_round_trip(document: Any) -> None:
    text = canonical(document)
    parsed = parse(text, LIMIT)
    assert canonical(parsed) == text
    assert typed_text(parse(canonical(parsed), LIMIT)) == typed_text(parsed)


# Time


@pytest.mark.parametrize(
    "text",
    [
        b'"' * 60_001,
        b'"\\' * 30_000,
        b"\\" * 60_000,
        b'"' + b"\\" * 60_001,
        b'"\\"' * 20_001,
        b'["' + b'","' * 20_000,
        b"[" * 16 + b"1," * 29_000,
        b'{"a":' * 16 + b'"' + b"x" * 59_000,
        b"-" * 60_000,
        b'["' + b"\\u00e9" * 9_000 + b'"]',
        b"]" * 60_000,
        b"1" * 60_000,
        b" " * 60_000,
    ],
    ids=range(13),
)
def test_parsing_time_is_linear_for_hostile_texts(text: bytes) -> None:
    """Linear time takes milliseconds; quadratic time in 60,000 bytes takes many seconds."""
    began = time.process_time()
    assert reason_of(lambda: parse(text, LIMIT)) in (None, Rejection.MALFORMED)
    assert time.process_time() - began < 1.5


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        (b'\xef\xbb\xbf{"a": 1}', "byte order mark"),
        ('{"a": 1}'.encode("utf-16"), "UTF-16: save it as UTF-8"),
        (b'{"a": 1,}', "a comma before line 1 column 9 has nothing after it"),
        (b'{"a": [1, 2,]}', "a comma before line 1 column 13"),
        (b"{'a': 1}", "single quotes"),
        (b"// note\n{}", "a comment at line 1 column 1"),
        (b"", "it is empty"),
        (b" \n", "it is empty"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"<!doctype html>", "a web page"),
    ],
)
def test_text_that_people_and_tools_write_says_what_is_wrong(text: bytes, advice: str) -> None:
    with pytest.raises(Rejected, match=r"not (JSON|UTF-8)") as caught:
        parse(text, 1000)
    assert advice in caught.value.detail


# The quick ways, beside those that look at one value at a time

ODD_STRINGS = ["\ud800", "\ufffe", "\U0001f600", "\ue000", '"', "\\", "\x00", "\x1f", "\x7f", "/"]
ODD_VALUES = st.sampled_from(ODD_STRINGS) | st.integers(-(2**54), 2**54) | st.floats()
TOKENS = (
    st.sampled_from([*'{}[]:,"\\.e0 \n'])
    | st.sampled_from(
        ['"a"', '"b"', '"\\u00e9"', '"\\n"', '"é"', '"\U0001f600"', "true", "null", "NaN"]
    )
    | st.sampled_from(["1", "-0", "0.5", "1.0", "1e5", "00", "9" * 15, "9" * 16])
)


def result(call: Callable[[], object]) -> str:
    """Return a value with its types, or the reason why there is none."""
    try:
        return typed_text(call())
    except Rejected as refused:
        return str(refused.reason)
    except ValueError:
        return "ValueError"


@given(st.recursive(DOCUMENTS | ODD_VALUES, lambda inner: st.lists(inner) | st.tuples(inner)))
@PROPERTY
def test_canonical_bytes_are_those_of_the_library(document: Any) -> None:
    assert result(lambda: canonical(document)) == result(lambda: rfc8785.dumps(document))


@given(
    st.lists(TOKENS, max_size=12).map("".join)
    | DOCUMENTS.map(lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":")))
)
@PROPERTY
def test_canonical_text_is_parsed_as_other_text(text: str) -> None:
    # White space at the end makes any text one that is not canonical.
    spaced = result(lambda: parse(text.encode() + b" ", LIMIT))
    assert result(lambda: parse(text.encode(), LIMIT)) == spaced


@given(DOCUMENTS)
@PROPERTY
def test_only_canonical_text_is_said_to_be_canonical(document: Any) -> None:
    for text in (canonical(document), json.dumps(document).encode()):
        value, is_canonical = parse_form(text, LIMIT)
        assert not is_canonical or canonical(value) == text
