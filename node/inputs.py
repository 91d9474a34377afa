"""The files that a task's args name: taken from its requester, or fetched from any peer by hash."""

import asyncio
from collections.abc import AsyncIterator, Container
from pathlib import Path

import structlog

from executor.errors import Abstained
from node.blobs import Blobs
from node.drafts import Draft
from node.fetching import PATIENCE, Fetcher, Unavailable
from node.outputs import Blob
from node.requests import PIECE
from node.transport.base import Stream, Transport
from protocol.messages import Input, Task

log = structlog.get_logger("inputs")

TRIES = 10  # of asking every connected peer, for an input that is still on its way to them
PAUSE = 2.0  # seconds between them
SECONDS = 120.0  # for a task's inputs: an attempt, by default, in which the executor waits for them


async def receive(task: Task, stream: Stream, blobs: Blobs) -> list[Draft]:
    """Take a task's inputs, in their order, from the stream of its submission.

    Nothing is kept of them until `Blobs.keeping` does. Raises BlobRefusedError if they are not
    what the task names, NoRoomError, and StreamClosed.
    """
    drafts: list[Draft] = []
    try:
        for named in task.inputs:
            pieces, size = _pieces(stream, named.size), named.size
            drafts.append(await blobs.receive(pieces, size=size, limit=size, sha256=named.sha256))
    except BaseException:
        for draft in drafts:
            draft.drop()
        raise
    return drafts


class Inputs:
    """One input is fetched at a time, which bounds the memory that this takes."""

    def __init__(self, transport: Transport, blobs: Blobs, roster: Container[str]) -> None:
        """`roster`: the members, who are asked first; anybody else may be anybody."""
        self._transport, self._blobs, self._roster = transport, blobs, roster
        self._fetcher = Fetcher(transport)
        self._turn = asyncio.Lock()

    async def obtain(self, task: Task) -> tuple[Path, ...]:
        """Return the files of a task's inputs, fetching what is missing.

        Raises Abstained("input-missing") when no peer has them, when they do not come within
        `SECONDS`, and when they cannot be kept.
        """
        try:
            async with asyncio.timeout(SECONDS):
                return tuple([await self._obtain(named) for named in task.inputs])
        except TimeoutError:
            detail = f"its inputs were not to be had within {SECONDS:g} s"
            raise Abstained("input-missing", detail) from None

    async def _obtain(self, named: Input) -> Path:
        for attempt in range(TRIES):
            if self._blobs.renew(named.sha256):
                return self._blobs.path(named.sha256)
            if attempt:
                await asyncio.sleep(PAUSE)
            async with self._turn:
                if await self._fetch(named, min(2**attempt, PATIENCE)):
                    return self._blobs.path(named.sha256)
        raise Abstained("input-missing", f"no peer has the input {named.sha256}")

    async def _fetch(self, named: Input, patience: int) -> bool:
        """Ask the connected peers, each once, until one has served it; return whether one has."""
        sha256, size, peers = named.sha256, named.size, sorted(self._transport.peers())
        try:
            payload = await self._fetcher.fetch(
                Blob(sha256, size, ()), peers, self._roster, (patience, patience)
            )
        except Unavailable as unavailable:
            log.info("input not to be had", sha256=sha256, detail=str(unavailable))
            return False
        try:
            await asyncio.to_thread(
                self._blobs.write, [payload], size=size, limit=size, sha256=sha256
            )
        except OSError as error:  # a full disk or folder: it would be as full for the next copy
            log.error("input not kept", sha256=sha256, error=str(error))
            raise Abstained("input-missing", f"the input {sha256} cannot be kept") from None
        return True


async def _pieces(stream: Stream, size: int) -> AsyncIterator[bytes]:
    while size:
        piece = await stream.read_exactly(min(PIECE, size))
        size -= len(piece)
        yield piece
