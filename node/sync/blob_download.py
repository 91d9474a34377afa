"""Blob downloads from untrusted peers. Every chunk is verified before it is passed on."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, aclosing

from node.admission.lru_dict import LruDict
from node.admission.peer_score import PeerAction
from node.log import get_logger
from node.rpc.client import RequestRefused, open_request, read_answer
from node.rpc.codec import ProtocolViolation
from node.transport.interface import Transport
from protocol.manifest import CHUNK_BYTES, Blob
from protocol.wire.encoding import Document
from schemas.errors import HeliumError

log = get_logger("blob_download")

# The time a peer has to open a stream and to start sending.
ANSWER_SECONDS = 5.0
# The largest input (32 MiB) then takes a third of an attempt's 120 s.
MIN_BYTES_PER_SECOND = 1_000_000
# Slow peers are retried with doubled time limits, down to this fraction of MIN_BYTES_PER_SECOND:
# 1 Mbit/s, a slow uplink.
MAX_SLOWDOWN = 8
# A peer whose connection was cut while it sent chunks is asked again for so long after the last
# one, at these intervals: its address is dialled again within seconds.
RESUME_SECONDS = 10.0
RESUME_INTERVAL = 0.5


class BlobUnavailable(HeliumError):
    """No connected peer served the right bytes. The message has each peer's failure."""


class WrongBytes(ProtocolViolation):
    """The peer's bytes do not match the blob's description; either of them may be wrong."""

    attributable = False


def rendezvous_order(peers: Iterable[str], me: str, sha256: str) -> list[str]:
    """Return peers in rendezvous order, so that the nodes spread their requests for a blob.

    The order depends on the requesting peer (`me`) and on the blob.
    """
    return sorted(peers, key=lambda p: hashlib.sha256(f"{me} {sha256} {p}".encode()).digest())


def _no_rank(peer: str) -> int:
    return 0


