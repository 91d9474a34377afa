"""Whose tasks are served, and what is said to the others."""

import pytest

from node.admission import rate_limits
from node.admission.task_policy import TaskNotServed, TaskPolicy
from protocol.wire.messages import Task
from tests.support import fixtures

NET = fixtures.network()


class Clock:
    now = 50.0

    def __call__(self) -> float:
        return self.now


def task(number: int, requester: int = 1000) -> Task:
    return fixtures.task(NET, requester=requester, nonce=number)


def test_anyone_is_served_unless_a_setting_says_otherwise() -> None:
    open_to_all = TaskPolicy(frozenset(), 0, Clock())
    assert [open_to_all.decide(task(n, 1000 + n)) for n in range(50)] == [None] * 50


def test_others_than_those_listed_are_told_so() -> None:
    listed = TaskPolicy(frozenset({fixtures.peer(1000)}), 0, Clock())
    assert listed.decide(task(1)) is None
    refused = listed.decide(task(2, 1001))
    assert isinstance(refused, TaskNotServed)
    assert (refused.reason, refused.seconds) == ("requester-not-served", None)
    assert fixtures.peer(1001) in str(refused)


def test_each_requester_has_so_many_tasks_an_hour() -> None:
    clock = Clock()
    rationed = TaskPolicy(frozenset(), 2, clock)
    assert [rationed.decide(task(n)) for n in range(2)] == [None, None]
    refused = rationed.decide(task(2))
    assert isinstance(refused, TaskNotServed)
    assert (refused.reason, refused.seconds) == ("over-quota", 1800.0)
    assert str(refused) == "2 tasks an hour are taken; try again in 1800 s"
    assert rationed.decide(task(0, 1001)) is None
    clock.now += 1800
    assert rationed.decide(task(2)) is None


def test_a_task_counts_once_however_often_it_comes() -> None:
    rationed = TaskPolicy(frozenset(), 1, Clock())
    assert [rationed.decide(task(1)) for _ in range(3)] == [None] * 3
    assert rationed.decide(task(2)) is not None


def test_only_so_many_decisions_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limits, "MAX_KEYS", 2)
    decided = TaskPolicy(frozenset(), 0, Clock())
    for number in range(5):
        decided.decide(task(number))
    assert list(decided._served) == [task(3).id, task(4).id]
