"""Commands that speak with nodes: connected as a client, its failures as exit codes."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from node.cli import options
from node.cli.exit_codes import Exit, Failure, usage
from node.client.client import Client, GenerationFailed, NoAgreement, NoNodeReachable, TaskRejected
from node.client.result import AudioMismatch
from node.config import log_setup
from node.rpc.codec import ProtocolViolation
from node.sync.blob_download import BlobUnavailable
from node.sync.task_tracker import UnknownTask
from protocol.errors import Rejected
from protocol.network import Network

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class ClientTarget:
    """Where a command's network is: its document and the nodes to ask."""

    network: Network
    peers: Sequence[str]
    key: Path | None = None


def resolve_target(
    network: Path | None,
    peers: tuple[str, ...],
    key: Path | None = None,
    *,
    needed: bool = True,
) -> ClientTarget:
    """Return the network and nodes that flags and environment name; sets the logs up.

    Without a node to ask it is a usage failure, unless none is `needed`.
    """
    settings = options.settings({"network": network, "peers": peers})
    log_setup.configure("error" if settings.log_level == "info" else settings.log_level, "auto")
    if needed and not settings.peers:
        raise no_node_named()
    return ClientTarget(options.chosen_network(settings.network), settings.peers, key)


def no_node_named() -> Failure:
    """Return the failure for a command that needs a node to ask."""
    return usage("no node is named: give --peer MULTIADDR or set HELIUM_PEERS")


def silence_libp2p() -> None:
    """Keep libp2p's own log lines from among ours: a peer that is away is no error of libp2p's."""
    import node.transport.libp2p.transport  # noqa: F401  # sets its loggers up, which has to come first

    if not os.environ.get("HELIUM_DEBUG"):
        log_setup.rejoin("libp2p", "critical")


def run_with_client(target: ClientTarget, action: Callable[[Client], Awaitable[_T]]) -> _T:
    """Connect to nodes, run `action` and return its result; failures become exit codes."""
    key = options.key_of(target.key) if target.key else None
    silence_libp2p()

    async def connected() -> _T:
        async with Client.connect(target.network, target.peers, key=key) as client:
            return await action(client)

    with exit_codes():
        return asyncio.run(connected())


@contextmanager
def exit_codes() -> Iterator[None]:
    """Turn what a client raises into the documented exit codes."""
    try:
        yield
    except (NoNodeReachable, BlobUnavailable, ConnectionError) as error:
        raise Failure(Exit.NO_NODE, str(error)) from None
    except Rejected as error:
        raise Failure(Exit.REJECTED, f"task rejected: {error.detail}") from None
    except TaskRejected as error:
        raise Failure(Exit.REJECTED, f"task rejected by the nodes: {error.detail}") from None
    except (UnknownTask, GenerationFailed) as error:
        raise Failure(Exit.REJECTED, str(error)) from None
    except NoAgreement as error:
        raise Failure(Exit.NO_AGREEMENT, str(error)) from None
    except (AudioMismatch, ProtocolViolation) as error:
        raise Failure(Exit.UNVERIFIED, str(error)) from None
