"""Canonical JSON bytes (RFC 8785), tagged hashes and the bounded I-JSON parser (specification 2).

Two rules hold for every value that `parse` returns: it has canonical bytes, and parsing those
bytes gives the same value again.
"""

import contextlib
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, NoReturn, TypeAlias

import rfc8785

from protocol.constants import MAX_DEPTH, MAX_INTEGER
from protocol.errors import Rejected, Rejection

Json: TypeAlias = (
    "Mapping[str, Json] | list[Json] | tuple[Json, ...] | str | int | float | bool | None"
)
Document: TypeAlias = Mapping[str, Json]

# A string is matched whole, an unterminated one up to the end of the text; the possessive `*+`
# never backtracks, which keeps the scan linear.
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")

# Matches a whole text without white space, of which Python's own encoder and RFC 8785 think alike:
# numbers that are short and have no exponent, and characters below U+10000, which both sort alike.
# A string here is also I-JSON. What does not match is treated one value at a time.
_PLAIN = re.compile(
    r"(?:[\[\]{}:,]++"
    r'|"(?:[^"\\\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff\U00010000-\U0010ffff]++|\\.)*+"'
    r"|-?(?:0|[1-9][0-9]{0,14})(?:\.[0-9]*[1-9])?(?![0-9.eE])"
    r"|true|false|null)*+"
)
_ENCODER = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"))
_PLAIN_DECODER = json.JSONDecoder()

# Characters of a number (specification 2.1): a double needs 25, and Python's int() is quadratic.
_MAX_NUMBER_LENGTH = 64

# The byte order marks of UTF-16.
_UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")

# Surrogates, and the noncharacters below U+10000 (RFC 7493 section 2.1).
_FORBIDDEN = re.compile("[\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")


def canonical(document: Json) -> bytes:
    """Return the RFC 8785 bytes of a JSON value.

    Raises ValueError where the value has no canonical form (NaN, a lone surrogate, an integer
    beyond 2^53-1). Documents that came through `parse` always have one.
    """
    try:
        text = _ENCODER.encode(document)  # in C: a tenth of the time
    except (TypeError, ValueError):
        return rfc8785.dumps(document)
    return text.encode() if _PLAIN.fullmatch(text) else rfc8785.dumps(document)


def tagged_hash(tag: str, payload: bytes) -> bytes:
    """Return `H(tag, payload)`, 32 bytes: SHA-256("helium/2/" + tag, 0x00, payload)."""
    return hashlib.sha256(domain(tag) + payload).digest()


def domain(tag: str) -> bytes:
    """Return the prefix that separates one use of a hash or signature from all other uses."""
    return b"helium/2/" + tag.encode("ascii") + b"\x00"


def document_hash(tag: str, document: Json) -> str:
    """Return `H(tag, canonical(document))` as 64 lowercase hex characters."""
    return tagged_hash(tag, canonical(document)).hex()


def parse(text: bytes, limit: int) -> Json:
    """Return the value of I-JSON `text` (UTF-8, at most `limit` bytes).

    Size and depth are checked before anything is built. A number with an integral value becomes an
    `int` in any spelling (`1.0`, `1e0`), because JSON and its canonical form have one value for
    them. Raises Rejected: TOO_LARGE, TOO_DEEP or MALFORMED.
    """
    return parse_form(text, limit)[0]


