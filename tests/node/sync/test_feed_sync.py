"""Feeds bring what gossip lost; a lying feed brings nothing, and costs nothing but a log line."""

import asyncio
import hashlib
import random
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

import pytest

from node.consensus.coordinator import Coordinator, Step
from node.rpc import codec as rpc_codec
from node.rpc import hello
from node.rpc.client import ANSWER_SECONDS
from node.rpc.codec import ProtocolViolation, Status, answer, read_document, refuse
from node.rpc.feeds import MAX_PAGE_IDS
from node.storage.database import Database
from node.storage.journal import Journal
from node.storage.ledger import Ledger
from node.sync.feeds.feed_sync import (
    BATCH,
    FAILURE_BACKOFF,
    MAX_USELESS_PAGES,
    MIN_PAUSE_SECONDS,
    PAGE_COST,
    PAUSE_SECONDS,
    USELESS_BURST_SECONDS,
    USELESS_PER_SECOND,
    WAIT_SECONDS,
    FeedSync,
    Progress,
)
from node.sync.feeds.fetching import CLAIM_SECONDS, MAX_IDS
from node.sync.feeds.selection import Selection
from node.sync.handshakes import HELLO_SECONDS, Handshakes
from node.transport.interface import Stream
from protocol.consensus import certificate
from protocol.consensus.certificate import Certificate
from protocol.consensus.committee import committees
from protocol.consensus.effects import Effect, State, StateChanged
from protocol.wire import codec, messages
from protocol.wire.encoding import Document, document_hash
from protocol.wire.messages import Task
from protocol.wire.signing import sign
from tests.node.transport.recorder import Recorder
from tests.simulation import virtual_loop
from tests.simulation.network import Conditions, run_network
from tests.support import fixtures
from tests.support.journals import accepted
from tests.support.memory_transport.network import Link, MemoryNetwork, MemoryTransport
from tests.vectors import edwards, signatures

NET = fixtures.network()
ME, LIAR = fixtures.peer(0), fixtures.peer(1)
SECONDS = 5.0  # between readings


@dataclass
class Bench:
    """A node that reads the feed of one peer; `feed` returns the answers of that peer."""

    journal: Journal
    ledger: Ledger
    coordinator: Coordinator
    medium: MemoryNetwork
    mine: MemoryTransport
    stranger: MemoryTransport  # outside the roster, with the same feed
    requests: list[Any] = field(default_factory=list)
    network: str = NET.id
    greeted: int = 0
    acted: list[Effect] = field(default_factory=list)
    faults: int = 0  # store failures still to come
    feed: Callable[[Any], Any] = lambda request: nothing("f")
    lie: Callable[[list[str]], Awaitable[Document]] | None = None  # about envelopes
    shown: dict[str, Any] = field(default_factory=dict)  # what the feed has listed, by id
    asked: list[tuple[str, list[str]]] = field(default_factory=list)  # who, for which envelopes
    certified: dict[str, list[Certificate]] = field(default_factory=dict)  # by task
    certificates: dict[str, Document] = field(default_factory=dict)  # in place of the first
    requested_tasks: list[str] = field(default_factory=list)
    busy: bool = False
    feeds: FeedSync = field(init=False)
    reported: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.mine.report = lambda peer, action: self.reported.append(peer)  # type: ignore[method-assign]
        clock = self.coordinator.clock
        handshakes = Handshakes(
            self.mine, NET, clock, lambda: hello.request(NET.id, "0f" * 16, clock.now())
        )
        self.feeds = FeedSync(
            self.mine,
            self.coordinator,
            self.journal,
            self.ledger,
            SECONDS,
            self.act,
            str,
            handshakes,
            Selection(self.coordinator.network, ME, random.Random(2)),
            batch=self.coordinator.batch,
        )

    async def read(self) -> bool:
        """Read a page; return whether it was taken and there may be more."""
        return await self.feeds.read(LIAR) in (Progress.NEWS, Progress.USELESS)

    def act(self, step: Step) -> None:
        if self.faults:
            self.faults -= 1
            raise sqlite3.OperationalError("disk I/O error")
        self.acted += step()

    async def add_member(self, index: int) -> None:
        """Connect another member with the same feed."""
        other = MemoryTransport(self.medium, fixtures.peer(index))
        protocols = [rpc_codec.protocol_id(name) for name in rpc_codec.REQUESTS]
        await other.start(Recorder(partial(self.serve, other.peer)), (), protocols)
        await self.mine.dial(other.addresses[0])

    async def page(self, request: Any) -> Document:
        page = self.feed(request)
        if request["wait"] and not page["envelopes"] and page["cursor"] == request["cursor"]:
            await asyncio.sleep(request["wait"])
            page = self.feed(request)
        shown = {document_hash("envelope", document): document for document in page["envelopes"]}
        self.shown |= shown
        return {"feed": page["feed"], "cursor": page["cursor"], "ids": list(shown)}

    async def truth(self, ids: list[str]) -> Document:
        return {"envelopes": [self.shown[id_] for id_ in ids], "gone": []}

    async def serve(self, owner: str, protocol: str, stream: Stream) -> None:
        name = protocol.rpartition("/")[2]
        request = await read_document(stream, f"{name}-request")
        if name == "feed":
            self.requests.append(request)
            await answer(stream, await self.page(request))
            return
        if name == "envelopes":
            ids = request["ids"]
            self.asked.append((owner, ids))
            await answer(stream, await (self.lie or self.truth)(ids))
            return
        if name == "task":
            self.requested_tasks.append(request["task"])
            if self.busy:
                await refuse(stream, Status.BUSY, "busy", "later")
                return
            await answer(stream, self.task_answer(request["task"]))
            return
        self.greeted += 1
        await answer(stream, fixtures.hello_answer(self.network))

    def task_answer(self, task: str) -> Document:
        """As `node.rpc.server`: the first certificate, and the envelopes of all."""
        certificates = self.certified.get(task, [])
        votes = [
            vote.envelope.document() for certificate in certificates for vote in certificate.votes
        ]
        tasks = [certificate.task.envelope.document() for certificate in certificates[:1]]
        first = self.certificates.get(task) or (certificates[0].document if certificates else None)
        envelopes: list[Any] = [*tasks, *votes]
        return {"state": "agreed", "attempt": 0, "envelopes": envelopes, "certificate": first}


