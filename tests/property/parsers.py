"""A parser under test: its inputs, how it may reject them, and what must hold if it accepts."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from hypothesis import strategies as st

# Processor time of one input. Most take a millisecond.
MAX_SECONDS = 2.0
# Characters of an error message. A longer one would fill the log.
MAX_MESSAGE = 1_000


@dataclass(frozen=True, slots=True)
class Parser:
    """One parser of untrusted bytes.

    `check` parses an input and asserts what must hold of an accepted one. `rejections` are the
    exceptions by which the parser may reject; any other exception is a bug.
    """

    name: str
    inputs: st.SearchStrategy[bytes]
    check: Callable[[bytes], object]
    rejections: tuple[type[Exception], ...]


def verdict_of(parser: Parser, content: bytes) -> str:
    """Parse one input; return "accepted" or the reason of the rejection. Raises for a bug."""
    start, message = time.process_time(), ""
    try:
        parser.check(content)
        verdict = "accepted"
    except parser.rejections as rejection:
        verdict = str(getattr(rejection, "reason", type(rejection).__name__))
        message = str(rejection)
    seconds = time.process_time() - start
    assert seconds < MAX_SECONDS, f"{seconds:.1f} s for {len(content)} bytes"
    assert len(message) < MAX_MESSAGE, "an error message that fills the log"
    return verdict
