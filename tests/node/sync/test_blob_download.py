"""Blobs from servers that lie, stall or vanish: the right bytes, or none."""

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager

import pytest

from node.rpc import codec as rpc_codec
from node.rpc.codec import Status, answer, read_document, refuse
from node.sync.blob_download import (
    ANSWER_SECONDS,
    MAX_SLOWDOWN,
    MIN_BYTES_PER_SECOND,
    RESUME_SECONDS,
    BlobDownloader,
    BlobUnavailable,
    rendezvous_order,
)
from node.transport.interface import Stream
from protocol.manifest import CHUNK_BYTES, Blob
from tests.node.transport.recorder import Recorder
from tests.simulation import virtual_loop
from tests.support import fixtures
from tests.support.memory_transport.network import MemoryNetwork, MemoryTransport

PAYLOAD = random.Random(3).randbytes(2 * CHUNK_BYTES + 1000)
ASKER = fixtures.peer(1000)
Behaviour = Callable[[Stream, int], Awaitable[None]]


def hashed(payload: bytes) -> str:
    return hashlib.sha256(payload).hexdigest()


def blob_of(payload: bytes, *, chunked: bool = True) -> Blob:
    pieces = [payload[at : at + CHUNK_BYTES] for at in range(0, len(payload), CHUNK_BYTES)]
    chunks = tuple(hashed(piece) for piece in pieces) if chunked else ()
    return Blob(hashed(payload), len(payload), chunks)


BLOB = blob_of(PAYLOAD)


async def say(stream: Stream, payload: bytes, offset: int, size: int = len(PAYLOAD)) -> None:
    await answer(stream, {"size": size})
    await stream.write(payload[offset:])


async def honest(stream: Stream, offset: int) -> None:
    await say(stream, PAYLOAD, offset)


async def wrong_from_the_start(stream: Stream, offset: int) -> None:
    await say(stream, bytes(len(PAYLOAD)), offset)


async def wrong_in_the_second_chunk(stream: Stream, offset: int) -> None:
    forged = bytearray(PAYLOAD)
    forged[CHUNK_BYTES + 5] ^= 1
    await say(stream, bytes(forged), offset)


async def wrong_in_the_last_byte(stream: Stream, offset: int) -> None:
    await say(stream, PAYLOAD[:-1] + bytes((PAYLOAD[-1] ^ 1,)), offset)


async def truncated(stream: Stream, offset: int) -> None:
    await say(stream, PAYLOAD[: CHUNK_BYTES + 77], offset)


async def gone_after_a_chunk(stream: Stream, offset: int) -> None:
    await say(stream, PAYLOAD[:CHUNK_BYTES], offset)
    await asyncio.sleep(1)
    await stream.reset()


async def shorter_by_its_word(stream: Stream, offset: int) -> None:
    await say(stream, PAYLOAD, offset, len(PAYLOAD) - 1)


async def longer_by_its_word(stream: Stream, offset: int) -> None:
    await say(stream, PAYLOAD + b"more", offset, len(PAYLOAD) + 4)


async def endless(stream: Stream, offset: int) -> None:
    await say(stream, PAYLOAD, offset)
    while True:
        await stream.write(bytes(CHUNK_BYTES))


async def stalling_at_once(stream: Stream, offset: int) -> None:
    await asyncio.sleep(100_000)


async def stalling_in_the_second_chunk(stream: Stream, offset: int) -> None:
    await say(stream, PAYLOAD[: CHUNK_BYTES + 100], offset)
    await asyncio.sleep(100_000)


async def trickling(stream: Stream, offset: int) -> None:
    """A byte a second, and so a chunk in three days."""
    await answer(stream, {"size": len(PAYLOAD)})
    for byte in PAYLOAD[offset:]:
        await stream.write(bytes((byte,)))
        await asyncio.sleep(1)


async def unavailable(stream: Stream, offset: int) -> None:
    await refuse(stream, Status.UNAVAILABLE, "unknown-blob", "not kept here")


async def nonsense(stream: Stream, offset: int) -> None:
    await stream.write(b"\x00\x02{}")


async def seconds(work: Awaitable[object]) -> float:
    """How long something takes."""
    began = asyncio.get_running_loop().time()
    await work
    return asyncio.get_running_loop().time() - began


