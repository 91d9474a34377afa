"""What becomes of an execution: its files are kept, then its outcome is voted for."""

import asyncio
from typing import cast

from executor.job import Execution
from node.execution.driver import Driver
from node.log import get_logger
from node.storage.blobs import BlobStore
from node.storage.errors import BlobRefused
from node.storage.journal import Journal
from protocol.errors import Rejected
from protocol.manifest import Blob, blobs_of, check_fits, check_work
from protocol.network import Network
from protocol.wire.encoding import Document
from protocol.wire.messages import Abstention, Task

# Characters of `trace.detail` (specification 4.6).
_DETAIL_CHARACTERS = 256

log = get_logger("node")


class ResultRecorder:
    """Records the results of the execution queue, one after another."""

    def __init__(
        self, driver: Driver, blobs: BlobStore, journal: Journal, network: Network
    ) -> None:
        self._driver, self._blobs, self._journal = driver, blobs, journal
        self._network = network

    async def record(self, task: Task, result: Execution | Abstention) -> None:
        """Take what the execution of a task gave."""
        if not isinstance(result, Execution):
            self._driver.failed(task.id, result)
            return
        try:
            if self._journal.fault is None:
                await self._record_execution(task, result)
            else:  # a commit promises a reveal, for which there may be no room
                log.error("output not kept", task=task.id, error=self._journal.fault)
                self._driver.failed(task.id, Abstention.NO_SPACE)
        finally:
            # Those that the blob store did not take: what is left fills the disk.
            for file in result.files:
                file.unlink(missing_ok=True)

    async def _record_execution(self, task: Task, result: Execution) -> None:
        outcome = cast("Document", result.outcome)
        trace = cast("Document", result.trace)
        try:
            check_work(outcome, proves_work=self._network.proves_work(task))
        except Rejected as rejected:  # a fault of the worker: no task can cause it
            log.error("outcome without the right work", task=task.id, problem=rejected.detail)
            self._driver.failed(task.id, Abstention.WORKER_DIED)
            return
        try:
            limit = self._network.parameters.max_output_bytes
            check_fits(outcome, task.kind, task.args, limit)
        except Rejected as rejected:
            self._reject(task, trace, rejected.detail)
            return
        if await self._keep_files(task, result, blobs_of(outcome)):
            self._driver.executed(task.id, outcome, trace)

    def _reject(self, task: Task, trace: Document, problem: str) -> None:
        """Vote for an error: no manifest may hold these outputs, at any member of the class."""
        log.warning("outputs not allowed", task=task.id, problem=problem)
        detail = problem[:_DETAIL_CHARACTERS]
        # A trace may fill its size limit with tokens and steps: they make room for the detail.
        trace = {**trace, "tokens": [], "steps": [], "detail": detail}
        self._driver.executed(task.id, {"error": "generation-rejected"}, trace)

    async def _keep_files(self, task: Task, execution: Execution, blobs: tuple[Blob, ...]) -> bool:
        """Move the files to the blob store, or abstain: a voter must be able to serve its blobs."""
        try:
            for file, blob in zip(execution.files, blobs, strict=False):
                await asyncio.to_thread(self._blobs.import_file, file, blob.sha256)
        except BlobRefused as error:  # a worker that lied about a file
            log.error("output not kept", task=task.id, error=str(error))
            self._driver.failed(task.id, Abstention.WORKER_DIED)
            return False
        except OSError as error:  # a full disk
            log.error("output not kept", task=task.id, error=str(error))
            self._driver.failed(task.id, Abstention.NO_SPACE)
            return False
        return True
