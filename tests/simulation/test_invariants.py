"""Each invariant fires on a history in which its rule is broken, by the product or by the disk."""

import sqlite3
from typing import Any

import pytest

from node.consensus.coordinator import Coordinator
from protocol.consensus import certificate, committee
from protocol.consensus.agreement import Agreement
from protocol.network import Network
from protocol.wire import messages
from tests.simulation import invariants, play, rules
from tests.simulation.member import Member
from tests.simulation.play import Wish
from tests.support import fixtures

PATCH = pytest.MonkeyPatch
CRASHES = Wish((4, 5), 0, outside=())


def broken(wish: Wish, seeds: int = 30) -> set[str]:
    """The names of the invariants that do not hold in some history."""
    played = (play.play(wish, seed) for seed in range(seeds))
    return {one.broken.partition(":")[0] for one in played if one.broken}


def test_a_task_that_is_open_past_its_deadline_is_noticed(monkeypatch: PATCH) -> None:
    """As it stands open, and by when it ended: here at the end of its attempt."""

    def wakes(self: Agreement) -> float | None:
        due = [at for r in self.rounds if (at := r.wake_at()) is not None]
        if self._ended is None:
            due.append(self._attempt_at + self._attempt_seconds)
        return min(due, default=None)

    wish = Wish((4, 6), 0, outside=("bad requester",))
    assert not broken(wish)
    monkeypatch.setattr(Agreement, "wake_at", wakes)
    assert broken(wish) == {"I6"}


def test_a_settlement_lost_in_the_crash_that_followed_it_is_noticed(monkeypatch: PATCH) -> None:
    """However soon after it: what no look of ten seconds has seen is lost here."""
    seen = dict[int, set[str]]()
    look, down = invariants.check_now, Member.down

    def looking(scene: Any) -> None:
        seen.update({m.index: set(m.kept) for m in scene.honest})
        look(scene)

    def losing(self: Member) -> None:
        down(self)
        new = self.kept.keys() - seen.get(self.index, set())
        for task in new:
            for lost in (
                "DELETE FROM tasks WHERE id = ?",
                "DELETE FROM certificates WHERE task = ?",
            ):
                sqlite3.Connection.execute(self._connection, lost, (task,))

    monkeypatch.setattr(invariants, "check_now", looking)
    monkeypatch.setattr(Member, "down", losing)
    assert broken(CRASHES, 60) == {"I4"}


def test_a_commitment_that_covers_no_peer_lets_its_thief_sign(monkeypatch: PATCH) -> None:
    right = messages.commitment

    def anybody(task: str, attempt: int, peer: str, digest: str, salt: str) -> str:
        return right(task, attempt, fixtures.peer(0), digest, salt)

    monkeypatch.setattr(messages, "commitment", anybody)
    wish = Wish((4, 6), 1, among=("commitment thief",), outside=())
    assert broken(wish) == {"I2"}  # and all others that commit otherwise than the specification
    monkeypatch.setattr(rules, "broken", lambda found, network: "")
    assert broken(wish) == {"4"}


def test_a_task_taken_out_of_its_time_is_noticed(monkeypatch: PATCH) -> None:
    monkeypatch.setattr(Network, "check_timely", lambda self, task, now: None)
    assert "3, 6.1" in broken(Wish((4, 6), 0, outside=("bad requester",)))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, ""),
        ({"created": 1_060_001}, "created 60.0 s ahead"),
        ({"created": 880_000}, "expired 0.0 s ago"),
        ({"deadline": 3601}, "with 3601 s to its deadline"),
        ({"class": "gpu"}, "of another network or class"),
        ({"args": {"model": "nobody/knows"}}, "of a model that is not listed"),
    ],
)
def test_what_may_be_taken_is_told_once_more(changes: dict[str, Any], said: str) -> None:
    net = fixtures.network()
    right = {**fixtures.task(net).envelope.body, "created": 1_000_000, "deadline": 120}
    assert rules.untaken({**right, **changes}, 1000.0, net) == said


def test_every_clause_of_a_certificate_is_forged_by_somebody(monkeypatch: PATCH) -> None:
    """And what is forged breaks the rules as they are told once more."""
    said = set[str]()
    right = invariants.believed

    def hearing(scene: Any, shown: Any) -> Any:
        said.update(rules.broken(document, scene.network) for document in shown)
        return right(scene, shown)

    monkeypatch.setattr(invariants, "believed", hearing)
    assert not broken(Wish((4, 6), 1, among=("certificate forger",), outside=()))
    assert "" not in said
    wanted = ("a vote of another", "a signer that", "1 signers of", "several", "a signer's commit")
    assert not [words for words in wanted if not any(s.startswith(words) for s in said)]


def test_committees_that_are_not_the_tasks_own_are_noticed(monkeypatch: PATCH) -> None:
    right = committee.ranking
    monkeypatch.setattr(committee, "ranking", lambda task, members: right("a" * 64, members))
    assert broken(Wish((5, 8), 0, outside=())) <= {"5", "I2"} != set()


def test_a_forged_certificate_that_is_taken_for_valid_is_noticed(monkeypatch: PATCH) -> None:
    monkeypatch.setattr(certificate, "_check_agreement", lambda votes: None)
    for wish in (
        Wish((4, 6), 1, among=("certificate forger",), outside=()),
        Wish((4, 5), 1, "daemons", ("certificate forger",), ()),
    ):
        assert broken(wish) == {"I2"}


def test_a_deadline_held_of_a_task_that_was_never_accepted_is_noticed(monkeypatch: PATCH) -> None:
    right = Coordinator._remember

    def hoarding(self: Coordinator, found: Agreement) -> None:
        right(self, found)
        self._expiries["f" * 64] = 0.0

    monkeypatch.setattr(Coordinator, "_remember", hoarding)
    assert broken(CRASHES, 3) == {"I7"}
