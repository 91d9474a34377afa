"""What several commands take, and how they say what they found."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from node.cli.exit_codes import Failure, usage
from node.cli.files import FILE, read
from node.config import keystore
from node.config.settings import InvalidSetting, Settings, load
from protocol.errors import Rejected
from protocol.network import Network

_F = TypeVar("_F", bound=Callable[..., Any])

PASSPHRASE = "HELIUM_KEY_PASSPHRASE"  # noqa: S105  # the variable's name

as_json = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document on standard output."
)
network = click.option(
    "--network", type=FILE, help="The network document. [env: HELIUM_NETWORK]", metavar="FILE"
)
data_dir = click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="A node's data folder; it may be running. [env: HELIUM_DATA_DIR]",
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


def client(command: _F) -> _F:
    """Add the options of the commands that speak with nodes."""
    return network(peers(command))


def settings(given: Mapping[str, object], toml: Path | None = None) -> Settings:
    """Return the settings from flags, environment and file; a wrong one is a usage failure."""
    try:
        return load(given, os.environ, toml)
    except InvalidSetting as error:
        raise usage(str(error)) from None


def network_of(path: Path) -> Network:
    """Return the network document in a file; a usage failure says what is wrong with it."""
    try:
        return Network.parse(read(path))
    except Rejected as rejected:
        raise usage(f"{path}: {rejected.detail}") from None


def chosen_network(path: Path) -> Network:
    """Return the network document that a setting names; a failure says which setting."""
    try:
        return network_of(path)
    except Failure as failure:
        hint = "--network or HELIUM_NETWORK names the network document"
        raise usage(f"{failure.message} ({hint})") from None


def key_of(path: Path) -> Ed25519PrivateKey:
    """Return the key in a file, unlocked by the passphrase in the environment if it is locked."""
    try:
        return keystore.load(path, os.environ.get(PASSPHRASE))
    except keystore.UnusableKeyFile as error:
        hint = f" (set {PASSPHRASE})" if "passphrase" in str(error) else ""
        raise usage(f"{error}{hint}") from None


def say(document: Mapping[str, object], lines: Sequence[str], as_json: bool) -> None:
    """Print a result on standard output: as one JSON document, or as lines for people."""
    click.echo(json.dumps(document, ensure_ascii=False) if as_json else "\n".join(lines))


def note(text: str) -> None:
    """Print what is no result on standard error."""
    click.echo(text, err=True)


def display_name(peer: str, network: Network) -> str:
    """Return a peer's name for people: its operator if that tells it apart, and its id's end."""
    member = network.roster.get(peer)
    operator = member.operator if member and member.operator != peer else ""
    return f"{operator} ..{peer[-6:]}" if operator else f"..{peer[-12:]}"
