"""Which tasks are served, and the reason that others are refused with."""

import pytest

from node.admission import lru_dict
from node.admission.task_policy import TaskNotServed, TaskPolicy
from protocol.wire.messages import Task
from tests.node.admission.clock import Clock
from tests.support import fixtures

NET = fixtures.network()


def task(number: int, requester: int = 1000) -> Task:
    return fixtures.task(NET, requester=requester, nonce=number)


def test_by_default_every_requester_is_served() -> None:
    policy = TaskPolicy(frozenset(), 0, Clock())
    assert [policy.check(task(n, 1000 + n)) for n in range(50)] == [None] * 50


def test_a_requester_that_is_not_listed_is_refused() -> None:
    policy = TaskPolicy(frozenset({fixtures.peer(1000)}), 0, Clock())
    assert policy.check(task(1)) is None
    refusal = policy.check(task(2, 1001))
    assert isinstance(refusal, TaskNotServed)
    assert (refusal.reason, refusal.retry_after) == ("requester-not-served", None)
    assert fixtures.peer(1001) in str(refusal)


def test_each_requester_has_a_quota_per_hour() -> None:
    clock = Clock()
    policy = TaskPolicy(frozenset(), 2, clock)
    assert [policy.check(task(n)) for n in range(2)] == [None, None]
    refusal = policy.check(task(2))
    assert isinstance(refusal, TaskNotServed)
    assert (refusal.reason, refusal.retry_after) == ("over-quota", 1800.0)
    assert str(refusal) == "the limit is 2 tasks an hour; try again in 1800 s"
    assert policy.check(task(0, 1001)) is None
    clock.now += 1800
    assert policy.check(task(2)) is None


def test_a_repeated_task_counts_once() -> None:
    policy = TaskPolicy(frozenset(), 1, Clock())
    assert [policy.check(task(1)) for _ in range(3)] == [None] * 3
    assert policy.check(task(2)) is not None


def test_the_number_of_remembered_tasks_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lru_dict, "MAX_KEYS", 2)
    policy = TaskPolicy(frozenset(), 0, Clock())
    for number in range(5):
        policy.check(task(number))
    assert list(policy._accepted) == [task(3).id, task(4).id]
