"""The ways in which a job can end without a result."""

import re
from typing import Literal

from schemas.errors import HeliumError

Reason = Literal[
    "busy", "out-of-memory", "timeout", "worker-died", "model-missing", "input-missing"
]
Code = Literal["input-undecodable", "generation-rejected", "non-finite-output", "no-notes"]

DETAIL = 256  # characters of a detail in a trace (specification, section 4)
FOLDERS = re.compile(r"(?<![\w/])/(?:[^\s/:'\"]+/)+")  # of an absolute path

EXHAUSTED = ("allocate memory", "out of memory", "bad_alloc", "bad alloc")


class Abstained(HeliumError):
    """This machine could not finish the job; another might (specification, section 4, `abstain`).

    `reason` goes on the wire; `detail` is for the log of this node only.
    """

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason: Reason = reason
        self.detail = detail


class TaskFailed(HeliumError):
    """The job fails alike on every honest machine of a class: an `{"error": code}` (section 4).

    `detail` goes into the trace, as `printable_detail` makes it, and is not compared.
    """

    def __init__(self, code: Code, detail: str = "") -> None:
        super().__init__(f"{code}: {detail}" if detail else code)
        self.code: Code = code
        self.detail = detail


class ModelRefused(HeliumError):
    """A model folder that must not be loaded; the message says why."""


class ProfileViolated(HeliumError):
    """The process does not compute under the numeric profile; the message says where it differs."""


def printable_detail(detail: str) -> str:
    """A detail as others may read it: one line of printable characters, at most `DETAIL` of them.

    Of a path only its last part stays: where things lie on this machine is nobody's business.
    """
    named = FOLDERS.sub("", detail)
    printable = "".join(c if c.isprintable() else " " for c in named)
    return " ".join(printable.split())[:DETAIL].rstrip()


def exhausted(error: BaseException) -> bool:
    """Whether an error means too little memory; torch and mmap say so only in words."""
    return isinstance(error, MemoryError) or any(sign in str(error).lower() for sign in EXHAUSTED)
