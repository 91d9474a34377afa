"""Downloads of certified outputs that this node did not generate, so that any node can serve them.

Only the signers of the certificate are asked, because they generated the bytes themselves. Nodes
therefore never forward a request in a circle.
"""

import asyncio
from contextlib import aclosing

from node.admission.lru_dict import LruDict
from node.log import get_logger
from node.storage.blobs import BlobStore
from node.storage.ledger import Ledger
from node.sync.blob_download import BlobDownloader, BlobUnavailable, rendezvous_order
from node.transport.interface import Transport
from protocol.manifest import Blob

log = get_logger("blob_relay")

# Time for `max_output_bytes` at 4 Mbit/s. Slow signers delay other outputs for at most this long.
FETCH_TIMEOUT = 300.0
# A failed download is not retried from the same signers for this long.
RETRY_SECONDS = 60.0


class BlobRelay:
    """Downloads outputs into the blob store, one at a time to bound memory and bandwidth."""

    def __init__(
        self, me: str, transport: Transport, ledger: Ledger, blobs: BlobStore, max_bytes: int
    ) -> None:
        """`max_bytes` is the largest output that the network allows."""
        self._me, self._transport, self._ledger, self._blobs = me, transport, ledger, blobs
        self._max_bytes = max_bytes
        self._downloader = BlobDownloader(transport)
        # By hash: when to retry, and the signers that failed.
        self._failed: LruDict[str, tuple[float, frozenset[str]]] = LruDict()
        self._lock = asyncio.Lock()

    async def ensure_local(self, sha256: str) -> bool:
        """Return whether the blob is stored here, after downloading it if a certificate lists it.

        Certificates that list it differently are tried one after the other: a colluding committee
        may have certified a wrong size or wrong chunks. A failed download is retried after a
        minute, or earlier if another signer has connected.
        """
        if self._blobs.has(sha256):
            return True
        outputs = self._ledger.outputs(sha256)
        if any(self._me in output.signers for output in outputs):
            return False
        for output in outputs:
            signers = frozenset(output.signers)
            if output.blob.size > self._max_bytes or self._recently_failed(sha256, signers):
                continue
            async with self._lock:
                # Another request may have downloaded it, or failed, while this one waited.
                if self._blobs.has(sha256):
                    return True
                if not self._recently_failed(sha256, signers) and await self._download(
                    output.blob, signers
                ):
                    return True
        return False

    def _recently_failed(self, sha256: str, signers: frozenset[str]) -> bool:
        """Whether no signer is connected, or all that are connected have failed recently."""
        connected = signers & self._transport.peers()
        return not connected or connected <= self._failed_signers(sha256)

    def _failed_signers(self, sha256: str) -> frozenset[str]:
        retry_at, failed = self._failed.get(sha256, (0.0, frozenset[str]()))
        return failed if asyncio.get_running_loop().time() < retry_at else frozenset()

    async def _download(self, blob: Blob, signers: frozenset[str]) -> bool:
        connected = signers & self._transport.peers()
        peers = rendezvous_order(connected, self._me, blob.sha256)
        try:
            async with (
                asyncio.timeout(FETCH_TIMEOUT),
                aclosing(self._downloader.stream(blob, peers)) as chunks,
            ):
                await self._blobs.save(
                    chunks, size=blob.size, limit=self._max_bytes, sha256=blob.sha256
                )
        except (BlobUnavailable, OSError) as error:  # OSError: a timeout, a full disk or quota
            log.info("output unavailable", sha256=blob.sha256, detail=str(error))
            retry_at = asyncio.get_running_loop().time() + RETRY_SECONDS
            failed = self._failed_signers(blob.sha256) | connected
            self._failed[blob.sha256] = (retry_at, failed)
            return False
        return True
