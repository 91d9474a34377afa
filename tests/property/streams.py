"""Parsers of streams and gossip: frames, requests, responses, feeds, blobs and messages."""

import asyncio
import contextlib
import hashlib
import random
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

import schemas
from executor.worker.messages import KINDS, decode_message, encode_message
from node.admission.peer_score import PeerAction
from node.admission.request_limits import RequestLimiter
from node.admission.task_policy import TaskPolicy
from node.config.limits import Limits
from node.consensus.coordinator import Coordinator
from node.consensus.task_events import TaskEvents
from node.errors import Busy
from node.rpc import client as rpc_client
from node.rpc import codec as rpc_codec
from node.rpc.client import RequestRefused
from node.rpc.codec import ProtocolViolation
from node.rpc.framing import FrameTooLarge, MalformedFrame, encode_length, read_frame, write_frame
from node.rpc.hello import Greeter, ServingStatus
from node.rpc.server import RequestHandler
from node.storage.blobs import BlobStore
from node.storage.database import Database
from node.storage.journal import Journal
from node.storage.ledger import Ledger
from node.sync.blob_download import BlobDownloader, BlobUnavailable
from node.sync.feeds.feed_sync import FeedSync, Progress
from node.sync.feeds.selection import Selection
from node.sync.handshakes import Handshakes
from node.transport.interface import StreamClosed, ValidationResult
from protocol.constants import DOCUMENT_LIMIT
from protocol.errors import Rejected
from protocol.manifest import CHUNK_BYTES, Blob
from protocol.wire import codec
from protocol.wire.encoding import Document, canonical, document_hash
from tests.property import envelopes, strategies
from tests.property.envelopes import NET, TASK
from tests.property.parsers import Parser
from tests.schemas.examples import documents
from tests.support import fixtures
from tests.support.clock import ManualClock
from tests.support.journals import accepted
from tests.support.memory_transport.pipes import MemoryConnection

CLOCK = ManualClock(fixtures.START + 1)
# Bytes of a frame in the frame parser.
LIMIT = 4096
REQUESTS = [f"{name}-request" for name in rpc_codec.REQUESTS]
ANSWERS = [f"{name}-answer" for name in rpc_codec.REQUESTS if name != "watch"]
READ = (*REQUESTS, *ANSWERS, "watch-frame", "failure")


class Wire:
    """A stream that delivers `inbound` and then ends. It records what is written."""

    peer = rate_limit_key = fixtures.peer(1001)
    connection = MemoryConnection()

    def __init__(self, inbound: bytes) -> None:
        self.inbound, self.position, self.outbound, self.resets = inbound, 0, b"", 0

    async def read_exactly(self, n: int) -> bytes:
        piece = self.inbound[self.position : self.position + n]
        self.position += len(piece)
        if len(piece) < n:
            raise StreamClosed("end of stream")
        return piece

    async def write(self, payload: bytes) -> None:
        self.outbound += payload

    async def close_write(self) -> None: ...

    async def close(self) -> None: ...

    async def reset(self) -> None:
        self.resets += 1

    async def wait_closed(self) -> None:
        await asyncio.Event().wait()


class Line:
    """A transport on which every peer answers `inbound`."""

    def __init__(self, inbound: bytes) -> None:
        self._inbound = inbound

    async def open(self, peer: str, protocol: str, *_: object, **__: object) -> Wire:
        return Wire(self._inbound)

    def report(self, peer: str, action: PeerAction) -> None:
        return


class Over(asyncio.Event):
    """An event that ends the stream instead of waiting."""

    async def wait(self) -> bool:  # type: ignore[override]
        raise StreamClosed("no more changes")


class EventsThatEnd(TaskEvents):
    """Task events of a node on which nothing changes any more."""

    def next_change(self, task: str) -> asyncio.Event:
        return Over()


SONG = b"a stored song"
SONG_HASH = hashlib.sha256(SONG).hexdigest()


# As a feed has them: each task before its votes.
FEED: tuple[Any, ...] = tuple(
    sorted(envelopes.ENVELOPES, key=lambda e: e["body"]["type"] != "task")
)


