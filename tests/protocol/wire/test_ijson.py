import string
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import Rejected, Rejection
from protocol.wire.encoding import canonical, parse
from tests.protocol.expect import PROPERTY, reason_of, rejected

LIMIT = 65_536
MOST = 2**53 - 1

NONCHARACTERS = [0xFDD0, 0xFDEF, 0xFFFE, 0xFFFF, 0x1FFFE, 0x1FFFF, 0xFFFFE, 0x10FFFE, 0x10FFFF]
NEIGHBOURS = [0xFDCF, 0xFDF0, 0xFFFD, 0x10000, 0x1FFFD, 0x20000, 0x10FFFD, 0xD7FF, 0xE000]


def spoken(value: Any) -> str:
    """The value with its types, so that True is not 1 and 1 not 1.0."""
    return repr(value)


# Size


def test_the_limit_is_the_last_size_taken() -> None:
    text = b'"' + b"a" * 98 + b'"'
    assert parse(text, 100) == "a" * 98
    with rejected(Rejection.TOO_LARGE, "100 bytes, at most 99"):
        parse(text, 99)


def test_the_size_is_looked_at_before_anything_else() -> None:
    with rejected(Rejection.TOO_LARGE):
        parse(b"\xff" * 11, 10)
    with rejected(Rejection.TOO_LARGE):
        parse(b"[" * 50, 49)


# Depth


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_sixteen_containers_are_taken_and_seventeen_refused(opening: bytes, closing: bytes) -> None:
    parse(opening * 16 + b"1" + closing * 16, LIMIT)
    with rejected(Rejection.TOO_DEEP, "16"):
        parse(opening * 17 + b"1" + closing * 17, LIMIT)


def test_depth_is_looked_at_before_the_text_is_parsed() -> None:
    with rejected(Rejection.TOO_DEEP):
        parse(b"[" * 17 + b"\xff", LIMIT)


def test_containers_side_by_side_are_not_deep() -> None:
    assert parse(b"[" + b",".join([b"[]"] * 100) + b"]", LIMIT) == [[]] * 100


@pytest.mark.parametrize(
    "text",
    [b'"' + b"[" * 40 + b'"', rb'"\"' + b"{" * 40 + b'"', rb'["\\\"' + b"[" * 40 + b'"]'],
)
def test_brackets_in_strings_do_not_count(text: bytes) -> None:
    parse(text, LIMIT)


def test_a_string_that_ends_in_a_backslash_hides_nothing() -> None:
    with rejected(Rejection.TOO_DEEP):
        parse(rb'["\\",' + b"[" * 16 + b"]" * 17, LIMIT)


def test_closing_brackets_too_many_gain_no_depth() -> None:
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
def test_what_is_not_json_is_malformed(text: bytes) -> None:
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
def test_what_is_not_utf_8_is_malformed(text: bytes) -> None:
    with rejected(Rejection.MALFORMED, "not UTF-8 at byte 1"):
        parse(text, LIMIT)


def test_white_space_around_is_taken() -> None:
    assert parse(b" \t\r\n[ 1 , 2 ] \t\r\n", LIMIT) == [1, 2]


def test_every_prefix_of_a_document_is_refused() -> None:
    text = '{"a":[1,{"b":"é\\n\\ud83d\\ude00"},-0.5,true,false,null],"c":{}}'.encode()
    parse(text, LIMIT)
    for end in range(len(text)):
        with rejected(Rejection.MALFORMED):
            parse(text[:end], LIMIT)


def test_every_trailing_byte_but_white_space_is_refused() -> None:
    for byte in range(256):
        if byte in b" \t\r\n":
            assert parse(b"{}" + bytes((byte,)), LIMIT) == {}
        else:
            with pytest.raises(Rejected):
                parse(b"{}" + bytes((byte,)), LIMIT)


@given(st.binary(max_size=40))
@PROPERTY
def test_no_bytes_raise_anything_but_a_rejection(text: bytes) -> None:
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
def test_a_member_that_stands_twice_is_refused(text: bytes) -> None:
    with rejected(Rejection.MALFORMED, "duplicate member"):
        parse(text, LIMIT)


def test_the_same_name_in_different_objects_is_no_duplicate() -> None:
    assert parse(b'{"a":{"a":1},"b":[{"a":2},{"a":3}]}', LIMIT) == {
        "a": {"a": 1},
        "b": [{"a": 2}, {"a": 3}],
    }


