"""Targets: what comes over a stream or by gossip, through the code that reads it in a node."""

import asyncio
import contextlib
import hashlib
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import schemas
from node.admission.peer_score import PeerAction
from node.admission.request_limits import RequestLimiter
from node.admission.task_policy import TaskPolicy
from node.config.limits import Limits
from node.consensus.coordinator import Coordinator
from node.errors import Busy
from node.rpc import client as rpc_client
from node.rpc import codec as rpc_codec
from node.rpc.client import RequestRefused
from node.rpc.codec import ProtocolViolation
from node.rpc.framing import MalformedFrame, encode_length, read_frame, write_frame
from node.rpc.server import RequestHandler
from node.storage.blobs import BlobStore
from node.storage.database import Database
from node.storage.journal import Journal
from node.storage.ledger import Ledger
from node.sync.blob_download import BlobDownloader, BlobUnavailable
from node.sync.feed_sync import FeedSync
from node.transport.interface import StreamClosed, ValidationResult
from protocol.constants import DOCUMENT_LIMIT
from protocol.errors import Rejected
from protocol.manifest import CHUNK_BYTES, Blob
from protocol.wire import codec
from protocol.wire.encoding import Document, canonical
from protocol.wire.messages import Task
from tests.fuzz import mutation, papers
from tests.fuzz.papers import NET, TASK
from tests.fuzz.target import Target
from tests.schemas.examples import documents
from tests.support import fixtures

LIMIT = 4096  # of a frame, in the target that has nothing else
REQUESTS = [f"{name}-request" for name in rpc_codec.REQUESTS]
ANSWERS = [f"{name}-answer" for name in rpc_codec.REQUESTS if name != "watch"]
READ = (*REQUESTS, *ANSWERS, "watch-frame", "failure")


class Wire:
    """A stream on which `inbound` comes, and then its end; what is written is kept."""

    peer = rate_limit_key = fixtures.peer(1001)

    def __init__(self, inbound: bytes) -> None:
        self.inbound, self.position, self.outbound, self.resets = inbound, 0, b"", 0

    async def read_exactly(self, n: int) -> bytes:
        piece = self.inbound[self.position : self.position + n]
        self.position += len(piece)
        if len(piece) < n:
            raise StreamClosed("no more comes")
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
    """A transport on which whoever is asked says `inbound`."""

    def __init__(self, inbound: bytes) -> None:
        self._inbound = inbound

    async def open(self, peer: str, protocol: str) -> Wire:
        return Wire(self._inbound)

    def report(self, peer: str, action: PeerAction) -> None:
        return


class Still:
    """A clock that stands."""

    def now(self) -> float:
        return fixtures.START + 1


class Over(asyncio.Event):
    """A change that never comes: the stream ends instead of waiting for it."""

    async def wait(self) -> bool:  # type: ignore[override]
        raise StreamClosed("nothing changes any more")


@dataclass(slots=True)
class FakeNode:
    """What the request handler needs of a node."""

    coordinator: Coordinator
    blobs: BlobStore

    def greeting(self) -> Document:
        return VALID["hello-answer"]

    def submitted(self, payload: bytes, source: str) -> Task:
        return self.coordinator.submit(payload, source)[0]

    async def obtain(self, sha256: str) -> bool:
        return self.blobs.has(sha256)

    def progress(self, task: str) -> float:
        return 0.0

    def changes(self, task: str) -> asyncio.Event:
        return Over()


SONG = b"a song that is kept"
SONG_HASH = hashlib.sha256(SONG).hexdigest()


def _documents() -> dict[str, Document]:
    found: dict[str, Document] = {name: documents()[name] for name in READ}
    found["submit-request"] = {"task": TASK.envelope.document(), "blobs": []}
    found["blob-request"] = {"sha256": SONG_HASH, "offset": 1}
    found["feed-request"] = {"feed": "f", "cursor": 0, "limit": 7}
    found["task-request"] = found["watch-request"] = {"task": TASK.id}
    found["feed-answer"] = {"feed": "f", "cursor": 9, "envelopes": tuple(papers.ENVELOPES)}
    return found


VALID = _documents()
SENT: Document = {"task": papers.PIANO.envelope.document(), "blobs": (4, 8)}