def _documents() -> dict[str, Document]:
    valid: dict[str, Document] = {name: documents()[name] for name in READ}
    valid["submit-request"] = {"task": TASK.envelope.document(), "blobs": []}
    valid["blob-request"] = {"sha256": SONG_HASH, "offset": 1}
    valid["feed-request"] = {"feed": "f", "cursor": 0, "limit": 7, "wait": 0}
    valid["task-request"] = valid["watch-request"] = {"task": TASK.id}
    ids = tuple(document_hash("envelope", envelope) for envelope in FEED)
    valid["feed-answer"] = {"feed": "f", "cursor": 9, "ids": ids}
    valid["envelopes-request"] = {"ids": (TASK.envelope.id, "0" * 64)}
    valid["envelopes-answer"] = {"envelopes": FEED, "gone": ()}
    return valid


VALID = _documents()
SENT: Document = {"task": envelopes.PIANO.envelope.document(), "blobs": (4, 8)}


@contextlib.contextmanager
def node() -> Iterator[tuple[Coordinator, Journal, Ledger]]:
    """A member that has accepted one task."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    database = Database(connection, NET.id)
    journal, ledger = Journal(database), Ledger(database)
    coordinator = Coordinator(
        NET, fixtures.key(0), journal, ledger, CLOCK, random.Random(1).randbytes
    )
    coordinator.receive(TASK)
    try:
        yield coordinator, journal, ledger
    finally:
        connection.close()


@st.composite
def framed(draw: st.DrawFn, payloads: st.SearchStrategy[bytes]) -> bytes:
    """Draw a frame, sometimes with a wrong length."""
    payload = draw(payloads)
    length = encode_length(len(payload))
    if draw(st.integers(0, 9)) == 0:
        length = draw(strategies.edited(length, 1))
    return length + payload


def prefixed(first: bytes, rest: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Draw these bytes and then a drawn rest."""
    return rest.map(lambda content: first + content)


def _number(content: bytes) -> int:
    """Return the first byte, which selects a protocol."""
    return content[0] if content else 0


# Frames


SIZES = st.sampled_from((0, 1, 127, 128, 300, LIMIT, LIMIT + 1, 16_384))
frame_inputs = framed(SIZES.map(bytes)) | framed(SIZES.map(bytes)).flatmap(
    lambda frame: strategies.edited(frame, 1)
)


def check_frame(content: bytes) -> None:
    stream = Wire(content)
    try:
        payload = asyncio.run(read_frame(stream, LIMIT))
    except (FrameTooLarge, MalformedFrame):
        assert stream.position <= 5, "more than the length was read"
        raise
    assert len(payload) <= LIMIT
    again = Wire(b"")
    asyncio.run(write_frame(again, payload))
    assert again.outbound == content[: stream.position]


# Requests and answers


def _near_or_from_schema(name: str) -> st.SearchStrategy[bytes]:
    return strategies.near([VALID[name]]) | strategies.encoded(strategies.from_schema(name))


# The index of a document, and a frame of it.
document_inputs = st.integers(0, len(READ) - 1).flatmap(
    lambda index: prefixed(bytes((index,)), framed(_near_or_from_schema(READ[index])))
)


def check_document(content: bytes) -> None:
    name, stream = READ[_number(content) % len(READ)], Wire(content[1:])
    document = asyncio.run(rpc_codec.read_document(stream, name))
    schemas.check(name, document)
    again = canonical(document)
    assert len(again) <= 6 * DOCUMENT_LIMIT
    stream = Wire(encode_length(len(again)) + again)
    if len(again) <= DOCUMENT_LIMIT:
        assert asyncio.run(rpc_codec.read_document(stream, name)) == document


def _answers(index: int, status: int) -> st.SearchStrategy[bytes]:
    name = ANSWERS[index] if status == 0 else "failure"
    return prefixed(bytes((index, status)), framed(_near_or_from_schema(name)))


# The index of a protocol, a status, and the document that belongs to it.
answer_inputs = st.tuples(
    st.integers(0, len(ANSWERS) - 1), st.sampled_from((0, 0, 0, 1, 2, 3, 4, 5, 255))
).flatmap(lambda pair: _answers(*pair))


def check_answer(content: bytes) -> None:
    name = ANSWERS[_number(content) % len(ANSWERS)]
    answer = asyncio.run(rpc_client.read_answer(Wire(content[1:]), name.removesuffix("-answer")))
    schemas.check(name, answer)


