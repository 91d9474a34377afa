"""The files that a task's args name: fetched by hash from any peer that has them."""

import asyncio
import sqlite3
from pathlib import Path

import structlog

from executor.errors import Abstained
from node.storage.blobs import BlobStore
from node.sync.blob_download import MAX_SLOWDOWN, BlobDownloader, BlobUnavailable, rendezvous_order
from node.transport.interface import Transport
from protocol.manifest import Blob
from protocol.network import Network
from protocol.wire.messages import Abstention, Input, Task

log = structlog.get_logger("inputs")

TRIES = 10  # of asking every connected peer, for an input that is still on its way to them
PAUSE = 2.0  # seconds between them
SHARE = 0.5  # of an attempt, for a task's inputs: the executor waits for them, and has the rest


class InputFetcher:
    """One input is fetched at a time, which bounds the memory that this takes."""

    def __init__(self, transport: Transport, blobs: BlobStore, network: Network) -> None:
        """`network`: its members are asked first; anybody else may be anybody."""
        self._transport, self._blobs, self._network = transport, blobs, network
        self._downloader = BlobDownloader(transport)
        self._turn = asyncio.Lock()

    async def fetch(self, task: Task) -> tuple[Path, ...]:
        """Return the files of a task's inputs, fetching what is missing.

        Raises `Abstained` (input-missing) when no peer has them, when they do not come within
        `SHARE` of an attempt, and when they cannot be kept.
        """
        seconds = SHARE * self._network.attempt_seconds(task)
        try:
            async with asyncio.timeout(seconds):
                return tuple([await self._fetch_one(named) for named in task.inputs])
        except TimeoutError:
            detail = f"its inputs were not to be had within {seconds:g} s"
            raise Abstained(Abstention.INPUT_MISSING, detail) from None

    async def _fetch_one(self, named: Input) -> Path:
        for attempt in range(TRIES):
            if self._blobs.touch(named.sha256):
                return self._blobs.path(named.sha256)
            if attempt:
                await asyncio.sleep(PAUSE)
            async with self._turn:
                if await self._download(named, min(2**attempt, MAX_SLOWDOWN)):
                    return self._blobs.path(named.sha256)
        raise Abstained(Abstention.INPUT_MISSING, f"no peer has the input {named.sha256}")

    async def _download(self, named: Input, patience: int) -> bool:
        """Ask the connected peers, each once, until one has served it; return whether one has."""
        sha256, size = named.sha256, named.size
        peers = rendezvous_order(self._transport.peers(), self._transport.peer, sha256)
        chunks = self._downloader.chunks(
            Blob(sha256, size, ()), peers, self._network.roster, (patience, patience)
        )
        try:
            await self._blobs.save(chunks, size=size, limit=size, sha256=sha256)
        except BlobUnavailable as unavailable:
            log.info("input not to be had", sha256=sha256, detail=str(unavailable))
            return False
        except (OSError, sqlite3.Error) as error:  # a full disk or folder: as full for another copy
            log.error("input not kept", sha256=sha256, error=str(error))
            raise Abstained(
                Abstention.INPUT_MISSING, f"the input {sha256} cannot be kept"
            ) from None
        return True
