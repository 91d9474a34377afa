"""Adapter from asyncio to the blocking worker supervisor, by one thread.

Jobs whose `run` is called in one turn of the event loop are given to the supervisor together.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from executor.determinism.compute_class import mismatch
from executor.job import Execution, Job
from executor.worker.ends import End
from executor.worker.supervisor import START_SECONDS, Order, WorkerSupervisor
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
        # One thread, as a supervisor makes one call at a time.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="executor")
        self._asked: list[tuple[Order, asyncio.Future[Execution]]] = []  # in this turn of the loop

    async def start(self) -> Readiness:
        """Start the worker process and test it; not ready if its outputs are not the class's."""
        status = await self._in_thread(lambda: self._supervisor.start(START_SECONDS))
        if not status.ok:
            return Readiness(False, (f"self-test: {status.reason}",), retry=True)
        differences = mismatch(status.runtime, self._runtime)
        return Readiness(not differences, tuple(f"runtime: {line}" for line in differences))

    @property
    def max_together(self) -> int:
        """How many sequences of one model run together in less time."""
        return self._supervisor.max_together

    async def run(self, job: Job, seconds: float, progress: Callable[[float], None]) -> Execution:
        """Run a job in the worker, beside those asked for at once; cancelling stops it.

        Raises `Abstained`, and `RunAlone` if it did not end beside the others.
        """
        loop = asyncio.get_running_loop()

        def report(fraction: float) -> None:
            loop.call_soon_threadsafe(progress, fraction)

        order = Order(job, seconds, report)
        end: asyncio.Future[Execution] = loop.create_future()
        if not self._asked:
            loop.call_soon(self._begin)
        self._asked.append((order, end))
        try:
            # The thread cannot be cancelled: it must end before the next job starts.
            return await asyncio.shield(end)
        except asyncio.CancelledError:
            # On another thread: it waits for the job to stop.
            await asyncio.to_thread(self._supervisor.stop, order.stop)
            await asyncio.wait([end])
            # Asked for also because asyncio warns of an exception that nobody has seen.
            if end.exception() is None:  # it had ended: nobody takes its outputs now
                for path in end.result().files:
                    path.unlink(missing_ok=True)
            raise

    def _begin(self) -> None:
        """Give the supervisor the jobs that were asked for."""
        ends, self._asked = dict(self._asked), []
        loop = asyncio.get_running_loop()

        def on_end(order: Order, end: End) -> None:
            loop.call_soon_threadsafe(_settle, ends[order], end)

        def fail_rest(running: asyncio.Future[None]) -> None:
            error = asyncio.CancelledError() if running.cancelled() else running.exception()
            for end in ends.values():
                if error is not None and not end.done():
                    end.set_exception(error)

        run = partial(self._supervisor.run_together, [*ends], on_end)
        loop.run_in_executor(self._thread, run).add_done_callback(fail_rest)

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


def _settle(future: asyncio.Future[Execution], end: End) -> None:
    if isinstance(end, Execution):
        future.set_result(end)
    else:
        future.set_exception(end)
