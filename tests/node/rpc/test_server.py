"""The six protocols over raw streams, with valid and invalid requests (specification 7.3)."""

import asyncio
import contextlib
import hashlib
import random
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import schemas
from node.admission.request_limits import (
    PEER_READS,
    PEER_UPLOADS,
    PEER_WATCHES,
    LimitedRequest,
    RequestLimiter,
)
from node.admission.task_policy import TaskPolicy
from node.config.limits import Limits
from node.consensus.coordinator import Coordinator
from node.consensus.task_events import TaskEvents
from node.errors import Busy
from node.rpc import codec as rpc_codec
from node.rpc.client import RequestRefused, open_request, read_answer, send_request
from node.rpc.codec import REQUEST_LIMIT, Status, read_document
from node.rpc.dispatcher import REQUEST_SECONDS
from node.rpc.feeds import COALESCING_SECONDS, feed_request
from node.rpc.framing import encode_length, write_frame
from node.rpc.hello import Greeter, ServingStatus
from node.rpc.server import RequestHandler
from node.storage.blobs import BlobStore
from node.storage.database import Database
from node.storage.journal import Journal
from node.storage.ledger import Ledger
from node.transport.interface import Stream, StreamClosed
from node.version import AGENT
from protocol.consensus.committee import committees
from protocol.consensus.effects import Effect, State
from protocol.constants import DOCUMENT_LIMIT
from protocol.errors import Rejected, Rejection
from protocol.wire import messages
from protocol.wire.encoding import Document, canonical
from protocol.wire.messages import Abstention, Task
from tests.node.transport.recorder import Recorder
from tests.simulation import virtual_loop
from tests.simulation.doubles import MemoryBlobs
from tests.support import fixtures
from tests.support.blobs import store
from tests.support.memory_transport.network import MemoryNetwork, MemoryTransport

NET = fixtures.network()
PIANO = fixtures.piano_network()
SERVER, ASKER = fixtures.peer(0), fixtures.peer(1000)
INSTANCE = "ab" * 16
GREETING: Document = fixtures.hello_answer(
    NET.id,
    agent=AGENT,
    classes=[fixtures.CLASS],
    ready=False,
    reasons=["starting"],
    models={fixtures.CLASS: []},
    instance=INSTANCE,
)
HELLO: Document = fixtures.hello_request(NET.id)


class FixedEvents(TaskEvents):
    """Task events with the same progress for all tasks."""

    fraction = 0.25

    def progress(self, task: str) -> float:
        return self.fraction


@dataclass
class Bench:
    """A request handler, a peer that sends it requests, and what it needs of its node."""

    journal: Journal
    ledger: Ledger
    coordinator: Coordinator
    blobs: MemoryBlobs | BlobStore
    medium: MemoryNetwork
    asker: MemoryTransport
    fetchable: bool = True
    obtained: list[str] = field(default_factory=list)
    fetch_seconds: float = 0.0  # to fetch a blob from another peer
    events: FixedEvents = field(init=False)
    handler: RequestHandler = field(init=False)
    acted: list[Effect] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    submitters: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        self.events = FixedEvents(self.journal)

    async def ensure_local(self, sha256: str) -> bool:
        self.obtained.append(sha256)
        await asyncio.sleep(self.fetch_seconds)
        return self.fetchable and self.blobs.has(sha256)

    def accept(self, **changes: Any) -> Task:
        task = fixtures.task(NET, **changes)
        self.coordinator.receive(task)
        return task

    async def open(self, name: str) -> Stream:
        return await self.asker.open(SERVER, rpc_codec.protocol_id(name))

    async def request(self, name: str, request: Document) -> Any:
        return await send_request(self.asker, SERVER, name, request)

    async def refused(self, name: str, request: Document) -> RequestRefused:
        with pytest.raises(RequestRefused) as refusal:
            await self.request(name, request)
        return refusal.value


@asynccontextmanager
async def serving(
    submitters: frozenset[str] = frozenset(), folder: BlobStore | None = None
) -> AsyncIterator[Bench]:
    """Start a bench. With a `folder`, its network has a model that takes songs."""
    net = NET if folder is None else PIANO
    loop = asyncio.get_running_loop()
    connection = sqlite3.connect(":memory:", isolation_level=None)
    database, rng = Database(connection, net.id), random.Random(1)
    journal, ledger = Journal(database), Ledger(database)
    clock = virtual_loop.VirtualClock(loop, fixtures.START)
    coordinator = Coordinator(
        net, fixtures.key(0), journal, ledger, clock, rng.randbytes, max_open=3
    )
    medium, blobs = MemoryNetwork(rng), folder or MemoryBlobs()
    server, asker = MemoryTransport(medium, SERVER), MemoryTransport(medium, ASKER)
    bench = Bench(journal, ledger, coordinator, blobs, medium, asker, submitters=submitters)
    task_policy = TaskPolicy(bench.submitters, 0, clock.now)
    request_limiter = RequestLimiter(task_policy, Limits(), net.roster, clock.now, bench.counts)
    answering = RequestHandler(
        coordinator,
        journal,
        blobs,  # type: ignore[arg-type]  # a double
        request_limiter,
        bench.events,
        lambda step: bench.acted.extend(step()),
        bench.ensure_local,
        Greeter(
            net,
            SERVER,
            INSTANCE,
            lambda: fixtures.START,
            lambda: ServingStatus({fixtures.CLASS: ()}, ("starting",)),
        ),
        lambda task, source: None,
    )
    bench.handler = answering
    journal.on_accepted.append(answering.feeds.wake)
    protocols = [rpc_codec.protocol_id(name) for name in rpc_codec.REQUESTS]
    await server.start(Recorder(answering.serve), (), protocols)
    await asker.start(Recorder(), (), ())
    await asker.dial(server.addresses[0])
    try:
        yield bench
        assert medium.failures == []
    finally:
        await asker.stop()
        await server.stop()
        connection.close()


