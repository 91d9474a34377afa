"""What goes into a network document from this machine: models, members, the class."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from executor.errors import Abstained, ModelRefused
from executor.models.folders import SHIPPED, ModelFolders, describe_model
from node.cli.commands.doctor import start_worker
from node.cli.exit_codes import Exit, Failure, usage
from protocol.model_limits import UPPER_BOUNDS
from protocol.wire.encoding import Document, Json

REVISION = "main"  # what a model hub calls the newest; the digest is what counts


@dataclass(frozen=True, slots=True)
class Models:
    """Models as the command line names them: `ID[@REVISION]`, and what holds for all of them."""

    names: Sequence[str]
    folders: Sequence[Path]
    limits: Sequence[str]
    attempt_seconds: int | None


def model_entries(models: Models) -> list[Json]:
    """Return the document's entries for models on this disk; a usage failure names a bad one."""
    limits = dict(_limit(text) for text in models.limits)
    return [_model(name, models, limits) for name in models.names]


def _model(name: str, models: Models, limits: dict[str, int]) -> Json:
    id_, _, revision = name.partition("@")
    revision = revision or REVISION
    try:
        folder = ModelFolders([*models.folders, SHIPPED]).locate(id_, revision)
        described: dict[str, Any] = describe_model(folder)
    except (Abstained, ModelRefused) as error:
        raise usage(f"--model {name}: {error}") from None
    entry: dict[str, Json] = {
        "id": id_,
        "revision": revision,
        "digest": described["digest"],
        "tasks": described["tasks"],
        "limits": {**described["limits"], **limits},
    }
    if models.attempt_seconds is not None:
        entry["attempt_seconds"] = models.attempt_seconds
    return entry


def _limit(text: str) -> tuple[str, int]:
    name, _, value = text.partition("=")
    if name not in UPPER_BOUNDS or not value.isdecimal():
        raise usage(f"--limit {text}: must be NAME=N with a NAME of {', '.join(UPPER_BOUNDS)}")
    return name, int(value)


def members(roster: Sequence[str], compute_class: str) -> list[Json]:
    """Return the roster's entries for `PEER[=OPERATOR]`; a peer's operator is itself if unsaid."""
    entries: list[Json] = []
    for text in roster:
        peer, _, operator = text.partition("=")
        entries.append({"peer": peer, "operator": operator or peer, "class": compute_class})
    return entries


def this_machine() -> Document:
    """Return what defines this machine's class; starts a worker, which takes some seconds."""
    ready = start_worker([SHIPPED], "cpu")
    if not ready.ok:
        raise Failure(Exit.FAULT, f"this machine's self-test failed: {ready.reason}")
    return cast("Document", ready.runtime)
