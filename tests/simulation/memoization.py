"""Caches pure functions across all nodes of one run.

All nodes parse, verify and encode the same few messages. These functions depend only on their
arguments, so a cache changes no behaviour and makes a run several times faster. Documents are
compared by identity and kept alive; this is safe because `protocol` never changes a document.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import rfc8785

from protocol.consensus import agreement, certificate, committee
from protocol.errors import Rejected
from protocol.wire import codec, encoding, signing

_dumps = rfc8785.dumps
_write = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode


def plain(value: Any) -> bool:
    """Return whether the json module encodes a value as RFC 8785 does.

    The two differ in floats and in the order of member names outside ASCII.
    """
    kind = type(value)
    if kind is dict:
        for name, member in value.items():
            if type(name) is not str or not name.isascii():
                return False
            if type(member) is not str and not plain(member):
                return False
        return True
    if kind is int:
        return bool(-(2**53) < value < 2**53)
    if kind is list or kind is tuple:
        return all(type(item) is str or plain(item) for item in value)
    return kind is str or kind is bool or value is None


def dumps(value: Any) -> bytes:
    """Encode as `rfc8785.dumps` does, with the faster json module where it gives the same."""
    if plain(value):
        try:
            return _write(value).encode()
        except UnicodeEncodeError:
            pass
    return _dumps(value)


@contextmanager
def installed() -> Iterator[None]:
    """Cache for all nodes of this process until the end of the block."""
    with ExitStack() as stack:
        for module, name, replacement in (
            (encoding, "rfc8785", _Canonical()),
            (codec, "decode", _by_value(codec.decode)),
            (signing, "check_signature", _by_value(signing.check_signature)),
            (signing, "peer_of", _by_identity(signing.peer_of)),
            (signing.Envelope, "encode", _by_identity(signing.Envelope.encode)),
            (certificate, "decode_document", _reading(codec.decode_document)),
            (certificate, "assemble", _assembling(certificate.assemble)),
            (agreement, "committees", _by_identity(committee.committees)),
        ):
            stack.enter_context(patch.object(module, name, replacement))
        yield


class _Canonical:
    """The part of rfc8785 that `protocol.wire.encoding` uses."""

    def __init__(self) -> None:
        self._results: dict[int, tuple[object, bytes]] = {}

    def dumps(self, value: Any) -> bytes:
        results = self._results.get(id(value))
        if results is None:
            results = (value, dumps(value))
            if type(value) is dict:
                self._results[id(value)] = results
        return results[1]


def _by_value(function: Callable[..., Any]) -> Callable[..., Any]:
    """Cache results and rejections by equal arguments."""
    results: dict[Any, Any] = {}

    def cached(*args: Any) -> Any:
        if args not in results:
            try:
                results[args] = function(*args)
            except Rejected as rejected:
                results[args] = rejected
        result = results[args]
        if isinstance(result, Rejected):
            raise Rejected(result.reason, result.detail)
        return result

    return cached


def _by_identity(function: Callable[..., Any]) -> Callable[..., Any]:
    """Cache by identity of the arguments, which are kept alive so that ids stay unique."""
    results: dict[tuple[int, ...], tuple[Any, Any]] = {}

    def cached(*args: Any) -> Any:
        key = tuple(map(id, args))
        result = results.get(key)
        if result is None:
            result = results[key] = (args, function(*args))
        return result[1]

    return cached


def _assembling(assemble: Callable[..., Any]) -> Callable[..., Any]:
    """Cache `certificate.assemble` by identity of the reveals."""
    results: dict[tuple[int, ...], tuple[Any, Any]] = {}

    def cached(task: Any, attempt: int, reveals: Any, network: Any) -> Any:
        key = (id(task), attempt, id(network), *map(id, reveals))
        result = results.get(key)
        if result is None:
            arguments = (task, network, *reveals)
            result = results[key] = (arguments, assemble(task, attempt, reveals, network))
        return result[1]

    return cached


def _reading(decode_document: Callable[..., Any]) -> Callable[..., Any]:
    """Cache `codec.decode_document` by identity of the body and equal signature."""
    results: dict[tuple[int, str, str, str], tuple[Any, Any]] = {}

    def cached(document: Any, network: str) -> Any:
        if type(document) is not dict or document.keys() != {"body", "signer", "signature"}:
            return decode_document(document, network)
        body, key = document["body"], (id(document["body"]), document["signer"])
        result = results.get((*key, document["signature"], network))
        if result is None:
            result = (body, decode_document(document, network))
            results[*key, document["signature"], network] = result
        return result[1]

    return cached


__all__ = ["dumps", "installed", "plain"]
