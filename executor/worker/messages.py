"""The messages of a worker process to its supervisor: frozen values, their bytes, and the parser.

A worker runs models and reads files that strangers made, so it may be taken over. The supervisor
therefore treats its messages like those of any peer: `decode_message` bounds the size, parses
strict I-JSON and checks a JSON Schema (`schemas/worker-*.json`). Nothing behind it checks again.

    worker -> supervisor: WorkerReady, then per job: JobProgress*, JobOutput*, then JobDone,
                          JobAbstained, JobFailed or JobDifferent. The bytes of an output follow
                          its JobOutput, unframed. Jobs that run together end in any order, each
                          also with JobDeferred: `job` is the place of a message's job among them.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, TypeAlias

from executor.errors import ErrorCode
from protocol.errors import Rejected, Rejection
from protocol.wire.codec import check_reveal, check_schema
from protocol.wire.encoding import Document, parse
from protocol.wire.messages import Abstention
from schemas.errors import printable

# Bytes. The largest message is an outcome: 16 outputs of 2,048 chunk hashes are 2.2 MB.
MESSAGE_LIMIT = 4_194_304
# Bytes of the other kinds: a flood of padded messages would cost their parser more than the worker.
SMALL_LIMITS: Mapping[str, int] = MappingProxyType(
    {
        "progress": 256,
        "output": 256,
        "different": 256,
        "deferred": 256,
        "abstained": 65_536,
        "ready": 1_048_576,
    }
)
# Characters of a text for people; the schemas have the same limit.
TEXT_CHARACTERS = 4_096


@dataclass(frozen=True, slots=True)
class WorkerReady:
    """The self-test has ended, or could not begin.

    `runtime` is the content of its compute class, {} if it failed before that was known. `sandbox`
    says by name what confines the worker, or why something does not.
    """

    runtime: dict[str, object]
    ok: bool
    reason: str
    sandbox: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class JobProgress:
    """The share of the job that is done, in [0, 1]."""

    share: float
    job: int = 0


@dataclass(frozen=True, slots=True)
class JobOutput:
    """The bytes of the next output follow, `size` of them."""

    size: int
    job: int = 0


@dataclass(frozen=True, slots=True)
class JobAbstained:
    """The worker could not finish the job; `detail` is for the node's log."""

    reason: Abstention
    detail: str
    job: int = 0


@dataclass(frozen=True, slots=True)
class JobDeferred:
    """The worker did not run the job beside the others; alone, it may."""

    job: int = 0


@dataclass(frozen=True, slots=True)
class JobDone:
    """The job's outcome and trace, both fit for a reveal (specification 4 and 8)."""

    outcome: Document
    trace: Document
    job: int = 0


@dataclass(frozen=True, slots=True)
class JobDifferent:
    """The tokens to replay are not those that the task draws; `executor.job.Difference`."""

    sequence: int
    step: int
    column: int
    job: int = 0


@dataclass(frozen=True, slots=True)
class JobFailed:
    """A library raised an error: the outcome `code` if a fresh worker meets the same `error`."""

    code: ErrorCode
    error: str
    trace: Document
    job: int = 0

    @property
    def cause(self) -> tuple[str, str]:
        """What two runs must have in common."""
        return self.code, self.error


JobEnd: TypeAlias = JobAbstained | JobDeferred | JobDone | JobFailed | JobDifferent
WorkerMessage: TypeAlias = WorkerReady | JobProgress | JobOutput | JobEnd


def _ready(document: Any) -> WorkerReady:
    return WorkerReady(document["runtime"], document["ok"], document["reason"], document["sandbox"])


def _failed(document: Any) -> JobFailed:
    check_reveal({"outcome": {"error": document["code"]}, "trace": document["trace"]})
    return JobFailed(document["code"], document["error"], document["trace"], place_of(document))


def place_of(document: Any) -> int:
    """Return the place of a message's job among those that run together."""
    return int(document.get("job", 0))


def _done(document: Any) -> JobDone:
    check_reveal(document)
    return JobDone(document["outcome"], document["trace"], place_of(document))


# By the member `kind`: the message's schema is `worker-<kind>`.
PARSERS: Mapping[str, Callable[[Any], WorkerMessage]] = MappingProxyType(
    {
        "ready": _ready,
        "progress": lambda document: JobProgress(float(document["share"]), place_of(document)),
        "output": lambda document: JobOutput(document["size"], place_of(document)),
        "abstained": lambda document: JobAbstained(
            Abstention(document["reason"]), document["detail"], place_of(document)
        ),
        "deferred": lambda document: JobDeferred(place_of(document)),
        "done": _done,
        "failed": _failed,
        "different": lambda document: JobDifferent(
            document["sequence"], document["step"], document["column"], place_of(document)
        ),
    }
)
KINDS: Mapping[type[WorkerMessage], str] = MappingProxyType(
    {
        WorkerReady: "ready",
        JobProgress: "progress",
        JobOutput: "output",
        JobAbstained: "abstained",
        JobDeferred: "deferred",
        JobDone: "done",
        JobFailed: "failed",
        JobDifferent: "different",
    }
)


def decode_message(content: bytes) -> WorkerMessage:
    """Return the message that the bytes of one frame hold.

    Raises `Rejected` for everything else: too large, too deep, no I-JSON, an unknown kind, a field
    that its schema does not allow, a trace over its limit.
    """
    document = parse(content, MESSAGE_LIMIT)
    kind = document.get("kind") if isinstance(document, Mapping) else None
    if not isinstance(kind, str) or kind not in PARSERS:
        raise Rejected(Rejection.INVALID_FIELD, f"kind: must be one of {', '.join(PARSERS)}")
    if len(content) > SMALL_LIMITS.get(kind, MESSAGE_LIMIT):
        raise Rejected(Rejection.TOO_LARGE, f"{len(content)} bytes of {kind}")
    check_schema(f"worker-{kind}", document)
    return PARSERS[kind](document)


def encode_message(message: WorkerMessage) -> bytes:
    """Return the bytes of a message, for one frame."""
    members = {field.name: getattr(message, field.name) for field in fields(message)}
    return json.dumps({"kind": KINDS[type(message)], **members}).encode()


def message_text(text: str) -> str:
    """Return a text as a message may hold it: one printable line of at most `TEXT_CHARACTERS`."""
    return printable(text[:TEXT_CHARACTERS])
