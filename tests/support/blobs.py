"""Blobs for tests, stored the way a node stores what a peer sends."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any


async def arriving(chunks: Iterable[bytes]) -> AsyncIterator[bytes]:
    """Yield chunks as a connection does: the event loop runs between them."""
    for chunk in chunks:
        await asyncio.sleep(0)
        yield chunk


def store(blobs: Any, payload: bytes) -> str:
    """Save a blob in a `BlobStore`, or in its double in memory, and return its SHA-256.

    It has an event loop of its own, on another thread, so that a running loop can call it.
    """
    size, sha256 = len(payload), hashlib.sha256(payload).hexdigest()
    saving = blobs.save(arriving([payload]), size=size, limit=size, sha256=sha256)
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, saving).result()
    return sha256
