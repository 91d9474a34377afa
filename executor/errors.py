"""The ways in which a job can end without a result."""

import re
from collections.abc import Callable
from typing import Literal, TypeVar

from executor.job import Difference
from protocol.wire.messages import Abstention
from schemas.errors import HeliumError, printable

T = TypeVar("T")

# The errors of an outcome (section 4); `schemas/outcome.json` has the same list.
ErrorCode = Literal["input-undecodable", "generation-rejected", "non-finite-output", "no-notes"]

DETAIL_CHARACTERS = 256  # of `detail` in a trace (section 4)
# The folders of an absolute path, without its last part.
PATH_FOLDERS = re.compile(r"(?<![\w/])/(?:[^\s/:'\"]+/)+")

# Torch and mmap raise RuntimeError and OSError for too little memory; only the words tell.
MEMORY_ERROR_WORDS = ("allocate memory", "out of memory", "bad_alloc", "bad alloc")
# I/O and time (`TimeoutError` is an `OSError`), and what ends a process.
OWN_ERRORS = (MemoryError, OSError, KeyboardInterrupt, SystemExit, GeneratorExit)
# An object's place in memory, as `repr` writes it.
ADDRESS = re.compile(r"0x[0-9a-fA-F]{4,}")


class Abstained(HeliumError):
    """This machine could not finish the job; another might (specification, section 4, `abstain`).

    `reason` goes on the wire; `detail` is for this node's log only.
    """

    def __init__(self, reason: Abstention, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else str(reason))
        self.reason = reason
        self.detail = detail


class RunAlone(HeliumError):
    """The job did not end beside others; it is to run again alone. The message says why."""


class TaskFailed(HeliumError):
    """The job fails alike on every honest machine of a class: an `{"error": code}` (section 4).

    `detail` goes into the trace through `printable_detail`. It is not compared between nodes.
    `confirmed` is false for an error of a library: whether every member meets it is known only when
    a second run in a fresh worker raises the same.
    """

    def __init__(self, code: ErrorCode, detail: str = "", *, confirmed: bool = True) -> None:
        super().__init__(f"{code}: {detail}" if detail else code)
        self.code: ErrorCode = code
        self.detail = detail
        self.confirmed = confirmed


class TokensDiffer(HeliumError):
    """The tokens to replay are not those that their task draws."""

    def __init__(self, difference: Difference) -> None:
        super().__init__(f"the tokens differ: {difference}")
        self.difference = difference


class ModelRefused(HeliumError):
    """A model folder must not be loaded; the message says why."""


class ProfileViolated(HeliumError):
    """The process does not compute under the numeric profile; the message says where it differs."""


class EngineUnavailable(HeliumError):
    """The engine's C library cannot be used; the message says why."""


def printable_detail(detail: str) -> str:
    """Return a detail that may leave this machine: one printable line of `DETAIL_CHARACTERS`.

    A path is cut to its last part, so that a trace does not show the folders of this machine.
    """
    line = printable(PATH_FOLDERS.sub("", detail))
    return " ".join(line.split())[:DETAIL_CHARACTERS].rstrip()


def describe_error(error: BaseException) -> str:
    """Return an error's type and text on one line, alike in every process of this machine."""
    text = ADDRESS.sub("0x", printable_detail(str(error)))
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def is_own_error(error: BaseException) -> bool:
    """Return whether an error, or what caused it, is this machine's: memory, I/O, time, a signal.

    All others may be raised on every machine alike. A panic of a library in Rust is one of them,
    although it is no `Exception`.
    """
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    return any(isinstance(link, OWN_ERRORS) or is_memory_error(link) for link in chain)


def with_task_failures(
    run: Callable[[], T],
    code: ErrorCode = "generation-rejected",
    describe: Callable[[BaseException], str] = describe_error,
) -> T:
    """Call `run`; raise an unconfirmed `TaskFailed` for what a library raises, of any type.

    `describe` makes its detail, alike in every process: two runs are compared by it. This machine's
    own errors and this program's pass through.
    """
    try:
        return run()
    except BaseException as error:  # panics of libraries in Rust too
        if isinstance(error, HeliumError) or is_own_error(error):
            raise
        raise TaskFailed(code, describe(error), confirmed=False) from error


def is_memory_error(error: BaseException) -> bool:
    """Return True if an error means that there was too little memory."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(words in text for words in MEMORY_ERROR_WORDS)
