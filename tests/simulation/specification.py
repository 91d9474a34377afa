"""An independent restatement of rules of the specification, to check the product against.

All functions take documents as they are sent. A certificate that the product accepts and this
module does not is a violation of I2.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from protocol.network import Network
from tests.simulation.memoization import dumps

Fields = Mapping[str, Any]


def tagged(tag: str, payload: bytes) -> bytes:
    """2: `H(tag, bytes)`."""
    return hashlib.sha256(b"helium/2/" + tag.encode() + b"\0" + payload).digest()


def task_id(body: Fields) -> str:
    """4: the id of a task, in hex."""
    return tagged("task", dumps(body)).hex()


def commitment(vote: Fields) -> str:
    """4: the commitment that a reveal's envelope opens, in hex."""
    body = vote["body"]
    opened = bytes.fromhex(body["task"]) + body["attempt"].to_bytes(4, "big")
    opened += vote["signer"].encode() + tagged("outcome", dumps(body["outcome"]))
    return tagged("commitment", opened + bytes.fromhex(body["salt"])).hex()


def committees(network: Network, task: str, compute_class: str) -> list[tuple[str, ...]]:
    """5: the committee of each attempt at a task: one member of each operator, in rank order."""
    members = [m for m in network.roster.values() if compute_class in m.classes]
    members.sort(key=lambda m: tagged("committee", bytes.fromhex(task) + m.peer.encode()))
    operators = {m.operator for m in members}
    chosen = [
        m.peer
        for i, m in enumerate(members)
        if len(operators) == 1 or m.operator not in {n.operator for n in members[:i]}
    ]
    parameters, sizes = network.parameters, list[int]()
    size = min(parameters.committee_size, parameters.committee_max, len(chosen))
    while not sizes or size > sizes[-1]:
        sizes.append(size)
        size = min(size + 2, parameters.committee_max, len(chosen))
    return [tuple(chosen[:size]) for size in sizes]


def certificate_fault(certificate: Fields, network: Network) -> str:
    """4: return the first fault of a certificate, or "". Signatures are not checked."""
    return next(_faults(certificate, network), "")


def _faults(certificate: Fields, network: Network) -> Iterator[str]:
    task, attempt, votes = certificate["task"]["body"], certificate["attempt"], certificate["votes"]
    name, bodies = task_id(task), [vote["body"] for vote in votes]
    signers = [vote["signer"] for vote in votes]
    attempts = committees(network, name, task["class"])
    if {network.id} != {certificate["network"], *(body["network"] for body in (task, *bodies))}:
        yield "of another network"
    if any((b["type"], b["task"], b["attempt"]) != ("reveal", name, attempt) for b in bodies):
        yield "a vote of another round"
    if attempt >= len(attempts):
        yield f"no attempt {attempt}"
        return
    if len(set(signers)) < len(signers) or not set(signers) <= set(attempts[attempt]):
        yield "a signer that is no member of the committee, or twice there"
    if 2 * len(signers) <= len(attempts[attempt]):
        yield f"{len(signers)} signers of a committee of {len(attempts[attempt])}"
    if len({dumps(body["outcome"]) for body in bodies}) != 1:
        yield "several outcomes"
    yield from _unlisted(votes)


def _unlisted(votes: Sequence[Fields]) -> Iterator[str]:
    opened = {vote["signer"]: commitment(vote) for vote in votes}
    for vote in votes:
        if not opened.items() <= vote["body"]["commits"].items():
            yield "a signer's commitment is not on every signer's list"


def rejection(envelope: Fields, at: float, network: Network) -> str:
    """3.8 and 4.2: return why a node must reject a task at a time of its clock, or ""."""
    task = envelope["body"]
    if task["requester"] != envelope["signer"]:
        return "signed by another than its requester"
    created, parameters = task["created"] / 1000, network.parameters
    classes = {name for member in network.roster.values() for name in member.classes}
    if task["network"] != network.id or task["class"] not in classes:
        return "of another network or class"
    if task["args"]["model"] not in network.models:
        return "of a model that is not listed"
    if task["deadline"] > parameters.max_deadline_seconds:
        return f"with {task['deadline']} s to its deadline"
    if created > at + parameters.clock_skew_seconds:
        return f"created {created - at:.1f} s ahead"
    if created + task["deadline"] <= at:
        return f"expired {at - created - task['deadline']:.1f} s ago"
    return ""