def batch(feed: str, cursor: int, *contents: Any) -> Any:
    """A page with the ids of messages, or of documents of any kind, and these themselves."""
    documents = [f.envelope.document() if hasattr(f, "envelope") else f for f in contents]
    return {"feed": feed, "cursor": cursor, "envelopes": documents}


def nothing(feed: str, cursor: int = 0) -> Any:
    return batch(feed, cursor)


@asynccontextmanager
async def reading(max_open: int = 1000) -> AsyncIterator[Bench]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    clock = virtual_loop.VirtualClock(asyncio.get_running_loop(), fixtures.START)
    dice = random.Random(1)
    medium = MemoryNetwork(dice)
    database = Database(connection, NET.id)
    journal, ledger = Journal(database), Ledger(database)
    coordinator = Coordinator(
        NET, fixtures.key(0), journal, ledger, clock, dice.randbytes, max_open
    )
    mine, other = MemoryTransport(medium, ME), MemoryTransport(medium, LIAR)
    stranger = MemoryTransport(medium, fixtures.peer(1001))
    bench = Bench(journal, ledger, coordinator, medium, mine, stranger)
    await mine.start(Recorder(), (), ())
    protocols = [rpc_codec.protocol_id(name) for name in rpc_codec.REQUESTS]
    for peer in (other, stranger):
        await peer.start(Recorder(partial(bench.serve, peer.peer)), (), protocols)
        await mine.dial(peer.addresses[0])
    try:
        yield bench
    finally:
        bench.feeds.close()
        await mine.stop()
        await other.stop()
        await stranger.stop()
        connection.close()


def on_bench(test: Callable[[Bench], Awaitable[None]], max_open: int = 1000) -> None:
    async def main() -> None:
        async with reading(max_open) as bench:
            await test(bench)

    virtual_loop.run(main)


def votes(task: Task, count: int = 2) -> list[Any]:
    return [fixtures.abstain(NET, task, peer) for peer in committees(NET, task)[0][:count]]


# What an honest feed gives


def test_nodes_agree_by_feeds_alone() -> None:
    async def main() -> None:
        weather = Conditions(Link(loss=1.0))
        async with run_network(1, fixtures.network(), weather) as world, world.client() as client:
            task = await client.submit("text-to-music", fixtures.args())
            await asyncio.sleep(120)
            assert {i.state(task.id) for i in world.nodes} == {State.AGREED}
            feeds = [set(accepted(i.journal)) for i in world.nodes]
            assert all(feed == feeds[0] for feed in feeds), "they converge on all of it"

    virtual_loop.run(main)


def test_feed_is_read_to_the_end_and_its_cursor_stored() -> None:
    async def test(bench: Bench) -> None:
        task = fixtures.task(NET)
        messages = [task, *votes(task)]

        def feed(request: Any) -> Any:
            at = request["cursor"] if request["feed"] == "f" else 0
            return batch("f", min(at + 2, 3), *messages[at : at + 2])

        bench.feed = feed
        assert await bench.read()
        assert bench.ledger.cursor(LIAR) == ("f", 2)
        assert await bench.read()
        assert not await bench.read()
        assert bench.ledger.cursor(LIAR) == ("f", 3)
        assert [(r["feed"], r["cursor"]) for r in bench.requests] == [("", 0), ("f", 2), ("f", 3)]
        assert {r["limit"] for r in bench.requests} == {MAX_PAGE_IDS}
        kept = accepted(bench.journal)
        assert kept == [message.envelope.encode() for message in messages]
        assert bench.acted

    on_bench(test)


def test_new_feed_id_restarts_at_zero() -> None:
    """The peer lost its store: what it gives now has cursors of its own."""

    async def test(bench: Bench) -> None:
        bench.ledger.put_cursor(LIAR, "old", 500)
        bench.feed = lambda request: batch("new", 1, fixtures.task(NET))
        assert await bench.read()
        assert bench.ledger.cursor(LIAR) == ("new", 1)
        bench.feed = lambda request: nothing("newer")
        assert not await bench.read()

    on_bench(test)


def test_known_envelopes_are_skipped() -> None:
    async def test(bench: Bench) -> None:
        task = fixtures.task(NET)
        for cursor in (2, 4):
            bench.feed = lambda request, cursor=cursor: batch(  # type: ignore[misc]
                "f", cursor, task, *votes(task, 1)
            )
            assert await bench.read()
        assert len(bench.journal.feed(0, 10)) == 2
        assert bench.ledger.cursor(LIAR) == ("f", 4)

    on_bench(test)


def test_expired_envelopes_are_skipped() -> None:
    async def test(bench: Bench) -> None:
        late = fixtures.task(NET, now=fixtures.START - 1000, deadline=60)
        good = fixtures.task(NET)
        bench.feed = lambda request: batch("f", 4, late, *votes(late), good)
        assert await bench.read()
        assert accepted(bench.journal) == [good.envelope.encode()]

    on_bench(test)


