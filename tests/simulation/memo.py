"""Pure functions computed once for all nodes of one history.

Every node parses, checks and writes canonically the same few messages. These functions depend on
nothing but their arguments, so remembering what they gave changes no behaviour; a history runs
several times faster. Arguments that are documents are told apart by identity and kept alive, which
is sound because nothing in `protocol` changes a document.
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
    """Whether Python's own encoder writes a JSON value as RFC 8785 does.

    It does but for numbers that are not integers, and for the order of names outside ASCII.
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
    """Return what `rfc8785.dumps` does, sooner where Python's own encoder writes the same."""
    if plain(value):
        try:
            return _write(value).encode()
        except UnicodeEncodeError:
            pass
    return _dumps(value)


@contextmanager
def installed() -> Iterator[None]:
    """Remember, for all nodes of this process, until the end of the block."""
    with ExitStack() as stack:
        for module, name, replacement in (
            (encoding, "rfc8785", _Canonical()),
            (codec, "decode", _by_value(codec.decode)),
            (signing, "peer_of", _by_identity(signing.peer_of)),
            (signing.Envelope, "encode", _by_identity(signing.Envelope.encode)),
            (certificate, "decode_document", _reading(codec.decode_document)),
            (certificate, "assemble", _assembling(certificate.assemble)),
            (agreement, "committees", _by_identity(committee.committees)),
        ):
            stack.enter_context(patch.object(module, name, replacement))
        yield


class _Canonical:
    """What `protocol.wire.encoding` uses of the package rfc8785."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[object, bytes]] = {}

    def dumps(self, value: Any) -> bytes:
        known = self._known.get(id(value))
        if known is None:
            known = (value, dumps(value))
            if type(value) is dict:
                self._known[id(value)] = known
        return known[1]


def _by_value(function: Callable[..., Any]) -> Callable[..., Any]:
    """Remember by equal arguments; a rejection too."""
    known: dict[Any, Any] = {}

    def remembering(*args: Any) -> Any:
        found = known.get(args)
        if found is None:
            try:
                found = function(*args)
            except Rejected as rejected:
                found = rejected
            known[args] = found
        if isinstance(found, Rejected):
            raise Rejected(found.reason, found.detail)
        return found

    return remembering


def _by_identity(function: Callable[..., Any]) -> Callable[..., Any]:
    """Remember by the very same arguments, which are kept so that no other takes their place."""
    known: dict[tuple[int, ...], tuple[Any, Any]] = {}

    def remembering(*args: Any) -> Any:
        key = tuple(map(id, args))
        found = known.get(key)
        if found is None:
            found = known[key] = (args, function(*args))
        return found[1]

    return remembering


def _assembling(assemble: Callable[..., Any]) -> Callable[..., Any]:
    """Remember `certificate.assemble` by the very same reveals, in whatever list they come."""
    known: dict[tuple[int, ...], tuple[Any, Any]] = {}

    def remembering(task: Any, attempt: int, reveals: Any, network: Any) -> Any:
        key = (id(task), attempt, id(network), *map(id, reveals))
        found = known.get(key)
        if found is None:
            kept = (task, network, *reveals)
            found = known[key] = (kept, assemble(task, attempt, reveals, network))
        return found[1]

    return remembering


def _reading(decode_document: Callable[..., Any]) -> Callable[..., Any]:
    """Remember `codec.decode_document` by the very same body, under the same signature."""
    known: dict[tuple[int, str, str, str], tuple[Any, Any]] = {}

    def remembering(document: Any, network: str) -> Any:
        if type(document) is not dict or document.keys() != {"body", "signer", "signature"}:
            return decode_document(document, network)
        body, key = document["body"], (id(document["body"]), document["signer"])
        found = known.get((*key, document["signature"], network))
        if found is None:
            found = (body, decode_document(document, network))
            known[*key, document["signature"], network] = found
        return found[1]

    return remembering


__all__ = ["dumps", "installed", "plain"]
