"""The five messages, as frozen values (specification 4).

Each message holds its envelope, so that it can be forwarded as it was signed. `codec.decode` makes
messages from bytes; the `*_body` functions make the bodies that a node signs itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeAlias

from protocol.wire.encoding import Document, Json, document_hash, tagged_hash
from protocol.wire.signing import Envelope


class Abstention(StrEnum):
    """Why a member takes no part in an attempt (specification 4)."""

    BUSY = "busy"
    OUT_OF_MEMORY = "out-of-memory"
    TIMEOUT = "timeout"
    WORKER_DIED = "worker-died"
    MODEL_MISSING = "model-missing"
    INPUT_MISSING = "input-missing"
    WITHDRAWN = "withdrawn"
    NO_SPACE = "no-space"


@dataclass(frozen=True, slots=True)
class Input:
    """A blob that the args of a task name: plain SHA-256 (64 hex) and size in bytes."""

    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Task:
    """A request to generate; `created` in Unix milliseconds, `deadline` in seconds after it."""

    envelope: Envelope
    id: str
    kind: str
    args: Document
    compute_class: str
    created: int
    deadline: int

    @property
    def expires_at(self) -> float:
        """The deadline as Unix seconds."""
        return self.created / 1000 + self.deadline

    @property
    def requester(self) -> str:
        """The peer id that asks for the task and signed it (specification 4)."""
        return self.envelope.signer

    @property
    def model(self) -> str:
        """The id of the model that the task names."""
        return str(self.args["model"])

    @property
    def inputs(self) -> tuple[Input, ...]:
        """The blobs that the args name, in their order; none for text-to-music.

        For admitted tasks only: admission checks `audio` against the schema of the kind.
        """
        if self.kind != "pop2piano":
            return ()
        audio: Any = self.args["audio"]
        return tuple(Input(blob["sha256"], blob["size"]) for blob in audio)


class _Signed:
    """Mix-in of all messages about a task: the signer of their envelope."""

    __slots__ = ()
    envelope: Envelope

    @property
    def signer(self) -> str:
        """The peer id that signed the message."""
        return self.envelope.signer


@dataclass(frozen=True, slots=True)
class Commit(_Signed):
    """A member has an outcome and binds itself to it without showing it."""

    envelope: Envelope
    task: str
    attempt: int
    commitment: str


@dataclass(frozen=True, slots=True)
class Reveal(_Signed):
    """A member opens its commitment and lists the commitments that it received before.

    `digest` is the outcome digest, and `commitment` is what this reveal opens. The codec computes
    both from the outcome and the salt; neither is taken from the signer. `commits` is the closed
    list, commitment by peer id.
    """

    envelope: Envelope
    task: str
    attempt: int
    outcome: Document
    digest: str
    commitment: str
    commits: Mapping[str, str]
    trace: Document

    @property
    def failure(self) -> tuple[str | None, str | None]:
        """The code of an error outcome and the member's explanation; (None, None) for a result."""
        if "error" not in self.outcome:
            return None, None
        detail = self.trace.get("detail")
        return str(self.outcome["error"]), None if detail is None else str(detail)


@dataclass(frozen=True, slots=True)
class Abstain(_Signed):
    """A member does not take part in this attempt."""

    envelope: Envelope
    task: str
    attempt: int
    reason: Abstention


@dataclass(frozen=True, slots=True)
class Withdraw(_Signed):
    """The requester asks the members not to begin its task. It is a request, no guarantee."""

    envelope: Envelope
    task: str


Vote: TypeAlias = Commit | Reveal | Abstain
Message: TypeAlias = Task | Vote | Withdraw


def task_id(body: Document) -> str:
    """Return `H("task", canonical(body))`."""
    return document_hash("task", body)


def outcome_digest(outcome: Document) -> str:
    """Return `H("outcome", canonical(outcome))`."""
    return document_hash("outcome", outcome)


def commitment(task: str, attempt: int, peer: str, outcome: str, salt: str) -> str:
    """Return the commitment of `peer` to an outcome digest; `task`, `outcome`, `salt` in hex."""
    # The peer is part of the hash, so that a member cannot copy the commitment of another; the task
    # and the attempt are, so that it cannot use its own commitment twice.
    return tagged_hash(
        "commitment",
        bytes.fromhex(task)
        + attempt.to_bytes(4, "big")
        + peer.encode("ascii")
        + bytes.fromhex(outcome)
        + bytes.fromhex(salt),
    ).hex()


def task_body(
    network: str,
    kind: str,
    args: Document,
    compute_class: str,
    created: int,
    deadline: int,
    nonce: str,
    requester: str,
) -> Document:
    """Return the body of a task; `created` in Unix ms, `deadline` in seconds, `nonce` 32 hex.

    `requester` is the peer id that will sign the body. The task id covers it (specification 4).
    """
    return {
        "type": "task",
        "network": network,
        "kind": kind,
        "args": args,
        "class": compute_class,
        "created": created,
        "deadline": deadline,
        "nonce": nonce,
        "requester": requester,
    }


def withdraw_body(network: str, task: str) -> Document:
    """Return the body of a withdrawal."""
    return {"type": "withdraw", "network": network, "task": task}


def _vote_body(kind: str, network: str, task: str, attempt: int) -> dict[str, Json]:
    return {"type": kind, "network": network, "task": task, "attempt": attempt}


def commit_body(network: str, task: str, attempt: int, commitment: str) -> Document:
    """Return the body of a commit."""
    return {**_vote_body("commit", network, task, attempt), "commitment": commitment}


def reveal_body(
    network: str,
    task: str,
    attempt: int,
    outcome: Document,
    salt: str,
    commits: Mapping[str, str],
    trace: Document,
) -> Document:
    """Return the body of a reveal; `commits` is the closed list (specification 6.3)."""
    opened: dict[str, Json] = {"outcome": outcome, "salt": salt, "commits": commits, "trace": trace}
    return {**_vote_body("reveal", network, task, attempt), **opened}


def abstain_body(network: str, task: str, attempt: int, reason: Abstention) -> Document:
    """Return the body of an abstention."""
    return {**_vote_body("abstain", network, task, attempt), "reason": str(reason)}
