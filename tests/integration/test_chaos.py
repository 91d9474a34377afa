"""`scripts/chaos` in a short version, and that its inspection finds what it looks for."""

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from node.storage.database import Database, open_database
from node.storage.journal import Journal
from node.storage.ledger import Ledger
from node.storage.reader import DATABASE
from protocol.consensus import certificate
from protocol.consensus.effects import State
from protocol.consensus.evidence import Evidence
from protocol.network import Network
from protocol.wire.messages import Vote
from scripts.chaos_tool.checks import Inspected, inspect
from scripts.chaos_tool.noted import Noted
from scripts.testnet_tool.nodes import Place
from tests.integration.conftest import ROOT, SECONDS
from tests.support import fixtures

FAULTS = (
    *("--nodes", "5", "--seed", "4"),
    *("--only", "kills", "--kills", "8", "--commit-kills", "2"),
    *("--only", "partitions", "--partitions", "1", "--partition-seconds", "4"),
    *("--only", "liars", "--liars", "1", "--liar-tasks", "3"),
)


def test_nothing_is_lost_by_kills_a_partition_and_a_liar(tmp_path: Path) -> None:
    command = ["-m", "scripts.chaos_tool", *FAULTS, "--out", str(tmp_path / "out"), "--json"]
    done = subprocess.run(
        [sys.executable, "-P", *command],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=2 * SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    summary: dict[str, Any] = json.loads(done.stdout)
    honest, liars = summary["networks"]
    assert summary["violations"] == []
    assert honest["faults"]["kills"] == 8
    assert honest["faults"]["commit_kills"] >= 2
    assert honest["faults"]["partitions_held"] == 1
    assert summary["restart"]["count"] >= 10
    assert summary["agreement_after_heal"]["count"] > 0
    assert liars["ends"]["agreed"] >= 3
    assert summary["tasks_settled"] > 3
    assert summary["honest_votes"] > 0


# The inspection, of databases in which something is wrong


class Kept:
    """What three honest nodes kept of one task on which they agreed."""

    def __init__(self, root: Path) -> None:
        self.network: Network = fixtures.network(3)
        self.task = fixtures.task(self.network)
        peers = [fixtures.peer(i) for i in range(3)]
        commits = {peer: fixtures.bound(self.task, peer, fixtures.outcome()) for peer in peers}
        self.votes: list[Vote] = [fixtures.commit(self.network, self.task, peer) for peer in peers]
        reveals = [fixtures.reveal(self.network, self.task, peer, commits) for peer in peers]
        self.certificate = certificate.assemble(self.task, 0, reveals, self.network)
        self.votes += reveals
        self.places = [
            Place(f"node-{i}", root / f"node-{i}", peer, 1, None) for i, peer in enumerate(peers)
        ]
        for place in self.places:
            place.home.mkdir()
            place.log.touch()
            database = self.database(place)
            with database.transaction():
                self._fill(Journal(database), Ledger(database))
            database.close()
        self.noted = Noted(certified={self.task.id: reveals[0].digest})

    def _fill(self, journal: Journal, ledger: Ledger) -> None:
        for message in (self.task, *self.votes):
            journal.append(message, fixtures.START)
        journal.put_outcome(self.task.id, fixtures.outcome(), {}, fixtures.START)
        ledger.put_certificate(self.certificate)
        journal.put_state(self.task.id, State.AGREED, 0)

    def database(self, place: Place) -> Database:
        return open_database(place.home / DATABASE, self.network.id)

    def execute(self, node: int, statement: str, *values: object) -> None:
        with sqlite3.connect(self.places[node].home / DATABASE) as db:
            assert db.execute(statement, values).rowcount > 0
        db.close()

    def inspect(self, places: Sequence[Place] | None = None) -> Inspected:
        return inspect(self.network, places or self.places, self.noted)


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path)


def test_nothing_is_found_where_nothing_is_wrong(kept: Kept) -> None:
    found = kept.inspect()
    assert found.violations == ()
    assert (found.settled, found.votes, found.ends) == (1, 6, {"agreed": 1})


def test_a_certificate_that_a_node_does_not_have_any_more_is_lost(kept: Kept) -> None:
    kept.noted.kept["node-1"] = frozenset(kept.noted.certified.items())
    kept.execute(1, "DELETE FROM certificates")
    assert kept.inspect().lost == 2  # by its former self, and by what the others have


def test_a_certificate_that_only_a_requester_saw_is_lost(kept: Kept) -> None:
    kept.noted.certified["0" * 64] = "1" * 64
    assert kept.inspect().lost == 1


def test_a_second_vote_in_any_database_or_heard_is_double(kept: Kept) -> None:
    second = fixtures.commit(kept.network, kept.task, fixtures.peer(2), fixtures.outcome("another"))
    kept.noted.heard.add(second.envelope.encode())
    found = kept.inspect()
    assert (found.double, found.forgotten) == (1, 1)


def test_a_vote_that_its_signer_does_not_know_was_sent_before_it_was_journalled(
    kept: Kept,
) -> None:
    kept.execute(0, "DELETE FROM envelopes WHERE signer = ? AND type = 'reveal'", fixtures.peer(0))
    assert kept.inspect().forgotten == 1


def test_a_certificate_of_what_no_honest_node_got_is_wrong(kept: Kept) -> None:
    for node in range(3):
        kept.execute(node, "DELETE FROM outcomes")
    assert kept.inspect().wrong == 3


def test_evidence_against_an_honest_node_is_found(kept: Kept) -> None:
    second = fixtures.commit(kept.network, kept.task, fixtures.peer(2), fixtures.outcome("another"))
    database = kept.database(kept.places[0])
    with database.transaction():
        Ledger(database).put_evidence(Evidence.from_votes(kept.votes[2], second))
    database.close()
    assert kept.inspect().accused == 1


def test_nodes_that_differ_or_complain_are_named(kept: Kept) -> None:
    kept.execute(2, "UPDATE tasks SET state = 'inconclusive'")
    kept.places[1].log.write_text("Traceback (most recent call last):\n")
    violations = kept.inspect().violations
    assert len(violations) == 2
    assert "differ" in violations[0]
    assert "Traceback" in violations[1]