def test_task_ahead_of_the_clock_is_requested_again() -> None:
    """Clocks differ: what comes too early for this one is not lost."""

    async def test(bench: Bench) -> None:
        task = fixtures.task(NET, now=fixtures.START + 70)
        bench.feed = lambda request: batch("f", 3, task, *votes(task))
        assert not await bench.read()
        assert bench.ledger.cursor(LIAR) == ("", 0)
        await asyncio.sleep(15)
        assert await bench.read()
        assert len(bench.journal.feed(0, 10)) == 3

    on_bench(test)


def test_full_node_requests_the_envelope_again() -> None:
    async def test(bench: Bench) -> None:
        first, second = (fixtures.task(NET, nonce=n, deadline=60 + n) for n in (0, 1))
        bench.feed = lambda request: batch("f", 2, first, second)
        assert not await bench.read()
        assert bench.ledger.cursor(LIAR) == ("", 0)
        assert len(bench.journal.feed(0, 10)) == 1

    on_bench(test, max_open=1)


def test_own_feed_has_a_task_before_its_votes_and_its_withdrawal() -> None:
    """Whatever the order in which a peer shows them (specification 7.9)."""

    async def test(bench: Bench) -> None:
        task = fixtures.task(NET)
        withdrawal, (first, second) = fixtures.withdraw(NET, task), votes(task)
        bench.feed = paged([withdrawal, first, task, second])
        await bench.feeds.read_to_end(LIAR)
        in_order = (task, second, withdrawal, first)
        expected = [message.envelope.encode() for message in in_order]
        assert accepted(bench.journal)[:4] == expected
        assert bench.reported == []
        assert bench.ledger.cursor(LIAR) == ("f", 1)

    on_bench(test)


def test_a_withdrawal_of_an_expired_task_is_skipped() -> None:
    async def test(bench: Bench) -> None:
        late = fixtures.task(NET, now=fixtures.START - 1000, deadline=60)
        bench.feed = lambda request: batch("f", 2, late, fixtures.withdraw(NET, late))
        assert await bench.read()
        assert bench.reported == []
        assert bench.journal.feed(0, 10) == []

    on_bench(test)


def test_votes_count_whoever_brings_them() -> None:
    """The signer of an envelope counts, not the peer that brought it (specification 2.4)."""

    async def test(bench: Bench) -> None:
        task = fixtures.task(NET)
        commits = {
            peer: fixtures.commitment_of(task, peer, fixtures.outcome())
            for peer in committees(NET, task)[0][:2]
        }
        reveals = [fixtures.reveal(NET, task, peer, commits) for peer in commits]
        bench.feed = paged([task, *reveals])
        await bench.feeds.read_to_end(bench.stranger.peer)
        assert len(bench.ledger.certificates(task.id)) == 1
        assert bench.stranger.peer not in NET.roster

    on_bench(test)


def test_a_peer_that_serves_only_hello_is_left_alone() -> None:
    """A peer must serve no more (specification 7.1)."""

    async def test(bench: Bench) -> None:
        await bench.stranger.stop()
        modest = MemoryTransport(bench.medium, bench.stranger.peer)
        serve = partial(bench.serve, modest.peer)
        await modest.start(Recorder(serve), (), [rpc_codec.protocol_id("hello")])
        await bench.mine.dial(modest.addresses[0])
        bench.feeds.connected(modest.peer)
        await asyncio.sleep(HELLO_SECONDS - SECONDS)
        assert (bench.greeted, bench.requests, bench.reported) == (1, [], [])
        assert modest.peer in bench.mine.peers()
        await modest.stop()

    on_bench(test)


# What a lying feed gives


def garbage() -> dict[str, Any]:
    task = fixtures.task(NET)
    good: dict[str, Any] = dict(task.envelope.document())
    other_network = fixtures.network(3)
    body = messages.commit_body(NET.id, task.id, 0, "0" * 64)
    return {
        "empty": {},
        "no envelope": {"what": "ever"},
        "bad signature": {**good, "signature": good["signature"][:-8] + "AAAAAAAA"},
        "another network": fixtures.task(other_network),
        "not a member": fixtures.signed(NET, body, 1001),
        "withdrawal by another": fixtures.withdraw(NET, task, requester=1001),
        "unknown model": fixtures.task(NET, model="nobody/knows"),
        "deep": {"body": {"a": [[[[[[[[[[[[]]]]]]]]]]]]}},
        "nameless": {"body": {"type": "commit"}, "signer": LIAR, "signature": "AA"},
    }


@pytest.mark.parametrize("name", garbage())
def test_invalid_envelope_is_a_violation_and_not_stored(name: str) -> None:
    async def test(bench: Bench) -> None:
        task = fixtures.task(NET)
        bench.feed = lambda request: batch("f", 2, task, garbage()[name])
        with pytest.raises(ProtocolViolation):
            await bench.read()
        assert bench.ledger.cursor(LIAR) == ("", 0)
        assert len(bench.journal.feed(0, 10)) == 1, "what was good before it is kept"
        newer = name in ("empty", "no envelope", "nameless", "deep")  # invalid fields
        assert bench.reported == ([] if newer else [LIAR])

    on_bench(test)


@pytest.mark.parametrize("full_after", [0, 1])
def test_what_a_full_database_cannot_take_is_read_again_when_there_is_space(
    full_after: int,
) -> None:
    async def test(bench: Bench) -> None:
        tasks = [fixtures.task(NET, nonce=nonce, prompt="p" * 4000) for nonce in range(2)]
        bench.feed = lambda request: (
            batch("f", 2, *tasks) if not request["cursor"] else nothing("f", 2)
        )
        for task in tasks[:full_after]:
            bench.act(partial(bench.coordinator.receive, task))
        connection = bench.journal._db
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(sqlite3.OperationalError, match="database or disk is full"):
            await bench.read()
        assert bench.ledger.cursor(LIAR) == ("", 0)
        assert "is full: free space" in str(bench.journal.fault)
        connection.execute("PRAGMA max_page_count = 1000000")
        assert await bench.read()
        assert bench.ledger.cursor(LIAR) == ("f", 2)
        kept = set(accepted(bench.journal))
        assert kept >= {task.envelope.encode() for task in tasks}
        assert bench.journal.fault is None

    on_bench(test)