# Numbers


@pytest.mark.parametrize("text", ["1.0", "1e0", "10e-1", "0.1e1", "1.000", "100E-2", "1e+0"])
def test_one_is_one_however_it_is_spelled(text: str) -> None:
    assert spoken(parse(text.encode(), LIMIT)) == "1"


@pytest.mark.parametrize("text", ["0", "-0", "0.0", "-0.0", "0e9", "-0e-9", "1e-400"])
def test_there_is_one_zero(text: str) -> None:
    assert spoken(parse(text.encode(), LIMIT)) == "0"


@pytest.mark.parametrize("text", ["9007199254740991", "9007199254740991.0", "9.007199254740991e15"])
def test_the_greatest_integer_is_taken(text: str) -> None:
    assert spoken(parse(text.encode(), LIMIT)) == str(MOST)
    assert spoken(parse(b"-" + text.encode(), LIMIT)) == str(-MOST)


@pytest.mark.parametrize(
    "text", ["9007199254740992", "9007199254740993", "9007199254740992.0", "1e16", "1e400", "1e999"]
)
def test_greater_numbers_are_refused(text: str) -> None:
    for sign in ("", "-"):
        with rejected(Rejection.MALFORMED, "beyond 2^53-1"):
            parse((sign + text).encode(), LIMIT)


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity"])
def test_what_python_takes_for_a_number_is_refused(text: str) -> None:
    for document in (text, f"[{text}]", f'{{"a":{text}}}'):
        with rejected(Rejection.MALFORMED, "no JSON number"):
            parse(document.encode(), LIMIT)


def test_an_endless_number_is_refused_unread() -> None:
    assert parse(b"0." + b"1" * 62, LIMIT) == pytest.approx(1 / 9)
    for text in (b"0." + b"1" * 63, b"9" * 60_000):
        with rejected(Rejection.MALFORMED, "characters"):
            parse(text, LIMIT)


def test_booleans_stay_booleans() -> None:
    assert spoken(parse(b"[true,false,1,0]", LIMIT)) == "[True, False, 1, 0]"


# Strings


@pytest.mark.parametrize("escape", ["\\ud800", "\\udfff", "\\ud83dx", "\\ude00\\ud83d", "\\uDBFF"])
def test_lone_surrogates_are_refused_wherever_they_stand(escape: str) -> None:
    for text in (f'"{escape}"', f'["{escape}"]', f'{{"{escape}":1}}', f'{{"a":[["{escape}"]]}}'):
        with rejected(Rejection.MALFORMED, "surrogate"):
            parse(text.encode(), LIMIT)


def test_a_pair_of_surrogates_is_a_character() -> None:
    assert parse(b'"\\ud83d\\ude00"', LIMIT) == "\U0001f600"


@pytest.mark.parametrize("point", NONCHARACTERS)
def test_noncharacters_are_refused_wherever_they_stand(point: int) -> None:
    c = chr(point)
    for text in (f'"{c}"', f'["a{c}"]', f'{{"{c}":1}}', f'[[{{"a":"{c}"}}]]', f'{{"a":["{c}"]}}'):
        with rejected(Rejection.MALFORMED, "noncharacter"):
            parse(text.encode(), LIMIT)


@pytest.mark.parametrize("point", NEIGHBOURS)
def test_their_neighbours_are_characters(point: int) -> None:
    assert parse(f'["{chr(point)}"]'.encode(), LIMIT) == [chr(point)]


# What leaves the parser

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
    | st.integers(-MOST, MOST)
    | st.floats(-MOST, MOST)
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
def test_canonical_bytes_parse_to_a_value_with_the_same_bytes(document: Any) -> None:
    text = canonical(document)
    parsed = parse(text, LIMIT)
    assert canonical(parsed) == text
    assert spoken(parse(canonical(parsed), LIMIT)) == spoken(parsed)


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
def test_hostile_texts_cost_no_more_than_their_length(text: bytes) -> None:
    """Some milliseconds; what is quadratic in 60,000 bytes takes well over these seconds."""
    began = time.process_time()
    assert reason_of(lambda: parse(text, LIMIT)) in (None, Rejection.MALFORMED)
    assert time.process_time() - began < 1.5
