"""Vectors of network documents and committees."""

import copy
from collections.abc import Callable
from typing import Any

from protocol.consensus.committee import committees, quorum, ranking
from protocol.errors import Rejection
from protocol.network import Network
from protocol.wire.encoding import canonical, tagged_hash
from tests.support import fixtures
from tests.vectors.entries import Entry, Vectors, refused

Change = Callable[[Any], object]

REFUSED: dict[str, Change] = {
    "another version": lambda d: d.update(version=2),
    "an unknown member": lambda d: d.update(extra=1),
    "a missing member": lambda d: d.pop("roster"),
    "a missing parameter": lambda d: d["parameters"].pop("committee_max"),
    "no committee": lambda d: d["parameters"].update(committee_size=0),
    "a committee larger than the largest": lambda d: d["parameters"].update(committee_max=2),
    "no grace": lambda d: d["parameters"].update(commit_grace_seconds=0),
    "a peer twice": lambda d: d["roster"].append(d["roster"][0]),
    "a member of no class": lambda d: d["roster"][0].update({"class": "gpu"}),
    "a model twice": lambda d: d["models"].append(d["models"][0]),
    "a digest that is none": lambda d: d["models"][0].update(digest="D" * 64),
    "a time that is none": lambda d: d.update(created="2026-01-01 00:00:00"),
}


def networks() -> Vectors:
    """Network documents and their ids."""
    slow = fixtures.network_document(3)
    slow["models"][0]["attempt_seconds"] = 900
    accepted = {
        "four members": fixtures.network_document(),
        "nobody yet": fixtures.network_document(0),
        "other parameters": fixtures.network_document(
            7, committee_size=5, commit_grace_seconds=0.25
        ),
        "a slow model": slow,
    }
    return {
        "description": "Section 3. `id` is the network id of `document`, whose canonical form is"
        " `canonical`. The texts of `refused` are no valid network documents.",
        "accepted": [_network(name, document) for name, document in accepted.items()],
        "refused": [
            refused(name, Rejection.INVALID_FIELD, _changed(change), Network.parse)
            for name, change in REFUSED.items()
        ],
    }


def _network(name: str, document: Entry) -> Entry:
    network = Network.of(document)
    text = canonical(document).decode()
    return {"name": name, "document": document, "canonical": text, "id": network.id}


def _changed(change: Change) -> bytes:
    document = copy.deepcopy(fixtures.network_document())
    change(document)
    return canonical(document)


def committee_vectors() -> Vectors:
    """Rankings and committees."""
    cases = {
        "each its own operator": (["a", "b", "c", "d", "e", "f", "g", "h"], 3, 7),
        "operators run out": (["a", "a", "a", "b", "b", "c"], 4, 6),
        "one operator": (["a", "a", "a", "a"], 3, 7),
        "fewer members than asked for": (["a", "b"], 3, 7),
        "growth that stops at the largest": (["a", "b", "c", "d", "e", "f", "g"], 2, 5),
        "one member": (["a"], 1, 1),
    }
    return {
        "description": "Section 5. `roster` and `parameters` are those of the network document, all"
        " in the task's class. `ranking` is every member by ascending `rank` (hex) for the task id"
        " `task`; `attempts` are the committees, in the order of choice, and their quorums.",
        "committees": [
            _committee(f"{name}, task {nonce}", *case, nonce)
            for name, case in cases.items()
            for nonce in range(2)
        ],
    }


def _committee(name: str, operators: list[str], size: int, maximum: int, nonce: int) -> Entry:
    document = fixtures.network_document(len(operators), committee_size=size, committee_max=maximum)
    for member, operator in zip(document["roster"], operators, strict=True):
        member["operator"] = operator
    network = Network.of(document)
    task = fixtures.task(network, nonce=nonce)
    ranked = [m.peer for m in ranking(task.id, network.members(fixtures.CLASS))]
    return {
        "name": name,
        "parameters": {"committee_size": size, "committee_max": maximum},
        "roster": document["roster"],
        "task": task.id,
        "ranking": [{"peer": peer, "rank": _rank(task.id, peer)} for peer in ranked],
        "attempts": [
            {"committee": list(committee), "quorum": quorum(len(committee))}
            for committee in committees(network, task)
        ],
    }


def _rank(task: str, peer: str) -> str:
    return tagged_hash("committee", bytes.fromhex(task) + peer.encode()).hex()
