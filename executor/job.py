"""The input and the output of the executor."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ModelRef:
    """A listed model (specification, section 3); `digest` is its weights digest, 64 hex."""

    id: str
    revision: str
    digest: str
    limits: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Job:
    """One task to execute.

    `task` names it for people. `args` fit the schema of `kind`. `inputs`
    are the files that the args name, in their order. With `proves_work` the outcome has work and
    tokens (specification 8.11). `tokens` are the tokens blobs to replay, one of each sequence, in
    order; without them the job generates.
    """

    task: str
    kind: str
    args: Mapping[str, object]
    model: ModelRef
    inputs: tuple[Path, ...] = ()
    proves_work: bool = False
    tokens: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Difference:
    """The first token that a replay draws otherwise, or that it has besides the tokens given.

    `column` is the codebook or row. All count from 0.
    """

    sequence: int
    step: int
    column: int


@dataclass(frozen=True, slots=True)
class Execution:
    """The result of a job.

    `outcome` is `{"result": manifest}`, with `work` if the task proves it, or `{"error": code}`
    (sections 4 and 8). `files` are the outputs in the manifest's order, each followed by its tokens
    if it has any (`protocol.manifest.blobs_of`). They lie in the scratch folder, and the caller
    moves or deletes them. `trace` explains the outcome and is not compared; its canonical bytes are
    at most 8,192.
    """

    outcome: dict[str, object]
    files: tuple[Path, ...]
    trace: dict[str, object]
