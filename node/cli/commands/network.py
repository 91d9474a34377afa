"""`helium network`: the document that all peers of a network share."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar, cast

import click

import schemas
from executor.errors import Abstained, ModelRefused
from executor.models.folders import DEFAULTS, SHIPPED, ModelFolders, describe_model
from node.cli import options
from node.cli.commands.doctor import start_worker
from node.cli.exit_codes import Exit, Failure, usage
from node.cli.files import FILE, read_json, write
from protocol.constants import VERSION
from protocol.errors import Rejected
from protocol.model_limits import UPPER_BOUNDS
from protocol.network import Model, Network, NetworkParameters
from protocol.wire.encoding import Document, Json, canonical

_F = TypeVar("_F", bound=Callable[..., Any])

# The name that model hubs give to the newest revision. Peers compare the digest, not the name.
DEFAULT_REVISION = "main"

EPILOG = """\b
Examples:
  helium network create network.json --model helium/embedded-music --member 12D3KooW...=alice
  helium network show network.json
  helium network add network.json --member 12D3KooW...=bob -o larger.json
"""


@click.group(epilog=EPILOG)
def network() -> None:
    """Write, show or extend a network document.

    The document lists the models, the members that vote, their compute class and the network's
    parameters. Its id is the hash of its content, so every change makes another network.
    """


def _parameter_options(command: _F) -> _F:
    """Add a flag for each parameter; the schema has its description and its bounds."""
    properties = schemas.load("network")["properties"]["parameters"]["properties"]
    for field in reversed(fields(NetworkParameters)):
        flag = "--" + field.name.replace("_", "-")
        kind = click.FLOAT if field.type in (float, "float") else click.INT
        # The first sentence, without the default in brackets, which click shows itself.
        description = properties[field.name]["description"].partition(". ")[0]
        text = re.sub(r" \(\d+\)", "", description).rstrip(".") + "."
        command = click.option(
            flag, type=kind, default=field.default, show_default=True, help=text
        )(command)
    return command


# Options of `create` and `add`: what the document lists.
_LIST_OPTIONS = (
    click.option(
        "--model",
        "models",
        multiple=True,
        metavar="ID[@REVISION]",
        help="A model on this disk to list; repeatable. Its digest is computed.",
    ),
    click.option(
        "--models-dir",
        type=click.Path(file_okay=False, path_type=Path),
        multiple=True,
        help="A folder with models as <owner>/<name>, in addition to the shipped ones.",
    ),
    click.option(
        "--limit",
        "limits",
        multiple=True,
        metavar="NAME=N",
        help="A limit of these models, such as max_new_tokens=1503.",
    ),
    click.option(
        "--model-attempt-seconds",
        type=int,
        help="The length of an attempt for these models, if they are slow.",
    ),
    click.option(
        "--member",
        "roster",
        multiple=True,
        metavar="PEER[=OPERATOR]",
        help="A peer that votes, and the name of its operator; repeatable.",
    ),
)


def _list_options(command: _F) -> _F:
    """Add the flags that name models and members."""
    for option in reversed(_LIST_OPTIONS):
        command = option(command)
    return command


CREATE_EPILOG = """\b
Examples:
  helium network create network.json --member 12D3KooW...=alice --member 12D3KooW...=bob
  helium network create network.json --model acme/music --models-dir models

\b
Output:
  the network's id, 16 hex characters, by which peers recognise each other