def test_cursor_that_goes_backwards_is_a_violation() -> None:
    async def test(bench: Bench) -> None:
        bench.ledger.put_cursor(LIAR, "f", 9)
        for batch_messages in ((), (fixtures.task(NET),)):
            bench.feed = lambda request, sent=batch_messages: batch("f", 8, *sent)  # type: ignore[misc]
            with pytest.raises(ProtocolViolation, match="backwards"):
                await bench.read()
        assert bench.ledger.cursor(LIAR) == ("f", 9)
        assert bench.journal.feed(0, 10) == []
        assert bench.reported == [LIAR] * 2

    on_bench(test)


def test_envelopes_without_a_new_cursor_are_a_violation() -> None:
    async def test(bench: Bench) -> None:
        bench.ledger.put_cursor(LIAR, "f", 9)
        bench.feed = lambda request: batch("f", 9, fixtures.task(NET))
        with pytest.raises(ProtocolViolation, match="without a new cursor"):
            await bench.read()
        assert bench.reported == [LIAR]
        assert bench.journal.feed(0, 10) == []

    on_bench(test)


@pytest.mark.parametrize("feed", ["f", "another"])
def test_envelopes_of_a_new_feed_at_cursor_zero_are_a_violation(feed: str) -> None:
    async def test(bench: Bench) -> None:
        bench.ledger.put_cursor(LIAR, "f", 0)
        bench.feed = lambda request: batch(feed, 0, fixtures.task(NET))
        with pytest.raises(ProtocolViolation, match="without a new cursor"):
            await bench.read()
        assert bench.journal.feed(0, 10) == []

    on_bench(test)


def test_an_empty_page_that_advances_the_cursor_is_not_the_end() -> None:
    """A node of another implementation may leave envelopes out of its feed."""

    async def test(bench: Bench) -> None:
        task = fixtures.task(NET)
        bench.feed = paged([task], [], [], votes(task, 1))
        await bench.feeds.read_to_end(LIAR)
        assert bench.ledger.cursor(LIAR) == ("f", 4)
        assert len(bench.journal.feed(0, 10)) == 2
        assert [request["cursor"] for request in bench.requests] == [0, 1, 2, 3, 4]

    on_bench(test)


def test_endless_empty_pages_are_paused() -> None:
    async def test(bench: Bench) -> None:
        bench.feed = lambda request: nothing("f", request["cursor"] + 1)
        bench.feeds.connected(LIAR)
        await asyncio.sleep(SECONDS - 1)
        assert len(bench.requests) == MAX_USELESS_PAGES

    on_bench(test)


# What a peer answers that is asked for envelopes


def listing(*messages: Any) -> Callable[[Any], Any]:
    """A feed of one page."""
    return paged(messages)


@pytest.mark.parametrize(
    ("lie", "why"),
    [
        ("nothing", "neither gives"),
        ("another envelope", "another id"),
        ("another signature", "another id"),
        ("the second of two", "another id"),
        ("too many", "more envelopes"),
        ("what was not asked for is gone", "not requested"),
    ],
)
def test_a_lie_about_what_a_feed_listed_is_a_violation(lie: str, why: str) -> None:
    async def test(bench: Bench) -> None:
        tasks = [fixtures.task(NET, nonce=n) for n in range(3)]
        documents = [task.envelope.document() for task in tasks]
        doubled: Any = fixtures.signed(NET, tasks[0].envelope.body, 1000).envelope.document()
        signature = "A" * 85 + "Q"
        lies: dict[str, Any] = {
            "nothing": {"envelopes": [], "gone": []},
            "another envelope": {"envelopes": documents[2:], "gone": []},
            "another signature": {"envelopes": [{**doubled, "signature": signature}], "gone": []},
            "the second of two": {"envelopes": documents[1:2], "gone": []},
            "too many": {"envelopes": documents, "gone": []},
            "what was not asked for is gone": {"envelopes": [], "gone": ["0" * 64]},
        }
        why_here = "bad-signature|signature" if lie == "another signature" else why

        async def answer_falsely(ids: list[str]) -> Document:
            return dict(lies[lie])

        bench.feed, bench.lie = listing(*tasks[:2]), answer_falsely
        with pytest.raises(ProtocolViolation, match=why_here):
            await bench.read()
        assert bench.reported == [LIAR]
        assert bench.ledger.cursor(LIAR) == ("", 0)
        assert bench.journal.feed(0, 10) == []
        bench.lie = None
        assert await bench.read()
        assert len(bench.journal.feed(0, 10)) == 2

    on_bench(test)


@pytest.mark.parametrize(
    "page",
    [
        {"ids": ["x" * 64]},
        {"ids": ["A" * 64]},
        {"ids": ["a" * 63]},
        {"ids": [7]},
        {"ids": ["a" * 64] * 2},
        {"ids": [f"{n:064x}" for n in range(1025)]},
        {"ids": [], "envelopes": []},
        {"cursor": -1},
        {"cursor": 1.5},
        {"cursor": "1"},
        {"feed": ""},
    ],
)
def test_a_page_of_another_form_is_a_violation(page: Any) -> None:
    """Not a report: a later version may have other pages (specification 9)."""

    async def test(bench: Bench) -> None:
        async def answer_with(request: Any) -> Document:
            return {"feed": "f", "cursor": 1, "ids": [], **page}

        bench.page = answer_with  # type: ignore[method-assign]
        with pytest.raises(ProtocolViolation):
            await bench.read()
        assert bench.ledger.cursor(LIAR) == ("", 0)
        assert bench.asked == []

    on_bench(test)