def _requests(index: int) -> st.SearchStrategy[bytes]:
    name = REQUESTS[index]
    requests = framed(st.just(canonical(VALID[name])) | _near_or_from_schema(name))
    if name == "submit-request":
        submissions = framed(st.just(canonical(SENT)) | strategies.near([SENT]))
        blobs = st.sampled_from((b"songsong two", b"songsong tw", b"")) | strategies.noise
        requests |= st.tuples(submissions, blobs).map(b"".join)
    return prefixed(bytes((index,)), requests)


# The index of a protocol, and all bytes of its request.
request_inputs = st.integers(0, len(REQUESTS) - 1).flatmap(_requests)


def check_request(content: bytes) -> None:
    """Every request gets one well-formed answer, or its stream is reset."""
    name, stream = rpc_codec.REQUESTS[_number(content) % len(rpc_codec.REQUESTS)], Wire(content[1:])
    with node() as (coordinator, journal, _), tempfile.TemporaryDirectory() as folder:
        blobs = BlobStore(Path(folder) / "blobs")
        (Path(folder) / "song").write_bytes(SONG)
        blobs.import_file(Path(folder) / "song", SONG_HASH)
        request_limiter = RequestLimiter(
            TaskPolicy(frozenset(), 0, CLOCK.now), Limits(), (), CLOCK.now, Counter()
        )

        async def is_local(sha256: str) -> bool:
            return blobs.has(sha256)

        serving = RequestHandler(
            coordinator,
            journal,
            blobs,
            request_limiter,
            EventsThatEnd(journal),
            lambda effects: None,
            is_local,
            Greeter(
                coordinator.network,
                coordinator.me,
                "0f" * 16,
                CLOCK.now,
                lambda: ServingStatus({}),
            ),
            lambda task, source: None,
        )
        asyncio.run(serving.serve(rpc_codec.protocol_id(name), stream))
        assert not [p for p in Path(folder).rglob("*") if p.is_file() and len(p.name) != 64]
    if stream.resets:
        raise StreamClosed("reset")
    response = Wire(stream.outbound)
    if name == "watch" and stream.outbound[:1] == b"\x00":
        asyncio.run(response.read_exactly(1))
        asyncio.run(rpc_codec.read_document(response, "watch-frame"))
    else:
        answer = asyncio.run(rpc_client.read_answer(response, name))
        if name == "blob":
            served = asyncio.run(response.read_exactly(len(stream.outbound) - response.position))
            assert SONG.endswith(served)
            assert answer["size"] == len(SONG)
    assert response.position == len(stream.outbound)


# Feeds and blobs


def _id_of(envelope: Document) -> str:
    try:
        return document_hash("envelope", envelope)
    except ValueError:  # a mutation that has no canonical form
        return "0" * 64


@st.composite
def _readings(draw: st.DrawFn) -> bytes:
    """Draw a page and the answer with its envelopes; one may be mutated and signed again.

    Or one of both answers has another form.
    """
    given = list(FEED)
    index = draw(st.integers(0, len(given) - 1))
    given[index] = draw(st.just(given[index]) | envelopes.resigned(given[index]))
    ids = tuple(_id_of(envelope) for envelope in given)
    page = canonical({**VALID["feed-answer"], "ids": ids})
    answer = draw(strategies.encoded(st.just({"envelopes": given, "gone": ()})))
    which = draw(st.sampled_from(("valid", "page", "answer")))
    if which == "page":
        page = draw(strategies.near([VALID["feed-answer"]]))
    if which == "answer":
        answer = draw(strategies.near([VALID["envelopes-answer"]]))
    return b"\0" + draw(framed(st.just(page))) + b"\0" + draw(framed(st.just(answer)))


class FeedLine(Line):
    """A transport on which a peer answers a feed request, and then one for envelopes."""

    def __init__(self, inbound: bytes) -> None:
        super().__init__(inbound)
        self._wire: Wire | None = None

    async def open(self, peer: str, protocol: str, *_: object, **__: object) -> Wire:
        rest = b"" if self._wire is None else self._inbound[self._wire.position :]
        self._wire = Wire(self._inbound if self._wire is None else rest)
        return self._wire


feed_inputs = _readings()


