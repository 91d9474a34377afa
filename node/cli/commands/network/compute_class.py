"""`helium network class`: the definition of this machine's compute class."""

import click

from node.cli.commands.network.measure import local_compute_class
from protocol.wire.encoding import canonical

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
