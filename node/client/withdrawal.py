"""Withdrawing a task: a request to its members not to begin it (specification 6.9)."""

import asyncio

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from node.client.nodes import SUBMIT_TO
from node.clock import Clock
from node.sync.task_tracker import TaskTracker
from node.transport.interface import Transport, topics
from protocol.errors import Rejected, Rejection
from protocol.network import Network
from protocol.wire import messages
from protocol.wire.signing import peer_of, sign
from schemas.errors import HeliumError

# A faulty node may show a withdrawal and not pass it on, as it may a task.
MIN_NODES = SUBMIT_TO
# Seconds in which that many nodes have to show the withdrawal. Gossip needs one, and nodes that are
# busy answer later.
WITHDRAWAL_SECONDS = 15.0
# Seconds from each time that it is published until the nodes are asked for it.
_PAUSE_SECONDS = 0.5


class WithdrawalNotShown(HeliumError):
    """Too few nodes have shown the withdrawal; it may have reached no honest one."""


async def withdraw(
    network: Network,
    transport: Transport,
    clock: Clock,
    key: Ed25519PrivateKey,
    tracker: TaskTracker,
) -> frozenset[str]:
    """Publish the withdrawal of a task until two nodes show it; return the nodes that do.

    One node is enough if no other has answered in `WITHDRAWAL_SECONDS`, or none is connected.

    Raises:
        UnknownTask: no connected node knows the task.
        Rejected: `key` is not the requester's.
        WithdrawalNotShown: too few nodes have shown it in `WITHDRAWAL_SECONDS`.
    """
    task = await tracker.find()
    if task.requester != peer_of(key):
        detail = f"the task is of {task.requester}, the key of {peer_of(key)}"
        raise Rejected(Rejection.NOT_THE_REQUESTER, detail)
    _, votes_topic = topics(network.id)
    payload = sign(messages.withdraw_body(network.id, task.id), key).encode()
    end = clock.now() + WITHDRAWAL_SECONDS
    while not _is_shown(tracker, transport.peers()):
        if clock.now() > end:
            if _is_shown(tracker, tracker.answering_peers):
                break
            raise WithdrawalNotShown(_describe_missing(tracker))
        # Again each time: a node that is just connected has not said yet what it subscribes to.
        await transport.publish(votes_topic, payload)
        await asyncio.sleep(_PAUSE_SECONDS)
        await tracker.refresh(max(0.0, end - clock.now()))
    return tracker.withdrawal_peers


def _is_shown(tracker: TaskTracker, reachable: frozenset[str]) -> bool:
    """Return whether enough of the nodes that can be reached show the withdrawal, at least one."""
    return len(tracker.withdrawal_peers) >= max(1, min(MIN_NODES, len(reachable)))


def _describe_missing(tracker: TaskTracker) -> str:
    shown, answering = len(tracker.withdrawal_peers), len(tracker.answering_peers)
    count = f"only {shown}" if shown else "none"
    return (
        f"{count} of the {answering} nodes that answer shows the withdrawal after "
        f"{WITHDRAWAL_SECONDS:g} s; it may not have arrived"
    )
