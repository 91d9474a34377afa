import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import pytest
import trio

from node.transport.libp2p.trio_bridge import TrioBridge
from tests.node.transport.recorder import HANG_SECONDS

T = TypeVar("T")


@pytest.fixture
async def bridge() -> AsyncIterator[TrioBridge]:
    bridge = TrioBridge()
    await bridge.start()
    yield bridge
    await bridge.stop()


async def test_results_and_exceptions_cross_the_bridge(bridge: TrioBridge) -> None:
    async def add(a: int, b: int) -> tuple[int, str]:
        await trio.lowlevel.checkpoint()
        return a + b, threading.current_thread().name

    async def fail() -> None:
        raise LookupError("over there")

    assert await bridge.run_in_trio(add, 1, 2) == (3, "trio")
    with pytest.raises(LookupError, match="over there"):
        await bridge.run_in_trio(fail)


async def test_cancelling_the_asyncio_side_cancels_the_trio_side(bridge: TrioBridge) -> None:
    started, cancelled = threading.Event(), threading.Event()

    async def wait() -> None:
        started.set()
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()

    task = asyncio.create_task(bridge.run_in_trio(wait))
    assert await asyncio.to_thread(started.wait, HANG_SECONDS)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(cancelled.wait, HANG_SECONDS)


async def test_a_result_after_the_cancellation_goes_to_on_abandoned(bridge: TrioBridge) -> None:
    go_on, disposed = threading.Event(), threading.Event()
    abandoned: list[str] = []

    async def finish() -> str:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(go_on.wait)
        return "a stream"

    async def dispose(result: str) -> None:
        await trio.lowlevel.checkpoint()
        abandoned.append(result)
        disposed.set()

    task = asyncio.create_task(bridge.run_in_trio(finish, on_abandoned=dispose))
    await bridge.run_in_trio(trio.sleep, 0)  # by now it has begun
    task.cancel()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(disposed.wait, HANG_SECONDS)
    assert abandoned == ["a stream"]


async def cancelled_at_the_answer(
    bridge: TrioBridge,
    function: Callable[[], Awaitable[T]],
    on_abandoned: Callable[[T], Awaitable[None]],
) -> None:
    """Call, and cancel when the answer is set, a turn of the loop before the caller hears of it."""
    post = bridge.post

    def post_and_cancel(then: Callable[..., object], *args: object) -> None:
        def both() -> None:
            then(*args)
            task.cancel()

        post(both)

    bridge.post = post_and_cancel  # type: ignore[method-assign, assignment]
    task = asyncio.create_task(bridge.run_in_trio(function, on_abandoned=on_abandoned))
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_result_in_the_turn_of_the_cancellation_goes_to_on_abandoned(
    bridge: TrioBridge,
) -> None:
    abandoned: list[str] = []
    disposed = threading.Event()

    async def finish() -> str:
        await trio.lowlevel.checkpoint()
        return "a stream"

    async def dispose(result: str) -> None:
        await trio.lowlevel.checkpoint()
        abandoned.append(result)
        disposed.set()

    await cancelled_at_the_answer(bridge, finish, dispose)
    assert await asyncio.to_thread(disposed.wait, HANG_SECONDS)
    assert abandoned == ["a stream"]


async def test_a_failure_in_the_turn_of_the_cancellation_is_dropped(bridge: TrioBridge) -> None:
    abandoned: list[object] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda loop, context: abandoned.append(context)
    )

    async def fail() -> None:
        await trio.lowlevel.checkpoint()
        raise LookupError("over there")

    async def dispose(result: None) -> None:
        await trio.lowlevel.checkpoint()
        abandoned.append(result)

    await cancelled_at_the_answer(bridge, fail, dispose)
    await asyncio.to_thread(gc.collect)
    assert abandoned == []


async def test_a_result_in_time_does_not_go_to_on_abandoned(bridge: TrioBridge) -> None:
    abandoned: list[int] = []

    async def finish() -> int:
        await trio.lowlevel.checkpoint()
        return 1

    async def dispose(result: int) -> None:
        await trio.lowlevel.checkpoint()
        abandoned.append(result)

    assert await bridge.run_in_trio(finish, on_abandoned=dispose) == 1
    await bridge.run_in_trio(trio.sleep, 0)
    assert abandoned == []


async def test_trio_runs_a_coroutine_in_asyncio_and_can_cancel_it(bridge: TrioBridge) -> None:
    ended = asyncio.Event()

    async def answer(value: int) -> int:
        return value + 1

    async def fail() -> None:
        raise LookupError("over here")

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def ask() -> int:
        with trio.move_on_after(0.05):
            await bridge.run_in_asyncio(wait)
        with pytest.raises(LookupError, match="over here"):
            await bridge.run_in_asyncio(fail)
        return await bridge.run_in_asyncio(answer, 41)

    assert await bridge.run_in_trio(ask) == 42
    async with asyncio.timeout(HANG_SECONDS):
        await ended.wait()


async def test_after_stop_running_and_later_calls_raise_connection_errors() -> None:
    bridge = TrioBridge()
    with pytest.raises(ConnectionError, match="not running"):
        await bridge.run_in_trio(trio.sleep, 0)
    await bridge.start()
    waiting = asyncio.create_task(bridge.run_in_trio(trio.sleep_forever))
    await bridge.run_in_trio(trio.sleep, 0)
    await bridge.stop()
    with pytest.raises(ConnectionError, match="stopped"):
        await waiting
    with pytest.raises(ConnectionError, match="stopped"):
        await bridge.run_in_trio(trio.sleep, 0)
    await bridge.stop()