def on_bench(
    test: Callable[[Bench], Awaitable[None]],
    submitters: frozenset[str] = frozenset(),
    folder: BlobStore | None = None,
) -> None:
    async def main() -> None:
        async with serving(submitters, folder) as bench:
            await test(bench)

    virtual_loop.run(main)


async def rest(stream: Stream) -> bytes:
    """Read until the other side closes the stream."""
    received = b""
    with contextlib.suppress(StreamClosed):
        while True:
            received += await stream.read_exactly(1)
    return received


async def refusal(stream: Stream) -> tuple[Status, Any]:
    """Read a non-zero answer, which nothing follows."""
    status = (await stream.read_exactly(1))[0]
    failure = await read_document(stream, "failure")
    assert await rest(stream) == b""
    return Status(status), failure


def fat(task: Task, count: int, characters: int = 1000) -> list[Any]:
    """Return valid reveals of one task with 8 times so many characters of trace each."""
    member = committees(NET, task)[0][0]
    votes = []
    for number in range(count):
        body = fixtures.reveal(NET, task, member, {}).envelope.body
        trace = {f"note-{line}": f"{number:x>{characters}}" for line in range(8)}
        votes.append(fixtures.signed_by(NET, {**body, "trace": trace}, member))
    return votes


# Good answers


def test_hello() -> None:
    async def test(bench: Bench) -> None:
        assert await bench.request("hello", fixtures.hello_request("f" * 64)) == GREETING

    on_bench(test)


def test_submit_and_resubmit() -> None:
    async def test(bench: Bench) -> None:
        task = fixtures.task(NET)
        request: Document = {"task": task.envelope.document(), "blobs": []}
        expected = {"task": task.id, "committee": list(committees(NET, task)[0])}
        assert await bench.request("submit", request) == expected
        assert await bench.request("submit", request) == expected
        assert len(bench.journal.feed(0, 10)) == 1

    on_bench(test)


def test_task() -> None:
    async def test(bench: Bench) -> None:
        task = bench.accept()
        vote = fixtures.abstain(NET, task, committees(NET, task)[0][0])
        bench.coordinator.receive(vote)
        view = bench.coordinator.view(task.id)
        assert view is not None
        assert await bench.request("task", {"task": task.id}) == {
            "state": str(view.state),
            "attempt": 0,
            "envelopes": [task.envelope.document(), vote.envelope.document()],
            "certificate": None,
        }

    on_bench(test)


def test_envelopes_of_a_task_are_in_the_order_of_acceptance() -> None:
    """Neither the order of signers nor that of types or attempts (specification 7.6)."""

    async def test(bench: Bench) -> None:
        task = bench.accept()
        first, second = sorted(p for p in committees(NET, task)[0] if p != SERVER)[:2]
        messages = [
            fixtures.abstain(NET, task, second, attempt=1),
            fixtures.reveal(NET, task, first, {}),
            fixtures.withdraw(NET, task),
            fixtures.abstain(NET, task, second),
            fixtures.abstain(NET, task, first, attempt=1),
        ]
        for message in messages:
            bench.coordinator.receive(message)
        envelopes = (await bench.request("task", {"task": task.id}))["envelopes"]
        others = [envelope for envelope in envelopes if envelope["signer"] != SERVER]
        assert others == [message.envelope.document() for message in (task, *messages)]

    on_bench(test)


def test_task_with_its_certificate() -> None:
    async def test(bench: Bench) -> None:
        task = bench.accept()
        committee = [p for p in committees(NET, task)[0] if p != SERVER][:2]
        commits = {
            peer: fixtures.commitment_of(task, peer, fixtures.outcome()) for peer in committee
        }
        for peer in committee:
            vote = fixtures.reveal(NET, task, peer, commits)
            bench.coordinator.receive(vote)
        answer = await bench.request("task", {"task": task.id})
        assert (answer["state"], answer["attempt"]) == ("agreed", 0)
        assert answer["certificate"] == bench.ledger.certificates(task.id)[0]

    on_bench(test)


