"""Requests and answers as bytes on a stream (specification 7.3).

A request is one frame of JSON. An answer is a status byte and one frame of JSON; some protocols go
on with raw bytes or more frames. What comes in is bounded, parsed and checked against its schema
before anyone sees it.
"""

from collections.abc import Mapping
from enum import IntEnum
from typing import Any

import schemas
from node.rpc.framing import FrameTooLarge, MalformedFrame, frame, read_frame
from node.transport.interface import Stream
from protocol.constants import DOCUMENT_LIMIT, ENVELOPE_LIMIT
from protocol.errors import Rejected, Rejection
from protocol.wire.encoding import Document, canonical, parse
from schemas.errors import HeliumError, printable

REQUESTS = ("hello", "submit", "task", "watch", "blob", "feed", "envelopes")
# The longest request is a submit: an envelope and up to 16 sizes of inputs.
REQUEST_LIMIT = ENVELOPE_LIMIT + 4096
# Characters of the longest detail of a refusal (specification 7.3).
DETAIL_CHARACTERS = 256
# Raw bytes are written in pieces of this size, the fastest on Yamux by measurement.
WRITE_BYTES = 262_144
# For the inputs of a task at 1 Mbit/s, a slow uplink.
UPLOAD_SECONDS = 300.0


class Status(IntEnum):
    """The status byte of an answer."""

    OK = 0
    INVALID = 1
    INTERNAL = 2
    UNAVAILABLE = 3
    BUSY = 4


ATTRIBUTABLE = frozenset(
    (Rejection.MALFORMED, Rejection.TOO_LARGE, Rejection.TOO_DEEP, Rejection.BAD_SIGNATURE)
)
"""Reasons that no honest peer causes, whatever its version or settings: they are reported."""


class ProtocolViolation(HeliumError):
    """The other side broke the request/response protocol; `reason` is from the protocol's list."""

    def __init__(self, detail: str, reason: str = "malformed") -> None:
        super().__init__(detail)
        self.reason = reason

    @property
    def attributable(self) -> bool:
        """Whether it is certainly the peer's fault; a document that fits no schema may be newer."""
        return self.reason in ATTRIBUTABLE


def protocol_id(name: str) -> str:
    """Return the libp2p protocol id of a request, "/helium/2/<name>"."""
    return f"/helium/2/{name}"


async def read_document(
    stream: Stream, schema: str, limit: int = DOCUMENT_LIMIT
) -> Mapping[str, Any]:
    """Read one frame of JSON that fits a schema. Raises ProtocolViolation or StreamClosed."""
    try:
        document: Any = parse(await read_frame(stream, limit), limit)
        schemas.check(schema, document)
    except MalformedFrame as error:
        raise ProtocolViolation(str(error)) from None
    except FrameTooLarge as error:
        raise ProtocolViolation(str(error), str(Rejection.TOO_LARGE)) from None
    except Rejected as rejected:
        raise ProtocolViolation(rejected.detail, str(rejected.reason)) from None
    except schemas.SchemaViolation as error:
        raise ProtocolViolation(str(error), str(Rejection.INVALID_FIELD)) from None
    return document  # type: ignore[no-any-return]  # an object: every schema used here demands it


async def answer(stream: Stream, document: Document) -> None:
    """Send a zero status and a document."""
    await answer_encoded(stream, canonical(document))


async def answer_encoded(stream: Stream, payload: bytes) -> None:
    """Send a zero status and a document's JSON."""
    if len(payload) > DOCUMENT_LIMIT:
        raise ValueError(f"an answer of {len(payload)} bytes")
    await _write_answer(stream, Status.OK, payload)


async def refuse(stream: Stream, status: Status, reason: str, detail: str) -> None:
    """Send a non-zero status, a reason, and the detail, cut to what the protocol allows."""
    short = printable(detail[:DETAIL_CHARACTERS])
    await _write_answer(stream, status, canonical({"reason": reason, "detail": short}))


async def _write_answer(stream: Stream, status: Status, payload: bytes) -> None:
    """Write both at once: each write is a message of the stream's multiplexer and its cipher."""
    await stream.write(bytes((status,)) + frame(payload))
