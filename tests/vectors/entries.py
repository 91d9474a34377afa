"""Helpers for the entries of golden vectors."""

from collections.abc import Callable
from typing import Any

from protocol.errors import Rejected, Rejection

Entry = dict[str, Any]
Vectors = dict[str, Any]


def spelled(text: bytes) -> Entry:
    """Return bytes as a member of an entry: `text` if they are UTF-8, else `hex`."""
    try:
        return {"text": text.decode("utf-8")}
    except UnicodeDecodeError:
        return {"hex": text.hex()}


def refused(name: str, reason: Rejection, text: bytes, call: Callable[[bytes], object]) -> Entry:
    """Return the entry of bytes that `call` rejects for this reason; asserts that it does."""
    try:
        call(text)
    except Rejected as found:
        if found.reason is reason:
            return {"name": name, **spelled(text), "reason": str(reason)}
        raise AssertionError(f"{name}: refused as {found}, not as {reason}") from found
    raise AssertionError(f"{name}: was not refused")
