"""The ways in which a job can end without a result."""

from typing import Literal

Reason = Literal[
    "busy", "out-of-memory", "timeout", "worker-died", "model-missing", "input-missing"
]
Code = Literal["input-undecodable", "generation-rejected", "non-finite-output", "no-notes"]

EXHAUSTED = ("allocate memory", "out of memory", "bad_alloc", "bad alloc")


class Abstained(Exception):
    """This machine could not finish the job; another might (specification, section 4, `abstain`).

    `reason` goes on the wire; `detail` is for the log of this node only.
    """

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason: Reason = reason
        self.detail = detail


class Failed(Exception):
    """The job fails alike on every honest machine of a class: an `{"error": code}` (section 4)."""

    def __init__(self, code: Code, detail: str = "") -> None:
        super().__init__(f"{code}: {detail}" if detail else code)
        self.code: Code = code
        self.detail = detail


class ModelRefused(Exception):
    """A model folder that must not be loaded; the message says why."""


class ProfileViolated(Exception):
    """The process does not compute under the numeric profile; the message says where it differs."""


def exhausted(error: BaseException) -> bool:
    """Whether an error means too little memory; torch and mmap say so only in words."""
    return isinstance(error, MemoryError) or any(sign in str(error).lower() for sign in EXHAUSTED)