@pytest.mark.parametrize(
    "answer",
    [
        {"gone": ["0" * 64] * 2},
        {"gone": ["x" * 64]},
        {"gone": [f"{n:064x}" for n in range(129)]},
        {"envelopes": [{}] * 129},
        {"envelopes": [7]},
        {"envelopes": None},
    ],
)
def test_an_answer_of_another_form_is_a_violation(answer: Any) -> None:
    async def test(bench: Bench) -> None:
        async def answer_falsely(ids: list[str]) -> Document:
            return {"envelopes": [], "gone": [], **answer}

        bench.feed, bench.lie = listing(fixtures.task(NET)), answer_falsely
        with pytest.raises(ProtocolViolation):
            await bench.read()
        assert bench.ledger.cursor(LIAR) == ("", 0)

    on_bench(test)


def test_an_envelope_that_is_gone_is_read() -> None:
    async def test(bench: Bench) -> None:
        first, second = (fixtures.task(NET, nonce=n) for n in range(2))

        async def drop_first(ids: list[str]) -> Document:
            given = [bench.shown[i] for i in ids if i != first.envelope.id]
            return {"envelopes": given, "gone": [i for i in ids if i == first.envelope.id]}

        bench.feed, bench.lie = listing(first, second), drop_first
        assert await bench.read()
        assert bench.ledger.cursor(LIAR) == ("f", 1)
        assert accepted(bench.journal) == [second.envelope.encode()]
        assert bench.reported == []

    on_bench(test)


def test_an_answer_that_has_only_the_first_is_followed_by_another_request() -> None:
    async def test(bench: Bench) -> None:
        tasks = [fixtures.task(NET, nonce=n) for n in range(3)]

        async def one(ids: list[str]) -> Document:
            return await bench.truth(ids[:1])

        bench.feed, bench.lie = listing(*tasks), one
        assert await bench.read()
        ids = [task.envelope.id for task in tasks]
        assert [asked for _, asked in bench.asked] == [ids, ids[1:], ids[2:]]
        assert len(bench.journal.feed(0, 10)) == 3

    on_bench(test)


def test_no_request_has_more_ids_than_allowed() -> None:
    async def test(bench: Bench) -> None:
        tasks = [fixtures.task(NET, nonce=n) for n in range(MAX_IDS + 5)]
        bench.feed = listing(*tasks)
        assert await bench.read()
        assert [len(ids) for _, ids in bench.asked] == [MAX_IDS, 5]

    on_bench(test)


def test_a_page_is_looked_up_once_and_made_durable_in_few_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def test(bench: Bench) -> None:
        tasks = [fixtures.task(NET, nonce=n) for n in range(3 * MAX_IDS)]
        find, looks, steps = bench.journal.find, Counter[str](), list[int]()

        def counted(id_: str) -> tuple[str, str] | None:
            looks[id_] += 1
            return find(id_)

        monkeypatch.setattr(bench.journal, "find", counted)
        bench.journal.on_accepted.append(lambda ids: steps.append(len(ids)))
        bench.feed = listing(*tasks)
        assert await bench.read()
        assert len(accepted(bench.journal)) == len(tasks)
        # Before it is asked for, when it has been taken, and as a part of the page.
        assert max(looks.values()) <= 3
        assert set(steps) == {BATCH}

    on_bench(test)


def test_another_signature_of_a_known_body_is_asked_for_once() -> None:
    """A signer can make any number of them: each is another envelope (specification 2.4)."""

    async def test(bench: Bench) -> None:
        task = fixtures.task(NET)
        bench.coordinator.receive(task)
        again = resigned(task)
        bench.feed = listing(again)
        assert await bench.read()
        assert await bench.feeds.read(bench.stranger.peer) is Progress.USELESS
        assert [ids for _, ids in bench.asked] == [[again.envelope.id]]
        assert accepted(bench.journal) == [task.envelope.encode()]

    on_bench(test)


def resigned(task: Task) -> Any:
    """The same body with another valid signature, by a nonce of its own (RFC 8032, 5.1.6)."""
    body = b"helium/2/envelope\0" + task.envelope.body_bytes
    key = fixtures.key_of(task.envelope.signer)
    seed = bytearray(hashlib.sha512(key.private_bytes_raw()).digest()[:32])
    seed[0], seed[31] = seed[0] & 248, seed[31] & 127 | 64
    scalar, public = int.from_bytes(seed, "little"), key.public_key().public_bytes_raw()
    nonce = 2**200 + 1
    r = edwards.encode(edwards.times(nonce, edwards.BASE))
    raw = edwards.sign(scalar, public, body, r, nonce)
    document = {**task.envelope.document(), "signature": signatures.text_of(raw)}
    return codec.decode_document(document, NET.id)


# Whom a node asks


def test_an_envelope_is_asked_of_one_member_at_a_time() -> None:
    async def test(bench: Bench) -> None:
        await bench.add_member(2)
        task = fixtures.task(NET)
        bench.feed = listing(task)

        async def slowly(ids: list[str]) -> Document:
            await asyncio.sleep(CLAIM_SECONDS - 1)
            return await bench.truth(ids)

        bench.lie = slowly
        await asyncio.gather(bench.feeds.read(LIAR), bench.feeds.read(fixtures.peer(2)))
        assert [ids for _, ids in bench.asked] == [[task.envelope.id]]
        assert bench.ledger.cursor(LIAR) == bench.ledger.cursor(fixtures.peer(2)) == ("f", 1)

    on_bench(test)


