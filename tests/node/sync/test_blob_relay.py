"""Outputs fetched from those who vouch for them, and from nobody else."""

import asyncio
import copy
import random
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from node.rpc import codec as rpc_codec
from node.rpc.codec import Status, answer, read_document, refuse
from node.storage.database import Database
from node.storage.ledger import Ledger
from node.sync.blob_download import rendezvous_order
from node.sync.blob_relay import FETCH_TIMEOUT, RETRY_SECONDS, BlobRelay
from node.transport.interface import Stream
from protocol.consensus.certificate import assemble
from protocol.consensus.committee import committees
from protocol.wire.encoding import Document
from tests.node.transport.recorder import Recorder
from tests.simulation import virtual_loop
from tests.simulation.doubles import MemoryBlobs, manifest, waveform
from tests.support import fixtures
from tests.support.memory_transport.network import MemoryNetwork, MemoryTransport

NET = fixtures.network()
PAYLOAD = waveform(fixtures.args())
OUTCOME = {"result": manifest(PAYLOAD)}
SHA256 = str(OUTCOME["result"]["outputs"][0]["sha256"])


@dataclass
class Bench:
    """One relaying node with an empty blob folder, connected with the whole roster."""

    ledger: Ledger
    blobs: MemoryBlobs
    transport: MemoryTransport
    relay: BlobRelay
    medium: MemoryNetwork
    trickling: set[str] = field(default_factory=set)
    payload: bytes | None = PAYLOAD
    asked: list[str] = field(default_factory=list)


def certify(
    ledger: Ledger, nonce: int = 0, outcome: Document = OUTCOME, count: int = 3
) -> tuple[str, ...]:
    task = fixtures.task(NET, nonce=nonce)
    signers = committees(NET, task)[0][:count]
    commits = {peer: fixtures.commitment_of(task, peer, outcome) for peer in signers}
    reveals = [fixtures.reveal(NET, task, peer, commits, outcome) for peer in signers]
    certificate = assemble(task, 0, reveals, NET)
    ledger.put_certificate(certificate)
    return certificate.signers


@asynccontextmanager
async def bench(me: str, max_bytes: int) -> AsyncIterator[Bench]:
    medium = MemoryNetwork(random.Random(1))
    connection = sqlite3.connect(":memory:", isolation_level=None)
    ledger, blobs = Ledger(Database(connection, NET.id)), MemoryBlobs()
    transport = MemoryTransport(medium, me)
    relay = BlobRelay(me, transport, ledger, blobs, max_bytes)  # type: ignore[arg-type]  # a twin
    new_bench = Bench(ledger, blobs, transport, relay, medium)
    await transport.start(Recorder(), (), ())
    servers = []
    for peer in NET.roster:
        if peer != me:
            server = MemoryTransport(medium, peer)
            serve = Recorder(serving(new_bench, peer))
            await server.start(serve, (), [rpc_codec.protocol_id("blob")])
            await transport.dial(server.addresses[0])
            servers.append(server)
    try:
        yield new_bench
    finally:
        for started in (transport, *servers):
            await started.stop()
        connection.close()


def serving(bench: Bench, peer: str) -> Callable[[str, Stream], Awaitable[None]]:
    async def serve(protocol: str, stream: Stream) -> None:
        await read_document(stream, "blob-request")
        bench.asked.append(peer)
        if bench.payload is None:
            await refuse(stream, Status.UNAVAILABLE, "unknown-blob", "")
            return
        await answer(stream, {"size": len(PAYLOAD)})
        for byte in bench.payload if peer in bench.trickling else b"":
            await stream.write(bytes((byte,)))
            await asyncio.sleep(1)
        await stream.write(bench.payload)

    return serve


def on_bench(
    test: Callable[[Bench], Awaitable[None]],
    me: str = fixtures.peer(1000),
    max_bytes: int = len(PAYLOAD),
) -> None:
    async def main() -> None:
        async with bench(me, max_bytes) as running_bench:
            await test(running_bench)

    virtual_loop.run(main)


def test_certified_output_is_downloaded_once_from_a_signer() -> None:
    async def test(bench: Bench) -> None:
        signers = certify(bench.ledger)
        assert await bench.relay.ensure_local(SHA256)
        assert bench.blobs.open(SHA256).read() == PAYLOAD
        assert await bench.relay.ensure_local(SHA256)
        assert len(bench.asked) == 1
        assert set(bench.asked) <= set(signers)

    on_bench(test)


def test_signers_are_asked_in_rendezvous_order() -> None:
    async def test(bench: Bench) -> None:
        signers, me = certify(bench.ledger), bench.transport.peer
        bench.payload = None
        assert not await bench.relay.ensure_local(SHA256)
        assert bench.asked == rendezvous_order(signers, me, SHA256) != sorted(signers)

    on_bench(test)


def test_concurrent_requests_share_one_download() -> None:
    async def test(bench: Bench) -> None:
        certify(bench.ledger)
        assert all(await asyncio.gather(*(bench.relay.ensure_local(SHA256) for _ in range(5))))
        assert len(bench.asked) == 1

    on_bench(test)


def test_uncertified_blob_is_not_downloaded() -> None:
    async def test(bench: Bench) -> None:
        assert not await bench.relay.ensure_local(SHA256)
        assert not bench.asked

    on_bench(test)