class Servers:
    """Peers that serve a blob, each in its own way; what each was asked for is kept."""

    def __init__(self, behaviours: Sequence[Behaviour]) -> None:
        self.asked: list[tuple[int, int]] = []  # who, from which offset
        self.got = b""
        self._behaviours = behaviours
        self._medium = MemoryNetwork(random.Random(1))
        self.asker = MemoryTransport(self._medium, ASKER)
        self.reported: list[str] = []
        self.asker.report = lambda peer, action: self.reported.append(peer)  # type: ignore[method-assign]
        self.downloader = BlobDownloader(self.asker)
        self._addresses: list[str] = []
        self.peers = [fixtures.peer(index) for index in range(len(behaviours))]

    def _serve(self, index: int) -> Callable[[str, Stream], Awaitable[None]]:
        async def serve(protocol: str, stream: Stream) -> None:
            request = await read_document(stream, "blob-request")
            self.asked.append((index, request["offset"]))
            await self._behaviours[index](stream, request["offset"])

        return serve

    @asynccontextmanager
    async def up(self) -> AsyncIterator["Servers"]:
        servers = [MemoryTransport(self._medium, peer) for peer in self.peers]
        await self.asker.start(Recorder(), (), ())
        for index, server in enumerate(servers):
            await server.start(Recorder(self._serve(index)), (), [rpc_codec.protocol_id("blob")])
            self._addresses.append(server.addresses[0])
        await self.dial_again()
        try:
            yield self
        finally:
            for transport in (self.asker, *servers):
                await transport.stop()

    def disconnect(self) -> None:
        """Cut the connections of the asker."""
        for peer in self.peers:
            self._medium.disconnect(ASKER, peer)

    async def dial_again(self) -> None:
        """Connect the asker with all servers again."""
        for address in self._addresses:
            await self.asker.dial(address)

    async def fetch(self, blob: Blob = BLOB) -> None:
        self.got = await self.downloader.fetch(blob, self.peers)


def fetched(*behaviours: Behaviour, blob: Blob = BLOB) -> Servers:
    async def main() -> Servers:
        async with Servers(behaviours).up() as servers:
            await servers.fetch(blob)
            return servers

    servers = virtual_loop.run(main)
    assert isinstance(servers, Servers)
    return servers


def refused(*behaviours: Behaviour, blob: Blob = BLOB) -> tuple[Servers, str]:
    async def main() -> tuple[Servers, str]:
        async with Servers(behaviours).up() as servers:
            with pytest.raises(BlobUnavailable) as error:
                await servers.fetch(blob)
            return servers, str(error.value)

    servers, text = virtual_loop.run(main)
    assert isinstance(servers, Servers)
    return servers, str(text)


def test_download_from_the_first_peer() -> None:
    servers = fetched(honest, honest)
    assert servers.got == PAYLOAD
    assert servers.asked == [(0, 0)]


LIARS: list[tuple[Behaviour, int]] = [  # and how many good chunks they give
    (wrong_from_the_start, 0),
    (wrong_in_the_second_chunk, 1),
    (wrong_in_the_last_byte, 2),
    (truncated, 1),
    (gone_after_a_chunk, 1),
    (shorter_by_its_word, 0),
    (longer_by_its_word, 0),
    (stalling_at_once, 0),
    (stalling_in_the_second_chunk, 1),
    (trickling, 0),
    (unavailable, 0),
    (nonsense, 0),
]


@pytest.mark.parametrize(
    ("liar", "good"), LIARS, ids=lambda argument: getattr(argument, "__name__", "")
)
def test_next_peer_continues_after_the_last_verified_chunk(liar: Behaviour, good: int) -> None:
    servers = fetched(liar, honest)
    assert servers.got == PAYLOAD
    assert servers.asked == [(0, 0), (1, good * CHUNK_BYTES)]


@pytest.mark.parametrize(
    ("liar", "good"), LIARS, ids=lambda argument: getattr(argument, "__name__", "")
)
def test_download_fails_if_all_peers_fail(liar: Behaviour, good: int) -> None:
    servers, text = refused(liar, liar)
    assert [offset for _, offset in servers.asked[:2]] == [0, good * CHUNK_BYTES]
    assert all(peer in text for peer in servers.peers)


def test_download_survives_several_failing_peers() -> None:
    servers = fetched(
        unavailable, truncated, wrong_from_the_start, wrong_in_the_last_byte, nonsense, honest
    )
    assert servers.got == PAYLOAD
    assert [offset for _, offset in servers.asked] == [
        0,
        0,
        CHUNK_BYTES,
        CHUNK_BYTES,
        2 * CHUNK_BYTES,
        2 * CHUNK_BYTES,
    ]