@pytest.mark.parametrize("fails", ["denies", "stalls"])
def test_a_second_member_is_asked_once_the_first_has_failed(fails: str) -> None:
    async def test(bench: Bench) -> None:
        await bench.add_member(2)
        task, loop = fixtures.task(NET), asyncio.get_running_loop()
        bench.feed = listing(task)

        first_asked = asyncio.Event()

        async def fail_first(ids: list[str]) -> Document:
            first_asked.set()
            if len(bench.asked) > 1:
                return await bench.truth(ids)
            await asyncio.sleep(1e6 if fails == "stalls" else 0.1)
            return {"envelopes": [], "gone": []}

        bench.lie = fail_first
        began = loop.time()
        first = asyncio.create_task(bench.feeds.read(LIAR))
        await first_asked.wait()
        await bench.feeds.read(fixtures.peer(2))
        assert len(bench.journal.feed(0, 10)) == 1
        assert loop.time() - began < CLAIM_SECONDS + 1
        assert len({owner for owner, _ in bench.asked}) == 2
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)

    on_bench(test)


def test_a_stranger_that_stalls_holds_nothing_up() -> None:
    async def test(bench: Bench) -> None:
        bench.feed = listing(fixtures.task(NET))

        async def stall_stranger(ids: list[str]) -> Document:
            if bench.asked[-1][0] != LIAR:
                await asyncio.sleep(1e6)
            return await bench.truth(ids)

        bench.lie = stall_stranger
        stalled = asyncio.create_task(bench.feeds.read(bench.stranger.peer))
        await asyncio.sleep(0.5)
        began = asyncio.get_running_loop().time()
        assert await bench.read()
        assert asyncio.get_running_loop().time() - began < 1
        stalled.cancel()
        await asyncio.gather(stalled, return_exceptions=True)

    on_bench(test)


def test_a_vote_that_a_stranger_listed_without_its_task_is_not_lost() -> None:
    """What was judged without its task is judged again once the task is there."""

    async def test(bench: Bench) -> None:
        task = fixtures.task(NET)
        (vote,) = votes(task, 1)
        bench.feed = listing(vote)
        assert await bench.feeds.read(bench.stranger.peer) is Progress.USELESS
        bench.feed = listing(task, vote)
        assert await bench.read()
        assert accepted(bench.journal)[:2] == [m.envelope.encode() for m in (task, vote)]

    on_bench(test)


def test_an_expired_task_is_asked_of_one_peer_only() -> None:
    async def test(bench: Bench) -> None:
        await bench.add_member(2)
        late = fixtures.task(NET, now=fixtures.START - 1000, deadline=60)
        bench.feed = listing(late, *votes(late))
        assert await bench.read()
        assert await bench.feeds.read(fixtures.peer(2)) is Progress.USELESS
        assert [owner for owner, _ in bench.asked] == [LIAR]

    on_bench(test)


# Following


def test_one_request_a_minute_waits_at_the_end_of_a_feed() -> None:
    async def test(bench: Bench) -> None:
        bench.feeds.connected(LIAR)
        bench.feeds.connected(LIAR)  # once is enough
        await asyncio.sleep(3 * WAIT_SECONDS + 1)
        assert [request["wait"] for request in bench.requests] == [0] + [WAIT_SECONDS] * 4
        bench.feeds.disconnected(LIAR)
        bench.feeds.disconnected(LIAR)
        await asyncio.sleep(2 * WAIT_SECONDS)
        assert len(bench.requests) == 5
        bench.feeds.connected(LIAR)
        await asyncio.sleep(1)
        assert [request["wait"] for request in bench.requests[5:]] == [0, WAIT_SECONDS]

    on_bench(test)


def test_a_peer_that_does_not_wait_is_asked_at_a_bounded_rate() -> None:
    async def test(bench: Bench) -> None:
        async def at_once(request: Any) -> Document:
            return {"feed": "f", "cursor": 0, "ids": []}

        bench.page = at_once  # type: ignore[method-assign]
        bench.feeds.connected(LIAR)
        await asyncio.sleep(10 * SECONDS)
        assert 3 < len(bench.requests) <= 12

    on_bench(test)


def test_a_wait_that_never_ends_is_given_up() -> None:
    async def test(bench: Bench) -> None:
        async def never(request: Any) -> Document:
            await asyncio.sleep(0 if not request["wait"] else 1e6)
            return {"feed": "f", "cursor": 0, "ids": []}

        bench.page = never  # type: ignore[method-assign]
        bench.feeds.connected(LIAR)
        await asyncio.sleep(WAIT_SECONDS + ANSWER_SECONDS + SECONDS * FAILURE_BACKOFF + 1)
        assert [request["wait"] for request in bench.requests] == [0, 60, 60]

    on_bench(test)


def test_pages_without_news_are_asked_for_less_and_less_often() -> None:
    """What gossip brings first is listed all the same: one page has all of a few seconds."""

    async def test(bench: Bench) -> None:
        loop, times = asyncio.get_running_loop(), list[float]()
        task = fixtures.task(NET)
        bench.coordinator.receive(task)

        async def page(request: Any) -> Document:
            times.append(loop.time())
            if not request["wait"]:
                return {"feed": "f", "cursor": 0, "ids": []}
            return {"feed": "f", "cursor": request["cursor"] + 1, "ids": [task.envelope.id]}

        bench.page = page  # type: ignore[method-assign]
        bench.feeds.connected(LIAR)
        await asyncio.sleep(60)
        pauses = [later - sooner for sooner, later in pairwise(times)][1:]
        expected = [MIN_PAUSE_SECONDS, 1.0, 2.0, 4.0, SECONDS, SECONDS]
        assert pauses[:6] == pytest.approx(expected, abs=0.1)
        assert bench.asked == []

    on_bench(test)


