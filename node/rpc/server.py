"""The server side of the request/response protocols (specification 7.3 to 7.9).

| request   | answer                                                                      |
| --------- | --------------------------------------------------------------------------- |
| hello     | network, version, classes, warm models and clock of this node               |
| submit    | the task's id and committee; its inputs follow the request                  |
| task      | state, certificate and votes of one task                                    |
| watch     | a frame for each change of a task, until it has ended                       |
| blob      | the size of a blob, then its bytes from an offset on                        |
| feed      | a page of the ids of this node's envelopes, and the cursor after it         |
| envelopes | envelopes by their ids                                                      |
"""

import asyncio
import errno
import json
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import partial
from typing import Any

from node.admission.request_limits import RequestLimiter
from node.consensus.coordinator import Coordinator, Step
from node.consensus.task_events import TaskEvents
from node.errors import Busy
from node.log import get_logger
from node.rpc import codec as rpc_codec
from node.rpc.codec import Status, answer, answer_encoded, refuse
from node.rpc.dispatcher import Dispatcher, hello_handler
from node.rpc.feeds import OVERHEAD_BYTES, FeedServer
from node.rpc.framing import write_frame
from node.rpc.hello import Greeter
from node.rpc.uploads import receive_inputs
from node.storage.blob_writer import BlobWriter
from node.storage.blobs import BlobStore
from node.storage.errors import BlobRefused
from node.storage.journal import Journal
from node.transport.interface import Stream, StreamClosed
from protocol.consensus.effects import State
from protocol.constants import DOCUMENT_LIMIT
from protocol.errors import Rejected, Rejection
from protocol.wire import codec
from protocol.wire.encoding import Document, canonical
from protocol.wire.messages import Task

log = get_logger("serving")

