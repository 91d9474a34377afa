"""Vectors of clocks: what members' clocks say about a node's own (specification 6.11).

All that is expected here is written down from the text.
"""

from collections.abc import Mapping, Sequence

from tests.support import fixtures
from tests.vectors.entries import Entry, Vectors

# Members of each operator, by their numbers. `clock_skew_seconds` is 60.
OPERATORS = {"a": [0, 1, 2], "b": [3, 4], "c": [5], "d": [6]}
STRANGER = 1000


def clocks() -> Vectors:
    """Differences of clocks, and the conclusion."""
    document = fixtures.network_document(7)
    for operator, members in OPERATORS.items():
        for member in members:
            document["roster"][member]["operator"] = operator
    return {
        "description": "Section 6.11. `answers` holds what a node knows of its peers: how many"
        " seconds the clock of `peer` is ahead of its own. `difference` is how far the operators'"
        " clocks are ahead, null if too few have answered. `ready` is false if this keeps the node"
        " from being ready.",
        "network": document,
        "clocks": _clocks(),
    }


def _clocks() -> list[Entry]:
    return [
        _entry("nobody has answered", {}, None),
        _entry("two operators are too few", {3: 100, 5: 100}, None),
        _entry("members of two operators are too few", {0: 100, 1: 100, 2: 100, 3: 100}, None),
        _entry("a peer outside the roster does not count", {3: 1, 5: 1, STRANGER: 1}, None),
        _entry("the middle one of three operators", {0: -5, 3: 61, 5: 60}, 60),
        _entry("over the limit", {0: -5, 3: 61, 5: 60.5}, 60.5, ready=False),
        _entry("behind, at the limit", {0: -60, 3: -61, 5: 0}, -60),
        _entry("behind, over the limit", {0: -60.25, 3: -61, 5: 0}, -60.25, ready=False),
        _entry("the mean of the two in the middle", {0: 0, 3: 10, 5: 21, 6: 1000}, 15.5),
        _entry(
            "an operator counts once, by the median of its members",
            {0: 1000, 1: 4, 2: -8, 3: 2, 5: 3},
            3,
        ),
        _entry(
            "an operator with two members counts by their mean", {3: 0, 4: 9, 5: 100, 6: -1}, 4.5
        ),
        _entry(
            "three members of one operator against two others",
            {0: 500, 1: 500, 2: 500, 3: 0, 5: 1},
            1,
        ),
        _entry(
            "a stranger's answer changes no median", {0: 0, 3: 1, 5: 2, STRANGER: 500, 6: 3}, 1.5
        ),
    ]


def _entry(
    name: str, answers: Mapping[int, float], difference: float | None, *, ready: bool = True
) -> Entry:
    given: Sequence[Entry] = [
        {"peer": fixtures.peer(member), "seconds": seconds} for member, seconds in answers.items()
    ]
    return {"name": name, "answers": given, "difference": difference, "ready": ready}
