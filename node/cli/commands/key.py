"""`helium key`: a node's key and its peer id."""

import os
from pathlib import Path

import click

from node.cli import interrupts, options
from node.cli.exit_codes import usage
from node.cli.files import FILE
from node.config import keystore
from protocol.wire.signing import peer_of

EPILOG = """\b
Examples:
  helium key new node.pem
  helium key show node.pem

\b
Output:
  the peer id, such as 12D3KooW..., which names the node in a network document
"""


@click.group(epilog=EPILOG)
def key() -> None:
    """Create a node's key, or show a key's peer id.

    A key is an Ed25519 key in a PKCS#8 PEM file of mode 0600. Keep it secret and back it up: its
    peer id is the node's identity. HELIUM_KEY_PASSPHRASE encrypts a new key and unlocks an
    encrypted one.
    """


@key.command(epilog=EPILOG)
@click.argument("file", type=FILE, required=False)
@options.as_json
def new(file: Path | None, as_json: bool) -> None:
    """Write a new key to FILE and print its peer id.

    Without FILE, the setting `key` names the file. An existing file is never replaced.
    """
    path = _path(file)
    try:
        with interrupts.cleanly():
            private_key = keystore.create(path, os.environ.get(options.PASSPHRASE))
    except keystore.UnusableKeyFile as error:
        raise usage(str(error)) from None
    peer = peer_of(private_key)
    options.say({"peer": peer, "file": str(path)}, [peer], as_json)


@key.command(epilog=EPILOG)
@click.argument("file", type=FILE, required=False)
@options.as_json
def show(file: Path | None, as_json: bool) -> None:
    """Print the peer id of the key in FILE. Without FILE, the setting `key` names the file."""
    path = _path(file)
    peer = peer_of(options.key_of(path))
    options.say({"peer": peer, "file": str(path)}, [peer], as_json)


def _path(file: Path | None) -> Path:
    return file or options.settings({}).key