def check_feed(content: bytes) -> None:
    peer = fixtures.peer(2)
    with node() as (coordinator, journal, ledger):
        cursor = ledger.cursor(peer)
        line: Any = FeedLine(content)
        handshakes = Handshakes(line, NET, CLOCK, dict)
        feeds = FeedSync(
            line,
            coordinator,
            journal,
            ledger,
            1.0,
            lambda actions: None,
            str,
            handshakes,
            Selection(NET, fixtures.peer(0), random.Random(1)),
        )
        try:
            progress = asyncio.run(feeds.read(peer))
        except (ProtocolViolation, RequestRefused, ConnectionError):
            assert ledger.cursor(peer) == cursor
            raise
        moved = progress in (Progress.NEWS, Progress.USELESS)
        assert (ledger.cursor(peer) != cursor) == moved
        for envelope in accepted(journal):
            check_entry(envelope)


def check_entry(envelope: bytes) -> None:
    """A node serves its journal, so each entry must be a message that a node accepts."""
    assert codec.decode(envelope, NET.id).envelope.encode() == envelope


BLOB_BYTES = random.Random(3).randbytes(CHUNK_BYTES + 100)
BLOB = Blob(
    hashlib.sha256(BLOB_BYTES).hexdigest(),
    len(BLOB_BYTES),
    tuple(
        hashlib.sha256(p).hexdigest() for p in (BLOB_BYTES[:CHUNK_BYTES], BLOB_BYTES[CHUNK_BYTES:])
    ),
)


# An answer to a blob request, and bytes that may be the blob's.
BLOB_ANSWER: Document = {"size": len(BLOB_BYTES)}
blob_inputs = st.tuples(
    st.just(b"\x00"),
    framed(st.just(canonical(BLOB_ANSWER)) | strategies.near([BLOB_ANSWER])),
    st.just(BLOB_BYTES) | strategies.edited(BLOB_BYTES, 1),
).map(b"".join)


def check_blob(content: bytes) -> None:
    downloader = BlobDownloader(Line(content))  # type: ignore[arg-type]
    assert asyncio.run(downloader.fetch(BLOB, [fixtures.peer(2)])) == BLOB_BYTES


# Gossip


# The index of a topic, and a message.
gossip_inputs = st.tuples(st.sampled_from((b"\x00", b"\x01")), envelopes.envelopes).map(b"".join)


def check_gossip(content: bytes) -> None:
    """The validator never raises, and the coordinator takes what it accepts."""
    topic, payload = content[:1], content[1:]
    with node() as (coordinator, journal, _):
        result, message = coordinator.validator.validate(payload, tasks=topic == b"\x00")
        assert (message is not None) is (result is ValidationResult.ACCEPT)
        cursor = journal.last_cursor()
        try:
            coordinator.receive(codec.decode(payload, NET.id))
        except (Rejected, Busy):
            assert message is None, "accepted by the validator, rejected by the coordinator"
            assert journal.last_cursor() == cursor
            raise
        for envelope in accepted(journal):
            check_entry(envelope)


# Messages of a worker process, which may have been taken over.
_WORKER = tuple(f"worker-{kind}" for kind in KINDS.values())
worker_inputs = st.one_of(
    strategies.near([documents()[name] for name in _WORKER]),
    *(strategies.encoded(strategies.from_schema(name)) for name in _WORKER),
)


def check_worker(content: bytes) -> None:
    message = decode_message(content)
    assert decode_message(encode_message(message)) == message


PARSERS = (
    Parser("worker", worker_inputs, check_worker, (Rejected,)),
    Parser("frame", frame_inputs, check_frame, (FrameTooLarge, MalformedFrame, StreamClosed)),
    Parser("document", document_inputs, check_document, (ProtocolViolation, StreamClosed)),
    Parser(
        "answer", answer_inputs, check_answer, (ProtocolViolation, StreamClosed, RequestRefused)
    ),
    Parser("request", request_inputs, check_request, (RequestRefused, StreamClosed)),
    Parser("feed", feed_inputs, check_feed, (ProtocolViolation, RequestRefused, ConnectionError)),
    Parser("blob", blob_inputs, check_blob, (BlobUnavailable,)),
    Parser("gossip", gossip_inputs, check_gossip, (Rejected, Busy)),
)
