"""Receive the input files that follow a submission on its stream."""

from collections.abc import AsyncIterator

from node.rpc.codec import WRITE_BYTES
from node.storage.blob_writer import BlobWriter
from node.storage.blobs import BlobStore
from node.transport.interface import Stream
from protocol.wire.messages import Task


async def receive(task: Task, stream: Stream, blobs: BlobStore) -> list[BlobWriter]:
    """Take a task's inputs, in their order, from the stream of its submission.

    Nothing is kept of them until `BlobStore.commit` does. Raises BlobRefused if they are not
    what the task names, DiskQuotaExceeded, and StreamClosed.
    """
    drafts: list[BlobWriter] = []
    try:
        for named in task.inputs:
            pieces, size = _pieces(stream, named.size), named.size
            drafts.append(await blobs.receive(pieces, size=size, limit=size, sha256=named.sha256))
    except BaseException:
        for draft in drafts:
            draft.discard()
        raise
    return drafts


async def _pieces(stream: Stream, size: int) -> AsyncIterator[bytes]:
    while size:
        piece = await stream.read_exactly(min(WRITE_BYTES, size))
        size -= len(piece)
        yield piece
