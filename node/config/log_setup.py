"""Log output: pretty on a terminal, JSON lines otherwise, always on standard error.

Call `configure` before libp2p is imported: libp2p calls `logging.debug()`, which configures the
root logger if it has no handler yet. Call `restore_logger("libp2p")` after the import: libp2p
detaches its logger from the root.
"""

import logging
import sys
from typing import Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from node.log import RepeatFilter

Format = Literal["auto", "pretty", "json"]


def configure(level: str, form: Format, stream: TextIO | None = None) -> None:
    """Write the messages of structlog, of `logging` and of `warnings` to `stream`.

    `level` is debug, info, warning or error. The form auto is pretty on a terminal and json
    elsewhere. `stream` is standard error unless given.
    """
    stream = sys.stderr if stream is None else stream
    terminal = stream.isatty()
    pretty = form == "pretty" or (form == "auto" and terminal)
    handler = logging.StreamHandler(stream)
    handler.addFilter(RepeatFilter())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_common(pretty),
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_rendering(pretty, colors=terminal),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.captureWarnings(True)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_common(pretty),
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def restore_logger(name: str, level: str = "warning") -> None:
    """Attach a logger to the root again, after a library gave it handlers of its own."""
    logger = logging.getLogger(name)
    logger.handlers.clear()
    logger.propagate = True
    logger.setLevel(level.upper())


def _common(pretty: bool) -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if pretty else "iso", utc=not pretty),
    ]


def _rendering(pretty: bool, *, colors: bool) -> list[Processor]:
    if pretty:
        # Not the default traceback: it prints local variables, which may hold a key.
        plain = structlog.dev.plain_traceback
        return [
            _printable,
            structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=plain),
        ]
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]


def _printable(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Escape control characters: text from a peer must not control the terminal."""
    return {key: _escaped(value) for key, value in event.items()}


def _escaped(value: object) -> object:
    if not isinstance(value, str) or value.isprintable():
        return value
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in value
    )
