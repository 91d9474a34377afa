"""Canonical JSON bytes (RFC 8785), tagged hashes and the bounded I-JSON parser (specification 2).

Two rules hold for every value that `parse` returns: it has canonical bytes, and parsing those
bytes gives the same value again.
"""

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

# Finds brackets outside strings. A string is skipped whole, an unterminated one up to the end of
# the text; the possessive `*+` never backtracks, which keeps the scan linear.
_STRING_OR_BRACKET = re.compile(rb'"(?:[^"\\]|\\.)*+"?|[\[\]{}]', re.DOTALL)

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
    return rfc8785.dumps(document)


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
    if len(text) > limit:
        raise Rejected(Rejection.TOO_LARGE, f"{len(text)} bytes, at most {limit} are allowed")
    if text[:2] in _UTF_16_MARKS:
        raise Rejected(Rejection.MALFORMED, "not UTF-8 but UTF-16: save it as UTF-8")
    if text.startswith(b"\xef\xbb\xbf"):
        detail = "not JSON: it begins with a byte order mark; save it as UTF-8 without one"
        raise Rejected(Rejection.MALFORMED, detail)
    _check_depth(text)
    try:
        return _DECODER.decode(text.decode("utf-8"))  # type: ignore[no-any-return]
    except UnicodeDecodeError as error:
        raise Rejected(Rejection.MALFORMED, f"not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise Rejected(Rejection.MALFORMED, f"not JSON: {_json_fault(error)}") from None


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
    depth = 0
    for match in _STRING_OR_BRACKET.finditer(text):
        first = match.group()[0]
        if first in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise Rejected(Rejection.TOO_DEEP, f"nested deeper than {MAX_DEPTH}")
        elif first in b"]}":
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
