"""`helium network add`: extend a network document."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from node.cli import options
from node.cli.commands.network.document import (
    ModelSelection,
    list_options,
    model_entries,
    now,
    roster_entries,
    validate,
)
from node.cli.exit_codes import usage
from node.cli.files import FILE, write
from protocol.network import Network
from protocol.wire.encoding import canonical


@click.command(epilog="Example: helium network add network.json --member 12D3KooW...=bob")
@click.argument("file", type=FILE)
@list_options
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
    members = roster_entries(roster, class_name or _only_class(old))
    new = validate(
        {
            **document,
            "created": now(),
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


def _only_class(network: Network) -> str:
    """Return the network's class if it has only one: then `--class` may be left out."""
    if len(network.classes) != 1:
        raise usage(f"--class: choose one of {', '.join(network.classes)}")
    return next(iter(network.classes))
