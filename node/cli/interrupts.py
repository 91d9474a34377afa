"""Signals that end a command, at any moment: one line and the shell's exit code, no traceback.

    signal    from                                    line           exit code
    SIGINT    Ctrl-C                                  interrupted    130
    SIGTERM   kill, timeout, a service manager        terminated     143
    SIGHUP    a terminal that closes; not with nohup  hung up        129

    a command that                        the first signal          a further one
    holds nothing (it imports, reads)     exits at once
    holds files or a worker (`cleanly`)   raises KeyboardInterrupt  changes nothing
    runs a coroutine (`run`)              cancels it                Ctrl-C exits at once
    has shown how it ended (`ended`)      exits at once, silently

By default Python raises KeyboardInterrupt between any two instructions: also in an import, which
may swallow it, in a clean-up, which it breaks off, and at the interpreter's end, which shows it.
SIGTERM and SIGHUP would kill the process by default: no clean-up would run.

The module imports nothing that takes time, so that it is in force before anything else is imported.
"""

import atexit
import os
import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

_T = TypeVar("_T")

Handler = Callable[[int, FrameType | None], object]
_WORDS = {
    signal.SIGINT: "interrupted",
    signal.SIGTERM: "terminated",
    signal.SIGHUP: "hung up",
}
# `nohup` ignores SIGHUP for the command that it starts, so that this outlives its terminal.
SIGNALS = tuple(
    number
    for number in _WORDS
    if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN
)
"""The signals that end a command."""

# The progress table hides the cursor of a terminal.
_SHOW_CURSOR = "\x1b[?25h"

# The signal that came first. A KeyboardInterrupt that no handler here raised is a Ctrl-C.
_received = signal.SIGINT
# The end of the line: a command that has submitted a task changes it.
_advice = ""


def install() -> None:
    """Let a signal end the process at once, with one line, until a command holds something."""
    _handle(exit_at_once)


def ended(code: int) -> None:
    """Note that the command has shown how it ended: a later signal only hurries its exit."""
    _handle(exit_with(code))
    # While the interpreter ends, Python gives every handler up: the signal would kill the process.
    atexit.register(_handle, signal.SIG_IGN)


def exit_code() -> int:
    """Return what shells report for the signal that came: 128 and its number."""
    # `exit_codes.Exit` has the same numbers. It cannot be imported here: it imports click.
    return 128 + _received


def word() -> str:
    """Return how the signal that came ended the command, for its line."""
    return _WORDS[_received]


def exit_at_once(number: int, frame: FrameType | None) -> None:
    """End the process now, with one line on standard error; a signal handler."""
    _receive(number)
    cursor = _SHOW_CURSOR if os.isatty(2) else ""
    # Not `print`: the signal may have come in the middle of one.
    os.write(2, f"{cursor}helium: {word()}{_advice}\n".encode(errors="replace"))
    os._exit(exit_code())


def exit_with(code: int) -> Handler:
    """Return a signal handler that ends the process now and says nothing."""
    return lambda number, frame: os._exit(code)


@contextmanager
def advising(advice: str) -> Iterator[None]:
    """End the line with `advice` if a signal ends the process in this block."""
    global _advice  # noqa: PLW0603  # a process has one end
    previous, _advice = _advice, advice
    yield
    _advice = previous  # not after an exception: the clean-up that follows may be interrupted too


@contextmanager
def cleanly() -> Iterator[None]:
    """Let the first signal raise KeyboardInterrupt: the block has something to clean up.

    A further one must not break that off.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        _receive(number)
        _handle(signal.SIG_IGN)
        raise KeyboardInterrupt

    with _handling(interrupt):
        yield


def run(main: Coroutine[Any, Any, _T], then: Handler = exit_at_once) -> _T:
    """Run a coroutine as `asyncio.run` does, and cancel it at the first signal.

    `then` handles a Ctrl-C after that. Raises KeyboardInterrupt if the coroutine was cancelled.
    """
    import asyncio  # takes longer than everything else here

    async def cancellable() -> _T:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None  # noqa: S101  # this coroutine runs in one

        def cancel(number: int, frame: FrameType | None) -> None:
            _receive(number)
            # A terminal that closes may send SIGHUP twice, from the shell and from the kernel.
            _handle(signal.SIG_IGN)
            signal.signal(signal.SIGINT, then)
            # Wakes the loop, which may wait for its sockets.
            loop.call_soon_threadsafe(task.cancel)

        with _handling(cancel):
            return await main

    try:
        return asyncio.run(cancellable())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


def _receive(number: int) -> None:
    """Take note of a signal, and write to nothing that has gone with the terminal."""
    global _received  # noqa: PLW0603  # a process has one end
    _received = signal.Signals(number)
    for stream in (1, 2):
        try:
            os.write(stream, b"")
        except OSError:  # EIO, which the next write in the clean-up would raise too
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)


def _handle(handler: Handler | signal.Handlers) -> None:
    for number in SIGNALS:
        signal.signal(number, handler)


@contextmanager
def _handling(handler: Handler) -> Iterator[None]:
    """Handle the signals with `handler` during the block."""
    previous = [(number, signal.getsignal(number)) for number in SIGNALS]
    _handle(handler)
    try:
        yield
    finally:
        for number, former in previous:
            signal.signal(number, former)
