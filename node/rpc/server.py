"""What this node answers to other peers: the six protocols of specification 7."""

import asyncio
import json
import sqlite3
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Protocol, TypeAlias

import structlog

from node.admission.request_limits import RequestLimiter
from node.admission.task_policy import TaskNotServed
from node.consensus.coordinator import Coordinator
from node.errors import Busy
from node.rpc import codec as rpc_codec
from node.rpc import uploads
from node.rpc.codec import ProtocolViolation, Status, answer, answer_encoded, refuse
from node.rpc.framing import write_frame
from node.storage.blob_writer import BlobWriter
from node.storage.blobs import BlobStore
from node.storage.errors import BlobRefused, DiskQuotaExceeded
from node.storage.journal import Journal
from node.transport.interface import Stream, StreamClosed
from protocol.consensus.effects import State
from protocol.constants import DOCUMENT_LIMIT
from protocol.errors import Rejected, Rejection
from protocol.wire.encoding import Document, canonical
from protocol.wire.messages import Task

log = structlog.get_logger("serving")

REQUEST_SECONDS = 10.0  # a requester that takes longer to say what it wants is cut off
FEED_MOST = 1000  # envelopes in one answer, however many are asked for
_ROOM = 65_536  # bytes of a task answer left for what is neither envelope nor certificate


Handler: TypeAlias = Callable[[Mapping[str, Any], Stream], Awaitable[None]]


class NodeApi(Protocol):
    """What serving needs of the node it speaks for."""

    def greeting(self) -> Document:
        """Return the answer to a hello."""

    def submitted(self, payload: bytes, source: str) -> Task:
        """Take a task, for which `source` is charged. Raises Rejected or Busy."""

    async def obtain(self, sha256: str) -> bool:
        """Return whether a blob is here, after fetching it if that can be done."""

    def progress(self, task: str) -> float:
        """Return how far this node's execution of a task is, 0 to 1."""

    def changes(self, task: str) -> asyncio.Event:
        """Return an event that is set at the task's next change."""


