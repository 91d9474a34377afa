"""Agreeing on the protocol of a stream (multistream-select 1.0) with as few writes as it takes.

libp2p's own reads each length byte by byte, from messages of any size, and writes each message
singly. It asks even where it knows what the peer will answer.
"""

from collections.abc import Collection, Sequence

from libp2p.custom_types import TProtocol

from node.transport.libp2p.net_stream import NEGOTIATION_BYTES, GuardedNetStream
from schemas.errors import HeliumError

NOT_SUPPORTED = b"na"


class NegotiationFailed(HeliumError, ConnectionError):
    """The two sides of a stream have not agreed on a protocol."""


def message(content: bytes) -> bytes:
    """Return a message of a negotiation: its length as an unsigned varint, content, newline."""
    size = len(content) + 1
    if size > NEGOTIATION_BYTES:
        raise NegotiationFailed(f"a protocol's name of {size} bytes")
    prefix = bytes((size,)) if size < 0x80 else bytes((size & 0x7F | 0x80, size >> 7))
    return prefix + content + b"\n"


MULTISTREAM = b"/multistream/1.0.0"
HEADER = message(MULTISTREAM)


async def select(stream: GuardedNetStream, protocols: Sequence[str]) -> str:
    """Return the first of `protocols` that the peer speaks; raise NegotiationFailed.

    The first is asked for together with the header: both sides may send theirs at once.
    """
    for position, protocol in enumerate(protocols):
        asked = message(protocol.encode())
        await stream.write(asked if position else HEADER + asked)
        if position == 0 and await _next(stream) != MULTISTREAM:
            raise NegotiationFailed("the peer does not negotiate")
        answer = await _next(stream)
        if answer == protocol.encode():
            return protocol
        if answer != NOT_SUPPORTED:
            raise NegotiationFailed(f"the answer to {protocol} is {answer[:80]!r}")
    raise NegotiationFailed(f"the peer speaks none of {list(protocols)}")


def assume(stream: GuardedNetStream, protocol: str) -> None:
    """Go on as if the peer had agreed: what is asked goes with the first bytes of the stream.

    The first read raises StreamError if the peer has not agreed.
    """
    asked = HEADER + message(protocol.encode())
    queue(stream, asked)
    stream.expected = asked  # the peer answers with its own header and the protocol's name


async def respond(stream: GuardedNetStream, protocols: Collection[str | None]) -> TProtocol:
    """Return what the peer chose of `protocols`, or raise NegotiationFailed.

    The answer is written when this side has to wait, or with the first bytes of the handler's.
    """
    if await _next(stream) != MULTISTREAM:
        raise NegotiationFailed("the peer does not negotiate")
    queue(stream, HEADER)
    while True:
        asked = await _next(stream)
        if asked == b"ls":
            queue(stream, message(b"".join(f"{name}\n".encode() for name in protocols if name)))
        elif (name := asked.decode()) in protocols:
            queue(stream, message(asked))
            if not stream.muxed_stream.unread():  # the peer may be waiting for the answer
                await stream.muxed_stream.conn.flush()
            return TProtocol(name)
        else:
            queue(stream, message(NOT_SUPPORTED))


def queue(stream: GuardedNetStream, content: bytes) -> None:
    """Queue bytes that the next write or the next wait of the stream sends."""
    if stream.muxed_stream.queue(content) < len(content):
        raise NegotiationFailed("the peer's window is too small for a negotiation")


async def _next(stream: GuardedNetStream) -> bytes:
    received = await stream.read_message(NEGOTIATION_BYTES)
    if not received.endswith(b"\n"):
        raise NegotiationFailed("a message without its newline")
    return received[:-1]