def test_watch_sends_a_frame_for_each_change_until_the_end() -> None:
    async def test(bench: Bench) -> None:
        task = bench.accept().id
        bench.journal.put_state(task, State.WAITING, 0)
        stream = await bench.open("watch")
        await write_frame(stream, canonical({"task": task}))
        assert await stream.read_exactly(1) == b"\x00"
        seen = [await read_document(stream, "watch-frame")]
        bench.events.set_changed(task)  # nothing is different: no frame
        await asyncio.sleep(1)
        bench.events.fraction = 0.5
        bench.events.set_changed(task)
        seen.append(await read_document(stream, "watch-frame"))
        bench.journal.put_state(task, State.INCONCLUSIVE, 1)
        bench.events.set_changed(task)
        seen.append(await read_document(stream, "watch-frame"))
        assert seen == [
            {"state": "waiting", "attempt": 0, "progress": 0.25},
            {"state": "waiting", "attempt": 0, "progress": 0.5},
            {"state": "inconclusive", "attempt": 1, "progress": 0.5},
        ]
        assert await rest(stream) == b""

    on_bench(test)


def test_watching_an_ended_task_sends_one_frame() -> None:
    async def test(bench: Bench) -> None:
        task = bench.accept().id
        bench.journal.put_state(task, State.EXPIRED, 0)
        stream = await bench.open("watch")
        await write_frame(stream, canonical({"task": task}))
        frame = canonical({"state": "expired", "attempt": 0, "progress": 0.25})
        assert await rest(stream) == b"\x00" + encode_length(len(frame)) + frame

    on_bench(test)


@pytest.mark.parametrize("offset", [0, 1, 262_144, 599_999, 600_000])
def test_blob_from_any_offset(offset: int) -> None:
    async def test(bench: Bench) -> None:
        payload = random.Random(7).randbytes(600_000)
        name = store(bench.blobs, payload)
        request: Document = {"sha256": name, "offset": offset}
        async with open_request(bench.asker, SERVER, "blob", request) as stream:
            assert await read_answer(stream, "blob") == {"size": len(payload)}
            received = await stream.read_exactly(len(payload) - offset)
            assert received == payload[offset:]
            assert await rest(stream) == b""

    on_bench(test)


def page_of(feed: str, cursor: int, *messages: Any) -> Any:
    return {"feed": feed, "cursor": cursor, "ids": [m.envelope.id for m in messages]}


def test_a_feed_is_read_in_pages() -> None:
    async def test(bench: Bench) -> None:
        tasks = [bench.accept(nonce=n) for n in range(3)]
        feed = bench.journal.feed_id
        for cursor, page in (
            (0, page_of(feed, 2, *tasks[:2])),
            (2, page_of(feed, 3, *tasks[2:])),
            (3, page_of(feed, 3)),
            (4, page_of(feed, 4)),
        ):
            assert await bench.request("feed", feed_request(feed, cursor, 2)) == page

    on_bench(test)


@pytest.mark.parametrize("feed", ["", "another"])
def test_a_cursor_of_another_feed_starts_at_zero(feed: str) -> None:
    async def test(bench: Bench) -> None:
        task = bench.accept()
        page = await bench.request("feed", feed_request(feed, 1, 9, wait=60))
        assert page == page_of(bench.journal.feed_id, 1, task)

    on_bench(test)


def test_an_empty_feed_with_another_id_starts_at_zero() -> None:
    async def test(bench: Bench) -> None:
        page = await bench.request("feed", feed_request("another", 77, 9))
        assert page == page_of(bench.journal.feed_id, 0)

    on_bench(test)


def test_a_page_has_at_most_1024_ids() -> None:
    async def test(bench: Bench) -> None:
        votes = fat(bench.accept(), 1100, characters=1)
        for vote in votes:
            bench.journal.append(vote, 0.0)
        page = await bench.request("feed", feed_request("", 0, 100_000))
        assert (len(page["ids"]), page["cursor"]) == (1024, 1024)
        rest = await bench.request("feed", feed_request(page["feed"], 1024, 100_000))
        assert (len(rest["ids"]), rest["cursor"]) == (77, 1101)

    on_bench(test)


@pytest.mark.parametrize(
    "changes",
    [{"wait": 61}, {"wait": -1}, {"wait": 0.5}, {"wait": None}, {"limit": 0}, {"cursor": -1}],
)
def test_a_feed_request_of_another_form_is_refused(changes: Any) -> None:
    async def test(bench: Bench) -> None:
        refusal = await bench.refused("feed", {**feed_request("", 0, 9), **changes})
        assert refusal.reason == "invalid-field"

    on_bench(test)


# Waiting


async def now() -> float:
    return asyncio.get_running_loop().time()


def test_a_request_at_the_end_of_a_feed_waits_for_what_is_accepted_next() -> None:
    """A burst is one page; what comes later waits for the next request."""

    async def test(bench: Bench) -> None:
        feed = bench.journal.feed_id
        request = feed_request(feed, 0, wait=60)
        waiting = asyncio.create_task(bench.request("feed", request))
        await asyncio.sleep(10)
        assert not waiting.done()
        began = await now()
        tasks = [bench.accept(nonce=n) for n in range(3)]
        assert await waiting == page_of(feed, 3, *tasks)
        assert await now() - began < COALESCING_SECONDS + 0.1
        assert await bench.request("feed", request) == page_of(feed, 3, *tasks)

    on_bench(test)


def test_a_wait_ends_with_an_empty_page_when_its_time_is_over() -> None:
    async def test(bench: Bench) -> None:
        feed, began = bench.journal.feed_id, await now()
        assert await bench.request("feed", feed_request(feed, 7, wait=20)) == page_of(feed, 7)
        assert await now() - began == pytest.approx(20, abs=0.1)

    on_bench(test)


