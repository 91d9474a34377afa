"""Each invariant fails on a run in which the product or the disk violates it."""

import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest

from node.consensus.task_table import TaskTable
from node.storage.journal import Journal
from node.sync.feeds.feed_sync import FeedSync
from protocol.consensus import certificate, committee
from protocol.consensus.agreement import Agreement
from protocol.errors import Rejected, Rejection
from protocol.network import Network
from protocol.wire import messages
from protocol.wire.messages import Task
from tests.simulation import invariants, specification
from tests.simulation.faulty_nodes import FaultyNode
from tests.simulation.runner import RunConfig, run_seed
from tests.support import fixtures

NO_FAULTY = RunConfig((4, 5), 0, outsiders=())
BAD_REQUESTER = RunConfig((4, 6), 0, outsiders=("bad requester",))


def violations(config: RunConfig, seeds: int) -> Iterator[str]:
    """Yield the name of the invariant that each violating run violates; seeds run on demand."""
    for seed in range(seeds):
        if violation := run_seed(config, seed).violation:
            yield violation.partition(":")[0]


def test_task_open_past_its_deadline_violates_i6(monkeypatch: pytest.MonkeyPatch) -> None:
    """An agreement that never wakes at its deadline ends late, at the end of its attempt."""

    def wake_without_deadline(self: Agreement) -> float | None:
        due = [at for r in self._rounds if (at := r.wake_at()) is not None]
        if self._terminal is None:
            due.append(self._attempt_began + self._attempt_seconds)
        return min(due, default=None)

    monkeypatch.setattr(Agreement, "wake_at", wake_without_deadline)
    assert next(violations(BAD_REQUESTER, 6)) == "I6"


def test_settled_state_lost_in_a_crash_violates_i4(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deletes only what was settled since the last periodic check."""
    checked = dict[int, set[str]]()
    check_now, crash = invariants.check_now, FaultyNode.crash

    def check_and_remember(simulation: Any) -> None:
        checked.update({node.index: set(node.settled) for node in simulation.honest})
        check_now(simulation)

    async def crash_and_lose(self: FaultyNode) -> None:
        await crash(self)
        for task in self.settled.keys() - checked.get(self.index, set()):
            for statement in (
                "DELETE FROM tasks WHERE id = ?",
                "DELETE FROM certificates WHERE task = ?",
            ):
                sqlite3.Connection.execute(self._connection, statement, (task,))

    monkeypatch.setattr(invariants, "check_now", check_and_remember)
    monkeypatch.setattr(FaultyNode, "crash", crash_and_lose)
    assert "I4" in violations(NO_FAULTY, 30)


def test_feed_that_is_read_only_on_connecting_violates_section_7(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Gossip that loses nothing hides it from the other invariants."""

    async def follow_once(self: FeedSync, peer: str) -> None:
        if await self._handshakes.greet(peer):
            await self.read_to_end(peer)

    monkeypatch.setattr(FeedSync, "_follow", follow_once)
    assert "7.9" in violations(NO_FAULTY, 6)


def test_unjournalled_message_violates_i5(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Journal, "append", lambda self, message, now: None)
    assert "I5" in violations(NO_FAULTY, 2)


def test_commitment_without_peer_lets_a_thief_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    commitment = messages.commitment

    def commitment_without_peer(task: str, attempt: int, peer: str, digest: str, salt: str) -> str:
        return commitment(task, attempt, fixtures.peer(0), digest, salt)

    monkeypatch.setattr(messages, "commitment", commitment_without_peer)
    config = RunConfig((4, 6), 1, roles=("commitment thief",), outsiders=())
    assert (
        next(violations(config, 24)) == "I2"
    )  # as all commitments differ from the specification's
    monkeypatch.setattr(specification, "certificate_fault", lambda certificate, network: "")
    assert next(violations(config, 24)) == "4"


def test_task_created_ahead_violates_section_6(monkeypatch: pytest.MonkeyPatch) -> None:
    def check_deadline_only(self: Network, task: Task, now_ms: int) -> None:
        if now_ms >= task.created + 1000 * task.deadline:
            raise Rejected(Rejection.EXPIRED, "")

    monkeypatch.setattr(Network, "check_timely", check_deadline_only)
    assert "3.8, 4.2" in violations(BAD_REQUESTER, 6)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, ""),
        ({"created": 1_060_001}, "created 60.0 s ahead"),
        ({"created": 880_000}, "expired 0.0 s ago"),
        ({"deadline": 3601}, "with 3601 s to its deadline"),
        ({"class": "gpu"}, "of another network or class"),
        ({"args": {"model": "nobody/knows"}}, "of a model that is not listed"),
        ({"requester": fixtures.peer(1)}, "signed by another than its requester"),
    ],
)
def test_restated_task_rules_give_their_reason(changes: dict[str, Any], reason: str) -> None:
    net = fixtures.network()
    body = {**fixtures.task(net).envelope.body, "created": 1_000_000, "deadline": 120}
    envelope = {"body": {**body, **changes}, "signer": body["requester"]}
    assert specification.rejection(envelope, 1000.0, net) == reason


def test_forger_breaks_every_clause_of_a_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    faults = set[str]()
    check_shown = invariants.check_shown

    def collect(simulation: Any, documents: Any) -> None:
        faults.update(
            specification.certificate_fault(document, simulation.network) for document in documents
        )
        check_shown(simulation, documents)

    monkeypatch.setattr(invariants, "check_shown", collect)
    config = RunConfig((4, 6), 1, roles=("certificate forger",), outsiders=())
    assert not list(violations(config, 10))
    assert "" not in faults
    clauses = ("a vote of another", "a signer that", "1 signers of", "several", "a signer's commit")
    assert not [clause for clause in clauses if not any(f.startswith(clause) for f in faults)]


def test_wrong_committees_violate_section_5(monkeypatch: pytest.MonkeyPatch) -> None:
    ranking = committee.ranking
    monkeypatch.setattr(committee, "ranking", lambda task, members: ranking("a" * 64, members))
    assert next(violations(RunConfig((5, 8), 0, outsiders=()), 4)) in ("5", "I2")


def test_accepted_forgery_violates_i2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificate, "_check_agreement", lambda votes: None)
    config = RunConfig((4, 6), 1, roles=("certificate forger",), outsiders=())
    assert next(violations(config, 10)) == "I2"


def test_deadline_of_an_unknown_task_violates_i7(monkeypatch: pytest.MonkeyPatch) -> None:
    add = TaskTable.add

    def add_unknown(self: TaskTable, agreement: Agreement, now: float, source: str = "") -> None:
        add(self, agreement, now, source)
        self._expiries["f" * 64] = 0.0

    monkeypatch.setattr(TaskTable, "add", add_unknown)
    assert next(violations(NO_FAULTY, 2)) == "I7"