def test_hello_is_said_again_from_time_to_time() -> None:
    async def test(bench: Bench) -> None:
        bench.feeds.connected(LIAR)
        await asyncio.sleep(HELLO_SECONDS - 1)
        assert bench.greeted == 1
        await asyncio.sleep(WAIT_SECONDS + 2)
        assert bench.greeted == 2

    on_bench(test)


def test_invalid_feed_is_read_less_often_until_it_is_valid() -> None:
    async def test(bench: Bench) -> None:
        bench.feed = lambda request: batch("f", 1, {})
        bench.feeds.connected(LIAR)
        await asyncio.sleep(SECONDS * FAILURE_BACKOFF - 1)
        assert len(bench.requests) == 1
        bench.feed = lambda request: (
            nothing("f", 1) if request["cursor"] else batch("f", 1, fixtures.task(NET))
        )
        await asyncio.sleep(2)
        assert len(bench.journal.feed(0, 10)) == 1

    on_bench(test)


def test_feed_of_another_network_is_not_read() -> None:
    async def test(bench: Bench) -> None:
        bench.network = "f" * 64
        bench.feeds.connected(LIAR)
        await asyncio.sleep(1000)
        assert not bench.requests

    on_bench(test)


def test_database_error_ends_one_read_only() -> None:
    async def test(bench: Bench) -> None:
        bench.faults = 1
        bench.feed = lambda request: (
            nothing("f", 1) if request["cursor"] else batch("f", 1, fixtures.task(NET))
        )
        bench.feeds.connected(LIAR)
        await asyncio.sleep(1)
        assert bench.ledger.cursor(LIAR) == ("", 0)
        await asyncio.sleep(SECONDS)
        assert bench.ledger.cursor(LIAR) == ("f", 1)

    on_bench(test)


def test_close_stops_all_readers() -> None:
    async def test(bench: Bench) -> None:
        bench.feeds.connected(LIAR)
        await asyncio.sleep(1)
        bench.feeds.close()
        await asyncio.sleep(100)
        assert len(bench.requests) == 2

    on_bench(test)


def test_endless_feed_of_known_envelopes_is_paused() -> None:
    """It costs its own answers, and the node goes on with everything else meanwhile."""

    async def test(bench: Bench) -> None:
        task = fixtures.task(NET)
        bench.feed = lambda request: batch("f", request["cursor"] + 1, task)
        bench.feeds.connected(LIAR)
        await asyncio.sleep(2)
        assert len(bench.journal.feed(0, 10)) == 1
        assert len(bench.requests) == MAX_USELESS_PAGES + 1, "then it has to wait its turn"
        assert [ids for _, ids in bench.asked] == [[task.envelope.id]]

    on_bench(test)


async def follow_for(bench: Bench, peer: str, minutes: int) -> None:
    """Follow a peer that connects anew every five seconds."""
    for _ in range(minutes * 12):
        bench.feeds.connected(peer)
        await asyncio.sleep(5)
        bench.feeds.disconnected(peer)


def test_useless_pages_of_a_peer_outside_the_roster_are_read_at_a_bounded_rate() -> None:
    """However often it connects, and nothing of it is stored."""
    stranger = fixtures.peer(1001)

    async def test(bench: Bench) -> None:
        task = fixtures.task(NET)
        bench.coordinator.receive(task)
        bench.feed = lambda request: batch("f", request["cursor"] + 1, task)
        await follow_for(bench, stranger, 10)
        allowed = USELESS_PER_SECOND * (600 + USELESS_BURST_SECONDS)
        assert len(bench.requests) * PAGE_COST <= allowed + 2 * PAGE_COST
        assert bench.ledger.cursor(stranger) == ("", 0)
        assert bench.asked == []

    on_bench(test)


def test_useless_envelopes_of_a_peer_outside_the_roster_are_judged_at_a_bounded_rate() -> None:
    stranger = fixtures.peer(1001)

    async def test(bench: Bench) -> None:
        start = fixtures.START - 1000

        def feed(request: Any) -> Any:
            first = 64 * request["cursor"]
            late = [fixtures.task(NET, now=start, deadline=60, nonce=first + n) for n in range(64)]
            return batch("f", request["cursor"] + 1, *late)

        bench.feed = feed
        await follow_for(bench, stranger, 2)
        judged = sum(len(ids) for _, ids in bench.asked)
        assert judged <= USELESS_PER_SECOND * (120 + USELESS_BURST_SECONDS) + MAX_PAGE_IDS
        assert judged >= 64 * 20, "the burst"

    on_bench(test)


# What a feed alone cannot show


def contradiction(task: Task, *labels: str) -> list[Any]:
    """A member that reveals several outcomes."""
    member = committees(NET, task)[0][0]
    return [revealed(task, member, label, (member,)) for label in labels]


def revealed(task: Task, member: str, label: str, seen: Sequence[str]) -> Any:
    outcome = fixtures.outcome(label)
    commits = {peer: fixtures.commitment_of(task, peer, outcome) for peer in seen}
    return fixtures.reveal(NET, task, member, commits, outcome)


def certified(task: Task, label: str) -> Certificate:
    signers = committees(NET, task)[0][:2]
    votes = [revealed(task, member, label, signers) for member in signers]
    return certificate.assemble(task, 0, votes, NET)


def paged(*pages: Sequence[Any]) -> Callable[[Any], Any]:
    """A feed that gives one page after the other."""

    def feed(request: Any) -> Any:
        cursor = request["cursor"]
        return (
            batch("f", cursor + 1, *pages[cursor]) if cursor < len(pages) else nothing("f", cursor)
        )

    return feed