Members need machines of the same compute class. `helium network class` shows a machine's class.
"""


@network.command(epilog=CREATE_EPILOG)
@click.argument("file", type=FILE)
@click.option(
    "--name", default="helium", show_default=True, help="The network's name, shown to people."
)
@_list_options
@_parameter_options
@click.option(
    "--class",
    "class_name",
    default="cpu",
    show_default=True,
    metavar="NAME",
    help="The name of the members' compute class.",
)
@click.option(
    "--class-from",
    type=FILE,
    metavar="FILE",
    help="The class's definition, as `helium network class` prints it on a machine of that class. "
    "Without it, this machine defines the class: a worker is started once.",
)
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@options.as_json
def create(
    file: Path,
    name: str,
    models: tuple[str, ...],
    models_dir: tuple[Path, ...],
    limits: tuple[str, ...],
    model_attempt_seconds: int | None,
    roster: tuple[str, ...],
    class_name: str,
    class_from: Path | None,
    force: bool,
    as_json: bool,
    **parameters: float,
) -> None:
    """Write a network document to FILE and print its id.

    Without --model it lists the shipped models. Give the file to every member and requester.
    """
    if file.exists() and not force:
        raise usage(f"{file}: exists already; --force replaces it")
    selection = ModelSelection(models or DEFAULTS, models_dir, limits, model_attempt_seconds)
    document: dict[str, Json] = {
        "name": name,
        "version": VERSION,
        "created": _now(),
        "parameters": {k: _whole(v) for k, v in asdict(NetworkParameters(**parameters)).items()},  # type: ignore[arg-type]
        "models": model_entries(selection),
        "roster": _roster_entries(roster, class_name),
    }
    # Errors in the arguments come first: the class takes a worker's start to find out.
    _validate({**document, "classes": {class_name: {"unknown": True}}})
    definition = read_json(class_from) if class_from else local_compute_class()
    new = _validate({**document, "classes": {class_name: definition}})
    write(file, canonical(new.document), over=force)
    line = f"network {new.id} written to {file}"
    options.say({"id": new.id, "document": new.document}, [line], as_json)


@network.command(epilog="Example: helium network show network.json")
@click.argument("file", type=FILE)
@options.as_json
def show(file: Path, as_json: bool) -> None:
    """Show the network document in FILE.

    It prints the id, the parameters, the compute classes, the models with their limits, and the
    members. --json prints the whole document.
    """
    shown = options.network_of(file)
    options.say({"id": shown.id, "document": shown.document}, _lines(shown), as_json)


@network.command(epilog="Example: helium network add network.json --member 12D3KooW...=bob")
@click.argument("file", type=FILE)
@_list_options
@click.option("--class", "class_name", metavar="NAME", help="The new members' class.")
@click.option("-o", "--output", type=FILE, help="Write to this file instead of replacing FILE.")
@click.option("--force", is_flag=True, help="Replace the file that -o names.")
@options.as_json
def add(
    file: Path,
    models: tuple[str, ...],
    models_dir: tuple[Path, ...],
    limits: tuple[str, ...],
    model_attempt_seconds: int | None,
    roster: tuple[str, ...],
    class_name: str | None,
    output: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Add models or members to the network document in FILE.

    This makes another network with another id: every member and requester needs the new document.
    """
    if not models and not roster:
        raise usage("nothing to add: give --model or --member")
    old = options.network_of(file)
    selection = ModelSelection(models, models_dir, limits, model_attempt_seconds)
    document: Mapping[str, Any] = old.document
    members = _roster_entries(roster, class_name or _only_class(old))
    new = _validate(
        {
            **document,
            "created": _now(),
            "models": [*document["models"], *model_entries(selection)],
            "roster": [*document["roster"], *members],
        }
    )
    # The file itself may be replaced without --force: the user named it to be extended.
    target = output or file
    write(target, canonical(new.document), over=output is None or force)
    options.note(f"the network id changed from {old.id} to {new.id}: all need the new document")
    options.say(
        {"id": new.id, "previous": old.id, "document": new.document},
        [f"network {new.id} written to {target}"],
        as_json,
    )


CLASS_EPILOG = """\b
Example:
  helium network class > class.json
  helium network create network.json --class-from class.json
"""


@network.command("class", epilog=CLASS_EPILOG)
def print_class() -> None:
    """Print the definition of this machine's compute class, as JSON.

    `helium network create --class-from` reads it on another machine.
    """
    click.echo(canonical(local_compute_class()).decode())


def local_compute_class() -> Document:
    """Return the definition of this machine's class. Starts a worker, which takes some seconds."""
    ready = start_worker([SHIPPED], "cpu")
    if not ready.ok:
        raise Failure(Exit.FAULT, f"this machine's self-test failed: {ready.reason}")
    return cast("Document", ready.runtime)


