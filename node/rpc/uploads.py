"""Receive the input files that follow a submission on its stream."""

from collections.abc import AsyncIterator

from node.rpc.codec import WRITE_BYTES
from node.storage.blob_writer import BlobWriter
from node.storage.blobs import BlobStore
from node.transport.interface import Stream
from protocol.wire.messages import Task


async def receive_inputs(task: Task, stream: Stream, blobs: BlobStore) -> list[BlobWriter]:
    """Receive a task's inputs, in their order, from the stream of its submission.

    They are stored only when `BlobStore.commit` is called. Raises BlobRefused if they are not what
    the task names, DiskQuotaExceeded, and StreamClosed.
    """
    writers: list[BlobWriter] = []
    try:
        for blob in task.inputs:
            pieces, size = _pieces(stream, blob.size), blob.size
            writers.append(await blobs.receive(pieces, size=size, limit=size, sha256=blob.sha256))
    except BaseException:
        for writer in writers:
            writer.discard()
        raise
    return writers


async def _pieces(stream: Stream, size: int) -> AsyncIterator[bytes]:
    while size:
        piece = await stream.read_exactly(min(WRITE_BYTES, size))
        size -= len(piece)
        yield piece
