"""Adapter from asyncio to the blocking worker supervisor, by one thread."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from executor.determinism.compute_class import mismatch
from executor.job import Execution, Job
from executor.worker.supervisor import START_SECONDS, WorkerSupervisor
from node.execution.queue import Readiness
from node.execution.warm_up import WARM_UP_SECONDS, warm_up_jobs
from protocol.network import Model
from protocol.wire.encoding import Document

_T = TypeVar("_T")


class Worker:
    """Executes for one compute class, if this machine's runtime is that class's."""

    def __init__(self, supervisor: WorkerSupervisor, runtime: Document) -> None:
        """`runtime` is the class's content in the network document (specification 3)."""
        self._supervisor, self._runtime = supervisor, runtime
        # One thread, as a supervisor runs one job at a time.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="executor")

    async def start(self) -> Readiness:
        """Start the worker process and test it; not ready if its outputs are not the class's."""
        status = await self._in_thread(lambda: self._supervisor.start(START_SECONDS))
        if not status.ok:
            return Readiness(False, (f"self-test: {status.reason}",), retry=True)
        differences = mismatch(status.runtime, self._runtime)
        return Readiness(not differences, tuple(f"runtime: {line}" for line in differences))

    async def run(self, job: Job, seconds: float, progress: Callable[[float], None]) -> Execution:
        """Run a job in the worker; cancelling stops it. Raises Abstained."""
        loop, stop = asyncio.get_running_loop(), threading.Event()

        def report(fraction: float) -> None:
            loop.call_soon_threadsafe(progress, fraction)

        running = asyncio.ensure_future(
            self._in_thread(
                lambda: self._supervisor.run(job, timeout=seconds, progress=report, stop=stop)
            )
        )
        try:
            # The thread cannot be cancelled: it must end before the next job starts.
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            # On another thread: it waits for the job to stop.
            await asyncio.to_thread(self._supervisor.stop, stop)
            await asyncio.wait([running])
            # Asked for also because asyncio warns of an exception that nobody has seen.
            if running.exception() is None:  # it had ended: nobody takes its outputs now
                for path in running.result().files:
                    path.unlink(missing_ok=True)
            raise

    async def warm(self, model: Model) -> None:
        """Run the smallest job of each kind that the model serves. Raises Abstained."""
        for job in warm_up_jobs(model, self._supervisor.scratch):
            try:
                execution = await self.run(job, WARM_UP_SECONDS, lambda _: None)
            finally:
                for path in job.inputs:
                    path.unlink(missing_ok=True)
            for path in execution.files:
                path.unlink(missing_ok=True)

    def is_alive(self) -> bool:
        """Return whether the worker process runs."""
        return self._supervisor.pid is not None

    async def close(self) -> None:
        """Kill the worker process."""
        # On another thread, as a running job occupies `_thread` until its worker is killed.
        await asyncio.to_thread(self._supervisor.close)
        self._thread.shutdown(wait=True, cancel_futures=True)

    async def _in_thread(self, call: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)