# The disk is full, or one of two quotas: the file system's or the blob folder's.
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class RequestHandler:
    """Answers requests; `serve` is called once for each inbound stream."""

    def __init__(
        self,
        coordinator: Coordinator,
        journal: Journal,
        blobs: BlobStore,
        request_limiter: RequestLimiter,
        events: TaskEvents,
        act: Callable[[Step], None],
        ensure_local: Callable[[str], Awaitable[bool]],
        greeter: Greeter,
        check_deadline: Callable[[Task, str], None],
    ) -> None:
        """`act` carries out the coordinator's effects.

        `ensure_local` returns whether a blob is here, after downloading it if that is possible.
        `check_deadline` takes a task and its source; it raises Busy if the task would expire before
        this node had executed it.
        """
        self._coordinator, self._journal, self._blobs = coordinator, journal, blobs
        self._request_limiter, self._events = request_limiter, events
        self._act, self._ensure_local = act, ensure_local
        self._check_deadline = check_deadline
        self.feeds = FeedServer(journal, request_limiter)
        self._dispatcher = Dispatcher(
            {
                "hello": hello_handler(greeter),
                "submit": self._submit,
                "task": self._task,
                "watch": self._watch,
                "blob": self._blob,
                "feed": self.feeds.feed,
                "envelopes": self.feeds.envelopes,
            }
        )

    async def serve(self, protocol: str, stream: Stream) -> None:
        """Read one request and answer it; an invalid one is answered with a status."""
        await self._dispatcher.serve(protocol, stream)

    def _slot_key(self, stream: Stream) -> str:
        return self._request_limiter.slot_key(stream.peer, stream.rate_limit_key)

    async def _submit(self, request: Mapping[str, Any], stream: Stream) -> None:
        self._request_limiter.count_submission(stream.rate_limit_key)
        task = codec.decode_document(request["task"], self._coordinator.network.id)
        if not isinstance(task, Task):
            raise Rejected(Rejection.INVALID_FIELD, "task.body.type: is not a task")
        source = self._slot_key(stream)
        if self._journal.state(task.id) is None:
            # Everything that can refuse the task comes before its inputs, which are megabytes.
            self._coordinator.admit(task, source)
            self._request_limiter.check_task(task)
            # Of the client alone: this node votes for what others accepted as well as it can.
            self._check_deadline(task, source)
        sizes = [named.size for named in task.inputs]
        if request["blobs"] != sizes:
            raise Rejected(
                Rejection.INVALID_FIELD, f"blobs: must be the sizes that args names, {sizes}"
            )
        uploads = await self._receive_inputs(task, stream)
        with self._blobs.commit(uploads):  # if the task is refused, its inputs are deleted
            self._act(partial(self._coordinator.submit, task, source))
        committee = self._coordinator.first_committee(task)
        await answer(stream, {"task": task.id, "committee": list(committee)})

    async def _receive_inputs(self, task: Task, stream: Stream) -> list[BlobWriter]:
        """Receive the inputs of a task. Raises Rejected or Busy."""
        if not task.inputs:  # it needs no upload slot
            return []
        try:
            async with asyncio.timeout(rpc_codec.UPLOAD_SECONDS):
                with self._request_limiter.slot("submit", stream.rate_limit_key):
                    return await receive_inputs(task, stream, self._blobs)
        except BlobRefused as refused:
            raise Rejected(Rejection.INVALID_FIELD, f"blobs: {refused}") from None
        except OSError as full:
            if full.errno not in _NO_SPACE:
                raise
            log.warning("inputs refused", task=task.id, error=str(full))
            raise Busy(
                "the disk or the disk quota of this node is full; try another node"
            ) from None

    async def _task(self, request: Mapping[str, Any], stream: Stream) -> None:
        # The stored envelopes are sent as they are. Parsing and encoding a MiB of them again would
        # block the event loop for 50 ms.
        template = b'{"attempt":%d,"certificate":%s,"envelopes":[%s],"state":"%s"}'
        with self._request_limiter.slot("task", self._slot_key(stream)):
            view = self._coordinator.view(request["task"])
            if view is None:
                raise Rejected(Rejection.UNKNOWN_TASK, f"task: {request['task']} is not known here")
            first = view.certificates[0] if view.certificates else None
            certificate = json.dumps(first, separators=(",", ":"), ensure_ascii=False).encode()
            envelopes = _take_fitting(
                view.envelopes, DOCUMENT_LIMIT - OVERHEAD_BYTES - len(certificate)
            )
            state = str(view.state).encode()
            fields = (view.attempt, certificate, b",".join(envelopes), state)
            await answer_encoded(stream, template % fields)

    async def _watch(self, request: Mapping[str, Any], stream: Stream) -> None:
        task = request["task"]
        if self._journal.state(task) is None:
            raise Rejected(Rejection.UNKNOWN_TASK, f"task: {task} is not known here")
        with self._request_limiter.slot("watch", self._slot_key(stream)):
            await stream.write(bytes((Status.OK,)))
            await _until_closed(stream, self._send_changes(task, stream))

    async def _send_changes(self, task: str, stream: Stream) -> None:
        """Send a frame for each change, until the task has ended."""
        sent = None
        while True:
            state, frame = self._frame(task)
            # A task that has ended changes no more: nothing would set or delete its event.
            changed = None if state.terminal else self._events.next_change(task)
            if frame != sent:
                await write_frame(stream, canonical(frame))
                sent = frame
            if changed is None:
                return
            await changed.wait()

    def _frame(self, task: str) -> tuple[State, Document]:
        row = self._journal.state(task)
        assert row is not None  # noqa: S101  # tasks are never deleted
        state, attempt = row
        progress = self._events.progress(task)
        return state, {"state": str(state), "attempt": attempt, "progress": progress}

    async def _blob(self, request: Mapping[str, Any], stream: Stream) -> None:
        sha256, offset = request["sha256"], request["offset"]
        # The slot is also held while the blob is fetched from a peer: that costs more than a read.
        with self._request_limiter.slot("blob", self._slot_key(stream)):
            if not await self._ensure_local(sha256):
                detail = f"{sha256} is not stored here"
                await refuse(stream, Status.UNAVAILABLE, "unknown-blob", detail)
                return
            await self._send_blob(sha256, offset, stream)

    async def _send_blob(self, sha256: str, offset: int, stream: Stream) -> None:
        size = self._blobs.size(sha256)
        if offset > size:
            raise Rejected(Rejection.INVALID_FIELD, f"offset: {offset} is past the end, {size}")
        with self._blobs.open(sha256, offset) as source:
            await answer(stream, {"size": size})
            while piece := source.read(rpc_codec.WRITE_BYTES):
                await stream.write(piece)


async def _until_closed(stream: Stream, sending: Coroutine[None, None, None]) -> None:
    """Run to the end, or raise StreamClosed as soon as the other side has disconnected."""
    # A watch writes rarely. Without this a watcher that has disconnected would hold its slot until
    # the next change of the task.
    sender = asyncio.create_task(sending)
    closed = asyncio.create_task(stream.wait_closed())
    try:
        await asyncio.wait((sender, closed), return_when=asyncio.FIRST_COMPLETED)
        if not sender.done():
            raise StreamClosed("the watcher has disconnected")
        sender.result()
    finally:
        sender.cancel()
        closed.cancel()
        await asyncio.gather(sender, closed, return_exceptions=True)


def _take_fitting(envelopes: list[str], limit: int) -> tuple[bytes, ...]:
    """Return the first envelopes that together take at most `limit` bytes, commas included."""
    fitting: list[bytes] = []
    for text in envelopes:
        encoded = text.encode()
        limit -= len(encoded) + 1
        if limit < 0:
            break
        fitting.append(encoded)
    return tuple(fitting)
