"""The command `helium network`, with its subcommands."""

import click

from node.cli.commands.network.add import add
from node.cli.commands.network.compute_class import print_class
from node.cli.commands.network.create import create
from node.cli.commands.network.show import show

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


for _command in (create, show, add, print_class):
    network.add_command(_command)
