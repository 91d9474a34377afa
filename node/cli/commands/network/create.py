"""`helium network create`: write a new network document."""

import re
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar

import click

import schemas
from executor.models.folders import DEFAULTS
from node.cli import options
from node.cli.commands.network.compute_class import local_compute_class
from node.cli.commands.network.document import (
    ModelSelection,
    list_options,
    model_entries,
    now,
    roster_entries,
    validate,
)
from node.cli.exit_codes import usage
from node.cli.files import FILE, read_json, write
from protocol.constants import VERSION
from protocol.network import NetworkParameters
from protocol.wire.encoding import Json, canonical

_F = TypeVar("_F", bound=Callable[..., Any])


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


CREATE_EPILOG = """\b
Examples:
  helium network create network.json --member 12D3KooW...=alice --member 12D3KooW...=bob
  helium network create network.json --model acme/music --models-dir models

\b
Output:
  the network's id, 16 hex characters, by which peers recognise each other
Members need machines of the same compute class. `helium network class` shows a machine's class.
"""


@click.command(epilog=CREATE_EPILOG)
@click.argument("file", type=FILE)
@click.option(
    "--name", default="helium", show_default=True, help="The network's name, shown to people."
)
@list_options
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
        "created": now(),
        "parameters": {k: _whole(v) for k, v in asdict(NetworkParameters(**parameters)).items()},  # type: ignore[arg-type]
        "models": model_entries(selection),
        "roster": roster_entries(roster, class_name),
    }
    # Errors in the arguments come first: the class takes a worker's start to find out.
    validate({**document, "classes": {class_name: {"unknown": True}}})
    definition = read_json(class_from) if class_from else local_compute_class()
    new = validate({**document, "classes": {class_name: definition}})
    write(file, canonical(new.document), over=force)
    line = f"network {new.id} written to {file}"
    options.say({"id": new.id, "document": new.document}, [line], as_json)


def _whole(value: float) -> int | float:
    """Return 2.0 as 2: the id is a hash of the JSON text."""
    return int(value) if float(value).is_integer() else value