def _only_class(network_: Network) -> str:
    if len(network_.classes) != 1:
        raise usage(f"--class: choose one of {', '.join(network_.classes)}")
    return next(iter(network_.classes))


def _validate(document: Json) -> Network:
    try:
        return Network.of(document)
    except Rejected as rejected:
        raise usage(rejected.detail) from None


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _whole(value: float) -> int | float:
    """Return 2.0 as 2: the id is a hash of the JSON text."""
    return int(value) if float(value).is_integer() else value


# Entries of the document


@dataclass(frozen=True, slots=True)
class ModelSelection:
    """Models as flags name them, `ID[@REVISION]`; folders and limits hold for all of them."""

    names: Sequence[str]
    folders: Sequence[Path]
    limits: Sequence[str]
    attempt_seconds: int | None


def model_entries(selection: ModelSelection) -> list[Json]:
    """Return the document's entries for models on this disk; a usage failure names a bad one."""
    limits = dict(_limit(text) for text in selection.limits)
    return [_model_entry(name, selection, limits) for name in selection.names]


def _model_entry(name: str, selection: ModelSelection, limits: dict[str, int]) -> Json:
    id_, _, revision = name.partition("@")
    revision = revision or DEFAULT_REVISION
    try:
        folder = ModelFolders([*selection.folders, SHIPPED]).locate(id_, revision)
        description: dict[str, Any] = describe_model(folder)
    except (Abstained, ModelRefused) as error:
        raise usage(f"--model {name}: {error}") from None
    entry: dict[str, Json] = {
        "id": id_,
        "revision": revision,
        "digest": description["digest"],
        "tasks": description["tasks"],
        # A flag replaces the limit that the model's files state.
        "limits": {**description["limits"], **limits},
    }
    if selection.attempt_seconds is not None:
        entry["attempt_seconds"] = selection.attempt_seconds
    return entry


def _limit(text: str) -> tuple[str, int]:
    name, _, value = text.partition("=")
    if name not in UPPER_BOUNDS or not value.isdecimal():
        raise usage(f"--limit {text}: must be NAME=N with a NAME of {', '.join(UPPER_BOUNDS)}")
    return name, int(value)


def _roster_entries(roster: Sequence[str], compute_class: str) -> list[Json]:
    """Return the entries for `PEER[=OPERATOR]`; the operator of a bare PEER is the peer id."""
    entries: list[Json] = []
    for text in roster:
        peer, _, operator = text.partition("=")
        entries.append({"peer": peer, "operator": operator or peer, "class": compute_class})
    return entries


# Lines of `helium network show`


def _lines(network_: Network) -> list[str]:
    document, classes = network_.document, network_.classes
    return [
        f"id         {network_.id}",
        f"name       {document['name']}, created {document['created']}",
        *(f"parameter  {k} {v}" for k, v in asdict(network_.parameters).items()),
        *(f"class      {name}: {_class_line(definition)}" for name, definition in classes.items()),
        *(line for model in network_.models.values() for line in _model_lines(model)),
        *(f"member     {m.peer} {m.operator} {m.compute_class}" for m in network_.roster.values()),
    ]


def _model_lines(model: Model) -> list[str]:
    limits = [f"  {name} {_limit_text(value)}" for name, value in model.limits.items()]
    return [f"model      {model.id}@{model.revision} {model.digest}", *limits]


def _limit_text(value: Json) -> str:
    """Return a limit in ASCII: a limit that this version does not know may hold anything."""
    if isinstance(value, list) and all(isinstance(item, str | int) for item in value):
        return ", ".join(json.dumps(item).strip('"') for item in value) or "none"
    return json.dumps(value)


def _class_line(definition: Mapping[str, Any]) -> str:
    # A class has dozens of facts; these three tell most classes apart.
    names = [name for name in ("device", "architecture", "torch") if name in definition]
    shown = " ".join(f"{name}={definition[name]}" for name in names)
    return f"{shown} ({len(definition)} facts, --json shows them)"
