"""Reads inbound requests, passes each to its handler, and answers what is wrong with it (7.3)."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

from node.admission.task_policy import TaskNotServed
from node.errors import Busy
from node.log import get_logger
from node.rpc import codec
from node.rpc.codec import ProtocolViolation, Status, answer, refuse
from node.rpc.hello import Greeter
from node.transport.interface import Stream, StreamClosed
from protocol.errors import Rejected

log = get_logger("serving")

# A requester must send its request in this time, or its stream is reset.
REQUEST_SECONDS = 10.0

Handler: TypeAlias = Callable[[Mapping[str, Any], Stream], Awaitable[None]]


class Dispatcher:
    """Serves inbound streams by the handlers of their protocols."""

    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        """`handlers` has a handler for each request's name, such as "hello"."""
        self._handlers = {codec.protocol_id(name): handler for name, handler in handlers.items()}

    async def serve(self, protocol: str, stream: Stream) -> None:
        """Read one request and answer it; an invalid one is answered with a status."""
        name = protocol.rpartition("/")[2]
        try:
            await self._serve(name, self._handlers[protocol], stream)
        except (StreamClosed, TimeoutError) as closed:
            log.debug("request aborted", protocol=name, peer=stream.peer, detail=str(closed))
            await stream.reset()

    async def _serve(self, name: str, handler: Handler, stream: Stream) -> None:
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                request = await codec.read_document(stream, f"{name}-request", codec.REQUEST_LIMIT)
            await handler(request, stream)
        except (ProtocolViolation, Rejected) as error:
            await refuse(stream, Status.INVALID, *_reason_and_detail(error))
        except Busy as busy:
            await refuse(stream, Status.BUSY, "busy", str(busy))
        except TaskNotServed as refusal:
            status = Status.INVALID if refusal.retry_after is None else Status.BUSY
            await refuse(stream, status, refusal.reason, str(refusal))
        except sqlite3.Error as error:
            log.error("database error", error=str(error))
            await refuse(stream, Status.INTERNAL, "store", "this node's database failed")
        except ValueError as error:
            # A mistake of this node: without an answer, the requester could only guess.
            log.exception("request failed", protocol=name, error=str(error))
            await refuse(stream, Status.INTERNAL, "internal", "this node could not answer")


def hello_handler(greeter: Greeter) -> Handler:
    """Return the handler of hello, which every peer must serve (specification 7.1)."""

    async def handle(request: Mapping[str, Any], stream: Stream) -> None:
        await answer(stream, greeter.answer(stream.peer, stream.connection, request))

    return handle


def _reason_and_detail(error: ProtocolViolation | Rejected) -> tuple[str, str]:
    if isinstance(error, Rejected):
        return str(error.reason), error.detail
    return error.reason, str(error)
