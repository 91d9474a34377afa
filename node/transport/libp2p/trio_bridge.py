"""A dedicated trio thread and the two ways across: asyncio asks trio, trio asks asyncio.

libp2p runs on trio only. A thread of its own keeps it answering pings while the asyncio side is
busy. Cancelling the waiting side cancels the work on the other. No `trio.Cancelled` ever leaves the
scope that it belongs to: on the asyncio side it appears as `ConnectionError`.
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
        self._asked: set[asyncio.Task[Any]] = set()

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
        """Cancel everything that runs in the thread and wait for its end."""
        if self._thread is None or self._nursery is None or self._token is None:
            return
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._nursery.cancel_scope.cancel)
        await asyncio.to_thread(self._thread.join)
        self._thread = None
        await asyncio.gather(*self._asked, return_exceptions=True)

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
        answer: asyncio.Future[T] = self._loop.create_future()
        scope = trio.CancelScope()
        try:
            self._token.run_sync_soon(
                self.start_soon, self._run, scope, answer, on_abandoned, function, args
            )
        except trio.RunFinishedError:
            raise ConnectionError("the transport has stopped") from None
        try:
            return await answer
        except asyncio.CancelledError:
            with contextlib.suppress(trio.RunFinishedError):
                self._token.run_sync_soon(scope.cancel)
            if _succeeded(answer) and on_abandoned is not None:  # in this very turn of the loop
                self.spawn(on_abandoned, answer.result())
            raise
        finally:
            del answer  # it holds the exception, whose traceback holds this frame

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
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
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

        def finished(task: asyncio.Task[T]) -> None:
            self._asked.discard(task)
            if not task.cancelled():
                task.exception()  # seen, even if nobody waits for it any more
            with contextlib.suppress(trio.RunFinishedError):
                token.run_sync_soon(done.set)

        def start() -> None:
            task = asyncio.get_running_loop().create_task(function(*args))
            tasks.append(task)
            self._asked.add(task)
            task.add_done_callback(finished)

        self.post(start)
        try:
            await done.wait()
        except trio.Cancelled:
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
        answer: "asyncio.Future[T]",
        on_abandoned: Callable[[T], Awaitable[object]] | None,
        function: Callable[..., Awaitable[T]],
        args: tuple[object, ...],
    ) -> None:
        failure: Exception = ConnectionError("the transport has stopped")
        try:
            with scope:
                result = await function(*args)
                self.post(self._settle, answer, on_abandoned, result)
                return
        except Exception as raised:  # it belongs to the caller, on the other side
            failure = raised
        finally:
            self.post(_fail, answer, failure)
            del (
                failure,
                answer,
                args,
            )  # a failure's traceback holds this frame, and so whole answers

    def _settle(
        self,
        answer: "asyncio.Future[T]",
        on_abandoned: Callable[[T], Awaitable[object]] | None,
        result: T,
    ) -> None:
        if not answer.done():
            answer.set_result(result)
        elif on_abandoned is not None:
            self.spawn(on_abandoned, result)


def _fail(answer: "asyncio.Future[T]", failure: Exception) -> None:
    if not answer.done():
        answer.set_exception(failure)


def _succeeded(answer: "asyncio.Future[T]") -> bool:
    return answer.done() and not answer.cancelled() and answer.exception() is None
