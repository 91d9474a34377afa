"""Why a dial failed, in words for the owner of an address: libp2p's own are about its layers."""

import os
import re
import socket
from collections.abc import Iterator

import trio
from libp2p.security.noise.exceptions import PeerIDMismatchesPubkey
from libp2p.transport.exceptions import SecurityUpgradeFailure
from multiaddr.exceptions import Error as MultiaddrError

_ANSWERING_PEER = re.compile(r"remote_peer_id_from_pubkey=(\w+)")
# Causes of causes; libp2p has six.
_MAX_CAUSES = 16


def describe_dial_failure(failure: BaseException) -> str:
    """Return what is wrong with an address that cannot be dialled, or with what is there."""
    causes = list(_causes(failure))
    for cause in causes:
        match cause:
            case PeerIDMismatchesPubkey():
                found = _ANSWERING_PEER.search(str(cause))
                name = found.group(1) if found else "another peer"
                return f"another peer answers there, {name}: correct the peer id"
            case socket.gaierror():
                return f"its host name cannot be resolved ({cause.strerror})"
            case MultiaddrError():
                return "it is no valid address"
            case trio.TooSlowError():
                return "nothing answered in time"
    if any(isinstance(cause, SecurityUpgradeFailure) for cause in causes):
        return "what answers there is no libp2p node, or refuses this peer"
    numbers = [cause.errno for cause in causes if isinstance(cause, OSError) and cause.errno]
    if numbers:  # the last one is the most precise, such as "connection refused"
        return os.strerror(numbers[-1]).lower()
    return next(iter(str(failure).splitlines()), "") or type(failure).__name__


def _causes(failure: BaseException) -> Iterator[BaseException]:
    """Yield an exception and what caused it, the members of groups included."""
    waiting, seen = [failure], 0
    while waiting and seen < _MAX_CAUSES:
        cause = waiting.pop(0)
        seen += 1
        yield cause
        if isinstance(cause, BaseExceptionGroup):
            waiting.extend(cause.exceptions)
        following = cause.__cause__ or cause.__context__
        if following is not None:
            waiting.append(following)