def test_a_second_waiting_request_ends_the_first_with_an_empty_page() -> None:
    async def test(bench: Bench) -> None:
        feed = bench.journal.feed_id
        request = feed_request(feed, 0, wait=25)
        first = asyncio.create_task(bench.request("feed", request))
        await asyncio.sleep(5)
        second = asyncio.create_task(bench.request("feed", request))
        assert await first == page_of(feed, 0)
        assert not second.done()
        task = bench.accept()
        assert await second == page_of(feed, 1, task)

    on_bench(test)


def test_a_request_that_comes_after_the_news_waits_for_further_news() -> None:
    """Although those before it are answered only now."""

    async def test(bench: Bench) -> None:
        feed = bench.journal.feed_id
        first = asyncio.create_task(bench.request("feed", feed_request(feed, 0, wait=60)))
        await asyncio.sleep(5)
        tasks = [bench.accept(nonce=1)]
        second = asyncio.create_task(bench.request("feed", feed_request(feed, 1, wait=60)))
        assert await first == page_of(feed, 1, *tasks)
        await asyncio.sleep(5)
        assert not second.done()
        tasks.append(bench.accept(nonce=2))
        assert await second == page_of(feed, 2, tasks[1])

    on_bench(test)


def test_waiting_requests_hold_no_slot_and_no_more_than_one_each() -> None:
    async def test(bench: Bench) -> None:
        request = feed_request(bench.journal.feed_id, 0, wait=25)
        many = [asyncio.create_task(bench.request("feed", request)) for _ in range(20)]
        await asyncio.sleep(1)
        pages = await asyncio.gather(*(task for task in many if task.done()))
        assert len(pages) == 19
        assert len(bench.handler.feeds._waiting) == 1
        assert await bench.request("feed", feed_request("", 0)) == pages[0], "there is a slot"
        await asyncio.gather(*many)
        assert bench.handler.feeds._waiting == bench.handler.feeds._woken == {}

    on_bench(test)


def test_a_peer_that_disconnects_waits_no_more() -> None:
    async def test(bench: Bench) -> None:
        request = feed_request(bench.journal.feed_id, 0, wait=60)
        waiting = asyncio.create_task(bench.request("feed", request))
        await asyncio.sleep(1)
        bench.medium.disconnect(SERVER, bench.asker.peer)
        bench.handler.feeds.end(bench.asker.peer)  # as the node does
        with pytest.raises(ConnectionError):
            await waiting
        await asyncio.sleep(0.1)
        assert bench.handler.feeds._waiting == bench.handler.feeds._woken == {}
        assert bench.medium.failures == []

    on_bench(test)


# Envelopes by their ids


def test_envelopes_are_answered_in_the_order_of_their_ids() -> None:
    async def test(bench: Bench) -> None:
        tasks = [bench.accept(nonce=n) for n in range(3)]
        unknown = "0" * 64
        chosen = [tasks[2], tasks[0]]
        ids = (chosen[0].envelope.id, unknown, chosen[1].envelope.id)
        answer = await bench.request("envelopes", {"ids": ids})
        documents = [task.envelope.document() for task in chosen]
        assert answer == {"envelopes": documents, "gone": [unknown]}

    on_bench(test)


@pytest.mark.parametrize(
    "ids",
    [
        [],
        ["0" * 64] * 2,
        ["x" * 64],
        ["A" * 64],
        ["0" * 63],
        ["0" * 64 + "\n"],
        [f"{n:064x}" for n in range(129)],
        [0],
        None,
        "0" * 64,
    ],
)
def test_an_envelopes_request_of_another_form_is_refused(ids: Any) -> None:
    async def test(bench: Bench) -> None:
        assert (await bench.refused("envelopes", {"ids": ids})).reason == "invalid-field"

    on_bench(test)


# Answers stay under 1 MiB: `ask` reads none that is longer


def test_large_envelopes_need_several_answers() -> None:
    async def test(bench: Bench) -> None:
        votes = fat(bench.accept(), 250)
        for vote in votes:
            bench.journal.append(vote, 0.0)
        rest = [vote.envelope.id for vote in votes][:128]
        documents, answers = list[Any](), 0
        while rest:
            answer = await bench.request("envelopes", {"ids": rest})
            assert len(canonical(answer)) <= DOCUMENT_LIMIT
            assert answer["gone"] == []
            rest = rest[len(answer["envelopes"]) :]
            assert len(canonical(answer)) > DOCUMENT_LIMIT // 2 or not rest
            documents += answer["envelopes"]
            answers += 1
        assert documents == [vote.envelope.document() for vote in votes[:128]]
        assert answers > 1

    on_bench(test)


def test_a_task_answer_holds_as_many_votes_as_fit() -> None:
    async def test(bench: Bench) -> None:
        task = bench.accept()
        votes = fat(task, 250)
        for vote in votes:
            bench.journal.append(vote, 0.0)
        answer = await bench.request("task", {"task": task.id})
        assert DOCUMENT_LIMIT // 2 < len(canonical(answer)) <= DOCUMENT_LIMIT
        documents = [m.envelope.document() for m in (task, *votes)]
        assert answer["envelopes"] == documents[: len(answer["envelopes"])]

    on_bench(test)


