"""Certified outputs that this node did not generate itself, fetched when they are asked for.

So that any node can serve any agreed sound. Only the certificate's signers are asked, who have the
bytes of their own making: nodes never ask each other in a circle.
"""

import asyncio

import structlog

from node.admission.lru_dict import LruDict
from node.storage.blobs import BlobStore
from node.storage.ledger import Ledger
from node.sync.blob_download import BlobDownloader, BlobUnavailable, rendezvous_order
from node.transport.interface import Transport
from protocol.manifest import Blob

log = structlog.get_logger("blob_relay")

# Time for `max_output_bytes` at 4 Mbit/s. Slow signers delay other outputs for at most this long.
FETCH_TIMEOUT = 300.0
# A failed download is not retried from the same signers for this long.
RETRY_SECONDS = 60.0


class BlobRelay:
    """Fetches one output at a time, which bounds the memory that this takes."""

    def __init__(
        self, me: str, transport: Transport, ledger: Ledger, blobs: BlobStore, most: int
    ) -> None:
        """`most`: bytes of an output that is fetched; the network allows no more."""
        self._me, self._transport, self._ledger, self._blobs = me, transport, ledger, blobs
        self._most = most
        self._downloader = BlobDownloader(transport)
        # By hash: until when, and which peers failed.
        self._failed: LruDict[str, tuple[float, frozenset[str]]] = LruDict()
        self._turn = asyncio.Lock()

    async def ensure_local(self, sha256: str) -> bool:
        """Return whether the blob is here, after fetching it if a certificate names it.

        What could not be had is looked for again after a minute, or once another of its signers
        is connected.
        """
        if self._blobs.has(sha256):
            return True
        known = self._ledger.output(sha256)
        if known is None or self._me in known.signers or known.blob.size > self._most:
            return False
        signers = frozenset(known.signers)
        if self._recently_failed(sha256, signers):
            return False
        async with self._turn:
            if self._blobs.has(sha256):
                return True
            return not self._recently_failed(sha256, signers) and await self._fetch(
                known.blob, signers
            )

    def _recently_failed(self, sha256: str, signers: frozenset[str]) -> bool:
        until, asked = self._failed.get(sha256, (0.0, frozenset[str]()))
        connected = signers & self._transport.peers()
        lately = asyncio.get_running_loop().time() < until
        return not connected or (lately and connected <= asked)

    async def _fetch(self, blob: Blob, signers: frozenset[str]) -> bool:
        peers, size = signers & self._transport.peers(), blob.size
        chunks = self._downloader.chunks(blob, rendezvous_order(peers, self._me, blob.sha256))
        try:
            async with asyncio.timeout(FETCH_TIMEOUT):
                await self._blobs.save(chunks, size=size, limit=self._most, sha256=blob.sha256)
        except (BlobUnavailable, OSError) as error:  # TimeoutError, a full disk or folder
            log.info("output not to be had", sha256=blob.sha256, detail=str(error))
            until = asyncio.get_running_loop().time() + RETRY_SECONDS
            self._failed[blob.sha256] = (until, peers)
            return False
        return True
