"""Commands that ask nodes: they connect as a client, and failures become exit codes."""

import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from node.cli import interrupts, options
from node.cli.exit_codes import Exit, Failure, usage
from node.client.arguments import InvalidArgument
from node.client.client import Client
from node.client.nodes import NoNodeReachable, TaskRejected
from node.client.result import AudioMismatch
from node.client.submission import GenerationFailed
from node.client.withdrawal import WithdrawalNotShown
from node.config import log_setup
from node.rpc.codec import ProtocolViolation
from node.sync.blob_download import BlobUnavailable
from node.sync.task_tracker import NoAgreement, UnknownTask
from protocol.errors import Rejected
from protocol.network import Network

_T = TypeVar("_T")

# What the client raises, with the exit code and the line on standard error.
EXIT_CODES: dict[type[Exception], tuple[Exit, str]] = {
    NoNodeReachable: (Exit.NO_NODE, "{error}"),
    BlobUnavailable: (Exit.NO_NODE, "{error}"),
    WithdrawalNotShown: (Exit.NO_NODE, "{error}"),
    ConnectionError: (Exit.NO_NODE, "{error}"),
    InvalidArgument: (Exit.USAGE, "{error.detail}"),
    Rejected: (Exit.REJECTED, "task rejected: {error.detail}"),
    TaskRejected: (Exit.REJECTED, "task rejected by the nodes: {error.detail}"),
    UnknownTask: (Exit.REJECTED, "{error}"),
    GenerationFailed: (Exit.REJECTED, "{error}"),
    NoAgreement: (Exit.NO_AGREEMENT, "{error}"),
    AudioMismatch: (Exit.UNVERIFIED, "{error}"),
    ProtocolViolation: (Exit.UNVERIFIED, "{error}"),
}


@dataclass(frozen=True, slots=True)
class ClientTarget:
    """The network that a command asks: its document, nodes' multiaddrs, and the own key's file."""

    network: Network
    peers: Sequence[str]
    key: Path | None = None


def resolve_target(
    network: Path | None,
    peers: tuple[str, ...],
    key: Path | None = None,
    *,
    peers_required: bool = True,
) -> ClientTarget:
    """Return the network and nodes that flags and environment name, and set up the logs.

    Without a node it is a usage failure, unless `peers_required` is False.
    """
    settings = options.settings({"network": network, "peers": peers})
    # "info" is the daemon's default. A command's standard error is for progress and failures.
    log_setup.configure("error" if settings.log_level == "info" else settings.log_level, "auto")
    if peers_required and not settings.peers:
        raise no_node_named()
    return ClientTarget(options.chosen_network(settings.network), settings.peers, key)


def no_node_named() -> Failure:
    """Return the failure of a command that has no node to ask."""
    return usage("no node is named: give --peer MULTIADDR or set HELIUM_PEERS")


def silence_libp2p() -> None:
    """Hide libp2p's log lines unless HELIUM_DEBUG is set: it logs each lost peer as an error."""
    # The import configures libp2p's loggers, so it has to come before they are changed.
    import node.transport.libp2p.transport  # noqa: F401

    if not os.environ.get("HELIUM_DEBUG"):
        log_setup.restore_logger("libp2p", "critical")


def run_with_client(target: ClientTarget, action: Callable[[Client], Awaitable[_T]]) -> _T:
    """Connect to nodes, run `action` and return its result; exceptions become exit codes."""
    key = options.key_of(target.key) if target.key else None
    silence_libp2p()

    async def connect_and_run() -> _T:
        async with Client.connect(target.network, target.peers, key=key) as client:
            return await action(client)

    with map_exit_codes():
        return interrupts.run(connect_and_run())


@contextmanager
def map_exit_codes() -> Iterator[None]:
    """Turn an exception of `EXIT_CODES`, or of a subclass, into a `Failure`."""
    try:
        yield
    except tuple(EXIT_CODES) as error:
        kind = next(kind for kind in type(error).__mro__ if kind in EXIT_CODES)
        code, line = EXIT_CODES[kind]
        raise Failure(code, line.format(error=error)) from None
