"""`helium network class`: the definition of this machine's compute class."""

from typing import cast

import click

from executor.models.folders import SHIPPED
from node.cli.commands.doctor import start_worker
from node.cli.exit_codes import Exit, Failure
from protocol.wire.encoding import Document, canonical

CLASS_EPILOG = """\b
Example:
  helium network class > class.json
  helium network create network.json --class-from class.json
"""


@click.command("class", epilog=CLASS_EPILOG)
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