@contextlib.contextmanager
def node() -> Iterator[tuple[Coordinator, Journal, Ledger]]:
    """A member that has accepted one task."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    database = Database(connection, NET.id)
    journal, ledger = Journal(database), Ledger(database)
    coordinator = Coordinator(NET, fixtures.key(0), journal, ledger, Still(), Random(1).randbytes)
    coordinator.receive(TASK.envelope.encode())
    try:
        yield coordinator, journal, ledger
    finally:
        connection.close()


def framed(payload: bytes, dice: Random) -> bytes:
    """A frame, one time in ten with another length than its own."""
    if dice.random() < 0.9:
        return encode_length(len(payload)) + payload
    return mutation.raw(encode_length(len(payload)), dice, 1) + payload


def _number(content: bytes) -> int:
    """The first byte, which chooses a protocol."""
    return content[0] if content else 0


# Frames


def make_frame(dice: Random) -> bytes:
    size = dice.choice((0, 1, 127, 128, 300, LIMIT, LIMIT + 1, 16_384))
    return mutation.raw(framed(dice.randbytes(size), dice), dice, 1)


def check_frame(content: bytes) -> None:
    stream = Wire(content)
    try:
        payload = asyncio.run(read_frame(stream, LIMIT))
    except MalformedFrame:
        assert stream.position <= 5, "more than the length was read"
        raise
    assert len(payload) <= LIMIT
    again = Wire(b"")
    asyncio.run(write_frame(again, payload))
    assert again.outbound == content[: stream.position]


# Requests and answers


def make_document(dice: Random) -> bytes:
    """The number of a document and a frame of it."""
    number = dice.randrange(len(READ))
    return bytes((number,)) + framed(mutation.spoilt([VALID[READ[number]]], dice), dice)


def check_document(content: bytes) -> None:
    name, stream = READ[_number(content) % len(READ)], Wire(content[1:])
    document = asyncio.run(rpc_codec.read_document(stream, name))
    schemas.check(name, document)
    again = canonical(document)
    assert len(again) <= 6 * DOCUMENT_LIMIT
    stream = Wire(encode_length(len(again)) + again)
    if len(again) <= DOCUMENT_LIMIT:
        assert asyncio.run(rpc_codec.read_document(stream, name)) == document


def make_answer(dice: Random) -> bytes:
    """The number of a protocol, a status and the document that goes with it."""
    number, status = dice.randrange(len(ANSWERS)), dice.choice((0, 0, 0, 1, 2, 3, 4, 5, 255))
    valid = VALID[ANSWERS[number] if status == 0 else "failure"]
    return bytes((number, status)) + framed(mutation.spoilt([valid], dice), dice)


def check_answer(content: bytes) -> None:
    name = ANSWERS[_number(content) % len(ANSWERS)]
    found = asyncio.run(rpc_client.read_answer(Wire(content[1:]), name.removesuffix("-answer")))
    schemas.check(name, found)


def make_request(dice: Random) -> bytes:
    """The number of a protocol, and all that its requester says."""
    number = dice.randrange(len(REQUESTS))
    if REQUESTS[number] == "submit-request" and dice.random() < 0.5:
        payload = canonical(SENT) if dice.random() < 0.5 else mutation.spoilt([SENT], dice)
        follows = dice.choice((b"songsong two", b"songsong tw", b"", mutation.noise(dice)))
        return bytes((number,)) + framed(payload, dice) + follows
    valid = VALID[REQUESTS[number]]
    payload = canonical(valid) if dice.random() < 0.2 else mutation.spoilt([valid], dice)
    return bytes((number,)) + framed(payload, dice)


def check_request(content: bytes) -> None:
    """Every request gets one well-formed answer, or its stream is reset."""
    name, stream = rpc_codec.REQUESTS[_number(content) % len(rpc_codec.REQUESTS)], Wire(content[1:])
    with node() as (coordinator, journal, _), tempfile.TemporaryDirectory() as folder:
        blobs = BlobStore(Path(folder) / "blobs")
        blobs.write([SONG], size=len(SONG), limit=len(SONG), sha256=SONG_HASH)
        request_limiter = RequestLimiter(
            TaskPolicy(frozenset(), 0, Still().now), Limits(), (), Still().now, Counter()
        )
        serving = RequestHandler(
            FakeNode(coordinator, blobs), coordinator, journal, blobs, request_limiter
        )
        asyncio.run(serving.serve(rpc_codec.protocol_id(name), stream))
        assert not [p for p in Path(folder).rglob("*") if p.is_file() and len(p.name) != 64]
    if stream.resets:
        raise StreamClosed("reset")
    heard = Wire(stream.outbound)
    if name == "watch" and stream.outbound[:1] == b"\x00":
        asyncio.run(heard.read_exactly(1))
        asyncio.run(rpc_codec.read_document(heard, "watch-frame"))
    else:
        said = asyncio.run(rpc_client.read_answer(heard, name))
        if name == "blob":
            served = asyncio.run(heard.read_exactly(len(stream.outbound) - heard.position))
            assert SONG.endswith(served)
            assert said["size"] == len(SONG)
    assert heard.position == len(stream.outbound)


# Feeds and blobs


def make_feed(dice: Random) -> bytes:
    """An answer to a feed request, most of whose envelopes are good."""
    page = dict(VALID["feed-answer"])
    page["envelopes"] = [
        papers.resigned(e, dice) if dice.random() < 0.1 else e for e in papers.ENVELOPES
    ]
    payload = mutation.bytes_of(page, dice)
    if dice.random() < 0.3:
        payload = mutation.spoilt([VALID["feed-answer"]], dice)
    return b"\x00" + framed(payload, dice)


def check_feed(content: bytes) -> None:
    peer = fixtures.peer(2)
    with node() as (coordinator, journal, ledger):
        before = ledger.cursor(peer)
        line = Line(content)
        feeds = FeedSync(line, coordinator, journal, ledger, 1.0, lambda actions: None, str)  # type: ignore[arg-type]
        try:
            moved = asyncio.run(feeds.read(peer))
        except (ProtocolViolation, RequestRefused, ConnectionError):
            assert ledger.cursor(peer) == before
            raise
        assert (ledger.cursor(peer) != before) == moved
        for _, envelope in journal.feed(0, 1000):
            check_kept(envelope.encode())


def check_kept(envelope: bytes) -> None:
    """What a node has in its journal it gives to others, so it must be what it would take."""
    assert codec.decode(envelope, NET.id).envelope.encode() == envelope


BLOB_BYTES = Random(3).randbytes(CHUNK_BYTES + 100)
BLOB = Blob(
    hashlib.sha256(BLOB_BYTES).hexdigest(),
    len(BLOB_BYTES),
    tuple(
        hashlib.sha256(p).hexdigest() for p in (BLOB_BYTES[:CHUNK_BYTES], BLOB_BYTES[CHUNK_BYTES:])
    ),
)


def make_blob(dice: Random) -> bytes:
    """An answer to a blob request, and bytes that may be the blob's."""
    answer = canonical({"size": len(BLOB_BYTES)})
    if dice.random() < 0.4:
        answer = mutation.spoilt([{"size": len(BLOB_BYTES)}], dice)
    payload = BLOB_BYTES if dice.random() < 0.4 else mutation.raw(BLOB_BYTES, dice, 1)
    return b"\x00" + framed(answer, dice) + payload


