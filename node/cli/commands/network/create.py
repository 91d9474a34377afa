"""`helium network create`: write a new network document."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar, cast

import click

import schemas
from executor.determinism.compute_class import KINDS, WorkerKind
from executor.models.folders import DEFAULTS
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
    kind_here,
    note_not_measured,
    require_served,
)
from node.cli.exit_codes import usage
from node.cli.files import FILE, read_json, write
from protocol.constants import VERSION
from protocol.network import NetworkParameters
from protocol.wire.encoding import Json, canonical

_F = TypeVar("_F", bound=Callable[..., Any])


# Measured where it can be, so that its flag has no default of its own.
MEASURED = "attempt_seconds"


def _parameter_options(command: _F) -> _F:
    """Add a flag for each parameter; the schema has its description and its bounds."""
    properties = schemas.load("network")["properties"]["parameters"]["properties"]
    for field in reversed(fields(NetworkParameters)):
        flag = "--" + field.name.replace("_", "-")
        kind = click.FLOAT if field.type in (float, "float") else click.INT
        # The first sentence, without the default in brackets, which click shows itself.
        description = properties[field.name]["description"].partition(". ")[0]
        text = re.sub(r" \(\d+\)", "", description).rstrip(".") + "."
        default, shown = field.default, True
        if field.name == MEASURED:
            text += f" Without it, slow models are measured.  [default: {field.default}]"
            default, shown = None, False
        command = click.option(flag, type=kind, default=default, show_default=shown, help=text)(
            command
        )
    return command


CREATE_EPILOG = """\b
Examples:
  helium network create network.json --member 12D3KooW...=alice --member 12D3KooW...=bob
  helium network create network.json --model acme/music --models-dir models
  helium network create network.json --class music --class cpu=transformers \\
      --member 12D3KooW...=alice
  helium network create network.json --class cpu --class gpu --class-from cpu.json \\
      --class-from gpu.json --member 12D3KooW...=alice

\b
Output:
  network  the network's id, 64 hex characters, by which peers recognise each other
  class    how many members and operators a compute class has
A warning on standard error names each class with fewer than three operators. An operator has one
place in a committee, but the only operator of a class has all places. Members need machines of the
same compute class. `helium network class` shows a machine's class.

Every model is loaded on this machine, in a worker of each class that runs it. One that does not
load is refused. Unless --attempt-seconds or --model-attempt-seconds is given, a task of each model
is executed too, and attempts are made at least five times as long as its longest task. With
--class-from nothing is measured, and the command says so.
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
    "class_texts",
    multiple=True,
    metavar="NAME[=KIND]",
    help="A compute class of the members, and what it computes with: music, piano or transformers "
    "(see `helium network class --help`); repeatable. KIND is NAME if that is a kind, and "
    "transformers otherwise. Without it, the classes are those that the models need.",
)
@click.option(
    "--class-from",
    "class_files",
    type=FILE,
    multiple=True,
    metavar="FILE",
    help="The class's definition, as `helium network class` prints it on a machine of that class; "
    "one for each --class, in the same order. Without it, this machine defines the classes.",
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
    replay: bool | None,
    roster: tuple[str, ...],
    class_texts: tuple[str, ...],
    class_files: tuple[Path, ...],
    force: bool,
    as_json: bool,
    **parameters: float | None,
) -> None:
    """Write a network document to FILE and print its id.

    Without --model it lists the shipped models. Give the file to every member and requester.
    """
    if file.exists() and not force:
        raise usage(f"{file}: exists already; --force replaces it")
    if class_files and len(class_files) != max(1, len(class_texts)):
        raise usage("--class-from: give one for each --class, in the same order")
    selection = ModelSelection(
        models or DEFAULTS, models_dir, limits, model_attempt_seconds, replay
    )
    entries = model_entries(selection)
    kinds = dict(class_kind(text) for text in class_texts or ("cpu",) * len(class_files))
    kinds = kinds or needed_kinds(entries)
    if class_texts and len(kinds) < len(class_texts):
        raise usage("--class: a name is given twice")
    given = {name: value for name, value in parameters.items() if value is not None}
    document: dict[str, Json] = {
        "name": name,
        "version": VERSION,
        "created": now(),
        "parameters": {k: _whole(v) for k, v in asdict(NetworkParameters(**given)).items()},  # type: ignore[arg-type]
        "models": [*entries],
        "roster": roster_entries(roster, [*kinds]),
    }
    definitions: dict[str, Any] = {
        name: read_json(path) for name, path in zip(kinds, class_files, strict=False)
    }
    unknown = {name: {"unknown": True} for name in kinds}
    # Errors in the arguments come first: a worker's start and the measurements take long.
    draft = validate({**document, "classes": definitions or unknown})
    if definitions:
        kinds = {name: kind_here(runtime) for name, runtime in definitions.items()}
    require_served(draft.models.values(), kinds.values())
    seconds_given = model_attempt_seconds is not None or MEASURED in given
    loading = Loading(
        models_dir,
        draft.models,
        draft.parameters.attempt_seconds,
        {str(entry["id"]): entry for entry in entries},
    )
    runtimes = {
        kind: loading.run(kind, measures=lambda _: not (seconds_given or class_files))
        for kind in dict.fromkeys(kinds.values())
    }
    document["classes"] = definitions or {name: runtimes[kind] for name, kind in kinds.items()}
    document["models"] = [*loading.entries.values()]
    if class_files and not seconds_given:
        note_not_measured(", ".join(draft.models), "--class-from: no worker of it runs here")
    new = validate(document)
    with interrupts.cleanly():
        write(file, canonical(new.document), over=force)
    options.say(
        {"id": new.id, "document": new.document, "operators": operator_counts(new)},
        [f"network {new.id} written to {file}", *operator_lines(new)],
        as_json,
    )
    warn_of_few_operators(new)


def class_kind(text: str) -> tuple[str, WorkerKind]:
    """Return a class's name and kind, of NAME[=KIND]."""
    name, _, kind = text.partition("=")
    kind = kind or (name if name in KINDS else "transformers")
    if kind not in KINDS:
        raise usage(f"--class {text}: {kind!r} is none of {', '.join(KINDS)}")
    return name, KINDS[kind]


def needed_kinds(entries: Sequence[Mapping[str, Json]]) -> dict[str, WorkerKind]:
    """Return the classes for models of a document: the engine's where it computes them."""
    needed = {}
    for entry in entries:
        tasks, replay = cast("Sequence[str]", entry["tasks"]), entry.get("replay") is True
        name = next(name for name, kind in KINDS.items() if kind.serves(tasks, replay=replay))
        needed[name] = KINDS[name]
    return {name: kind for name, kind in KINDS.items() if name in needed}


def _whole(value: float) -> int | float:
    """Return 2.0 as 2: the id is a hash of the JSON text."""
    return int(value) if float(value).is_integer() else value
