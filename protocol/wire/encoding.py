"""Canonical JSON bytes (RFC 8785) and tagged hashes (specification 2)."""

import hashlib
from collections.abc import Mapping
from typing import TypeAlias

import rfc8785

Json: TypeAlias = (
    "Mapping[str, Json] | list[Json] | tuple[Json, ...] | str | int | float | bool | None"
)
Document: TypeAlias = Mapping[str, Json]


def canonical(document: Json) -> bytes:
    """Return the RFC 8785 bytes of a JSON value.

    Raises ValueError where the value has no canonical form (NaN, a lone surrogate, an integer
    beyond 2^53-1). Documents that came through `ijson.parse` always have one.
    """
    return rfc8785.dumps(document)


def tagged_hash(tag: str, payload: bytes) -> bytes:
    """Return `H(tag, payload)`, 32 bytes: SHA-256("helium/1/" + tag, 0x00, payload)."""
    return hashlib.sha256(domain(tag) + payload).digest()


def domain(tag: str) -> bytes:
    """Return the bytes that separate one use of a hash or signature from every other."""
    return b"helium/1/" + tag.encode("ascii") + b"\x00"


def document_hash(tag: str, document: Json) -> str:
    """Return `H(tag, canonical(document))` as 64 lowercase hex characters."""
    return tagged_hash(tag, canonical(document)).hex()