def check_blob(content: bytes) -> None:
    downloader = BlobDownloader(Line(content))  # type: ignore[arg-type]
    assert asyncio.run(downloader.fetch(BLOB, [fixtures.peer(2)])) == BLOB_BYTES


# Gossip


def make_gossip(dice: Random) -> bytes:
    return bytes((dice.randrange(2),)) + papers.envelope(dice)


def check_gossip(content: bytes) -> None:
    """The judge never raises, and what it lets pass can be taken."""
    topic, payload = content[:1], content[1:]
    with node() as (coordinator, journal, _):
        verdict = coordinator.validate(payload, tasks=topic == b"\x00")
        before = journal.tip()
        try:
            coordinator.receive(payload)
        except (Rejected, Busy):
            assert verdict is not ValidationResult.ACCEPT, "what it passes on it does not take"
            assert journal.tip() == before
            raise
        for _, envelope in journal.feed(0, 1000):
            check_kept(envelope.encode())


TARGETS = (
    Target("frame", make_frame, check_frame, (MalformedFrame, StreamClosed)),
    Target("document", make_document, check_document, (ProtocolViolation, StreamClosed)),
    Target("answer", make_answer, check_answer, (ProtocolViolation, StreamClosed, RequestRefused)),
    Target("request", make_request, check_request, (RequestRefused, StreamClosed)),
    Target("feed", make_feed, check_feed, (ProtocolViolation, RequestRefused, ConnectionError)),
    Target("blob", make_blob, check_blob, (BlobUnavailable,)),
    Target("gossip", make_gossip, check_gossip, (Rejected, Busy)),
)
