"""The files that a task's args name: taken from its requester, or fetched from any peer by hash."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import structlog

from executor.errors import Abstained
from node.blobs import Blobs
from node.fetching import Unavailable, fetch
from node.outputs import Blob
from node.requests import PIECE
from node.transport.base import Stream, Transport
from protocol.messages import Input, Task

log = structlog.get_logger("inputs")

TRIES = 10  # of asking every connected peer, for an input that is still on its way to them
PAUSE = 2.0  # seconds between them


async def receive(task: Task, stream: Stream, blobs: Blobs) -> None:
    """Take a task's inputs, in their order, from the stream of its submission.

    Raises BlobRefusedError if they are not what the task names, and StreamClosed.
    """
    for named in task.inputs:
        await blobs.receive(
            _pieces(stream, named.size), size=named.size, limit=named.size, sha256=named.sha256
        )


class Inputs:
    """One input is fetched at a time, which bounds the memory that this takes."""

    def __init__(self, transport: Transport, blobs: Blobs) -> None:
        self._transport, self._blobs = transport, blobs
        self._turn = asyncio.Lock()

    async def obtain(self, task: Task) -> tuple[Path, ...]:
        """Return the files of a task's inputs, fetching what is missing.

        Raises Abstained("input-missing") when no peer has them.
        """
        return tuple([await self._obtain(named) for named in task.inputs])

    async def _obtain(self, named: Input) -> Path:
        for attempt in range(TRIES):
            if self._blobs.renew(named.sha256):
                return self._blobs.path(named.sha256)
            if attempt:
                await asyncio.sleep(PAUSE)
            async with self._turn:
                await self._fetch(named)
        raise Abstained("input-missing", f"no peer has the input {named.sha256}")

    async def _fetch(self, named: Input) -> None:
        payload = bytearray()
        blob = Blob(named.sha256, named.size, ())
        for peer in sorted(self._transport.peers()):
            payload.clear()
            try:
                await fetch(self._transport, [peer], blob, payload.extend)
            except Unavailable:
                continue
            size, sha256 = named.size, named.sha256
            try:
                await asyncio.to_thread(
                    self._blobs.write, [bytes(payload)], size=size, limit=size, sha256=sha256
                )
            except OSError as error:  # a full disk, say
                log.error("input not kept", sha256=sha256, error=str(error))
            return


async def _pieces(stream: Stream, size: int) -> AsyncIterator[bytes]:
    while size:
        piece = await stream.read_exactly(min(PIECE, size))
        size -= len(piece)
        yield piece
