"""The vectors of the record across tasks against the product (specification 6.8)."""

import sqlite3
from typing import Any

import pytest

from node.storage.database import Database
from node.storage.journal import Journal
from node.storage.ledger import Ledger
from protocol.consensus.conduct import Conduct, VoteOutcome, task_conduct
from tests.support import fixtures
from tests.vectors.test_rounds import START, Player
from tests.vectors.test_vectors import stored

VECTORS = stored("suspects.json")
NET = fixtures.network()
MEMBER = fixtures.peer(1)


def conduct_of(player: Player, at: float) -> dict[str, Any]:
    player.wait(at)
    agreement = player.driver.agreement
    ended = agreement.state.terminal
    rows = task_conduct(agreement) if ended else []
    faults = {
        row.peer for row in rows if row.suspect_from is not None and row.suspect_from <= START + at
    }
    agreed = {row.peer for row in rows if row.outcome is VoteOutcome.AGREED}
    return {"at": at, "ended": ended, "faults": sorted(faults), "agreed": sorted(agreed)}


@pytest.mark.parametrize("entry", VECTORS["conduct"], ids=lambda entry: entry["name"])
def test_members_are_at_fault_or_agree_as_the_text_says(entry: dict[str, Any]) -> None:
    player, events = Player(entry, VECTORS["networks"]), list(entry["events"])
    conduct = []
    for time in entry["times"]:
        while events and events[0]["at"] <= time:
            player.play(events.pop(0))
        conduct.append(conduct_of(player, time))
    assert conduct == entry["conduct"]
    assert not events


@pytest.mark.parametrize("entry", VECTORS["records"], ids=lambda entry: entry["name"])
def test_a_member_is_a_suspect_as_long_as_the_text_says(entry: dict[str, Any]) -> None:
    database = Database(sqlite3.connect(":memory:", isolation_level=None), NET.id)
    journal, ledger = Journal(database), Ledger(database)
    names = dict.fromkeys(event["task"] for event in entry["events"])
    tasks = {name: fixtures.task(NET, nonce=nonce) for nonce, name in enumerate(names)}
    events, suspects = list(entry["events"]), []
    for at in entry["times"]:
        while events and events[0]["at"] <= at:
            event = events.pop(0)
            with journal.transaction():
                match event:
                    case {"accepted": True}:
                        journal.append(tasks[event["task"]], event["at"])
                    case {"conduct": conduct}:
                        ledger.put_conduct(tasks[event["task"]].id, [row_of(conduct)])
        suspects.append(MEMBER in ledger.suspects([MEMBER], at))
    assert suspects == entry["suspects"]
    assert not events
    database.connection.close()


def row_of(conduct: dict[str, Any]) -> Conduct:
    outcome = VoteOutcome.AGREED if conduct["agreed"] else VoteOutcome.SILENT
    return Conduct(0, MEMBER, outcome, conduct["fault_from"])