def test_a_peer_that_disconnected_is_asked_for_the_rest_alone() -> None:
    """It is the only one, and connected again after three seconds."""

    async def main() -> Servers:
        async with Servers([cut_after_a_chunk]).up() as servers:
            fetching = asyncio.create_task(servers.fetch())
            await asyncio.sleep(0.5)
            servers.disconnect()
            await asyncio.sleep(3)
            await servers.dial_again()
            await fetching
            return servers

    async def cut_after_a_chunk(stream: Stream, offset: int) -> None:
        if offset:
            await say(stream, PAYLOAD, offset)
            return
        await say(stream, PAYLOAD[: CHUNK_BYTES + 77], offset)
        await asyncio.sleep(100_000)

    servers = virtual_loop.run(main)
    assert isinstance(servers, Servers)
    assert servers.got == PAYLOAD
    assert servers.asked == [(0, 0), (0, CHUNK_BYTES)]


def test_a_peer_that_stays_away_is_not_waited_for_long() -> None:
    async def main() -> float:
        async with Servers([stalling_in_the_second_chunk]).up() as servers:
            fetching = asyncio.create_task(seconds(servers.fetch()))
            await asyncio.sleep(0.5)
            servers.disconnect()
            with pytest.raises(BlobUnavailable):
                await fetching
            return asyncio.get_running_loop().time()

    assert RESUME_SECONDS <= virtual_loop.run(main) < RESUME_SECONDS + 2


def test_endless_answer_is_read_up_to_the_blob_size() -> None:
    servers = fetched(endless)
    assert servers.got == PAYLOAD


def test_stalling_peer_is_left_after_the_answer_timeout() -> None:
    async def main() -> float:
        async with Servers([stalling_in_the_second_chunk, honest]).up() as servers:
            return await seconds(servers.fetch())

    assert ANSWER_SECONDS <= virtual_loop.run(main) < ANSWER_SECONDS + 1


def at(pace: float) -> Behaviour:
    """A server that sends so many bytes a second."""

    async def serve(stream: Stream, offset: int) -> None:
        await answer(stream, {"size": len(PAYLOAD)})
        for start in range(offset, len(PAYLOAD), 1000):
            await stream.write(PAYLOAD[start : start + 1000])
            await asyncio.sleep(1000 / pace)

    return serve


def test_peer_at_the_minimum_rate_is_kept() -> None:
    assert fetched(at(MIN_BYTES_PER_SECOND), honest).asked == [(0, 0)]


def test_peer_below_the_minimum_rate_is_left_early() -> None:
    async def main() -> float:
        async with Servers([trickling, trickling, honest]).up() as servers:
            spent = await seconds(servers.fetch(blob))
            assert servers.got == payload
            return spent

    payload = random.Random(4).randbytes(40 * CHUNK_BYTES)
    blob, max_seconds = (
        blob_of(payload),
        2 * (ANSWER_SECONDS + CHUNK_BYTES / MIN_BYTES_PER_SECOND) + 1,
    )

    async def honest(stream: Stream, offset: int) -> None:
        await say(stream, payload, offset, len(payload))

    async def trickling(stream: Stream, offset: int) -> None:
        """A chunk each 29 seconds: never silent for long."""
        await answer(stream, {"size": len(payload)})
        for start in range(offset, len(payload), CHUNK_BYTES):
            await asyncio.sleep(29)
            await stream.write(payload[start : start + CHUNK_BYTES])

    assert virtual_loop.run(main) < max_seconds


def test_time_limit_counts_only_the_peers_own_chunks() -> None:
    """Who goes on where others ended has no more time than they had."""

    async def main() -> float:
        async with Servers([gone, answering, honest]).up() as servers:
            spent = await seconds(servers.fetch(blob_of(payload)))
            assert servers.got == payload
            return spent

    payload = random.Random(4).randbytes(40 * CHUNK_BYTES)

    async def gone(stream: Stream, offset: int) -> None:
        await say(stream, payload[: 39 * CHUNK_BYTES], offset, len(payload))

    async def answering(stream: Stream, offset: int) -> None:
        await answer(stream, {"size": len(payload)})
        await asyncio.sleep(100_000)

    async def honest(stream: Stream, offset: int) -> None:
        await say(stream, payload, offset, len(payload))

    assert virtual_loop.run(main) < ANSWER_SECONDS + CHUNK_BYTES / MIN_BYTES_PER_SECOND + 2


