"""`helium network add`: extend a network document."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from executor.determinism.compute_class import mismatch
from node.cli import interrupts, options
from node.cli.commands.network.document import (
    ModelSelection,
    list_options,
    model_entries,
    now,
    operator_counts,
    operator_lines,
    roster_entries,
    validate,
    warn_of_few_operators,
)
from node.cli.commands.network.measure import (
    Loading,
    is_served,
    kind_here,
    note_not_measured,
    require_served,
)
from node.cli.exit_codes import usage
from node.cli.files import FILE, write
from protocol.network import Network
from protocol.wire.encoding import Document, Json, canonical


@click.command(epilog="Example: helium network add network.json --member 12D3KooW...=bob")
@click.argument("file", type=FILE)
@list_options
@click.option(
    "--class",
    "class_names",
    multiple=True,
    metavar="NAME",
    help="A class of the new members; repeatable. Required if the network has several.",
)
@click.option("-o", "--output", type=FILE, help="Write to this file instead of replacing FILE.")
@click.option("--force", is_flag=True, help="Replace the file that -o names.")
@options.as_json
def add(
    file: Path,
    models: tuple[str, ...],
    models_dir: tuple[Path, ...],
    limits: tuple[str, ...],
    model_attempt_seconds: int | None,
    replay: bool | None,
    roster: tuple[str, ...],
    class_names: tuple[str, ...],
    output: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Add models or members to the network document in FILE.

    This makes another network with another id: every member and requester needs the new document.
    New models are loaded and measured as in helium network create.
    """
    if not models and not roster:
        raise usage("nothing to add: give --model or --member")
    old = options.network_of(file)
    selection = ModelSelection(models, models_dir, limits, model_attempt_seconds, replay)
    document: Mapping[str, Any] = old.document
    members = roster_entries(roster, class_names or _only_class(old))
    entries = model_entries(selection)
    changed = {
        **document,
        "created": now(),
        "models": [*document["models"], *entries],
        "roster": [*document["roster"], *members],
    }
    new = validate(changed)
    if entries:
        measured = _loaded(entries, new, selection)
        new = validate({**changed, "models": [*document["models"], *measured]})
    # The file itself may be replaced without --force: the user named it to be extended.
    target = output or file
    with interrupts.cleanly():
        write(target, canonical(new.document), over=output is None or force)
    options.note(f"the network id changed from {old.id} to {new.id}: all need the new document")
    options.say(
        {
            "id": new.id,
            "previous": old.id,
            "document": new.document,
            "operators": operator_counts(new),
        },
        [f"network {new.id} written to {target}", *operator_lines(new)],
        as_json,
    )
    warn_of_few_operators(new)


def _only_class(network: Network) -> Sequence[str]:
    """Return the network's class if it has only one: then `--class` may be left out."""
    if len(network.classes) != 1:
        raise usage(f"--class: choose of {', '.join(network.classes)}")
    return tuple(network.classes)


def _loaded(
    entries: Sequence[Mapping[str, Json]], network: Network, selection: ModelSelection
) -> Sequence[Json]:
    """Load the models of the entries. Return the entries, with measured `attempt_seconds`.

    They are not measured where they are given, or where this machine is of none of the classes.
    """
    models = {str(entry["id"]): network.models[str(entry["id"])] for entry in entries}
    kinds = {kind_here(runtime): None for runtime in network.classes.values()}
    require_served(models.values(), kinds)
    loading = Loading(
        selection.folders,
        models,
        network.parameters.attempt_seconds,
        {str(entry["id"]): entry for entry in entries},
    )

    def is_measured(runtime: Document) -> bool:
        is_of_class = not all(mismatch(runtime, listed) for listed in network.classes.values())
        return is_of_class and selection.attempt_seconds is None

    for kind in kinds:
        if any(is_served(model, kind) for model in models.values()):
            loading.run(kind, measures=is_measured)
    missing = [name for name in models if name not in loading.measured]
    if missing and selection.attempt_seconds is None:
        note_not_measured(
            ", ".join(missing), "this machine is of none of the network's classes that run it"
        )
    return [*loading.entries.values()]
