"""`helium key`: a node's key and the peer id that follows from it."""

import os
from pathlib import Path

import click

from node.cli import options
from node.cli.exit_codes import usage
from node.cli.files import FILE
from node.config import keystore
from protocol.wire.signing import peer_of


@click.group()
def key() -> None:
    """Make a node's key, or show whose key a file holds.

    A key is an Ed25519 key in a PKCS#8 PEM file of mode 0600. Set HELIUM_KEY_PASSPHRASE to have it
    encrypted, and to use an encrypted one.
    """


@key.command()
@click.argument("file", type=FILE, required=False)
@options.as_json
def new(file: Path | None, as_json: bool) -> None:
    """Write a new key to FILE and print its peer id; a key that is there is never replaced.

    FILE is the setting `key` if it is left out.
    """
    path = _path(file)
    try:
        made = keystore.create(path, os.environ.get(options.PASSPHRASE))
    except keystore.UnusableKeyFile as error:
        raise usage(str(error)) from None
    peer = peer_of(made)
    options.say({"peer": peer, "file": str(path)}, [peer], as_json)


@key.command()
@click.argument("file", type=FILE, required=False)
@options.as_json
def show(file: Path | None, as_json: bool) -> None:
    """Print the peer id of the key in FILE (the setting `key` if it is left out)."""
    path = _path(file)
    peer = peer_of(options.key_of(path))
    options.say({"peer": peer, "file": str(path)}, [peer], as_json)


def _path(file: Path | None) -> Path:
    return file or options.settings({}).key