def test_slow_peers_are_retried_with_longer_time_limits() -> None:
    """It is asked again where it ended, with more time: 1 Mbit/s, and slower with chunk hashes."""
    for chunked in (True, False):
        servers = fetched(
            at(MIN_BYTES_PER_SECOND / MAX_SLOWDOWN), blob=blob_of(PAYLOAD, chunked=chunked)
        )
        assert servers.got == PAYLOAD
    servers = fetched(at(CHUNK_BYTES / 29))
    assert servers.got == PAYLOAD
    assert [offset // CHUNK_BYTES for _, offset in servers.asked] == [0, 0, 0, 0, 1]


def test_slow_peer_is_tried_last_until_it_succeeds() -> None:
    async def main() -> list[int]:
        behaviours = [trickling, honest, unavailable]
        async with Servers(behaviours).up() as servers:
            await servers.fetch()
            await servers.fetch()
            behaviours[:2] = [honest, unavailable]
            await servers.fetch()
            await servers.fetch()
            return [peer for peer, _ in servers.asked]

    assert virtual_loop.run(main) == [0, 1, 1, 1, 2, 0, 0]


@pytest.mark.parametrize(
    "liar", [wrong_from_the_start, wrong_in_the_second_chunk, longer_by_its_word, nonsense]
)
def test_peer_with_wrong_bytes_is_tried_last_until_it_succeeds(liar: Behaviour) -> None:
    async def main() -> list[int]:
        behaviours = [liar, honest]
        async with Servers(behaviours).up() as servers:
            await servers.fetch()
            await servers.fetch()
            behaviours[:] = [honest, unavailable]
            for _ in range(2):
                await servers.fetch()
            return [peer for peer, _ in servers.asked]

    assert virtual_loop.run(main) == [0, 1, 1, 1, 0, 0]


def test_contradicting_hashes_do_not_mark_a_peer_as_failed() -> None:
    async def main() -> list[int]:
        async with Servers([honest, honest]).up() as servers:
            with pytest.raises(BlobUnavailable):
                await servers.fetch(Blob("0" * 64, BLOB.size, BLOB.chunks))
            await servers.fetch()
            return [peer for peer, _ in servers.asked]

    assert virtual_loop.run(main) == [0, 0]


def test_rendezvous_order_depends_on_blob_and_requester() -> None:
    peers = {fixtures.peer(index) for index in range(7)}
    for drawn_by_one in (
        [rendezvous_order(peers, ASKER, hashed(bytes((n,)))) for n in range(60)],
        [rendezvous_order(peers, fixtures.peer(n), BLOB.sha256) for n in range(60)],
    ):
        assert {order[0] for order in drawn_by_one} == peers
        assert all(set(order) == peers for order in drawn_by_one)
    assert rendezvous_order(peers, ASKER, BLOB.sha256) == rendezvous_order(
        sorted(peers), ASKER, BLOB.sha256
    )


def test_stream_contacts_no_peer_before_the_first_chunk_is_requested() -> None:
    async def main() -> None:
        async with Servers([honest]).up() as servers:
            chunks = servers.downloader.stream(BLOB, servers.peers)
            assert servers.asked == []
            assert [hashed(chunk) async for chunk in chunks] == list(BLOB.chunks)

    virtual_loop.run(main)


def test_stream_yields_each_chunk_before_the_next_has_arrived() -> None:
    async def main() -> None:
        accepted = asyncio.Event()

        async def waiting(stream: Stream, offset: int) -> None:
            await say(stream, PAYLOAD[:CHUNK_BYTES], offset)
            await accepted.wait()
            await stream.write(PAYLOAD[CHUNK_BYTES:])

        async with Servers([waiting]).up() as servers:
            received = []
            async for chunk in servers.downloader.stream(BLOB, servers.peers):
                received.append(chunk)
                accepted.set()
            assert b"".join(received) == PAYLOAD

    virtual_loop.run(main)


def test_stream_without_chunk_hashes_yields_nothing_unverified() -> None:
    async def main() -> None:
        blob = blob_of(PAYLOAD, chunked=False)
        async with Servers([wrong_in_the_last_byte]).up() as servers:
            with pytest.raises(BlobUnavailable):
                await anext(servers.downloader.stream(blob, servers.peers))

    virtual_loop.run(main)


def test_peer_is_not_charged_for_the_time_that_the_consumer_takes() -> None:
    async def main() -> None:
        async with Servers([honest]).up() as servers:
            async for _ in servers.downloader.stream(BLOB, servers.peers):
                await asyncio.sleep(10 * ANSWER_SECONDS)
            assert servers.asked == [(0, 0)]

    virtual_loop.run(main)


def test_stream_that_is_closed_early_resets_its_request() -> None:
    async def main() -> None:
        async with Servers([endless]).up() as servers:
            async with aclosing(servers.downloader.stream(BLOB, servers.peers)) as chunks:
                assert await anext(chunks) == PAYLOAD[:CHUNK_BYTES]
            assert servers.reported == []

    virtual_loop.run(main)


def test_peers_of_a_lower_rank_come_first_even_after_failures() -> None:
    async def main() -> list[int]:
        async with Servers([honest, trickling, unavailable]).up() as servers:
            for _ in range(2):
                await servers.downloader.fetch(
                    BLOB, servers.peers, lambda peer: peer == servers.peers[0]
                )
            return [peer for peer, _ in servers.asked]

    assert virtual_loop.run(main) == [1, 2, 0, 2, 1, 0]


def test_slowdown_bounds_the_number_of_rounds() -> None:
    async def main() -> float:
        async with Servers([trickling]).up() as servers:
            began = asyncio.get_running_loop().time()
            with pytest.raises(BlobUnavailable, match="too slow"):
                await servers.downloader.fetch(BLOB, servers.peers, slowdown=(2, 2))
            assert servers.asked == [(0, 0)]
            return asyncio.get_running_loop().time() - began

    assert 2 * ANSWER_SECONDS <= virtual_loop.run(main) < 2 * ANSWER_SECONDS + 1


PROVEN = (
    wrong_from_the_start,
    wrong_in_the_second_chunk,
    wrong_in_the_last_byte,
    shorter_by_its_word,
    longer_by_its_word,
)


@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize("liar", PROVEN, ids=lambda liar: liar.__name__)
def test_wrong_bytes_are_reported_after_another_peer_succeeds(
    liar: Behaviour, chunked: bool
) -> None:
    servers = fetched(liar, honest, blob=blob_of(PAYLOAD, chunked=chunked))
    assert servers.reported == servers.peers[:1]


@pytest.mark.parametrize("liar", PROVEN, ids=lambda liar: liar.__name__)
def test_wrong_bytes_are_not_reported_if_no_peer_succeeds(liar: Behaviour) -> None:
    """Whoever named the blob may have lied about its size or its chunks."""
    servers, _ = refused(liar, liar)
    assert servers.reported == []


def test_contradicting_hashes_report_no_peer() -> None:
    for blob in (
        Blob("0" * 64, BLOB.size, BLOB.chunks),
        Blob(BLOB.sha256, BLOB.size, BLOB.chunks[:2]),
        Blob(BLOB.sha256, BLOB.size + 1, ()),
    ):
        servers, _ = refused(honest, honest, blob=blob)
        assert servers.reported == []


@pytest.mark.parametrize(
    "slow", [truncated, gone_after_a_chunk, stalling_at_once, unavailable], ids=lambda b: b.__name__
)
def test_busy_slow_or_disconnected_peers_are_not_reported(slow: Behaviour) -> None:
    assert fetched(slow, honest).reported == []


def test_malformed_answer_is_reported_at_once() -> None:
    async def garbage(stream: Stream, offset: int) -> None:
        await stream.write(b"\x00\x02{{")

    servers, _ = refused(garbage)
    assert servers.reported == servers.peers
    assert refused(nonsense)[0].reported == [], "it may be a newer peer's"


def test_download_without_peers_fails() -> None:
    servers, text = refused()
    assert text == "no peer is connected"
    assert not servers.got


def test_whole_hash_is_verified_without_chunk_hashes() -> None:
    blob = blob_of(PAYLOAD, chunked=False)
    assert fetched(honest, blob=blob).got == PAYLOAD
    assert fetched(unavailable, honest, blob=blob).got == PAYLOAD
    refused(wrong_in_the_last_byte, blob=blob)


@pytest.mark.parametrize(
    ("liar", "good"), LIARS, ids=lambda argument: getattr(argument, "__name__", "")
)
def test_next_peer_starts_at_zero_without_chunk_hashes(liar: Behaviour, good: int) -> None:
    """Nothing tells good bytes from bad, so none of what a liar gave is used."""
    servers = fetched(liar, honest, blob=blob_of(PAYLOAD, chunked=False))
    assert servers.got == PAYLOAD
    assert servers.asked == [(0, 0), (1, 0)]


def test_contradicting_hashes_are_never_satisfied() -> None:
    """A certified manifest may be nonsense if its signers are: no bytes have both hashes."""
    refused(honest, honest, blob=Blob("0" * 64, BLOB.size, BLOB.chunks))


def test_too_few_chunk_hashes_are_never_satisfied() -> None:
    refused(honest, blob=Blob(BLOB.sha256, BLOB.size, BLOB.chunks[:2]))


def test_download_of_an_empty_blob() -> None:
    async def nothing(stream: Stream, offset: int) -> None:
        await answer(stream, {"size": 0})

    assert fetched(nothing, blob=blob_of(b"")).got == b""
