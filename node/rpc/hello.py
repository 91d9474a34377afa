"""The answer to `hello`: this node, what it can execute now, and its clock (specification 7.4)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from node.admission.lru_dict import LruDict
from node.transport.interface import Connection
from node.version import AGENT
from protocol.network import Network
from protocol.wire.encoding import Document

# Random bytes that tell one run of a node from another.
INSTANCE_BYTES = 16
# Instances that are remembered of one peer. Two are the mistake that is to be found.
MAX_INSTANCES = 4
# Characters of a reason, and reasons, in an answer: the limits of its schema.
_REASON_CHARACTERS, _MAX_REASONS = 256, 64


def request(network: str, instance: str, now: float) -> Document:
    """Return a hello request; `network` is the network id, `now` the sender's Unix time."""
    return {"network": network, "agent": AGENT, "time": round(now * 1000), "instance": instance}


@dataclass(frozen=True, slots=True)
class ServingStatus:
    """What this node can execute: its warm models by class, and why there are no more."""

    models: Mapping[str, Sequence[str]]
    reasons: Sequence[str] = ()


class Greeter:
    """Answers `hello`. All times are Unix seconds.

    Two running instances of one key sign conflicting votes. So a node tells a peer that asks when
    another instance of the key is connected. After a restart the old connection has closed.
    """

    def __init__(
        self,
        network: Network,
        me: str,
        instance: str,
        now: Callable[[], float],
        status: Callable[[], ServingStatus],
    ) -> None:
        """`instance` is this run's random id, 32 hex characters."""
        self._network, self._me, self.instance = network, me, instance
        self._now, self._status = now, status
        # By peer, then by instance id: the connection over which it said hello, the last one last.
        self._instances: LruDict[str, dict[str, Connection]] = LruDict()

    def request(self) -> Document:
        """Return the request that this node sends."""
        return request(self._network.id, self.instance, self._now())

    def answer(self, peer: str, connection: Connection, request: Mapping[str, Any]) -> Document:
        """Return the answer to a peer's request, which came over `connection`."""
        member, status = self._network.roster.get(self._me), self._status()
        reasons = [reason[:_REASON_CHARACTERS] for reason in status.reasons]
        return {
            "network": self._network.id,
            "agent": AGENT,
            "classes": () if member is None else member.classes,
            "ready": any(status.models.values()),
            "reasons": tuple(reasons[:_MAX_REASONS]),
            "models": {name: tuple(models) for name, models in status.models.items()},
            "duplicate": self._is_duplicate(peer, connection, request["instance"]),
            "time": round(self._now() * 1000),
            "instance": self.instance,
        }

    def _is_duplicate(self, peer: str, connection: Connection, instance: str) -> bool:
        """Note that an instance said hello; return whether another one of its peer is connected."""
        others = {
            other: its_connection
            for other, its_connection in self._instances.get(peer, {}).items()
            if other != instance and not its_connection.closed
        }
        kept = dict(list(others.items())[1 - MAX_INSTANCES :])
        self._instances[peer] = {**kept, instance: connection}
        return bool(others)
