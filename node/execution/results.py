"""What becomes of an execution: its files are kept, then its outcome is voted for."""

import asyncio
from typing import cast

import structlog

from executor.job import Execution
from node.execution.driver import Driver
from node.storage.blobs import BlobStore
from node.storage.errors import BlobRefused
from protocol.manifest import Blob, blobs_of
from protocol.wire.encoding import Document
from protocol.wire.messages import Abstention, Task

log = structlog.get_logger("node")


class ResultRecorder:
    """Records the results of the execution queue, one after another."""

    def __init__(self, driver: Driver, blobs: BlobStore, max_output_bytes: int) -> None:
        """`max_output_bytes` is the network's limit for all outputs of a task together."""
        self._driver, self._blobs, self._max_output_bytes = driver, blobs, max_output_bytes

    async def record(self, task: Task, result: Execution | Abstention) -> None:
        """Take what the execution of a task gave."""
        if not isinstance(result, Execution):
            self._driver.failed(task.id, result)
            return
        outcome = cast("Document", result.outcome)
        trace = cast("Document", result.trace)
        blobs = blobs_of(outcome)
        if sum(blob.size for blob in blobs) > self._max_output_bytes:
            self._reject(task, result, trace)
        elif await self._keep_files(task, result, blobs):
            self._driver.executed(task.id, outcome, trace)

    def _reject(self, task: Task, execution: Execution, trace: Document) -> None:
        """Vote for an error: the outputs are too large for every member of the class alike."""
        limit = self._max_output_bytes
        log.warning("output over the network's limit", task=task.id, limit=limit)
        for file in execution.files:
            file.unlink(missing_ok=True)
        detail = f"the outputs have more bytes than the network allows, {limit}"
        # A trace may fill its size limit with tokens and steps: they make room for the detail.
        trace = {**trace, "tokens": [], "steps": [], "detail": detail}
        self._driver.executed(task.id, {"error": "generation-rejected"}, trace)

    async def _keep_files(self, task: Task, execution: Execution, blobs: tuple[Blob, ...]) -> bool:
        """Move the files to the blob store, or abstain: a voter must be able to serve its blobs."""
        try:
            for file, blob in zip(execution.files, blobs, strict=False):
                await asyncio.to_thread(self._blobs.import_file, file, blob.sha256)
        except (OSError, BlobRefused) as error:  # a full disk, or a worker that lied about a file
            log.error("output not kept", task=task.id, error=str(error))
            self._driver.failed(task.id, Abstention.WORKER_DIED)
            return False
        return True
