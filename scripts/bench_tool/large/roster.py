"""Generated networks of any number of members, with the keys of all of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol.network import Member, Network, NetworkParameters
from protocol.wire.encoding import canonical, document_hash
from tests.support import fixtures

# The most members of a network document (specification 3.7).
MAX_MEMBERS = 16_384


@dataclass(frozen=True, slots=True)
class Roster:
    """A network, the keys of its members by peer id, and the bytes of its document."""

    network: Network
    keys: Mapping[str, Ed25519PrivateKey]
    document: bytes

    @property
    def is_allowed(self) -> bool:
        """Whether the specification allows so many members."""
        return len(self.network.roster) <= MAX_MEMBERS


def generate(members: int) -> Roster:
    """Return a network of so many members, each its own operator.

    Nobody could parse a document of more than `MAX_MEMBERS`: it is built without the checks.
    """
    keys = {fixtures.peer(index): fixtures.key(index) for index in range(members)}
    document: dict[str, Any] = fixtures.network_document(1)
    document["roster"] = [
        {"peer": peer, "operator": f"operator-{index}", "classes": [fixtures.CLASS]}
        for index, peer in enumerate(keys)
    ]
    text = canonical(document)
    if members <= MAX_MEMBERS:
        return Roster(Network.parse(text), keys, text)
    return Roster(_unchecked(document), keys, text)


def _unchecked(document: Mapping[str, Any]) -> Network:
    models = fixtures.network(1).models
    roster = {
        entry["peer"]: Member(entry["peer"], entry["operator"], tuple(entry["classes"]))
        for entry in document["roster"]
    }
    parameters = NetworkParameters(**document["parameters"])
    id_ = document_hash("network", document)
    return Network(document, id_, parameters, document["classes"], models, roster)