class BlobDownloader:
    """Downloads blobs over one transport and verifies every chunk.

    Peers that timed out or sent wrong bytes are tried last of their rank next time. A peer is
    reported for wrong bytes only after another peer has delivered bytes with the right hash. Until
    then the requested size or the chunk hashes may be wrong: they come from a requester or a
    certificate.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        # Peers whose last download failed. The value is unused.
        self._failed_peers: LruDict[str, None] = LruDict()

    async def fetch(
        self,
        blob: Blob,
        peers: Sequence[str],
        rank: Callable[[str], int] = _no_rank,
        slowdown: tuple[int, int] = (1, MAX_SLOWDOWN),
    ) -> bytes:
        """Return the verified bytes of a blob. Arguments and exceptions are those of `stream`."""
        return b"".join([chunk async for chunk in self.stream(blob, peers, rank, slowdown)])

    async def stream(
        self,
        blob: Blob,
        peers: Sequence[str],
        rank: Callable[[str], int] = _no_rank,
        slowdown: tuple[int, int] = (1, MAX_SLOWDOWN),
    ) -> AsyncGenerator[bytes, None]:
        """Yield the verified chunks of a blob in order, each as soon as it has been received.

        Without chunk hashes, nothing is verified before the end, so the blob is first held in
        memory. No peer is contacted before the first chunk is requested.

        A peer that sends wrong bytes, falls behind `MIN_BYTES_PER_SECOND` or disconnects is left.
        The next peer continues after the last verified chunk; without chunk hashes it starts at
        zero. Slow peers are retried with doubled time limits. The last round repeats while it
        yields chunks, so a caller that cannot wait sets a timeout of its own. A peer that gave
        verified chunks and disconnected is asked for the rest, for `RESUME_SECONDS` after them.

        Args:
            blob: hash, size and chunk hashes.
            peers: the peers to ask, in this order.
            rank: peers of a lower rank are asked first, whatever happened before.
            slowdown: the first and the largest factor of the time limits.

        Raises:
            BlobUnavailable: no peer served the right bytes.
        """
        download = _Download(blob)
        factor, max_factor = slowdown
        candidates = sorted(peers, key=lambda p: (rank(p), p in self._failed_peers))
        wrong_peers: list[str] = []
        while candidates:
            round_start = download.received
            slow_peers, cut_peers = list[str](), list[str]()
            for peer in candidates:
                try:
                    rest = self._chunks_from(peer, download, min(factor, max_factor))
                    async with aclosing(rest) as chunks:
                        async for chunk in chunks:
                            yield chunk
                except TimeoutError:
                    self._failed_peers[peer] = None
                    slow_peers.append(peer)
                    download.record_failure(peer, "too slow")
                except ProtocolViolation as error:
                    # First this, as it raises if the blob's own hashes contradict each other:
                    # then no peer is to blame.
                    download.record_failure(peer, str(error))
                    self._failed_peers[peer] = None
                    if isinstance(error, WrongBytes):
                        wrong_peers.append(peer)
                except RequestRefused as error:
                    download.record_failure(peer, str(error))
                except ConnectionError as error:
                    download.record_failure(peer, str(error))
                    if download.may_resume(peer):
                        cut_peers.append(peer)
                else:
                    self._failed_peers.pop(peer, None)
                    for wrong_peer in wrong_peers:
                        self._transport.report(wrong_peer, PeerAction.WRONG_BYTES)
                    return
            if slow_peers:
                factor *= 2
            if factor > max_factor and download.received == round_start:
                slow_peers.clear()
            candidates = slow_peers + cut_peers
            if cut_peers:
                await asyncio.sleep(RESUME_INTERVAL)
        raise BlobUnavailable(download.describe_failures() or "no peer is connected")

    async def _chunks_from(
        self, peer: str, download: "_Download", slowdown: int
    ) -> AsyncGenerator[bytes, None]:
        """Yield the rest of a download from one peer.

        Raises TimeoutError as soon as the peer has fallen behind, and WrongBytes.
        """
        loop = asyncio.get_running_loop()
        started, offset, size = loop.time(), download.received, download.blob.size
        request: Document = {"sha256": download.blob.sha256, "offset": offset}

        def deadline(received: int) -> float:
            return started + slowdown * (ANSWER_SECONDS + received / MIN_BYTES_PER_SECOND)

        async with AsyncExitStack() as stack:
            # No timeout spans a `yield`: it would cancel the consumer instead of the peer.
            async with asyncio.timeout_at(deadline(0)):
                stream = await stack.enter_async_context(
                    open_request(self._transport, peer, "blob", request)
                )
                declared = (await read_answer(stream, "blob"))["size"]
            if declared != size:
                raise WrongBytes(f"the blob has {size} bytes, not {declared}")
            while download.received < size:
                length = min(CHUNK_BYTES, size - download.received)
                async with asyncio.timeout_at(deadline(download.received - offset + length)):
                    chunk = await stream.read_exactly(length)
                if download.add(chunk):
                    download.note_verified(peer)
                    paused = loop.time()
                    yield chunk
                    # The peer does not pay for the time that the consumer takes.
                    started += loop.time() - paused
            unyielded = download.finish()
        for chunk in unyielded:
            yield chunk
            # A consumer that only writes would block the event loop for the whole blob.
            await asyncio.sleep(0)


class _Download:
    """The state of one download: the bytes received so far, and the peers that failed."""

    def __init__(self, blob: Blob) -> None:
        self.blob = blob
        self._failures: dict[str, str] = {}
        self._givers: set[str] = set()  # peers that gave a verified chunk
        self._resume_until = 0.0
        self._restart()

    def _restart(self) -> None:
        self.received = 0
        """Bytes that were accepted; with chunk hashes they are verified."""
        self._hash = hashlib.sha256()
        self._unverified: list[bytes] = []

    def add(self, chunk: bytes) -> bool:
        """Accept the next chunk. Returns whether it is verified. Raises WrongBytes."""
        hashes, index = self.blob.chunks, self.received // CHUNK_BYTES
        if hashes and hashlib.sha256(chunk).hexdigest() not in hashes[index : index + 1]:
            raise WrongBytes(f"the chunk at {self.received} does not have its hash")
        self._hash.update(chunk)
        self.received += len(chunk)
        if not hashes:
            self._unverified.append(chunk)
        return bool(hashes)

    def note_verified(self, peer: str) -> None:
        """Note that a peer gave a verified chunk."""
        self._givers.add(peer)
        self._resume_until = asyncio.get_running_loop().time() + RESUME_SECONDS

    def may_resume(self, peer: str) -> bool:
        """Return whether a peer that disconnected is to be asked for the rest."""
        return peer in self._givers and asyncio.get_running_loop().time() < self._resume_until

    def finish(self) -> list[bytes]:
        """Verify the whole blob. Returns the chunks that were not verified before.

        Raises WrongBytes.
        """
        if self._hash.hexdigest() != self.blob.sha256:
            raise WrongBytes("the bytes do not have the hash")
        return self._unverified

    def record_failure(self, peer: str, reason: str) -> None:
        """Record a failed peer. Raises BlobUnavailable if the hashes contradict each other."""
        log.warning("blob download failed", peer=peer, sha256=self.blob.sha256, error=reason)
        self._failures[peer] = reason
        if not self.blob.chunks:
            # Nothing tells which of the received bytes are right.
            self._restart()
        elif self.received == self.blob.size:
            # All chunks have their hashes, but the whole does not: no peer can ever serve it.
            raise BlobUnavailable(self.describe_failures())

    def describe_failures(self) -> str:
        """Return each failed peer with its last failure."""
        return "; ".join(f"{peer}: {reason}" for peer, reason in self._failures.items())
