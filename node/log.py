"""Loggers of this project: structlog where a program has configured it, `logging` otherwise.

`Client` is a library: it configures nothing, and an application that configures nothing gets what
every library's lines become in Python. A line that names a peer is limited, because strangers must
not decide how much is written.
"""

import contextlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import structlog

# Lines of one kind about one peer, and of one kind about all peers, in a period of seconds.
LINES_OF_A_PEER, LINES_OF_A_KIND, PERIOD_SECONDS = 10, 200, 60.0
# Peer ids are free to make, memory is not.
MAX_KEYS = 4096
_NUMBERS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "exception": logging.ERROR,
    "critical": logging.CRITICAL,
}
# The loggers of a library user have this name in front.
LIBRARY = "helium"


class LineLimiter:
    """Counts lines by key in periods; each key has a number of lines for each period."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        """`now` returns seconds; it replaces the clock in tests."""
        self._now = now
        # By key: when its period began, and its lines since.
        self._counts: OrderedDict[Hashable, tuple[float, int]] = OrderedDict()

    def left_out(self, key: Hashable, limit: int) -> int | None:
        """Return how many lines were left out before this one; None if this one is left out too."""
        now = self._now()
        start, count = self._counts.pop(key, (now, 0))
        is_over = now - start >= PERIOD_SECONDS
        self._counts[key] = (now, 1) if is_over else (start, count + 1)
        if len(self._counts) > MAX_KEYS:
            self._counts.popitem(last=False)
        if is_over:
            return max(0, count - limit)
        return 0 if count < limit else None


class Logger:
    """Writes events with fields, as structlog's loggers do."""

    def __init__(self, name: str, limiter: LineLimiter | None = None) -> None:
        self._name, self._limiter = name, limiter or LIMITER

    def debug(self, event: str, **fields: Any) -> None:
        """Write a line for developers; it is not limited."""
        self._write("debug", event, fields)

    def info(self, event: str, **fields: Any) -> None:
        """Write a line about what went as it should."""
        self._limited("info", event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        """Write a line about what an operator may want to know."""
        self._limited("warning", event, fields)

    def error(self, event: str, **fields: Any) -> None:
        """Write a line about what has failed."""
        self._limited("error", event, fields)

    def exception(self, event: str, **fields: Any) -> None:
        """Write a line with the traceback of the exception that is being handled."""
        self._limited("exception", event, fields)

    def critical(self, event: str, **fields: Any) -> None:
        """Write a line about what ends the program."""
        self._write("critical", event, fields)

    def _limited(self, level: str, event: str, fields: dict[str, Any]) -> None:
        if "peer" in fields:
            kind = (self._name, event)
            of_peer = self._limiter.left_out((*kind, fields["peer"]), LINES_OF_A_PEER)
            of_kind = None if of_peer is None else self._limiter.left_out(kind, LINES_OF_A_KIND)
            if of_peer is None or of_kind is None:
                return
            if left_out := of_peer + of_kind:
                fields["left_out"] = left_out
        self._write(level, event, fields)

    def _write(self, level: str, event: str, fields: dict[str, Any]) -> None:
        number = _NUMBERS[level]
        logger = logging.getLogger(self._name)
        if structlog.is_configured():
            # The first of structlog's own steps comes after it has built a logger and its context.
            if _filters_by_level() and not logger.isEnabledFor(number):
                return
            # The log may be on a full disk. That must not end what the line is about; `logging`
            # does not raise either.
            with contextlib.suppress(OSError):
                getattr(structlog.get_logger(self._name), level)(event, **fields)
            return
        logger = logging.getLogger(f"{LIBRARY}.{self._name}")
        has_traceback = level == "exception" or fields.pop("exc_info", None)
        if logger.isEnabledFor(number):
            text = " ".join([event, *(f"{name}={value!r}" for name, value in fields.items())])
            logger.log(number, "%s", text, exc_info=bool(has_traceback))


class RepeatFilter(logging.Filter):
    """Limits the lines of other libraries: those that one place in the code writes."""

    def __init__(self, limiter: LineLimiter | None = None) -> None:
        super().__init__()
        self._limiter = limiter or LIMITER

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a line is written. Lines of `Logger` have been limited already."""
        if isinstance(record.msg, dict) or record.levelno < logging.INFO:
            return True
        key = (record.name, record.lineno)
        return self._limiter.left_out(key, LINES_OF_A_KIND) is not None


def _filters_by_level() -> bool:
    """Whether structlog leaves out lines below their logger's level, as `log_setup` has it."""
    steps = structlog.get_config()["processors"]
    return bool(steps) and steps[0] is structlog.stdlib.filter_by_level


def get_logger(name: str) -> Logger:
    """Return the logger of a part of the program."""
    return Logger(name)


LIMITER = LineLimiter()
