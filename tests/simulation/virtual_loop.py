"""An asyncio loop whose time is virtual: it jumps to the next timer instead of waiting."""

import asyncio
import selectors
from collections.abc import Callable, Mapping
from typing import Any


class Stalled(AssertionError):
    """All tasks wait and no timer is set: a deadlock."""


class _Selector(selectors.BaseSelector):
    """Selects no files. A wait advances the virtual time instead."""

    def __init__(self) -> None:
        self.now = 0.0
        self._keys: dict[Any, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        self._keys[fileobj] = selectors.SelectorKey(fileobj, -1, events, data)
        return self._keys[fileobj]

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys.pop(fileobj)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Stalled
        self.now += max(0.0, timeout)
        return []

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._keys


class VirtualLoop(asyncio.SelectorEventLoop):
    """A deterministic loop: one thread, no files. Time advances only when no callback is ready."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Run the function at once instead of in a thread."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future


class VirtualClock:
    """A clock on a virtual loop, `skew` seconds off."""

    def __init__(self, loop: asyncio.AbstractEventLoop, start: float, skew: float = 0.0) -> None:
        self._loop, self._start = loop, start + skew

    def now(self) -> float:
        return self._start + self._loop.time()


def run(main: Callable[[], Any]) -> Any:
    """Run a coroutine function on a fresh virtual loop and return its result."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main())
