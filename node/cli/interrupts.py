"""Ctrl-C at any moment of a command: one line and exit code 130, never a traceback.

    a command that                        the first Ctrl-C          a further one
    holds nothing (it imports, reads)     exits at once
    holds files or a worker (`cleanly`)   raises KeyboardInterrupt  changes nothing
    runs a coroutine (`run`)              cancels it                exits at once
    has shown how it ended (`ended`)      exits at once, silently

By default Python raises KeyboardInterrupt between any two instructions: also in an import, which
may swallow it, in a clean-up, which it breaks off, and at the interpreter's end, which shows it.

The module imports nothing that takes time, so that it is in force before anything else is imported.
"""

import atexit
import os
import signal
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

_T = TypeVar("_T")

Handler = Callable[[int, FrameType | None], object]
Signals = signal.Signals

# What shells report for SIGINT: 128 + 2. `exit_codes` cannot be imported here, it imports click.
_INTERRUPTED = 130
# The progress table hides the cursor of a terminal.
_SHOW_CURSOR = "\x1b[?25h"

# What the line says: a command that has submitted a task changes it.
_line = "interrupted"


def install() -> None:
    """Let Ctrl-C end the process at once, with one line, until a command holds something."""
    signal.signal(signal.SIGINT, exit_at_once)


def ended(code: int, *numbers: Signals) -> None:
    """Note that the command has shown how it ended: a later Ctrl-C only hurries its exit.

    So do signals of `numbers`.
    """
    _handle((signal.SIGINT, *numbers), exit_with(code))
    # While the interpreter ends, Python gives every handler up: the signal would kill the process.
    atexit.register(_handle, (signal.SIGINT, *numbers), signal.SIG_IGN)


def exit_at_once(number: int, frame: FrameType | None) -> None:
    """End the process now, with one line on standard error; a signal handler."""
    cursor = _SHOW_CURSOR if os.isatty(2) else ""
    # Not `print`: the signal may have come in the middle of one.
    os.write(2, f"{cursor}helium: {_line}\n".encode(errors="replace"))
    os._exit(_INTERRUPTED)


def exit_with(code: int) -> Handler:
    """Return a signal handler that ends the process now and says nothing."""
    return lambda number, frame: os._exit(code)


@contextmanager
def explained(line: str) -> Iterator[None]:
    """Say `line` in place of "interrupted" if Ctrl-C ends the process at once in this block."""
    global _line  # noqa: PLW0603  # a process has one end
    previous, _line = _line, line
    yield
    _line = previous  # not after an exception: the clean-up that follows may be interrupted too


@contextmanager
def cleanly(*numbers: Signals) -> Iterator[None]:
    """Let the first Ctrl-C raise KeyboardInterrupt: the block has something to clean up.

    A further one must not break that off. `numbers` are further signals that are taken for Ctrl-C.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        _handle((signal.SIGINT, *numbers), signal.SIG_IGN)
        raise KeyboardInterrupt

    with _handling((signal.SIGINT, *numbers), interrupt):
        yield


def run(
    main: Coroutine[Any, Any, _T],
    numbers: Sequence[Signals] = (signal.SIGINT,),
    then: Handler = exit_at_once,
) -> _T:
    """Run a coroutine as `asyncio.run` does, and cancel it at the first signal.

    `then` handles further signals. Raises KeyboardInterrupt if the coroutine was cancelled.
    """
    import asyncio  # takes longer than everything else here

    async def cancellable() -> _T:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None  # noqa: S101  # this coroutine runs in one

        def cancel(number: int, frame: FrameType | None) -> None:
            _handle(numbers, then)
            # Wakes the loop, which may wait for its sockets.
            loop.call_soon_threadsafe(task.cancel)

        with _handling(numbers, cancel):
            return await main

    try:
        return asyncio.run(cancellable())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


def _handle(numbers: Sequence[Signals], handler: Handler | signal.Handlers) -> None:
    for number in numbers:
        signal.signal(number, handler)


@contextmanager
def _handling(numbers: Sequence[Signals], handler: Handler) -> Iterator[None]:
    """Handle signals with `handler` during the block."""
    previous = [(number, signal.getsignal(number)) for number in numbers]
    _handle(numbers, handler)
    try:
        yield
    finally:
        for number, former in previous:
            signal.signal(number, former)
