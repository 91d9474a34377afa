"""The ways in which a job can end without a result."""

import re
from typing import Literal

from protocol.wire.messages import Abstention
from schemas.errors import HeliumError, printable

# The errors of an outcome (section 4); `schemas/outcome.json` has the same list.
ErrorCode = Literal["input-undecodable", "generation-rejected", "non-finite-output", "no-notes"]

DETAIL_CHARACTERS = 256  # of `detail` in a trace (section 4)
# The folders of an absolute path, without its last part.
PATH_FOLDERS = re.compile(r"(?<![\w/])/(?:[^\s/:'\"]+/)+")

# Torch and mmap raise RuntimeError and OSError for too little memory; only the words tell.
MEMORY_ERROR_WORDS = ("allocate memory", "out of memory", "bad_alloc", "bad alloc")


class Abstained(HeliumError):
    """This machine could not finish the job; another might (specification, section 4, `abstain`).

    `reason` goes on the wire; `detail` is for this node's log only.
    """

    def __init__(self, reason: Abstention, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else str(reason))
        self.reason = reason
        self.detail = detail


class TaskFailed(HeliumError):
    """The job fails alike on every honest machine of a class: an `{"error": code}` (section 4).

    `detail` goes into the trace through `printable_detail`. It is not compared between nodes.
    """

    def __init__(self, code: ErrorCode, detail: str = "") -> None:
        super().__init__(f"{code}: {detail}" if detail else code)
        self.code: ErrorCode = code
        self.detail = detail


class ModelRefused(HeliumError):
    """A model folder must not be loaded; the message says why."""


class ProfileViolated(HeliumError):
    """The process does not compute under the numeric profile; the message says where it differs."""


def printable_detail(detail: str) -> str:
    """Return a detail that may leave this machine: one printable line of `DETAIL_CHARACTERS`.

    A path is cut to its last part, so that a trace does not show the folders of this machine.
    """
    line = printable(PATH_FOLDERS.sub("", detail))
    return " ".join(line.split())[:DETAIL_CHARACTERS].rstrip()


def is_memory_error(error: BaseException) -> bool:
    """Return True if an error means that there was too little memory."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(words in text for words in MEMORY_ERROR_WORDS)
