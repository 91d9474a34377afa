from collections import Counter
from collections.abc import Container
from contextlib import ExitStack

import pytest

from node.admission.request_limits import RequestLimiter
from node.admission.task_policy import TaskNotServed, TaskPolicy
from node.config.limits import Limits
from node.errors import Busy
from tests.support import fixtures

LIMITS = Limits(peer_submissions=60, peer_watches=5, peer_reads=4, peer_uploads=3, peer_feeds=2)
EACH = {
    "watching": "peer_watches",
    "reading": "peer_reads",
    "uploading": "peer_uploads",
    "asking": "peer_feeds",
    "looking": "peer_reads",
}


def gate(
    counts: Counter[str],
    submitters: frozenset[str] = frozenset(),
    limits: Limits = LIMITS,
    members: Container[str] = (),
) -> RequestLimiter:
    return RequestLimiter(TaskPolicy(submitters, 0, float), limits, members, float, counts)


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
    with pytest.raises(TaskNotServed, match="not among those served"):
        gate(counts, frozenset({fixtures.peer(1)})).admit(fixtures.task(fixtures.network()))
    assert counts == {"tasks-unserved": 1}


@pytest.mark.parametrize("kind", EACH)
def test_places_are_held_and_given_back(kind: str) -> None:
    counts: Counter[str] = Counter()
    place = getattr(gate(counts), kind)
    held = [place("a") for _ in range(getattr(LIMITS, EACH[kind]))]
    for each in held:
        each.__enter__()
    with pytest.raises(Busy, match="try again when one has ended"), place("a"):
        pass
    with place("b"):
        held.pop().__exit__(None, None, None)
    with place("a"):
        pass
    assert counts == {"requests-refused": 1}


@pytest.mark.parametrize("kind", EACH)
def test_all_together_have_so_many_places(kind: str) -> None:
    limits = Limits(max_watches=1, max_reads=1, max_uploads=1, max_feeds=1)
    place = getattr(gate(Counter(), limits=limits), kind)
    with place("a"), pytest.raises(Busy), place("b"):
        pass
    with place("b"):
        pass


@pytest.mark.parametrize("kind", EACH)
def test_strangers_that_take_all_places_keep_no_member_out(kind: str) -> None:
    limits = Limits(max_watches=1, max_reads=1, max_uploads=1, max_feeds=1)
    place = getattr(gate(Counter(), limits=limits, members=("member",)), kind)
    with place("stranger"), place("member"), place("member"), pytest.raises(Busy):
        place("passer-by").__enter__()
    with place("member"), place("stranger"):
        pass


@pytest.mark.parametrize("kind", EACH)
def test_a_member_has_no_more_places_than_a_peer_may_hold(kind: str) -> None:
    place = getattr(gate(Counter(), members=("member",)), kind)
    with ExitStack() as held:
        for _ in range(getattr(LIMITS, EACH[kind])):
            held.enter_context(place("member"))
        with pytest.raises(Busy), place("member"):
            pass
    with place("member"):
        pass


def test_looks_at_tasks_and_reads_of_blobs_take_no_places_of_each_other() -> None:
    found = gate(Counter(), limits=Limits(peer_reads=1, max_reads=1))
    with found.looking("a"), found.reading("a"):
        pass


def test_members_behind_one_address_have_places_of_their_own_and_others_share() -> None:
    found = gate(Counter(), members=("one", "other"))
    rate_limit_key = "203.0.113.7"
    held = [
        found.slot_key(peer, rate_limit_key) for peer in ("one", "other", "stranger", "passer-by")
    ]
    assert held == ["one", "other", rate_limit_key, rate_limit_key]
