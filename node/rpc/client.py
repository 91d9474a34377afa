"""The client side of the request/response protocols (specification 7.3)."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from node.admission.peer_score import PeerAction
from node.rpc.codec import WRITE_BYTES, ProtocolViolation, Status, protocol_id, read_document
from node.rpc.framing import frame
from node.transport.interface import Stream, StreamClosed, Transport
from protocol.errors import Rejection
from protocol.wire.encoding import Document, canonical
from schemas.errors import HeliumError

# A peer that takes longer to answer is of no use for the request.
ANSWER_SECONDS = 30.0


class RequestRefused(HeliumError):
    """The other side answered with a non-zero status."""

    def __init__(self, status: Status, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.status, self.reason, self.detail = status, reason, detail


@asynccontextmanager
async def open_request(
    transport: Transport, peer: str, name: str, request: Document, *, half_close: bool = True
) -> AsyncIterator[Stream]:
    """Open a stream, send one request, yield the stream for the answer, and close it.

    The stream is half-closed after the request; `half_close` is false if the caller has more to
    send. Reports the peer for an attributable ProtocolViolation that the block raises. Raises
    ConnectionError (StreamClosed included) when the peer is gone.
    """
    first = frame(canonical(request))
    stream = await transport.open(peer, protocol_id(name), first, half_close=half_close)
    try:
        yield stream
    except BaseException as error:
        if isinstance(error, ProtocolViolation) and error.attributable:
            transport.report(peer, PeerAction.PROTOCOL_VIOLATION)
        await stream.reset()  # a close would let the peer go on writing
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
    """Send one request, and raw `payloads` after it, and return the answer of `peer`.

    Raises RequestRefused for a non-zero status, ProtocolViolation for an answer that breaks the
    protocol, and ConnectionError when the peer is gone or slower than `seconds`.
    """
    try:
        async with (
            asyncio.timeout(seconds),
            open_request(transport, peer, name, request, half_close=not payloads) as stream,
        ):
            if not payloads:
                return await read_answer(stream, name)
            writing = asyncio.create_task(_write_all(stream, payloads))
            try:  # the peer may refuse before it has read all payloads
                return await read_answer(stream, name)
            finally:
                writing.cancel()
                await asyncio.gather(writing, return_exceptions=True)
    except TimeoutError:
        raise StreamClosed(f"no answer to {name} within {seconds:g} s") from None


async def _write_all(stream: Stream, payloads: Sequence[bytes]) -> None:
    for payload in payloads:
        for start in range(0, len(payload), WRITE_BYTES):
            await stream.write(payload[start : start + WRITE_BYTES])
    await stream.close_write()


async def read_answer(stream: Stream, name: str) -> Mapping[str, Any]:
    """Read a status byte and return the answer. Raises RequestRefused for a non-zero status."""
    await read_status(stream)
    return await read_document(stream, f"{name}-answer")


async def read_status(stream: Stream) -> None:
    """Read a status byte. If it is not zero, read why, and raise RequestRefused."""
    status = (await stream.read_exactly(1))[0]
    if status == Status.OK:
        return
    failure = await read_document(stream, "failure")
    if status not in list(Status):
        # A newer version may have more of them, so this is not attributable.
        detail = f"status {status} is none of the protocol's"
        raise ProtocolViolation(detail, Rejection.INVALID_FIELD)
    raise RequestRefused(Status(status), failure["reason"], failure["detail"])