def parse_form(text: bytes, limit: int) -> tuple[Json, bool]:
    """Return the value as `parse` does, and whether `text` is known to be canonical.

    For a text of unusual numbers or characters, that is not found out.
    """
    if len(text) > limit:
        raise Rejected(Rejection.TOO_LARGE, f"{len(text)} bytes, at most {limit} are allowed")
    if text[:2] in _UTF_16_MARKS:
        raise Rejected(Rejection.MALFORMED, "not UTF-8 but UTF-16: save it as UTF-8")
    if text.startswith(b"\xef\xbb\xbf"):
        detail = "not JSON: it begins with a byte order mark; save it as UTF-8 without one"
        raise Rejected(Rejection.MALFORMED, detail)
    _check_depth(text)
    try:
        return _decode(text.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise Rejected(Rejection.MALFORMED, f"not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise Rejected(Rejection.MALFORMED, f"not JSON: {_json_fault(error)}") from None


def _decode(text: str) -> tuple[Json, bool]:
    if _PLAIN.fullmatch(text):
        with contextlib.suppress(ValueError):  # `_DECODER` finds it too, and says what it is
            value: Json = _PLAIN_DECODER.decode(text)
            # Of this text, no member was dropped as a duplicate, and no number had another form.
            if _ENCODER.encode(value) == text:
                return value, True
    return _DECODER.decode(text), False


def _json_fault(error: json.JSONDecodeError) -> str:
    """Return what is wrong with a text, for those who wrote it by hand or took another file."""
    text, place = error.doc, f"line {error.lineno} column {error.colno}"
    if not text.strip():
        return "it is empty"
    if text.startswith("version https://git-lfs"):
        return "it is a Git LFS pointer; fetch the file itself with git lfs pull"
    if text.lstrip()[:1] == "<":
        return "it is a web page or XML"
    following = text[error.pos : error.pos + 2]
    if text[: error.pos].rstrip()[-1:] == "," and following[:1] in ("}", "]", ""):
        return f"a comma before {place} has nothing after it"
    if following[:1] == "'":
        return f"a string in single quotes at {place}; JSON has double quotes"
    if following in ("//", "/*") or following[:1] == "#":
        return f"a comment at {place}; JSON has none"
    return str(error)


def _check_depth(text: bytes) -> None:
    if text.count(b"[") + text.count(b"{") <= MAX_DEPTH:
        return
    depth = 0
    for bracket in _STRING.sub(b"", text).translate(None, _NO_BRACKETS):
        if bracket in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise Rejected(Rejection.TOO_DEEP, f"nested deeper than {MAX_DEPTH}")
        else:
            depth -= 1


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for name, value in pairs:
        _check_string(name)
        if name in members:
            raise Rejected(Rejection.MALFORMED, f"duplicate member {name[:64]!r}")
        members[name] = _checked(value)
    return members


def _checked(value: Any) -> Any:
    if isinstance(value, str):
        _check_string(value)
    elif isinstance(value, list):
        for item in value:
            _checked(item)
    return value


def _check_string(value: str) -> None:
    """Reject surrogates and noncharacters."""
    if not is_i_json_text(value):
        raise Rejected(Rejection.MALFORMED, "a string holds a surrogate or a noncharacter")


def is_i_json_text(value: str) -> bool:
    """Return whether a string is I-JSON: no surrogate, no noncharacter (specification 2.1).

    Noncharacters above U+FFFF end in FFFE or FFFF.
    """
    return value.isascii() or not (
        _FORBIDDEN.search(value)
        or any(ord(c) > 0xFFFF and ord(c) & 0xFFFE == 0xFFFE for c in value)
    )


def _number(text: str) -> int | float:
    if len(text) > _MAX_NUMBER_LENGTH:
        raise Rejected(Rejection.MALFORMED, f"a number of {len(text)} characters")
    value = float(text)
    if abs(value) > MAX_INTEGER:  # every larger double is integral, infinity included
        raise Rejected(Rejection.MALFORMED, f"the number {text} is beyond 2^53-1")
    return int(value) if value.is_integer() else value


def _constant(text: str) -> NoReturn:
    raise Rejected(Rejection.MALFORMED, f"{text} is no JSON number")


class _Decoder(json.JSONDecoder):
    """Python's decoder with the checks above as hooks; it also checks a string at the top level."""

    def __init__(self) -> None:
        super().__init__(
            object_pairs_hook=_members,
            parse_float=_number,
            parse_int=_number,
            parse_constant=_constant,
        )

    def decode(self, s: str) -> Any:  # type: ignore[override]
        return _checked(super().decode(s))


_DECODER = _Decoder()
