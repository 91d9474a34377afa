"""Blobs from peers that nobody trusts: every chunk is checked before the next is asked for."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Container, Iterable, Sequence

import structlog

from node.admission.lru_dict import LruDict
from node.admission.peer_score import PeerAction
from node.rpc.client import RequestRefused, open_request, read_answer
from node.rpc.codec import ProtocolViolation
from node.transport.interface import Transport
from protocol.manifest import CHUNK_BYTES, Blob
from protocol.wire.encoding import Document
from schemas.errors import HeliumError

log = structlog.get_logger("blob_download")

# The time a peer has to open a stream and to start sending.
ANSWER_SECONDS = 5.0
# The largest input (32 MiB) then takes a third of an attempt's 120 s.
MIN_BYTES_PER_SECOND = 1_000_000
# Slow peers are retried with doubled time limits, down to this fraction of MIN_BYTES_PER_SECOND:
# 1 Mbit/s, a slow uplink.
MAX_SLOWDOWN = 8


class BlobUnavailable(HeliumError):
    """No connected peer served the right bytes; the text says what each did."""


def rendezvous_order(peers: Iterable[str], me: str, sha256: str) -> list[str]:
    """Return peers in an order of this asker and this blob, so that nobody always comes first."""
    return sorted(peers, key=lambda p: hashlib.sha256(f"{me} {sha256} {p}".encode()).digest())


class WrongBytes(ProtocolViolation):
    """What came is not the blob that was asked for, or whoever described the blob lied."""

    attributable = False


class BlobDownloader:
    """Fetches blobs over one transport. Who was too slow, or lied, is asked last from then on.

    That somebody lied is certain once another's bytes have the hash, and costs points only then:
    a requester may name a wrong size, and a certificate may hold chunk hashes that are none.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._failed: LruDict[str, None] = LruDict()  # peers, the one that failed longest ago first

    async def fetch(
        self,
        blob: Blob,
        peers: Sequence[str],
        first: Container[str] = (),
        slowdown: tuple[int, int] = (1, MAX_SLOWDOWN),
    ) -> bytes:
        """Return the blob's bytes, checked, from `peers`, those in `first` before the others.

        A peer that sends wrong bytes, falls behind `MIN_BYTES_PER_SECOND` or disconnects is
        left. The next peer continues after the last verified chunk; without chunk hashes it
        starts at zero. Slow peers are retried with doubled time limits, from `slowdown[0]` to
        `slowdown[1]` times the normal limit. The last round repeats while it yields chunks, so a
        caller that cannot wait sets a timeout of its own.
        Raises BlobUnavailable.
        """
        progress, (scale, most) = _Progress(blob), slowdown
        asked, before = sorted(peers, key=lambda p: (p not in first, p in self._failed)), 0
        lied = list[str]()
        while asked and (scale <= most or progress.done > before):
            before, slow = progress.done, list[str]()
            for peer in asked:
                try:
                    await self._from_peer(peer, progress, min(scale, most))
                except TimeoutError:
                    slow.append(peer)
                    self._failed[peer] = None
                    progress.failed(peer, "too slow")
                except ProtocolViolation as error:
                    progress.failed(peer, str(error))  # unless the blob's own hashes are at fault
                    self._failed[peer] = None
                    lied += [peer] if isinstance(error, WrongBytes) else []
                except (RequestRefused, ConnectionError) as error:
                    progress.failed(peer, str(error))
                else:
                    self._failed.pop(peer, None)
                    for liar in lied:
                        self._transport.report(liar, PeerAction.WRONG_BYTES)
                    return bytes(progress.payload)
            asked, scale = slow, 2 * scale
        raise BlobUnavailable(progress.told() or "no peer is connected")

    async def chunks(
        self,
        blob: Blob,
        peers: Sequence[str],
        first: Container[str] = (),
        slowdown: tuple[int, int] = (1, MAX_SLOWDOWN),
    ) -> AsyncIterator[bytes]:
        """Give what `fetch` returns in chunks, so that its taker holds up the event loop briefly.

        Nobody is asked before the first is asked for. Raises BlobUnavailable.
        """
        payload = await self.fetch(blob, peers, first, slowdown)
        for start in range(0, len(payload), CHUNK_BYTES):
            yield payload[start : start + CHUNK_BYTES]
            await asyncio.sleep(0)

    async def _from_peer(self, peer: str, progress: "_Progress", slowdown: int) -> None:
        """Go on with one peer, to the end. Raises TimeoutError as soon as it has fallen behind."""
        size, before, began = progress.blob.size, progress.done, asyncio.get_running_loop().time()
        request: Document = {"sha256": progress.blob.sha256, "offset": before}

        def due(given: int) -> float:
            return began + slowdown * (ANSWER_SECONDS + given / MIN_BYTES_PER_SECOND)

        async with asyncio.timeout_at(due(0)) as limit:
            async with open_request(self._transport, peer, "blob", request) as stream:
                said = (await read_answer(stream, "blob"))["size"]
                if said != size:
                    raise WrongBytes(f"the blob has {size} bytes, not {said}")
                while progress.done < size:
                    more = min(CHUNK_BYTES, size - progress.done)
                    limit.reschedule(due(progress.done - before + more))
                    progress.add(await stream.read_exactly(more))


class _Progress:
    """How much of a blob is there, all of it right as far as can be told, and who failed how."""

    def __init__(self, blob: Blob) -> None:
        self.blob, self.payload, self._whole = blob, bytearray(), hashlib.sha256()
        self._failures: dict[str, str] = {}

    @property
    def done(self) -> int:
        """How many bytes are there."""
        return len(self.payload)

    def add(self, chunk: bytes) -> None:
        """Take a chunk, or raise ProtocolViolation if it is not the blob's."""
        chunks, place = self.blob.chunks, self.done // CHUNK_BYTES
        if chunks and hashlib.sha256(chunk).hexdigest() not in chunks[place : place + 1]:
            raise WrongBytes(f"the chunk at {self.done} does not have its hash")
        self._whole.update(chunk)
        self.payload += chunk
        if self.done == self.blob.size and self._whole.hexdigest() != self.blob.sha256:
            raise WrongBytes("the bytes do not have the hash")

    def failed(self, peer: str, why: str) -> None:
        """Record a failed peer. Raises BlobUnavailable if the hashes contradict each other."""
        log.warning("blob not served", peer=peer, sha256=self.blob.sha256, error=why)
        self._failures[peer] = why
        if not self.blob.chunks:  # nothing says which of the bytes are right
            self.payload, self._whole = bytearray(), hashlib.sha256()
        elif self.done == self.blob.size:
            raise BlobUnavailable(self.told())

    def told(self) -> str:
        """Return what each peer did that failed."""
        return "; ".join(f"{peer}: {why}" for peer, why in self._failures.items())
