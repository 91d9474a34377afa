"""A parser under fire: what it is given, what it may say, and what must hold if it accepts."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

SECONDS = 2.0  # of processor time for one input; most take a millisecond

SENTENCE = 1_000  # characters of a refusal


@dataclass(frozen=True, slots=True)
class Target:
    """`make` gives an input, `check` has it parsed and asserts what must hold of what it accepts.

    `allowed` are the exceptions by which the parser may refuse; any other is a finding.
    """

    name: str
    make: Callable[[Random], bytes]
    check: Callable[[bytes], object]
    allowed: tuple[type[Exception], ...]


def fire(target: Target, content: bytes) -> str:
    """Give one input; return "accepted", or why it was refused. Raises on a finding."""
    begun, said = time.process_time(), ""
    try:
        target.check(content)
        verdict = "accepted"
    except target.allowed as refusal:
        verdict, said = str(getattr(refusal, "reason", type(refusal).__name__)), str(refusal)
    took = time.process_time() - begun
    assert took < SECONDS, f"{took:.1f} s for {len(content)} bytes"
    assert len(said) < SENTENCE, "a refusal that fills the log"
    return verdict
