"""Progress and changes of tasks, as their watchers see them."""

import sqlite3
from collections.abc import Iterator

import pytest

from node.consensus.task_events import TaskEvents
from node.storage.database import Database
from node.storage.journal import Journal
from tests.support import fixtures

NET = fixtures.network()
TASK = "a" * 64


@pytest.fixture
def journal() -> Iterator[Journal]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    yield Journal(Database(connection, NET.id))
    connection.close()


def test_watchers_are_woken_at_whole_percents(journal: Journal) -> None:
    events, woken = TaskEvents(journal), []
    for fraction in (0.101, 0.104, 0.11):
        change = events.next_change(TASK)
        events.set_progress(TASK, fraction)
        woken.append(change.is_set())
    assert woken == [True, False, True]
    assert events.progress(TASK) == 0.11


def test_every_watcher_of_a_task_gets_the_same_change(journal: Journal) -> None:
    events = TaskEvents(journal)
    change, other_change = events.next_change(TASK), events.next_change("b" * 64)
    assert events.next_change(TASK) is change
    events.set_changed(TASK)
    assert (change.is_set(), other_change.is_set()) == (True, False)
    assert events.next_change(TASK) is not change


def test_progress_without_a_running_job_is_that_of_the_journal(journal: Journal) -> None:
    events = TaskEvents(journal)
    events.set_progress(TASK, 0.5)
    events.clear_progress(TASK)
    assert events.progress(TASK) == 0.0
    journal.put_outcome(TASK, {"error": "generation-rejected"}, {}, 0.0)
    assert events.progress(TASK) == 1.0