def test_signer_does_not_download_its_own_output() -> None:
    async def test(bench: Bench) -> None:
        certify(bench.ledger)
        assert not await bench.relay.ensure_local(SHA256)
        assert not bench.asked

    on_bench(test, me=committees(NET, fixtures.task(NET))[0][0])


def test_only_signers_are_asked_and_wrong_bytes_are_not_stored() -> None:
    async def test(bench: Bench) -> None:
        signers = certify(bench.ledger)
        for payload in (bytes(len(PAYLOAD)), None):
            bench.asked.clear()
            bench.payload = payload
            assert not await bench.relay.ensure_local(SHA256)
            assert sorted(bench.asked) == list(signers)
            assert not bench.blobs.has(SHA256)
            await asyncio.sleep(RETRY_SECONDS)
        bench.payload = PAYLOAD  # and nothing is held against them
        assert await bench.relay.ensure_local(SHA256)

    on_bench(test)


def test_download_needs_a_connected_signer() -> None:
    async def test(bench: Bench) -> None:
        certify(bench.ledger)
        await bench.transport.stop()
        assert not await bench.relay.ensure_local(SHA256)

    on_bench(test)


def test_failed_download_is_not_retried_for_a_while() -> None:
    async def test(bench: Bench) -> None:
        signers = certify(bench.ledger)
        bench.payload = None
        results = await asyncio.gather(*(bench.relay.ensure_local(SHA256) for _ in range(5)))
        assert not any(results)
        assert not await bench.relay.ensure_local(SHA256)
        assert sorted(bench.asked) == list(signers)
        await asyncio.sleep(RETRY_SECONDS)
        assert not await bench.relay.ensure_local(SHA256)
        assert sorted(bench.asked) == sorted(2 * signers)

    on_bench(test)


def test_failed_download_is_retried_when_another_signer_connects() -> None:
    async def test(bench: Bench) -> None:
        signers = certify(bench.ledger)
        bench.medium.disconnect(bench.transport.peer, signers[2])
        bench.payload = None
        assert not await bench.relay.ensure_local(SHA256)
        assert sorted(bench.asked) == list(signers[:2])
        bench.payload = PAYLOAD
        assert not await bench.relay.ensure_local(SHA256)
        await bench.transport.dial(f"/memory/0/p2p/{signers[2]}")
        assert await bench.relay.ensure_local(SHA256)

    on_bench(test)


def test_slow_signer_is_left_for_the_next_one() -> None:
    async def test(bench: Bench) -> None:
        bench.trickling = {certify(bench.ledger)[0]}
        began = asyncio.get_running_loop().time()
        assert await bench.relay.ensure_local(SHA256)
        assert asyncio.get_running_loop().time() - began < 10

    on_bench(test)


def test_download_from_slow_signers_times_out() -> None:
    async def test(bench: Bench) -> None:
        bench.trickling = set(certify(bench.ledger))
        began = asyncio.get_running_loop().time()
        assert not await bench.relay.ensure_local(SHA256)
        assert asyncio.get_running_loop().time() - began <= FETCH_TIMEOUT
        assert not await bench.relay.ensure_local(SHA256)
        assert asyncio.get_running_loop().time() - began <= FETCH_TIMEOUT

    on_bench(test)


def test_full_blob_folder_fails_the_download_only() -> None:
    async def test(bench: Bench) -> None:
        certify(bench.ledger)
        bench.blobs.full = True
        assert not await bench.relay.ensure_local(SHA256)
        bench.blobs.full = False
        assert not await bench.relay.ensure_local(SHA256)
        assert bench.asked == []  # what has no room is not fetched, nor tried again at once
        await asyncio.sleep(RETRY_SECONDS)
        assert await bench.relay.ensure_local(SHA256)

    on_bench(test)


def test_output_above_the_network_limit_is_not_downloaded() -> None:
    async def test(bench: Bench) -> None:
        certify(bench.ledger)
        assert not await bench.relay.ensure_local(SHA256)
        assert bench.asked == []

    on_bench(test, max_bytes=len(PAYLOAD) - 1)


WRONG = copy.deepcopy(OUTCOME)
WRONG["result"]["outputs"][0]["chunks"] = ["0" * 64]


def test_wrong_chunks_that_a_committee_certified_do_not_hide_the_right_ones() -> None:
    async def test(bench: Bench) -> None:
        liars = certify(bench.ledger, 1, WRONG)
        nonce = next(
            nonce
            for nonce in range(2, 100)
            if not set(committees(NET, fixtures.task(NET, nonce=nonce))[0][:2]) <= set(liars)
        )
        honest = certify(bench.ledger, nonce, count=2)
        assert await bench.relay.ensure_local(SHA256)
        assert bench.blobs.open(SHA256).read() == PAYLOAD
        assert set(bench.asked[:3]) == set(liars), "most signers first"
        assert bench.asked[3] in honest

    on_bench(test)


def test_signers_that_failed_with_wrong_chunks_are_not_asked_for_more_of_them() -> None:
    """However many lists of chunks they certified."""

    async def test(bench: Bench) -> None:
        lies = [copy.deepcopy(WRONG) for _ in range(5)]
        for index, lie in enumerate(lies):
            lie["result"]["outputs"][0]["chunks"] = [f"{index:064x}"]
        liars = certify(bench.ledger, 1, lies[0])
        for lie in lies[1:]:
            certify(bench.ledger, 1, lie)
        assert not await bench.relay.ensure_local(SHA256)
        assert sorted(bench.asked) == sorted(liars)

    on_bench(test)
