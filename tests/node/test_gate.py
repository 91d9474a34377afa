from collections import Counter

import pytest

from node.admission import Admission, Unserved
from node.coordinator import Busy
from node.gate import FEEDS, READS, UPLOADS, WATCHES, Gate
from tests import cast


def gate(counts: Counter[str], submitters: frozenset[str] = frozenset()) -> Gate:
    return Gate(Admission(submitters, 0, float), 60, float, counts)


def test_submissions_have_a_rate_and_the_refusal_says_when_to_come_again() -> None:
    counts: Counter[str] = Counter()
    found = gate(counts)
    for _ in range(10):
        found.submitting("a")
    with pytest.raises(Busy, match="try again in 1 s"):
        found.submitting("a")
    found.submitting("b")
    assert counts == {"submissions-refused": 1}


def test_a_task_of_nobody_served_is_counted() -> None:
    counts: Counter[str] = Counter()
    with pytest.raises(Unserved, match="not among those served"):
        gate(counts, frozenset({cast.peer(1)})).admit(cast.task(cast.network()))
    assert counts == {"tasks-unserved": 1}


@pytest.mark.parametrize(
    ("kind", "bounds"),
    [("watching", WATCHES), ("reading", READS), ("uploading", UPLOADS), ("asking", FEEDS)],
)
def test_places_are_held_and_given_back(kind: str, bounds: tuple[int, int]) -> None:
    counts: Counter[str] = Counter()
    place = getattr(gate(counts), kind)
    held = [place("a") for _ in range(bounds[0])]
    for each in held:
        each.__enter__()
    with pytest.raises(Busy, match="try again when one has ended"), place("a"):
        pass
    with place("b"):
        held.pop().__exit__(None, None, None)
    with place("a"):
        pass
    assert counts == {"requests-refused": 1}