class RequestHandler:
    """Answers requests; one call of `serve` for each inbound stream."""

    def __init__(
        self,
        node: NodeApi,
        coordinator: Coordinator,
        journal: Journal,
        blobs: BlobStore,
        request_limiter: RequestLimiter,
    ) -> None:
        self._node, self._coordinator = node, coordinator
        self._journal, self._blobs = journal, blobs
        self._request_limiter = request_limiter
        self._answers: Mapping[str, Handler] = {
            rpc_codec.protocol_id("hello"): self._hello,
            rpc_codec.protocol_id("submit"): self._submit,
            rpc_codec.protocol_id("task"): self._task,
            rpc_codec.protocol_id("watch"): self._watch,
            rpc_codec.protocol_id("blob"): self._blob,
            rpc_codec.protocol_id("feed"): self._feed,
        }

    async def serve(self, protocol: str, stream: Stream) -> None:
        """Read one request and answer it; a bad one gets a status, never a traceback."""
        name = protocol.rpartition("/")[2]
        try:
            await self._serve(name, self._answers[protocol], stream)
        except (StreamClosed, TimeoutError) as gone:
            log.debug("requester gone", protocol=name, peer=stream.peer, detail=str(gone))
            await stream.reset()

    async def _serve(self, name: str, handler: Handler, stream: Stream) -> None:
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                request = await rpc_codec.read_document(
                    stream, f"{name}-request", rpc_codec.REQUEST_LIMIT
                )
            await handler(request, stream)
        except (ProtocolViolation, Rejected) as error:
            await refuse(stream, Status.INVALID, *_why(error))
        except Busy as busy:
            await refuse(stream, Status.BUSY, "busy", str(busy))
        except TaskNotServed as unserved:
            status = Status.INVALID if unserved.retry_after is None else Status.BUSY
            await refuse(stream, status, unserved.reason, str(unserved))
        except sqlite3.Error as error:
            log.error("the store failed", error=str(error))
            await refuse(stream, Status.INTERNAL, "store", "this node's store failed")

    def _slot_key(self, stream: Stream) -> str:
        return self._request_limiter.slot_key(stream.peer, stream.rate_limit_key)

    async def _hello(self, request: Mapping[str, Any], stream: Stream) -> None:
        await answer(stream, self._node.greeting())

    async def _submit(self, request: Mapping[str, Any], stream: Stream) -> None:
        self._request_limiter.count_submission(stream.rate_limit_key)
        payload = canonical(request["task"])
        source = self._slot_key(stream)
        task = self._coordinator.examine(payload, source)
        if self._journal.state(task.id) is None:
            self._request_limiter.check_task(task)
        sizes = [named.size for named in task.inputs]
        if request["blobs"] != sizes:
            raise Rejected(
                Rejection.INVALID_FIELD, f"blobs: must be the sizes that args names, {sizes}"
            )
        drafts = await self._inputs(task, stream)
        with self._blobs.commit(drafts):  # only if the task is taken
            self._node.submitted(payload, source)
        committee = self._coordinator.committee(task)
        await answer(stream, {"task": task.id, "committee": list(committee)})

    async def _inputs(self, task: Task, stream: Stream) -> list[BlobWriter]:
        """Take the inputs that come with a task. Raises Rejected or Busy."""
        if not task.inputs:  # no place is needed
            return []
        try:
            async with asyncio.timeout(rpc_codec.UPLOAD_SECONDS):
                with self._request_limiter.slot("submit", stream.rate_limit_key):
                    return await uploads.receive(task, stream, self._blobs)
        except BlobRefused as refused:
            raise Rejected(Rejection.INVALID_FIELD, f"blobs: {refused}") from None
        except DiskQuotaExceeded as full:
            log.warning("inputs refused", task=task.id, error=str(full))
            raise Busy("this node keeps as much audio as it may; others may have room") from None

    async def _task(self, request: Mapping[str, Any], stream: Stream) -> None:
        # As in a feed: reading and writing a MiB of it again would hold this node up for 50 ms.
        parts = b'{"attempt":%d,"certificate":%s,"envelopes":[%s],"state":"%s"}'
        with self._request_limiter.slot("task", self._slot_key(stream)):
            view = self._coordinator.view(request["task"])
            if view is None:
                raise Rejected(Rejection.UNKNOWN_TASK, f"task: {request['task']} is not known here")
            first = view.certificates[0] if view.certificates else None
            certificate = json.dumps(first, separators=(",", ":"), ensure_ascii=False).encode()
            texts = _fitting(view.envelopes, DOCUMENT_LIMIT - _ROOM - len(certificate))
            state = str(view.state).encode()
            found = view.attempt, certificate, b",".join(texts), state
            await answer_encoded(stream, parts % found)

    async def _watch(self, request: Mapping[str, Any], stream: Stream) -> None:
        task = request["task"]
        if self._journal.state(task) is None:
            raise Rejected(Rejection.UNKNOWN_TASK, f"task: {task} is not known here")
        with self._request_limiter.slot("watch", self._slot_key(stream)):
            await stream.write(bytes((Status.OK,)))
            await _unless_gone(stream, self._tell(task, stream))

    async def _tell(self, task: str, stream: Stream) -> None:
        """Send a frame for each change, until the task has ended."""
        last = None
        while True:
            state, frame = self._frame(task)
            # An event of a task that has ended would be set, and forgotten, by no change.
            changed = None if state.terminal else self._node.changes(task)
            if frame != last:
                await write_frame(stream, canonical(frame))
                last = frame
            if changed is None:
                return
            await changed.wait()

    def _frame(self, task: str) -> tuple[State, Document]:
        standing = self._journal.state(task)
        assert standing is not None  # noqa: S101  # tasks are never deleted
        state, attempt = standing
        progress = self._node.progress(task)
        return state, {"state": str(state), "attempt": attempt, "progress": progress}

    async def _blob(self, request: Mapping[str, Any], stream: Stream) -> None:
        sha256, offset = request["sha256"], request["offset"]
        with self._request_limiter.slot(
            "blob", self._slot_key(stream)
        ):  # before it is looked for elsewhere
            if not await self._node.obtain(sha256):
                detail = f"{sha256} is not kept here"
                await refuse(stream, Status.UNAVAILABLE, "unknown-blob", detail)
                return
            await self._send(sha256, offset, stream)

    async def _send(self, sha256: str, offset: int, stream: Stream) -> None:
        size = self._blobs.size(sha256)
        if offset > size:
            raise Rejected(Rejection.INVALID_FIELD, f"offset: {offset} is past the end, {size}")
        with self._blobs.open(sha256, offset) as source:
            await answer(stream, {"size": size})
            while piece := source.read(rpc_codec.WRITE_BYTES):
                await stream.write(piece)

    async def _feed(self, request: Mapping[str, Any], stream: Stream) -> None:
        # Parsing and writing the envelopes again would take a hundred times as long.
        parts = b'{"cursor":%d,"envelopes":[%s],"feed":"%s"}'
        with self._request_limiter.slot("feed", self._slot_key(stream)):
            feed, cursor, texts = feed_page(
                self._journal, request["feed"], request["cursor"], request["limit"]
            )
            await answer_encoded(stream, parts % (cursor, b",".join(texts), feed.encode()))


def feed_page(
    journal: Journal, feed: str, cursor: int, limit: int
) -> tuple[str, int, tuple[bytes, ...]]:
    """Return this node's feed, the cursor after a page of it, and the page's envelopes.

    The page starts after `cursor`, or at the beginning if `feed` is another store's.
    """
    start = cursor if feed == journal.feed_id else 0
    rows = journal.feed(start, min(limit, FEED_MOST))
    texts = _fitting([text for _, text in rows], DOCUMENT_LIMIT - _ROOM)
    return journal.feed_id, rows[len(texts) - 1][0] if texts else start, texts


async def _unless_gone(stream: Stream, telling: Coroutine[None, None, None]) -> None:
    """Tell until the end, or raise StreamClosed as soon as the other side is gone."""
    told, gone = asyncio.create_task(telling), asyncio.create_task(stream.wait_closed())
    try:
        await asyncio.wait((told, gone), return_when=asyncio.FIRST_COMPLETED)
        if not told.done():
            raise StreamClosed("nobody watches any more")
        told.result()
    finally:
        told.cancel()
        gone.cancel()
        await asyncio.gather(told, gone, return_exceptions=True)


def _fitting(envelopes: list[str], room: int) -> tuple[bytes, ...]:
    """Return the first envelopes that come to at most `room` bytes, commas included."""
    fitting = []
    for text in envelopes:
        encoded = text.encode()
        room -= len(encoded) + 1
        if room < 0:
            break
        fitting.append(encoded)
    return tuple(fitting)


def _why(error: ProtocolViolation | Rejected) -> tuple[str, str]:
    if isinstance(error, Rejected):
        return str(error.reason), error.detail
    return error.reason, str(error)
