"""`helium network show`: print a network document for people."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from node.cli import options
from node.cli.commands.network.document import operator_counts, operator_lines
from node.cli.files import FILE
from protocol.network import Model, Network
from protocol.wire.encoding import Json
from schemas.errors import printable


@click.command(epilog="Example: helium network show network.json")
@click.argument("file", type=FILE)
@options.as_json
def show(file: Path, as_json: bool) -> None:
    """Show the network document in FILE.

    It prints the id, the parameters, the compute classes with their members and operators, the
    models with their limits, and the members with their classes. --json prints the whole document.
    A model marked "replay" has tasks that prove work in the engine's classes.
    """
    network = options.network_of(file)
    document = {
        "id": network.id,
        "document": network.document,
        "operators": operator_counts(network),
    }
    options.say(document, network_lines(network), as_json)


_TELLING_FACTS = ("engine", "arithmetic", "task", "device", "architecture", "torch")


def network_lines(network: Network) -> list[str]:
    """Return the lines that `helium network show` prints."""
    document, classes = network.document, network.classes
    return [
        f"id         {network.id}",
        f"name       {document['name']}, created {document['created']}",
        *(f"parameter  {k} {v}" for k, v in asdict(network.parameters).items()),
        *(f"class      {name}: {_class_line(definition)}" for name, definition in classes.items()),
        *(f"operators  {line}" for line in operator_lines(network)),
        *(line for model in network.models.values() for line in _model_lines(model)),
        *(
            f"member     {m.peer} {m.operator} {', '.join(m.classes)}"
            for m in network.roster.values()
        ),
    ]


def _model_lines(model: Model) -> list[str]:
    limits = [f"  {name} {_limit_text(value)}" for name, value in model.limits.items()]
    seconds = model.attempt_seconds
    attempt = [] if seconds is None else [f"  attempt_seconds {seconds:g}"]
    replay = " replay" if model.replay else ""
    return [f"model      {model.id}@{model.revision} {model.digest}{replay}", *attempt, *limits]


def _limit_text(value: Json) -> str:
    """Return a limit in ASCII: a limit that this version does not know may hold anything."""
    if isinstance(value, list) and all(isinstance(item, str | int) for item in value):
        return ", ".join(json.dumps(item).strip('"') for item in value) or "none"
    return json.dumps(value)


def _class_line(definition: Mapping[str, Any]) -> str:
    # A class has dozens of facts; these tell most classes apart.
    names = [name for name in _TELLING_FACTS if name in definition]
    facts = printable(" ".join(f"{name}={definition[name]}" for name in names))
    return f"{facts} ({len(definition)} facts, --json shows them)"