def test_equivocation_makes_the_node_request_certificates() -> None:
    async def test(bench: Bench) -> None:
        task, other = fixtures.task(NET), fixtures.task(NET, nonce=1)
        lies, certificate = contradiction(task, "a", "b", "c"), certified(task, "c")
        bench.certified[task.id] = []
        pages = [task, other, *contradiction(other, "a")], lies[:2], [abstention(task)], [lies[2]]
        bench.feed = paged(*pages)
        assert await bench.read()
        assert bench.requested_tasks == [], "nobody contradicted itself yet"
        for seen in ([task.id], [task.id], [task.id] * 2):
            assert await bench.read()
            assert bench.requested_tasks == seen, "once for a page with a reveal"
        bench.feed = paged(*pages, lies[:1])
        assert await bench.read()
        assert bench.requested_tasks == [task.id] * 2, "once for each reveal"
        bench.certified[task.id] = [certificate]
        signers = committees(NET, task)[0][:2]
        another = revealed(task, signers[1], "c", signers)
        bench.feed = paged(*pages, lies[:1], [another])
        assert await bench.read()
        assert bench.ledger.certificates(task.id) == [certificate.document]
        assert bench.acted[-1] == StateChanged(task.id)
        assert bench.ledger.cursor(LIAR) == ("f", 6)

    on_bench(test)


def test_peer_outside_the_roster_is_not_asked_about_a_task() -> None:
    """Its answer could hold a MiB of votes that it signed itself."""

    async def test(bench: Bench) -> None:
        task = fixtures.task(NET)
        bench.coordinator.receive(task)
        bench.feed = paged(contradiction(task, "a", "b"))
        await bench.feeds.read_to_end(fixtures.peer(1001))
        assert bench.ledger.evidence() != []
        assert bench.requested_tasks == []

    on_bench(test)


def test_conflicting_certificates_are_both_stored() -> None:
    async def test(bench: Bench) -> None:
        task = fixtures.task(NET)
        bench.coordinator.receive(task)
        lies = contradiction(task, "a", "b", "c", "d")
        bench.certified[task.id] = [certified(task, "c"), certified(task, "d")]
        bench.feed = paged(lies, lies)
        await bench.feeds.read_to_end(LIAR)
        assert len(bench.ledger.certificates(task.id)) == 2
        assert bench.requested_tasks == [task.id]

    on_bench(test)


def abstention(task: Task) -> Any:
    return fixtures.abstain(NET, task, committees(NET, task)[0][1])


@pytest.mark.parametrize("lie", ["forged", "of another task"])
def test_invalid_certificate_is_ignored(lie: str) -> None:
    async def test(bench: Bench) -> None:
        task, other = fixtures.task(NET), fixtures.task(NET, nonce=1)
        for known in (task, other):
            bench.coordinator.receive(known)
        bench.feed = paged(contradiction(task, "a", "b"))
        good: Any = certified(task, "c").document
        bad = {"forged": {**good, "attempt": 1}, "of another task": certified(other, "c").document}
        bench.certificates[task.id] = bad[lie]
        await bench.feeds.read_to_end(LIAR)
        assert bench.requested_tasks == [task.id]
        assert not bench.ledger.certificates(task.id)
        assert not bench.ledger.certificates(other.id)
        assert bench.ledger.cursor(LIAR) == ("f", 1), "what else it tells is of use"

    on_bench(test)


def test_busy_peer_is_asked_again_later() -> None:
    async def test(bench: Bench) -> None:
        task = fixtures.task(NET)
        bench.coordinator.receive(task)
        bench.feed = paged(contradiction(task, "a", "b"))
        bench.busy, bench.certified[task.id] = True, [certified(task, "c")]
        with pytest.raises(ConnectionError, match=task.id):
            await bench.feeds.read_to_end(LIAR)
        assert bench.ledger.cursor(LIAR) == ("", 0)
        bench.busy = False
        await bench.feeds.read_to_end(LIAR)
        assert len(bench.ledger.certificates(task.id)) == 1

    on_bench(test)


def test_task_requests_are_paced() -> None:
    """An answer may be long, and full of signatures: nobody is to keep a node busy with them."""

    async def test(bench: Bench) -> None:
        tasks = [fixtures.task(NET, nonce=n) for n in range(20)]
        for task in tasks:
            bench.coordinator.receive(task)
            bench.certified[task.id] = []
        bench.feed = paged([vote for task in tasks for vote in contradiction(task, "a", "b")])
        began = asyncio.get_running_loop().time()
        await bench.feeds.read_to_end(LIAR)
        assert len(bench.requested_tasks) == 20
        assert asyncio.get_running_loop().time() - began >= 20 * PAUSE_SECONDS

    on_bench(test)


def test_feed_of_a_newer_version_is_not_reported() -> None:
    async def test(bench: Bench) -> None:
        body: Any = fixtures.task(NET).envelope.document()["body"]
        for changes in ({"kind": "text-to-film"}, {"colour": "blue"}):
            newer = sign({**body, **changes}, fixtures.key(1000)).document()
            bench.feed = lambda request, newer=newer: batch("f", 1, newer)  # type: ignore[misc]
            with pytest.raises(ProtocolViolation):
                await bench.read()
        assert bench.reported == []

    on_bench(test)


def test_late_early_or_refused_feed_is_not_reported() -> None:
    async def test(bench: Bench) -> None:
        late, ahead = (fixtures.task(NET, now=fixtures.START + by) for by in (-7200, 7200))
        bench.feed = lambda request: batch("f", 2, late, ahead)
        assert not await bench.read()
        assert bench.reported == []

    on_bench(test)


def test_tasks_in_a_feed_are_charged_to_its_peer() -> None:
    async def test(bench: Bench) -> None:
        task = fixtures.task(NET)
        bench.feed = lambda request: batch("f", 1, task)
        await bench.read()
        assert bench.coordinator._tasks._sources == {task.id: LIAR}

    on_bench(test)
