"""The parts of a network document, and the flags of `create` and `add` that name them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click

from executor.errors import Abstained, ModelRefused
from executor.models.families import ENGINE_FAMILIES
from executor.models.folders import SHIPPED, ModelFolders, describe_model
from node.cli import options
from node.cli.commands.network.limits import complete_limits, parse_limit
from node.cli.exit_codes import usage
from protocol.errors import Rejected
from protocol.network import Network
from protocol.wire.encoding import Json

_F = TypeVar("_F", bound=Callable[..., Any])

# The name that model hubs give to the newest revision. Peers compare the digest, not the name.
DEFAULT_REVISION = "main"

# What follows from a class's number of operators, below three.
_FEW_OPERATORS = (
    "no member: no task of it can be submitted",
    "1 operator, which alone decides every result",
    "2 operators: both have to agree, so either can prevent every result; use 3 or more",
)

# Options of `create` and `add`: what the document lists.
_LIST_OPTIONS = (
    click.option(
        "--model",
        "models",
        multiple=True,
        metavar="ID[@REVISION]",
        help="A model on this disk to list; repeatable. Its digest is computed.",
    ),
    options.models_dir,
    click.option(
        "--limit",
        "limits",
        multiple=True,
        metavar="NAME=N",
        help="A limit of these models, such as max_new_tokens=1503. Tasks over it are refused.",
    ),
    click.option(
        "--model-attempt-seconds",
        type=int,
        help="The length of an attempt for these models, if they are slow. Without it, they are "
        "measured.",
    ),
    click.option(
        "--replay/--no-replay",
        default=None,
        help="Whether tasks of these models prove work in the engine's classes: their results then "
        "have tokens, and a proof that the steps were computed. Without it: those of a family that "
        "the engine computes do.",
    ),
    click.option(
        "--member",
        "roster",
        multiple=True,
        metavar="PEER[=OPERATOR]",
        help="A peer that votes, in every --class, and the name of its operator; repeatable. An "
        "operator has one place in a committee, but the only operator of a class has all places.",
    ),
)


def list_options(command: _F) -> _F:
    """Add the flags that name models and members."""
    for option in reversed(_LIST_OPTIONS):
        command = option(command)
    return command


@dataclass(frozen=True, slots=True)
class ModelSelection:
    """Models as flags name them, `ID[@REVISION]`; the other fields hold for all of them.

    `replay` None marks those that the engine computes. It has no effect in other classes.
    """

    names: Sequence[str]
    folders: Sequence[Path]
    limits: Sequence[str]
    attempt_seconds: int | None
    replay: bool | None = None


def model_entries(selection: ModelSelection) -> list[dict[str, Json]]:
    """Return the document's entries for models on this disk; a usage failure names a bad one."""
    limits = dict(parse_limit(text) for text in selection.limits)
    return [_model_entry(name, selection, limits) for name in selection.names]


def _model_entry(name: str, selection: ModelSelection, limits: dict[str, int]) -> dict[str, Json]:
    id_, _, revision = name.partition("@")
    revision = revision or DEFAULT_REVISION
    folders = ModelFolders([*selection.folders, SHIPPED])
    try:
        folder = folders.locate(id_, revision)
        description: dict[str, Any] = describe_model(folder)
        if tensor := folders.first_nan_tensor(folder):
            raise ModelRefused(f"NaN in {tensor}: every task would fail")
    except (Abstained, ModelRefused) as error:
        raise usage(f"--model {name}: {error}") from None
    entry: dict[str, Json] = {
        "id": id_,
        "revision": revision,
        "digest": description["digest"],
        "tasks": description["tasks"],
        "limits": complete_limits(description["tasks"], description["limits"], limits),
    }
    if selection.attempt_seconds is not None:
        entry["attempt_seconds"] = selection.attempt_seconds
    if selection.replay or (selection.replay is None and description["family"] in ENGINE_FAMILIES):
        entry["replay"] = True
    return entry


def roster_entries(roster: Sequence[str], classes: Sequence[str]) -> list[Json]:
    """Return the entries for `PEER[=OPERATOR]`; the operator of a bare PEER is the peer id.

    Each of these members serves all of `classes`.
    """
    entries: list[Json] = []
    for text in roster:
        peer, _, operator = text.partition("=")
        entries.append({"peer": peer, "operator": operator or peer, "classes": [*classes]})
    return entries


def operator_counts(network: Network) -> dict[str, int]:
    """Return how many operators each class has."""
    return {name: len(network.operators(name)) for name in network.classes}


def operator_lines(network: Network) -> list[str]:
    """Return a line with the members and operators of each class."""
    return [
        f"class {name}: {_count(len(network.members(name)), 'member')}, {_count(count, 'operator')}"
        for name, count in operator_counts(network).items()
    ]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def warn_of_few_operators(network: Network) -> None:
    """Warn on standard error of each class with fewer than three operators."""
    for name, count in operator_counts(network).items():
        if count < len(_FEW_OPERATORS):
            options.note(f"WARNING: class {name} has {_FEW_OPERATORS[count]}")


def validate(document: Json) -> Network:
    """Return the network of a document; a usage failure names what is wrong with it."""
    try:
        return Network.of(document)
    except Rejected as rejected:
        raise usage(rejected.detail) from None


def now() -> str:
    """Return the time as a network document has it, in UTC."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
