"""Blobs from peers that nobody trusts: every chunk is checked before the next is asked for."""

import asyncio
import hashlib
from collections.abc import Callable, Sequence

import structlog

from node.outputs import Blob
from node.requests import Misbehaved, Refused, asking, read_answer
from node.transport.base import StreamClosed, Transport
from protocol.canonical import Document

log = structlog.get_logger("fetching")

CHUNK = 262_144  # bytes; specification 8
CHUNK_SECONDS = 30.0  # a peer slower than this for one chunk is left for the next


class Unavailable(Exception):
    """No connected peer served the right bytes; the text says what each did."""


async def fetch(
    transport: Transport, peers: Sequence[str], blob: Blob, take: Callable[[bytes], object]
) -> None:
    """Hand the blob's bytes to `take`, chunk by chunk, each one checked, from peers that serve it.

    A peer that serves wrong bytes, stalls or goes away is left, and the next goes on where the last
    good chunk ended. Raises Unavailable when none is left; what `take` got is then of no use.
    """
    progress = _Progress(blob)
    failures: list[str] = []
    for peer in peers:
        try:
            await _from_peer(transport, peer, progress, take)
            return
        except (Refused, Misbehaved, ConnectionError) as error:
            log.warning("blob not served", peer=peer, sha256=blob.sha256, error=str(error))
            failures.append(f"{peer}: {error}")
            if progress.done and (not blob.chunks or progress.done == blob.size):
                break  # nothing says which of the bytes were wrong
    raise Unavailable("; ".join(failures) or "no peer is connected")


class _Progress:
    """How much of a blob is there, and whether it is right so far."""

    def __init__(self, blob: Blob) -> None:
        self.blob, self.done, self._whole = blob, 0, hashlib.sha256()

    def add(self, chunk: bytes) -> None:
        """Count a chunk, or raise Misbehaved if it is not the blob's."""
        chunks, place = self.blob.chunks, self.done // CHUNK
        if chunks and hashlib.sha256(chunk).hexdigest() not in chunks[place : place + 1]:
            raise Misbehaved(f"the chunk at {self.done} does not have its hash")
        self._whole.update(chunk)
        self.done += len(chunk)
        if self.done == self.blob.size and self._whole.hexdigest() != self.blob.sha256:
            raise Misbehaved("the bytes do not have the hash")


async def _from_peer(
    transport: Transport, peer: str, progress: _Progress, take: Callable[[bytes], object]
) -> None:
    request: Document = {"sha256": progress.blob.sha256, "offset": progress.done}
    size = progress.blob.size
    try:
        async with asyncio.timeout(CHUNK_SECONDS) as limit:
            async with asking(transport, peer, "blob", request) as stream:
                said = (await read_answer(stream, "blob"))["size"]
                if said != size:
                    raise Misbehaved(f"the blob has {size} bytes, not {said}")
                while progress.done < size:
                    limit.reschedule(asyncio.get_running_loop().time() + CHUNK_SECONDS)
                    chunk = await stream.read_exactly(min(CHUNK, size - progress.done))
                    progress.add(chunk)
                    take(chunk)
    except TimeoutError:
        raise StreamClosed(f"no chunk within {CHUNK_SECONDS:g} s") from None
