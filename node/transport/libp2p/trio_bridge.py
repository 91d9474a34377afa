"""A thread that runs trio, and calls between it and the asyncio loop in both directions.

libp2p runs on trio only. A thread of its own keeps it answering pings while the asyncio side is
busy. Cancelling the waiting side cancels the work on the other side. No `trio.Cancelled` ever
leaves the scope that it belongs to: on the asyncio side it appears as `ConnectionError`.

| called from | waits for the result | does not wait        |
| ----------- | -------------------- | -------------------- |
| asyncio     | `run_in_trio`        | `spawn`              |
| trio        | `run_in_asyncio`     | `post`, `start_soon` |
"""

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar, TypeVarTuple

import trio

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class TrioBridge:
    """Owns the trio thread between `start` and `stop`; both are called on one asyncio loop."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self._nursery: trio.Nursery | None = None
        self._asyncio_tasks: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        """Start the thread and wait until it takes calls."""
        self._loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(
            target=trio.run, args=(self._main, ready), name="trio", daemon=True
        )
        self._thread.start()
        await ready

    async def stop(self) -> None:
        """Cancel everything that runs in the thread and wait until it has ended."""
        if self._thread is None or self._nursery is None or self._token is None:
            return
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._nursery.cancel_scope.cancel)
        await asyncio.to_thread(self._thread.join)
        self._thread = None
        # The end of the thread has cancelled its handlers here. Wait until they have cleaned up.
        await asyncio.gather(*self._asyncio_tasks, return_exceptions=True)

    async def run_in_trio(
        self,
        function: Callable[[*Ts], Awaitable[T]],
        *args: *Ts,
        on_abandoned: Callable[[T], Awaitable[object]] | None = None,
    ) -> T:
        """Run a trio function from asyncio and return what it returns or raise what it raises.

        If the caller is cancelled before the function returns, the trio function `on_abandoned`
        gets the result; it must not raise. Raises `ConnectionError` when the thread ends first.
        """
        if self._loop is None or self._token is None or self._nursery is None:
            raise ConnectionError("the transport is not running")
        outcome: asyncio.Future[T] = self._loop.create_future()
        scope = trio.CancelScope()
        try:
            self._token.run_sync_soon(
                self.start_soon, self._run, scope, outcome, on_abandoned, function, args
            )
        except trio.RunFinishedError:
            raise ConnectionError("the transport has stopped") from None
        try:
            return await outcome
        except asyncio.CancelledError:
            with contextlib.suppress(trio.RunFinishedError):
                self._token.run_sync_soon(scope.cancel)
            # The result may have come in the same turn of the loop as the cancellation.
            if _succeeded(outcome) and on_abandoned is not None:
                self.spawn(on_abandoned, outcome.result())
            raise
        finally:
            del outcome  # it holds the exception, whose traceback holds this frame

    def spawn(self, function: Callable[[*Ts], Awaitable[object]], *args: *Ts) -> None:
        """From asyncio: run a trio function until the bridge stops; it must not raise."""
        if self._token is not None:
            with contextlib.suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self.start_soon, function, *args)

    def start_soon(self, function: Callable[[*Ts], Awaitable[object]], *args: *Ts) -> None:
        """From trio: run a function in the thread's own nursery; it must not raise."""
        if self._nursery is not None:
            self._nursery.start_soon(function, *args)

    def post(self, function: Callable[[*Ts], object], *args: *Ts) -> None:
        """From trio: call a function on the asyncio loop, in order, without waiting."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(function, *args)

    async def run_in_asyncio(
        self, function: Callable[[*Ts], Coroutine[None, None, T]], *args: *Ts
    ) -> T:
        """From trio: run a coroutine function on the asyncio loop and wait for what it returns.

        Raises `ConnectionError` when its task was cancelled on the asyncio side.
        """
        done = trio.Event()
        tasks: list[asyncio.Task[T]] = []
        token = trio.lowlevel.current_trio_token()

        def on_done(task: asyncio.Task[T]) -> None:
            self._asyncio_tasks.discard(task)
            if not task.cancelled():
                task.exception()  # or asyncio warns of it if nobody waits any more
            with contextlib.suppress(trio.RunFinishedError):
                token.run_sync_soon(done.set)

        def start() -> None:
            task = asyncio.get_running_loop().create_task(function(*args))
            tasks.append(task)
            self._asyncio_tasks.add(task)
            task.add_done_callback(on_done)

        self.post(start)
        try:
            await done.wait()
        except trio.Cancelled:
            # Posted calls keep their order, so that the task exists when it is cancelled.
            self.post(lambda: tasks[0].cancel())  # noqa: PLW0108 - filled by `start`, later
            raise
        if tasks[0].cancelled():
            raise ConnectionError("the handler was cancelled")
        return tasks[0].result()

    async def _main(self, ready: asyncio.Future[None]) -> None:
        async with trio.open_nursery() as self._nursery:
            self._token = trio.lowlevel.current_trio_token()
            self.post(ready.set_result, None)
            await trio.sleep_forever()

    async def _run(
        self,
        scope: trio.CancelScope,
        outcome: "asyncio.Future[T]",
        on_abandoned: Callable[[T], Awaitable[object]] | None,
        function: Callable[..., Awaitable[T]],
        args: tuple[object, ...],
    ) -> None:
        failure: Exception = ConnectionError("the transport has stopped")
        try:
            with scope:
                result = await function(*args)
                self.post(self._settle, outcome, on_abandoned, result)
                return
        except Exception as raised:  # it is raised to the caller, on the other side
            failure = raised
        finally:
            self.post(_fail, outcome, failure)
            # A failure's traceback holds this frame, and with it whole payloads.
            del failure, outcome, args

    def _settle(
        self,
        outcome: "asyncio.Future[T]",
        on_abandoned: Callable[[T], Awaitable[object]] | None,
        result: T,
    ) -> None:
        if not outcome.done():
            outcome.set_result(result)
        elif on_abandoned is not None:
            self.spawn(on_abandoned, result)


def _fail(outcome: "asyncio.Future[T]", failure: Exception) -> None:
    if not outcome.done():
        outcome.set_exception(failure)


def _succeeded(outcome: "asyncio.Future[T]") -> bool:
    return outcome.done() and not outcome.cancelled() and outcome.exception() is None
