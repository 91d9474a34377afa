"""Downloads the input files of a task, by their hashes, from any peer that has them (6.1)."""

import asyncio
import sqlite3
from collections.abc import Callable, Container
from pathlib import Path
from typing import TypeAlias
from weakref import WeakValueDictionary

from executor.errors import Abstained
from node.log import get_logger
from node.storage.blobs import BlobStore
from node.sync.blob_download import MAX_SLOWDOWN, BlobDownloader, BlobUnavailable, rendezvous_order
from node.transport.interface import Transport
from protocol.manifest import Blob
from protocol.network import Network
from protocol.wire.messages import Abstention, Input, Task

log = get_logger("inputs")

# Rounds in which every connected peer is asked. An input may still be on its way to them. More
# rounds would keep the requester's other tasks waiting for inputs that nobody has.
MAX_ROUNDS = 10
# Seconds between rounds.
PAUSE_SECONDS = 2.0
# Share of an attempt's time for the inputs of a task. The task needs the rest for its execution.
TIME_SHARE = 0.5
# Downloads at a time, and one of each source. Each is held in memory, up to 32 MiB.
MAX_DOWNLOADS = 8

_Locks: TypeAlias = WeakValueDictionary[str, asyncio.Lock]


class InputFetcher:
    """Fetches the inputs of tasks: one task of each requester at a time.

    So a requester's many tasks do not share the time that each has for its inputs. Tasks of others
    do not wait for them: within `MAX_DOWNLOADS`, sources download independently of each other.
    """

    def __init__(
        self,
        transport: Transport,
        blobs: BlobStore,
        network: Network,
        voters: Callable[[str], Container[str]],
    ) -> None:
        """`voters` returns the signers of a task's votes.

        They are asked first, as they have or had its inputs. Then come the other members of
        `network`, and then all other peers, whose ids cost nothing.
        """
        self._transport, self._blobs, self._network = transport, blobs, network
        self._voters = voters
        self._downloader = BlobDownloader(transport)
        # Locks by requester and by source; those that nobody holds or awaits are dropped.
        self._requesters: _Locks = WeakValueDictionary()
        self._sources: _Locks = WeakValueDictionary()
        self._downloads = asyncio.Semaphore(MAX_DOWNLOADS)

    async def fetch(self, task: Task, source: str) -> tuple[Path, ...]:
        """Return the files of a task's inputs, fetching what is missing.

        `source` is who is charged for it (`node.transport.interface`). The time runs from the turn
        of its requester's task.

        Raises `Abstained`: input-missing if no peer has them, or if they do not arrive within
        `TIME_SHARE` of an attempt; no-space if they cannot be stored.
        """
        seconds = TIME_SHARE * self._network.attempt_seconds(task)
        async with self._requesters.setdefault(task.requester, asyncio.Lock()):
            try:
                async with asyncio.timeout(seconds):
                    return tuple([await self._fetch_one(task.id, i, source) for i in task.inputs])
            except TimeoutError:
                detail = f"the inputs did not arrive within {seconds:g} s"
                raise Abstained(Abstention.INPUT_MISSING, detail) from None

    async def _fetch_one(self, task: str, blob: Input, source: str) -> Path:
        for attempt in range(MAX_ROUNDS):
            if self._blobs.touch(blob.sha256):
                return self._blobs.path(blob.sha256)
            if attempt:
                await asyncio.sleep(PAUSE_SECONDS)
            async with self._sources.setdefault(source, asyncio.Lock()), self._downloads:
                # Later rounds allow slower peers: the only one that has it may be slow.
                if await self._download(task, blob, min(2**attempt, MAX_SLOWDOWN)):
                    return self._blobs.path(blob.sha256)
        raise Abstained(Abstention.INPUT_MISSING, f"no peer has the input {blob.sha256}")

    async def _download(self, task: str, blob: Input, slowdown: int) -> bool:
        """Ask each connected peer once; return whether one of them served the input."""
        sha256, size = blob.sha256, blob.size
        peers = rendezvous_order(self._transport.peers(), self._transport.peer, sha256)
        voters = self._voters(task)

        def rank(peer: str) -> int:
            return 0 if peer in voters else 1 if peer in self._network.roster else 2

        chunks = self._downloader.stream(Blob(sha256, size, ()), peers, rank, (slowdown, slowdown))
        try:
            await self._blobs.save(chunks, size=size, limit=size, sha256=sha256)
        except BlobUnavailable as unavailable:
            log.info("input not available", sha256=sha256, detail=str(unavailable))
            return False
        # A full disk or quota. Another peer's copy would not fit either.
        except (OSError, sqlite3.Error) as error:
            log.error("input not stored", sha256=sha256, error=str(error))
            raise Abstained(Abstention.NO_SPACE, f"the input {sha256} cannot be stored") from None
        return True
