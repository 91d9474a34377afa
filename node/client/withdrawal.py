"""Withdrawing a task: a request to its members not to begin it (specification 6.9)."""

import asyncio

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from node.clock import Clock
from node.sync.task_tracker import TaskTracker
from node.transport.interface import Transport, topics
from protocol.errors import Rejected, Rejection
from protocol.network import Network
from protocol.wire import messages
from protocol.wire.signing import peer_of, sign
from schemas.errors import HeliumError

# Seconds in which some node has to show the withdrawal. Gossip needs one, and nodes that are busy
# answer later.
WITHDRAWAL_SECONDS = 15.0
# Seconds from each time that it is published until the nodes are asked for it.
_PAUSE_SECONDS = 0.5


class WithdrawalNotShown(HeliumError):
    """No connected node has shown the withdrawal; it may have reached none."""


async def withdraw(
    network: Network,
    transport: Transport,
    clock: Clock,
    key: Ed25519PrivateKey,
    tracker: TaskTracker,
) -> frozenset[str]:
    """Publish the withdrawal of a task until a node shows it; return the nodes that do.

    Raises:
        UnknownTask: no connected node knows the task.
        Rejected: `key` is not the requester's.
        WithdrawalNotShown: no node has shown it in `WITHDRAWAL_SECONDS`.
    """
    task = await tracker.find()
    if task.requester != peer_of(key):
        detail = f"the task is of {task.requester}, the key of {peer_of(key)}"
        raise Rejected(Rejection.NOT_THE_REQUESTER, detail)
    _, votes_topic = topics(network.id)
    payload = sign(messages.withdraw_body(network.id, task.id), key).encode()
    end = clock.now() + WITHDRAWAL_SECONDS
    while not tracker.withdrawal_peers:
        if clock.now() > end:
            raise WithdrawalNotShown(
                f"no node shows the withdrawal after {WITHDRAWAL_SECONDS:g} s; it may not have "
                "arrived"
            )
        # Again each time: a node that is just connected has not said yet what it subscribes to.
        await transport.publish(votes_topic, payload)
        await asyncio.sleep(_PAUSE_SECONDS)
        await tracker.refresh(max(0.0, end - clock.now()))
    return tracker.withdrawal_peers
