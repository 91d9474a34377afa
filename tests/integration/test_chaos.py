"""A short run of `scripts/chaos`, and what its checks find in databases with planted faults."""

import json
import os
import sqlite3
import subprocess
import sys
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
from scripts.chaos_tool.checks import CheckResult, Observations, check
from scripts.testnet_tool.nodes import LocalNode
from tests.integration.conftest import ROOT, SECONDS
from tests.support import fixtures

FAULTS = (
    *("--nodes", "4", "--seed", "4"),
    *("--only", "kills", "--kills", "4", "--commit-kills", "2"),
    *("--only", "partitions", "--partitions", "1", "--partition-seconds", "4"),
    *("--only", "liars", "--liars", "1", "--liar-tasks", "3"),
)


def test_kills_a_partition_and_a_liar_lose_nothing(tmp_path: Path) -> None:
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
    assert honest["faults"]["kills"] == 4
    assert honest["faults"]["commit_kills"] >= 2
    assert honest["faults"]["partitions_held"] == 1
    assert summary["restart"]["count"] >= 6
    assert summary["agreement_after_heal"]["count"] > 0
    assert liars["ends"]["agreed"] >= 3
    assert summary["tasks_settled"] > 3
    assert summary["honest_votes"] > 0


# The checks, on databases with planted faults


class Databases:
    """The databases of three honest nodes that agreed on one task."""

    def __init__(self, root: Path) -> None:
        self.network: Network = fixtures.network(3)
        self.task = fixtures.task(self.network)
        peers = [fixtures.peer(i) for i in range(3)]
        commits = {
            peer: fixtures.commitment_of(self.task, peer, fixtures.outcome()) for peer in peers
        }
        self.votes: list[Vote] = [fixtures.commit(self.network, self.task, peer) for peer in peers]
        reveals = [fixtures.reveal(self.network, self.task, peer, commits) for peer in peers]
        self.certificate = certificate.assemble(self.task, 0, reveals, self.network)
        self.votes += reveals
        self.nodes = [
            LocalNode(f"node-{i}", root / f"node-{i}", peer, 1, None)
            for i, peer in enumerate(peers)
        ]
        for node in self.nodes:
            node.home.mkdir()
            node.log.touch()
            database = self.database(node)
            with database.transaction():
                self._fill(Journal(database), Ledger(database))
            database.close()
        self.observed = Observations(certified={self.task.id: reveals[0].digest})

    def _fill(self, journal: Journal, ledger: Ledger) -> None:
        for message in (self.task, *self.votes):
            journal.append(message, fixtures.START)
        journal.put_outcome(self.task.id, fixtures.outcome(), {}, fixtures.START)
        ledger.put_certificate(self.certificate)
        journal.put_state(self.task.id, State.AGREED, 0)

    def database(self, node: LocalNode) -> Database:
        return open_database(node.home / DATABASE, self.network.id)

    def execute(self, node: int, statement: str, *values: object) -> None:
        with sqlite3.connect(self.nodes[node].home / DATABASE) as db:
            assert db.execute(statement, values).rowcount > 0
        db.close()

    def check(self) -> CheckResult:
        return check(self.network, self.nodes, self.observed)


@pytest.fixture
def databases(tmp_path: Path) -> Databases:
    return Databases(tmp_path)


def test_intact_databases_have_no_violations(databases: Databases) -> None:
    result = databases.check()
    assert result.violations == ()
    assert (result.settled, result.votes, result.final_states) == (1, 6, {"agreed": 1})


def test_certificate_missing_after_a_kill_is_lost(databases: Databases) -> None:
    databases.observed.certified_at_kill["node-1"] = frozenset(databases.observed.certified.items())
    databases.execute(1, "DELETE FROM certificates")
    assert databases.check().lost == 2  # before its kill, and at the other nodes


def test_certificate_that_only_a_requester_received_is_lost(databases: Databases) -> None:
    databases.observed.certified["0" * 64] = "1" * 64
    assert databases.check().lost == 1


def test_contradicting_vote_in_gossip_is_a_double_vote(databases: Databases) -> None:
    second = fixtures.commit(
        databases.network, databases.task, fixtures.peer(2), fixtures.outcome("another")
    )
    databases.observed.gossip.add(second.envelope.encode())
    result = databases.check()
    assert (result.double, result.forgotten) == (1, 1)


def test_vote_missing_from_its_signers_journal_is_forgotten(
    databases: Databases,
) -> None:
    databases.execute(
        0, "DELETE FROM envelopes WHERE signer = ? AND type = 'reveal'", fixtures.peer(0)
    )
    assert databases.check().forgotten == 1


def test_certificate_of_an_outcome_that_no_honest_node_computed_is_wrong(
    databases: Databases,
) -> None:
    for node in range(3):
        databases.execute(node, "DELETE FROM outcomes")
    assert databases.check().wrong == 3


def test_evidence_against_an_honest_node_is_a_violation(databases: Databases) -> None:
    second = fixtures.commit(
        databases.network, databases.task, fixtures.peer(2), fixtures.outcome("another")
    )
    database = databases.database(databases.nodes[0])
    with database.transaction():
        Ledger(database).put_evidence(Evidence.from_votes(databases.votes[2], second))
    database.close()
    assert databases.check().accused == 1


def test_differing_states_and_logged_tracebacks_are_violations(databases: Databases) -> None:
    databases.execute(2, "UPDATE tasks SET state = 'inconclusive'")
    databases.nodes[1].log.write_text("Traceback (most recent call last):\n")
    violations = databases.check().violations
    assert len(violations) == 2
    assert "differ" in violations[0]
    assert "Traceback" in violations[1]
