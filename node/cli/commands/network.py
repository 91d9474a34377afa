"""`helium network`: the document that all peers of a network have in common."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click

from executor.models.folders import DEFAULTS
from node.cli import options
from node.cli.commands.entries import Models, members, model_entries, this_machine
from node.cli.exit_codes import usage
from node.cli.files import FILE, read_json, write
from protocol.constants import VERSION
from protocol.errors import Rejected
from protocol.network import Model, Network, NetworkParameters
from protocol.wire.encoding import Json, canonical

_F = TypeVar("_F", bound=Callable[..., Any])


@click.group()
def network() -> None:
    """Write, show or extend a network document.

    The document is immutable: its id is its hash, and whatever is changed makes another network.
    """


def _parameters(command: _F) -> _F:
    """Add a flag for each of the network's parameters."""
    for field in reversed(fields(NetworkParameters)):
        flag = "--" + field.name.replace("_", "-")
        kind = click.FLOAT if field.type in (float, "float") else click.INT
        option = click.option(flag, type=kind, default=field.default, show_default=True)
        command = option(command)
    return command


def _entries(command: _F) -> _F:
    """Add the flags that name models and members."""
    for option in reversed(
        (
            click.option(
                "--model",
                "models",
                multiple=True,
                metavar="ID[@REVISION]",
                help="List a model that is on this disk; repeatable. Its digest is computed.",
            ),
            click.option(
                "--models-dir",
                type=click.Path(file_okay=False, path_type=Path),
                multiple=True,
                help="A folder with models as <owner>/<name>, besides the shipped ones.",
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
                help="How long an attempt lasts for these models, if they are slow.",
            ),
            click.option(
                "--member",
                "roster",
                multiple=True,
                metavar="PEER[=OPERATOR]",
                help="List a peer that votes, and who runs it; repeatable.",
            ),
        )
    ):
        command = option(command)
    return command


@network.command()
@click.argument("file", type=FILE)
@click.option("--name", default="helium", show_default=True, help="For people.")
@_entries
@_parameters
@click.option("--class", "class_name", default="cpu", show_default=True, metavar="NAME")
@click.option(
    "--class-from",
    type=FILE,
    metavar="FILE",
    help="What defines the class, as `helium network class` prints it on a machine of it. "
    "This machine's own if left out: its worker is started once to find out.",
)
@click.option("--force", is_flag=True, help="Replace FILE.")
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

    Without --model it lists the shipped models.
    """
    if file.exists() and not force:
        raise usage(f"{file}: is there already; --force replaces it")
    listed = Models(models or DEFAULTS, models_dir, limits, model_attempt_seconds)
    document: dict[str, Json] = {
        "name": name,
        "version": VERSION,
        "created": _now(),
        "parameters": {k: _whole(v) for k, v in asdict(NetworkParameters(**parameters)).items()},  # type: ignore[arg-type]
        "models": model_entries(listed),
        "roster": members(roster, class_name),
    }
    _checked({**document, "classes": {class_name: {"unknown": True}}})  # before the slow part
    runtime = read_json(class_from) if class_from else this_machine()
    made = _checked({**document, "classes": {class_name: runtime}})
    write(file, canonical(made.document), over=force)
    _say(made, [f"network {made.id} written to {file}"], as_json)


@network.command()
@click.argument("file", type=FILE)
@options.as_json
def show(file: Path, as_json: bool) -> None:
    """Show the network document in FILE."""
    _say(options.network_of(file), [], as_json)


@network.command()
@click.argument("file", type=FILE)
@_entries
@click.option("--class", "class_name", metavar="NAME", help="The new members' class.")
@click.option("-o", "--output", type=FILE, help="Write there instead of replacing FILE.")
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
    """Add models or members to the document in FILE, which makes it another network's.

    Every member and requester of the network needs the new document.
    """
    if not models and not roster:
        raise usage("nothing to add: give --model or --member")
    old = options.network_of(file)
    listed = Models(models, models_dir, limits, model_attempt_seconds)
    document: Mapping[str, Any] = old.document
    new = _checked(
        {
            **document,
            "created": _now(),
            "models": [*document["models"], *model_entries(listed)],
            "roster": [*document["roster"], *members(roster, class_name or _only_class(old))],
        }
    )
    target = output or file
    write(target, canonical(new.document), over=output is None or force)
    changed = f"the network id changed from {old.id} to {new.id}: all need the new document"
    options.note(changed)
    _say(new, [f"network {new.id} written to {target}"], as_json, previous=old.id)


@network.command("class")
def runtime() -> None:
    """Print what defines this machine's class, as JSON, for --class-from on another machine."""
    click.echo(canonical(this_machine()).decode())


def _only_class(found: Network) -> str:
    if len(found.classes) != 1:
        raise usage(f"--class: choose one of {', '.join(found.classes)}")
    return next(iter(found.classes))


def _checked(document: Json) -> Network:
    try:
        return Network.of(document)
    except Rejected as rejected:
        raise usage(rejected.detail) from None


def _say(found: Network, first: Sequence[str], as_json: bool, **more: str) -> None:
    document = {"id": found.id, **more, "document": found.document}
    options.say(document, [*first, *(_lines(found) if not first else ())], as_json)


def _lines(found: Network) -> list[str]:
    return [
        f"id         {found.id}",
        f"name       {found.document['name']}, created {found.document['created']}",
        *(f"parameter  {k} {v}" for k, v in asdict(found.parameters).items()),
        *(f"class      {name}: {_short(runtime)}" for name, runtime in found.classes.items()),
        *(line for model in found.models.values() for line in _model_lines(model)),
        *(f"member     {m.peer} {m.operator} {m.compute_class}" for m in found.roster.values()),
    ]


def _model_lines(model: Model) -> list[str]:
    limits = [f"  {name} {_listed(value)}" for name, value in model.limits.items()]
    return [f"model      {model.id}@{model.revision} {model.digest}", *limits]


def _listed(value: Json) -> str:
    """Return a limit for people; in ASCII, since members that are not known here hold anything."""
    if isinstance(value, list) and all(isinstance(item, str | int) for item in value):
        return ", ".join(json.dumps(item).strip('"') for item in value) or "none"
    return json.dumps(value)


def _short(runtime: Mapping[str, Any]) -> str:
    shown = [f"{k}={runtime[k]}" for k in ("device", "architecture", "torch") if k in runtime]
    return f"{' '.join(shown)} ({len(runtime)} facts, --json shows them)"


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _whole(value: float) -> int | float:
    return int(value) if float(value).is_integer() else value
