"""Options, files and output that several commands share."""

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from node.cli.exit_codes import Failure, usage
from node.cli.files import FILE, PathType, read
from node.config.settings import InvalidSetting, Settings, load
from protocol.constants import NETWORK_LIMIT
from protocol.errors import Rejected, Rejection
from protocol.network import Network

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_F = TypeVar("_F", bound=Callable[..., Any])

# The key of `submit` and `cancel`. It is not HELIUM_KEY, which is a node's own.
REQUESTER_KEY = "HELIUM_REQUESTER_KEY"
_NO_DOCUMENT = " (a network document is a JSON file, as helium network create writes it)"
PASSPHRASE = "HELIUM_KEY_PASSPHRASE"  # noqa: S105  # the variable's name

# Options that several commands take. Each command adds those that it needs, as decorators.
as_json = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document on standard output."
)
network = click.option(
    "--network", type=FILE, help="The network document. [env: HELIUM_NETWORK]", metavar="FILE"
)
data_dir = click.option(
    "--data-dir",
    type=PathType(file_okay=False, path_type=Path),
    help="A node's data folder; the node may be running. [env: HELIUM_DATA_DIR]",
    metavar="FOLDER",
)
peers = click.option(
    "--peer",
    "--peers",
    "peers",
    multiple=True,
    metavar="MULTIADDR",
    help="A node to ask, such as /ip4/192.0.2.1/tcp/4001/p2p/12D3KooW...; repeatable. "
    "[env: HELIUM_PEERS, comma-separated]",
)
models_dir = click.option(
    "--models-dir",
    type=PathType(file_okay=False, path_type=Path),
    multiple=True,
    help="A folder with models as <owner>/<name>, in addition to the shipped ones.",
)


def requester_key(purpose: str) -> Callable[[_F], _F]:
    """Return an option that names the requester's key."""
    return click.option(
        "--key", type=FILE, envvar=REQUESTER_KEY, help=f"{purpose} [env: {REQUESTER_KEY}]"
    )


def client(command: _F) -> _F:
    """Add the options of commands that ask nodes."""
    return network(peers(command))


def settings(flags: Mapping[str, object], toml: Path | None = None) -> Settings:
    """Return the settings from flags, environment and TOML file. Raises Failure (usage)."""
    try:
        return load(flags, os.environ, toml)
    except InvalidSetting as error:
        raise usage(str(error)) from None


def network_of(path: Path) -> Network:
    """Return the network document in a file; a usage failure names what is wrong."""
    try:
        return Network.parse(read(path, NETWORK_LIMIT))
    except Rejected as rejected:
        # Another kind of file: what is wrong with its first bytes tells little.
        hint = _NO_DOCUMENT if rejected.reason is Rejection.MALFORMED else ""
        raise usage(f"{path}: {rejected.detail}{hint}") from None


def chosen_network(path: Path) -> Network:
    """Return the network document of the setting `network`; a failure names the setting."""
    try:
        return network_of(path)
    except Failure as failure:
        hint = "--network or HELIUM_NETWORK names the network document"
        raise usage(f"{failure.message} ({hint})") from None


def key_of(path: Path) -> "Ed25519PrivateKey":
    """Return the key in a file; the passphrase in the environment decrypts an encrypted one."""
    # Imported here: most commands need no key file.
    from node.config import keystore

    try:
        return keystore.load(path, os.environ.get(PASSPHRASE))
    except keystore.UnusableKeyFile as error:
        # The keystore does not know where the passphrase comes from.
        hint = f" (set {PASSPHRASE})" if "passphrase" in str(error) else ""
        raise usage(f"{error}{hint}") from None


def unusable_data_dir(error: Exception) -> Failure:
    """Return the usage failure for a data folder whose database cannot be read."""
    return usage(f"{error} (--data-dir or HELIUM_DATA_DIR names the data folder)")


def say(document: Mapping[str, object], lines: Sequence[str], as_json: bool) -> None:
    """Print a result on standard output: as one JSON document, or as lines for people."""
    # Prompts and operators stay readable in any language, if the terminal has it.
    text = json.dumps(document, ensure_ascii=False) if as_json else "\n".join(lines)
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:  # a path that is not UTF-8, or a terminal of few characters
        text = text.encode(encoding, "backslashreplace").decode(encoding)
        text = json.dumps(document) if as_json else text
    click.echo(text)


def note(text: str) -> None:
    """Print a line on standard error, which is not part of the result."""
    click.echo(text, err=True)


def display_name(peer: str, network: Network) -> str:
    """Return a short name for a peer: its operator, if it has one, and the end of its id."""
    member = network.roster.get(peer)
    # The operator of a member that names none is its peer id.
    operator = member.operator if member and member.operator != peer else ""
    return f"{operator} ..{peer[-6:]}" if operator else f"..{peer[-12:]}"
