"""Certified outputs that this node did not generate itself, fetched when they are asked for.

So that any node can serve any agreed sound. Only the certificate's signers are asked, who have the
bytes of their own making: nodes never ask each other in a circle.
"""

import asyncio

import structlog

from node.blobs import Blobs
from node.fetching import Unavailable, fetch
from node.store import Store
from node.transport.base import Transport

log = structlog.get_logger("relay")

SECONDS = 300.0  # for max_output_bytes at 4 Mbit/s; a slower signer holds nobody else up


class Relay:
    """Fetches one output at a time, which bounds the memory that this takes."""

    def __init__(self, me: str, transport: Transport, store: Store, blobs: Blobs) -> None:
        self._me, self._transport, self._store, self._blobs = me, transport, store, blobs
        self._turn = asyncio.Lock()

    async def ensure(self, sha256: str) -> bool:
        """Return whether the blob is here, after fetching it if a certificate names it."""
        if self._blobs.has(sha256):
            return True
        known = self._store.output(sha256)
        if known is None or self._me in known.signers:
            return False
        async with self._turn:
            if self._blobs.has(sha256):
                return True
            payload = bytearray()
            peers = sorted(self._transport.peers() & set(known.signers))
            try:
                async with asyncio.timeout(SECONDS):
                    await fetch(self._transport, peers, known.blob, payload.extend)
            except (Unavailable, TimeoutError) as error:
                log.info("output not to be had", sha256=sha256, detail=str(error))
                return False
            size = known.blob.size
            await asyncio.to_thread(
                self._blobs.write, [bytes(payload)], size=size, limit=size, sha256=sha256
            )
            return True
