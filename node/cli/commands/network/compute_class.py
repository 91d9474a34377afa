"""`helium network class`: the definition of this machine's compute class."""

import click

from executor.determinism.compute_class import KINDS
from node.cli.commands.network.measure import local_compute_class
from protocol.wire.encoding import canonical

CLASS_EPILOG = """\b
Kinds:
  music         text to music on the engine: one class for all processors
  piano         Pop2Piano on the engine; libraries still compute its features
  transformers  all models and precisions, by transformers and torch

\b
Example:
  helium network class > class.json
  helium network create network.json --class music --class-from class.json
"""


@click.command("class", epilog=CLASS_EPILOG)
@click.argument("kind", type=click.Choice([*KINDS]), default="music")
def print_class(kind: str) -> None:
    """Print the definition of this machine's compute class of a KIND, as JSON.

    `helium network create --class-from` reads it on another machine. KIND is music by default.
    """
    click.echo(canonical(local_compute_class(KINDS[kind])).decode())
