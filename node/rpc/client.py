"""Request and answer over one stream (specification 7).

A request is one frame of JSON; the answer is a status byte and one frame of JSON, after which some
protocols go on with raw bytes or more frames. What comes in is bounded, parsed and checked against
its schema before anyone sees it.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from enum import IntEnum
from typing import Any

import schemas
from node.admission.peer_score import PeerAction
from node.rpc.framing import MalformedFrame, read_frame, write_frame
from node.transport.interface import Stream, StreamClosed, Transport
from protocol.constants import DOCUMENT_LIMIT, ENVELOPE_LIMIT
from protocol.errors import Rejected, Rejection
from protocol.wire.encoding import Document, canonical, parse
from schemas.errors import HeliumError, printable

NAMES = ("hello", "submit", "task", "watch", "blob", "feed")
REQUEST_LIMIT = ENVELOPE_LIMIT + 4096  # the longest request is a submit: an envelope and 16 sizes
DETAIL_BYTES = 256  # specification 7
PIECE = 262_144  # bytes a write; the fastest on yamux by measurement
UPLOAD_SECONDS = 300.0  # for max_input_bytes at a slow line's 1 Mbit/s
ANSWER_SECONDS = 30.0  # a peer that is slower than this is of no use for the request


class Status(IntEnum):
    """The status byte of an answer."""

    OK = 0
    INVALID = 1
    INTERNAL = 2
    UNAVAILABLE = 3
    BUSY = 4


class RequestRefused(HeliumError):
    """The other side answered with a non-zero status."""

    def __init__(self, status: Status, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.status, self.reason, self.detail = status, reason, detail


FAULTS = frozenset(
    (Rejection.MALFORMED, Rejection.TOO_LARGE, Rejection.TOO_DEEP, Rejection.BAD_SIGNATURE)
)
"""Reasons that no honest peer gives, of whatever version or settings: they cost it points."""


class ProtocolViolation(HeliumError):
    """The other side broke the request/response protocol; `reason` is from the protocol's list."""

    def __init__(self, detail: str, reason: str = "malformed") -> None:
        super().__init__(detail)
        self.reason = reason

    @property
    def attributable(self) -> bool:
        """Whether it is the peer's own fault for certain; what fits no schema may be newer."""
        return self.reason in FAULTS


def protocol_id(name: str) -> str:
    """Return the libp2p protocol id of a request, "/helium/1/<name>"."""
    return f"/helium/1/{name}"


@asynccontextmanager
async def open_request(
    transport: Transport, peer: str, name: str, request: Document
) -> AsyncIterator[Stream]:
    """Open a stream, send one request, give the stream for what follows, and end it.

    Raises ConnectionError (StreamClosed included) when the peer is gone. A attributable
    ProtocolViolation that is raised meanwhile costs the peer a point.
    """
    stream = await transport.open(peer, protocol_id(name))
    try:
        await write_frame(stream, canonical(request))
        yield stream
    except BaseException as error:
        if isinstance(error, ProtocolViolation) and error.attributable:
            transport.report(peer, PeerAction.PROTOCOL_VIOLATION)
        await stream.reset()
        raise
    await stream.close()


async def send_request(
    transport: Transport,
    peer: str,
    name: str,
    request: Document,
    seconds: float = ANSWER_SECONDS,
    payloads: Sequence[bytes] = (),
) -> Mapping[str, Any]:
    """Return the answer of `peer` to one request, which raw `payloads` may follow.

    Raises RequestRefused for a non-zero status, ProtocolViolation for an answer that breaks the
    protocol, and ConnectionError when the peer is gone or slower than `seconds`.
    """
    try:
        async with asyncio.timeout(seconds), open_request(transport, peer, name, request) as stream:
            writing = asyncio.create_task(_write_all(stream, payloads))
            try:  # a refusal may come before the payloads were read
                return await read_answer(stream, name)
            finally:
                writing.cancel()
                await asyncio.gather(writing, return_exceptions=True)
    except TimeoutError:
        raise StreamClosed(f"no answer to {name} within {seconds:g} s") from None


async def _write_all(stream: Stream, payloads: Sequence[bytes]) -> None:
    for payload in payloads:
        for start in range(0, len(payload), PIECE):
            await stream.write(payload[start : start + PIECE])
    await stream.close_write()


async def read_answer(stream: Stream, name: str) -> Mapping[str, Any]:
    """Read a status byte and return the answer. Raises RequestRefused for a non-zero status."""
    await read_status(stream)
    return await read_document(stream, f"{name}-answer")


async def read_status(stream: Stream) -> None:
    """Read a status byte. Raises RequestRefused with the frame's content if it is not zero."""
    status = (await stream.read_exactly(1))[0]
    if status == Status.OK:
        return
    failure = await read_document(stream, "failure")
    if status not in list(Status):
        detail = f"status {status} is none of the protocol's"  # but may be a newer version's
        raise ProtocolViolation(detail, Rejection.INVALID_FIELD)
    raise RequestRefused(Status(status), failure["reason"], failure["detail"])


async def read_document(
    stream: Stream, schema: str, limit: int = DOCUMENT_LIMIT
) -> Mapping[str, Any]:
    """Read one frame of JSON that fits a schema. Raises ProtocolViolation or StreamClosed."""
    try:
        document: Any = parse(await read_frame(stream, limit), limit)
        schemas.check(schema, document)
    except MalformedFrame as error:
        raise ProtocolViolation(str(error)) from None
    except Rejected as rejected:
        raise ProtocolViolation(rejected.detail, str(rejected.reason)) from None
    except schemas.SchemaViolation as error:
        raise ProtocolViolation(str(error), str(Rejection.INVALID_FIELD)) from None
    return document  # type: ignore[no-any-return]  # an object: every schema asked for says so


async def answer(stream: Stream, document: Document) -> None:
    """Send a zero status and a document."""
    await answer_encoded(stream, canonical(document))


async def answer_encoded(stream: Stream, payload: bytes) -> None:
    """Send a zero status and a document's JSON."""
    if len(payload) > DOCUMENT_LIMIT:
        raise ValueError(f"an answer of {len(payload)} bytes")
    await stream.write(bytes((Status.OK,)))
    await write_frame(stream, payload)


async def refuse(stream: Stream, status: Status, reason: str, detail: str) -> None:
    """Send a non-zero status and why; the detail is cut to what the protocol allows."""
    short = detail.encode()[:DETAIL_BYTES].decode(errors="ignore")
    await stream.write(bytes((status,)))
    await write_frame(stream, canonical({"reason": reason, "detail": printable(short)}))