def test_many_small_envelopes_fit_the_schema() -> None:
    async def test(bench: Bench) -> None:
        task = bench.accept()
        reasons = list(Abstention)
        for number in range(1200):
            signer, reason = fixtures.peer(number // 512), reasons[number // 64 % 8]
            body = messages.abstain_body(NET.id, task.id, number % 64, reason)
            bench.journal.append(fixtures.signed_by(NET, body, signer), 0.0)
        assert len((await bench.request("task", {"task": task.id}))["envelopes"]) == 1201

    on_bench(test)


# Bad requests

FRAMED = [
    (b"", "malformed"),
    (b"{", "malformed"),
    (b"\xff\xfe", "malformed"),
    (b'{"a":NaN}', "malformed"),
    (b"[" * 40, "too-deep"),
    (b"[]", "invalid-field"),
    (b"null", "invalid-field"),
    (b"{}", "invalid-field"),
    (b'{"nonsense":1}', "invalid-field"),
]


@pytest.mark.parametrize("name", rpc_codec.REQUESTS)
def test_a_malformed_request_is_answered_as_invalid(name: str) -> None:
    async def test(bench: Bench) -> None:
        for payload, reason in FRAMED:
            stream = await bench.open(name)
            await write_frame(stream, payload)
            status, failure = await refusal(stream)
            assert status is Status.INVALID
            assert failure["reason"] == reason
            assert failure["detail"]

    on_bench(test)


@pytest.mark.parametrize("name", rpc_codec.REQUESTS)
@pytest.mark.parametrize(
    ("length", "reason"),
    [
        (encode_length(REQUEST_LIMIT + 1), "too-large"),
        (b"\xff\xff\xff\xff\x7f", "too-large"),
        (b"\xff" * 5, "malformed"),
        (b"\x80\x00", "malformed"),
    ],
    ids=["over the limit", "32 GiB", "endless", "not the shortest"],
)
def test_a_bad_length_is_refused_before_any_payload(name: str, length: bytes, reason: str) -> None:
    async def test(bench: Bench) -> None:
        stream = await bench.open(name)
        await stream.write(length)
        status, failure = await refusal(stream)
        assert (status, failure["reason"]) == (Status.INVALID, reason)
        assert asyncio.get_running_loop().time() < 1

    on_bench(test)


@pytest.mark.parametrize("name", rpc_codec.REQUESTS)
@pytest.mark.parametrize("sent", [b"", b"\x85", b"\x0a{", encode_length(1000) + b"x" * 999])
def test_a_truncated_request_gets_no_answer(name: str, sent: bytes) -> None:
    async def test(bench: Bench) -> None:
        stream = await bench.open(name)
        await stream.write(sent)
        await stream.close_write()
        assert await rest(stream) == b""
        assert asyncio.get_running_loop().time() < 1

    on_bench(test)


@pytest.mark.parametrize("name", rpc_codec.REQUESTS)
def test_a_silent_requester_times_out(name: str) -> None:
    async def test(bench: Bench) -> None:
        stream = await bench.open(name)
        began = asyncio.get_running_loop().time()
        assert await rest(stream) == b""
        waited = asyncio.get_running_loop().time() - began
        assert waited == pytest.approx(REQUEST_SECONDS, abs=0.1)

    on_bench(test)


def test_a_requester_that_sends_too_slowly_times_out() -> None:
    async def test(bench: Bench) -> None:
        stream = await bench.open("hello")
        began = asyncio.get_running_loop().time()

        async def trickle() -> None:
            for byte in encode_length(60) + b" " * 60:
                await stream.write(bytes((byte,)))
                await asyncio.sleep(1)

        with pytest.raises(StreamClosed):
            await trickle()
        assert asyncio.get_running_loop().time() - began < REQUEST_SECONDS + 2

    on_bench(test)


@pytest.mark.parametrize("name", ["task", "watch"])
def test_an_unknown_task_is_refused(name: str) -> None:
    async def test(bench: Bench) -> None:
        refused = await bench.refused(name, {"task": "0" * 64})
        assert (refused.status, refused.reason) == (Status.INVALID, Rejection.UNKNOWN_TASK)
        assert "0" * 64 in refused.detail

    on_bench(test)


def test_an_unavailable_blob_is_refused() -> None:
    async def test(bench: Bench) -> None:
        kept = store(bench.blobs, b"kept")
        for fetchable, name in ((True, "0" * 64), (False, kept)):
            bench.fetchable = fetchable
            refused = await bench.refused("blob", {"sha256": name, "offset": 0})
            assert (refused.status, refused.reason) == (Status.UNAVAILABLE, "unknown-blob")

    on_bench(test)


def test_an_offset_past_the_end_is_refused() -> None:
    async def test(bench: Bench) -> None:
        name = store(bench.blobs, b"kept")
        refused = await bench.refused("blob", {"sha256": name, "offset": 5})
        assert (refused.status, refused.reason) == (Status.INVALID, "invalid-field")
        assert "past the end, 4" in refused.detail

    on_bench(test)


@pytest.mark.parametrize("name", ["../../etc/passwd", "A" * 64, "0" * 63])
def test_a_blob_name_that_is_no_hash_is_refused_by_the_schema(name: str) -> None:
    async def test(bench: Bench) -> None:
        refused = await bench.refused("blob", {"sha256": name, "offset": 0})
        assert (refused.status, refused.reason) == (Status.INVALID, "invalid-field")

    on_bench(test)


def test_an_unacceptable_task_is_refused_with_its_reason() -> None:
    async def test(bench: Bench) -> None:
        for task, reason in (
            (fixtures.task(NET, model="nobody/knows"), Rejection.UNKNOWN_MODEL),
            (fixtures.task(NET, now=fixtures.START + 100), Rejection.CREATED_AHEAD),
            (fixtures.task(fixtures.network(3)), Rejection.WRONG_NETWORK),
        ):
            request: Document = {"task": task.envelope.document(), "blobs": []}
            refused = await bench.refused("submit", request)
            assert (refused.status, refused.reason) == (Status.INVALID, reason)
        assert bench.journal.feed(0, 10) == []

    on_bench(test)


def test_a_vote_cannot_be_submitted() -> None:
    async def test(bench: Bench) -> None:
        vote = fixtures.commit(NET, bench.accept(), committees(NET, fixtures.task(NET))[0][0])
        request: Document = {"task": vote.envelope.document(), "blobs": []}
        refused = await bench.refused("submit", request)
        assert (refused.status, refused.reason) == (Status.INVALID, Rejection.INVALID_FIELD)
        assert len(bench.journal.feed(0, 10)) == 1

    on_bench(test)


def test_a_task_with_blobs_is_refused() -> None:
    async def test(bench: Bench) -> None:
        request: Document = {"task": fixtures.task(NET).envelope.document(), "blobs": [5]}
        refused = await bench.refused("submit", request)
        assert (refused.status, refused.reason) == (Status.INVALID, "invalid-field")
        assert bench.journal.feed(0, 10) == []

    on_bench(test)


def test_a_requester_that_is_not_served_is_refused_unless_its_task_is_known() -> None:
    async def test(bench: Bench) -> None:
        task = fixtures.task(NET)
        request: Document = {"task": task.envelope.document(), "blobs": []}
        refused = await bench.refused("submit", request)
        assert (refused.status, refused.reason) == (Status.INVALID, "requester-not-served")
        assert fixtures.peer(1000) in refused.detail
        assert bench.coordinator.view(task.id) is None
        bench.accept()
        assert (await bench.request("submit", request))["task"] == task.id
        assert bench.counts == {"tasks-unserved": 1}

    on_bench(test, frozenset({fixtures.peer(1001)}))


def test_submissions_over_the_rate_limit_are_refused_as_busy() -> None:
    async def test(bench: Bench) -> None:
        request: Document = {"task": fixtures.task(NET).envelope.document(), "blobs": []}
        pending = [bench.request("submit", request) for _ in range(130)]
        answers = await asyncio.gather(*pending, return_exceptions=True)
        refused = [answer for answer in answers if isinstance(answer, RequestRefused)]
        assert 0 < len(refused) <= 30
        assert (refused[0].status, refused[0].reason) == (Status.BUSY, "busy")
        assert "try again in 1 s" in refused[0].detail
        assert bench.counts == {"submissions-refused": len(refused)}

    on_bench(test)


def test_a_full_node_is_busy() -> None:
    async def test(bench: Bench) -> None:
        for nonce in range(3):
            bench.accept(nonce=nonce)
        request: Document = {"task": fixtures.task(NET, nonce=3).envelope.document(), "blobs": []}
        refused = await bench.refused("submit", request)
        assert (refused.status, refused.reason) == (Status.BUSY, "busy")

    on_bench(test)


@pytest.mark.parametrize(
    ("raised", "status"),
    [
        (Rejected(Rejection.INVALID_FIELD, "ä" * 300), Status.INVALID),
        (Rejected(Rejection.INVALID_FIELD, "x" + "ä" * 300), Status.INVALID),
        (Busy("line\nbreak \x00 and \u202e" + "€" * 300), Status.BUSY),
    ],
)
def test_a_long_detail_is_truncated_to_the_limit_of_the_schema(
    raised: Exception, status: Status
) -> None:
    async def test(bench: Bench) -> None:
        def submit(task: Task, source: str = "") -> list[Effect]:
            raise raised

        bench.coordinator.submit = submit  # type: ignore[method-assign]
        request: Document = {"task": fixtures.task(NET).envelope.document(), "blobs": []}
        refused = await bench.refused("submit", request)  # it fits the schema, or `ask` says so
        assert refused.status is status
        assert len(refused.detail) == 256
        assert refused.detail.isprintable()
        schemas.check("failure", {"reason": refused.reason, "detail": refused.detail})

    on_bench(test)


# Songs that come with a task

SONGS = (b"RIFF" + bytes(300_000), b"fLaC" + bytes(100_000))
NAMES = [hashlib.sha256(song).hexdigest() for song in SONGS]


def arranged(*songs: bytes, nonce: int = 0) -> Task:
    body = fixtures.task(PIANO, kind="pop2piano", nonce=nonce).envelope.body
    task: Any = fixtures.signed(PIANO, {**body, "args": fixtures.piano_args(*songs)}, 1000)
    return task  # type: ignore[no-any-return]


async def hand_over(bench: Bench, task: Task, *songs: bytes) -> Any:
    sizes = [named.size for named in task.inputs]
    request: Document = {"task": task.envelope.document(), "blobs": list(sizes)}
    return await send_request(bench.asker, SERVER, "submit", request, payloads=songs)


def fill(bench: Bench) -> None:
    """Fill the task table, so that the node is busy."""
    for nonce in range(3):
        task = fixtures.task(PIANO, nonce=100 + nonce)
        bench.coordinator.receive(task)


async def overtaken(bench: Bench, task: Task, *songs: bytes) -> RequestRefused:
    """Hand a task over, which is refused only when all its songs have come."""
    submit = bench.coordinator.submit

    def late(task: Task, source: str = "") -> list[Effect]:
        fill(bench)
        return submit(task, source)

    bench.coordinator.submit = late  # type: ignore[method-assign]
    with pytest.raises(RequestRefused) as refused:
        await hand_over(bench, task, *songs)
    assert bench.coordinator.view(task.id) is None
    return refused.value


def kept(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_inputs_of_an_accepted_task_are_kept(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        here: list[bool] = []
        submit = bench.coordinator.submit

        def taken(task: Task, source: str = "") -> list[Effect]:
            here.extend(map(bench.blobs.has, NAMES))
            return submit(task, source)

        bench.coordinator.submit = taken  # type: ignore[method-assign]
        task = arranged(*SONGS)
        assert (await hand_over(bench, task, *SONGS))["task"] == task.id
        assert here == [True, True], "they are there before anybody hears of the task"
        assert kept(tmp_path) == sorted(NAMES)
        assert (await hand_over(bench, task, *SONGS))["task"] == task.id
        assert kept(tmp_path) == sorted(NAMES)

    on_bench(test, folder=BlobStore(tmp_path))


def test_a_refused_task_leaves_no_inputs(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        refused = await overtaken(bench, arranged(*SONGS), *SONGS)
        assert (refused.status, refused.reason) == (Status.BUSY, "busy")
        assert kept(tmp_path) == []

    on_bench(test, folder=BlobStore(tmp_path))


def test_a_refused_task_does_not_delete_the_input_of_another_task(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        await hand_over(bench, arranged(SONGS[0]), SONGS[0])
        await overtaken(bench, arranged(*SONGS, nonce=1), *SONGS)
        assert kept(tmp_path) == [NAMES[0]]
        with bench.blobs.open(NAMES[0]) as song:
            assert song.read() == SONGS[0]

    on_bench(test, folder=BlobStore(tmp_path))


@pytest.mark.parametrize("second", [SONGS[1][:-1], SONGS[1][:-1] + b"x", b""])
def test_a_submission_that_fails_at_its_second_input_leaves_none(
    tmp_path: Path, second: bytes
) -> None:
    async def test(bench: Bench) -> None:
        with pytest.raises((RequestRefused, StreamClosed)):
            await hand_over(bench, arranged(*SONGS), SONGS[0], second)
        assert kept(tmp_path) == []
        assert bench.journal.feed(0, 10) == []

    on_bench(test, folder=BlobStore(tmp_path))


def test_a_failing_store_leaves_no_inputs(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        def submit(task: Task, source: str = "") -> list[Effect]:
            raise sqlite3.OperationalError("disk I/O error")

        bench.coordinator.submit = submit  # type: ignore[method-assign]
        with pytest.raises(RequestRefused, match="store"):
            await hand_over(bench, arranged(*SONGS), *SONGS)
        assert kept(tmp_path) == []

    on_bench(test, folder=BlobStore(tmp_path))


def test_a_mistake_of_the_node_is_answered() -> None:
    async def test(bench: Bench) -> None:
        def view(task: str) -> None:
            raise ValueError("an answer of 1048577 bytes")

        bench.coordinator.view = view  # type: ignore[method-assign]
        refusal = await bench.refused("task", {"task": "ab" * 32})
        assert (refusal.status, refusal.reason) == (Status.INTERNAL, "internal")

    on_bench(test)


def test_a_full_disk_quota_refuses_inputs_as_busy(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        with pytest.raises(RequestRefused, match="disk quota of this node is full") as refused:
            await hand_over(bench, arranged(*SONGS), *SONGS)
        assert (refused.value.status, refused.value.reason) == (Status.BUSY, "busy")
        assert kept(tmp_path) == []
        assert bench.journal.feed(0, 10) == []
        await hand_over(bench, arranged(SONGS[0], nonce=1), SONGS[0])
        assert kept(tmp_path) == [NAMES[0]]

    on_bench(test, folder=BlobStore(tmp_path, sum(map(len, SONGS)) - 1))


def test_a_task_without_inputs_needs_no_upload_slot(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        task = arranged(SONGS[0])
        request: Document = {"task": task.envelope.document(), "blobs": [len(SONGS[0])]}
        for _ in range(PEER_UPLOADS):
            stream = await bench.open("submit")
            await write_frame(stream, canonical(request))
        await asyncio.sleep(1)
        with pytest.raises(RequestRefused, match="too many concurrent requests"):
            await hand_over(bench, task, SONGS[0])
        plain = fixtures.task(PIANO)
        assert (await hand_over(bench, plain))["task"] == plain.id

    on_bench(test, folder=BlobStore(tmp_path))


def test_a_blob_that_is_being_fetched_holds_a_slot() -> None:
    """A peer makes this node fetch no more blobs at a time than it may read."""

    async def test(bench: Bench) -> None:
        bench.fetch_seconds, limit = 60.0, PEER_READS
        request: Document = {"sha256": "0" * 64, "offset": 0}
        pending = [bench.request("blob", request) for _ in range(limit + 3)]
        answers = await asyncio.gather(*pending, return_exceptions=True)
        reasons = Counter(answer.reason for answer in answers if isinstance(answer, RequestRefused))
        assert reasons["busy"] == 3
        assert len(bench.obtained) == limit

    on_bench(test)


def test_unread_task_answers_are_limited_by_slots() -> None:
    async def test(bench: Bench) -> None:
        task, limit = bench.accept(), PEER_READS
        for vote in fat(task, 120):
            bench.journal.append(vote, 0.0)
        for _ in range(limit):
            stream = await bench.open("task")
            await write_frame(stream, canonical({"task": task.id}))
            await stream.read_exactly(1)
        refused = await bench.refused("task", {"task": task.id})
        assert (refused.status, refused.reason) == (Status.BUSY, "busy")
        await stream.reset()
        await asyncio.sleep(1)
        assert (await bench.request("task", {"task": task.id}))["envelopes"]
        assert bench.counts == {"requests-refused": 1}

    on_bench(test)


def test_stored_envelopes_are_sent_without_reencoding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading and writing a MiB of envelopes again takes thirty times as long."""

    async def test(bench: Bench) -> None:
        task = bench.accept()
        request = canonical({"task": task.id})
        monkeypatch.setattr("node.rpc.server.canonical", None)
        monkeypatch.setattr("node.rpc.codec.canonical", None)
        stream = await bench.open("task")
        await write_frame(stream, request)
        assert (await read_answer(stream, "task"))["envelopes"] == [task.envelope.document()]

    on_bench(test)


def test_every_reading_request_holds_a_slot_of_its_slot_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held: list[tuple[str, str]] = []
    slot = RequestLimiter.slot

    def recording(
        limiter: RequestLimiter, request: LimitedRequest, key: str
    ) -> AbstractContextManager[None]:
        held.append((request, key))
        return slot(limiter, request, key)

    monkeypatch.setattr(RequestLimiter, "slot_key", lambda *_: "the slot key")
    monkeypatch.setattr(RequestLimiter, "slot", recording)

    async def test(bench: Bench) -> None:
        await bench.request("feed", feed_request("", 0))
        await bench.request("envelopes", {"ids": ["0" * 64]})
        await bench.refused("blob", {"sha256": "0" * 64, "offset": 0})
        task: Document = {"task": bench.accept().id}
        await bench.request("task", task)
        async with open_request(bench.asker, SERVER, "watch", task) as stream:
            await stream.read_exactly(1)
        names = ("feed", "envelopes", "blob", "task", "watch")
        assert held == [(name, "the slot key") for name in names]

    on_bench(test)


# Requesters that go away


def test_a_requester_that_disconnects_during_a_blob_harms_nothing() -> None:
    async def test(bench: Bench) -> None:
        payload = bytes(2_000_000)
        name = store(bench.blobs, payload)
        stream = await bench.open("blob")
        await write_frame(stream, canonical({"sha256": name, "offset": 0}))
        await stream.read_exactly(100_000)
        await stream.reset()
        await asyncio.sleep(1)
        assert (await bench.request("hello", HELLO)) == GREETING

    on_bench(test)


def test_disconnected_watchers_hold_no_slots() -> None:
    async def test(bench: Bench) -> None:
        request = canonical({"task": bench.accept().id})
        for _ in range(PEER_WATCHES + 8):
            stream = await bench.open("watch")
            await write_frame(stream, request)
            assert (await stream.read_exactly(1))[0] == Status.OK
            await stream.reset()
            await asyncio.sleep(1)
        assert bench.counts == {}

    on_bench(test)


def test_a_half_closed_watcher_still_gets_frames() -> None:
    async def test(bench: Bench) -> None:
        task = bench.accept().id
        stream = await bench.open("watch")
        await write_frame(stream, canonical({"task": task}))
        await stream.close_write()
        await stream.read_exactly(1)
        await read_document(stream, "watch-frame")
        await asyncio.sleep(10)
        bench.events.fraction = 0.5
        bench.events.set_changed(task)
        assert (await read_document(stream, "watch-frame"))["progress"] == 0.5

    on_bench(test)


def test_a_disconnected_watcher_causes_no_more_work() -> None:
    async def test(bench: Bench) -> None:
        task = bench.accept().id
        stream = await bench.open("watch")
        await write_frame(stream, canonical({"task": task}))
        await stream.read_exactly(1)
        await read_document(stream, "watch-frame")
        await stream.reset()
        looked: list[str] = []

        def progress(task: str) -> float:
            looked.append(task)
            return len(looked) / 10

        bench.events.progress = progress  # type: ignore[method-assign]
        for _ in range(3):
            await asyncio.sleep(1)
            bench.events.set_changed(task)
        await asyncio.sleep(1)
        assert looked == []

    on_bench(test)
