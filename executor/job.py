"""What goes into the executor and what comes out."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ModelRef:
    """A listed model (specification, section 3): `digest` is 64 hex."""

    id: str
    revision: str
    digest: str
    limits: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Job:
    """One task to execute; `task` names it, `args` have passed the schema of `kind`."""

    task: str
    kind: str
    args: Mapping[str, object]
    model: ModelRef
    inputs: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Execution:
    """What a job came to.

    `outcome` is `{"result": manifest}` or `{"error": code}` (sections 4 and 8). `files` are the
    outputs' bytes, in the manifest's order, in the scratch folder: the caller's to move or delete.
    `trace` explains, and is not compared; its canonical bytes are at most 8,192.
    """

    outcome: dict[str, object]
    files: tuple[Path, ...]
    trace: dict[str, object]
