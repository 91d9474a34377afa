"""Vectors of rounds: votes with their times, and what a member does with them (specification 6).

All that is expected here is written down from the text. `test_rounds` compares it with the product.
"""

from collections.abc import Sequence
from typing import Any

from protocol.consensus.committee import committees
from protocol.network import Network
from protocol.wire import messages
from protocol.wire.messages import Message
from tests.support import fixtures
from tests.vectors.entries import Entry, Vectors

# Two attempts: committees of 3 and 5, quorums of 2 and 3.
GROWING = fixtures.network_document(5, committee_size=3, committee_max=5)
DOCUMENTS = {
    "growing": GROWING,
    # One attempt, which is the last: a committee of 5, a quorum of 3.
    "whole": fixtures.network_document(5, committee_size=5, committee_max=5),
}
NETWORKS = {name: Network.of(document) for name, document in DOCUMENTS.items()}
HONEST, LIE = fixtures.outcome(), fixtures.outcome("lie")
# The salts of an earlier process, which the node of an entry does not know.
LOST_SALTS = "an earlier process"


class Scene:
    """A network with the fixtures' task: `a` to `e` are its members in the order of choice."""

    def __init__(self, name: str) -> None:
        self.name, self.net = name, NETWORKS[name]
        self.task = fixtures.task(self.net)
        self.a, self.b, self.c, self.d, self.e = committees(self.net, self.task)[-1]

    def commit(self, at: float, member: str, outcome: Any = HONEST, attempt: int = 0) -> Entry:
        return _received(at, fixtures.commit(self.net, self.task, member, outcome, attempt))

    def reveal(
        self,
        at: float,
        member: str,
        listing: Sequence[str],
        outcome: Any = HONEST,
        attempt: int = 0,
        **changes: Any,
    ) -> Entry:
        """A reveal that lists the commitments of `listing`, each to the same outcome."""
        commits = self.commits(listing, outcome, attempt)
        vote = fixtures.reveal(self.net, self.task, member, commits, outcome, attempt)
        body = {**vote.envelope.body, **changes}
        return _received(at, fixtures.signed_by(self.net, body, member))

    def lost_commit(self, at: float, outcome: Any = HONEST, attempt: int = 0) -> Entry:
        """A commit that an earlier process of `a` signed; the node has lost it, and its salt."""
        commitment = self.lost_commits(outcome, attempt)[self.a]
        body = messages.commit_body(self.net.id, self.task.id, attempt, commitment)
        return _received(at, fixtures.signed_by(self.net, body, self.a))

    def lost_reveal(
        self, at: float, listing: Sequence[str], outcome: Any = HONEST, attempt: int = 0
    ) -> Entry:
        """A reveal of an earlier process of `a`. It opens `lost_commit`, and lists `listing`."""
        listed = self.lost_commits(outcome, attempt) | self.commits(listing, outcome, attempt)
        salt = fixtures.salt(LOST_SALTS, attempt)
        return self.reveal(at, self.a, [], outcome, attempt, commits=listed, salt=salt)

    def lost_commits(self, outcome: Any = HONEST, attempt: int = 0) -> dict[str, str]:
        """The commitment of `lost_commit`, as a list of a reveal."""
        digest, salt = messages.outcome_digest(outcome), fixtures.salt(LOST_SALTS, attempt)
        return {self.a: messages.commitment(self.task.id, attempt, self.a, digest, salt)}

    def abstain(self, at: float, member: str, attempt: int = 0) -> Entry:
        return _received(at, fixtures.abstain(self.net, self.task, member, "busy", attempt))

    def withdraw(self, at: float) -> Entry:
        return _received(at, fixtures.withdraw(self.net, self.task))

    def commits(
        self, members: Sequence[str], outcome: Any = HONEST, attempt: int = 0
    ) -> dict[str, str]:
        return {m: fixtures.commitment_of(self.task, m, outcome, attempt) for m in members}

    def entry(
        self,
        name: str,
        events: Sequence[Entry],
        *,
        sent: Sequence[Entry] = (),
        attempts: Sequence[float] = (0,),
        executions: Sequence[float] = (0,),
        states: Sequence[Entry],
        suspects: Sequence[str] = (),
        watching: bool = False,
    ) -> Entry:
        """A round as member `a` sees it, or, if it is `watching`, a node outside the roster.

        `executions` are those of a member; a node outside the roster executes nothing.
        """
        me = fixtures.peer(1000) if watching else self.a
        return {
            "name": name,
            "network": self.name,
            "task": self.task.envelope.encode().decode(),
            "me": me,
            "salts": [fixtures.salt(me, attempt) for attempt in range(2)],
            "suspects": list(suspects),
            "events": list(events),
            "sent": list(sent),
            "attempts": list(attempts),
            "executions": [] if watching else list(executions),
            "times": [state["at"] for state in states],
            "states": list(states),
        }


def _received(at: float, message: Message) -> Entry:
    return {"at": at, "received": message.envelope.encode().decode()}


def executed(at: float, outcome: Any = HONEST) -> Entry:
    return {"at": at, "executed": outcome}


def failed(at: float, reason: str) -> Entry:
    return {"at": at, "failed": reason}


def sent_commit(at: float, attempt: int = 0) -> Entry:
    return {"at": at, "type": "commit", "attempt": attempt}


def sent_reveal(at: float, commits: dict[str, str], attempt: int = 0) -> Entry:
    return {"at": at, "type": "reveal", "attempt": attempt, "commits": commits}


def sent_abstention(at: float, reason: str, attempt: int = 0) -> Entry:
    return {"at": at, "type": "abstain", "attempt": attempt, "reason": reason}


def _state(at: float, state: str, attempt: int = 0, *, reachable: Sequence[bool]) -> Entry:
    return {"at": at, "state": state, "attempt": attempt, "reachable": list(reachable)}


BOTH = (True, True)
LOST = (False, True)
ONE = (True,)


def rounds() -> Vectors:
    """Rounds, each as one node sees it."""
    growing, whole = Scene("growing"), Scene("whole")
    return {
        "description": "Section 6. `networks` are network documents by name. Each entry of `rounds`"
        " is one task at one node; the README of this folder says how to play it.",
        "networks": DOCUMENTS,
        "rounds": [
            *_lists(growing),
            *_large_lists(whole),
            *_contradictions(growing),
            *_reachable(growing),
            *_attempts(growing),
            *_ends(growing),
            *_whole_ends(whole),
            *_suspects(growing),
            *_own_commits(growing),
            *_own_reveals(growing),
            *_own_outcomes(growing),
            *_own_abstentions(growing),
        ],
    }


def _lists(s: Scene) -> list[Entry]:
    """Rules 6.3.1 to 6.3.5. The grace is 2 s."""
    a, b, c = s.a, s.b, s.c
    pair, trio = s.commits([a, b]), s.commits([a, b, c])
    return [
        s.entry(
            "a quorum of commits, two waits, and a commit in the second one",
            [
                executed(10),
                s.commit(12, b),
                s.commit(15, c),
                s.reveal(16.5, b, [a, b]),
            ],
            sent=[sent_commit(10), sent_reveal(16, pair)],
            states=[
                _state(9.5, "executing", reachable=BOTH),
                _state(10, "committed", reachable=BOTH),
                _state(15.5, "committed", reachable=BOTH),
                _state(16, "revealed", reachable=BOTH),
                _state(16.5, "agreed", reachable=BOTH),
            ],
        ),
        s.entry(
            "all commits before the quorum's wait began",
            [s.commit(1, b), s.commit(2, c), executed(30)],
            sent=[sent_commit(30), sent_reveal(30, trio), sent_commit(120, 1)],
            attempts=[0, 120],
            states=[
                _state(29, "executing", reachable=BOTH),
                _state(30, "revealed", reachable=BOTH),
            ],
        ),
        s.entry(
            "all commits within the first wait",
            [executed(10), s.commit(11, b), s.commit(12.5, c)],
            sent=[sent_commit(10), sent_reveal(12.5, trio), sent_commit(120, 1)],
            attempts=[0, 120],
            states=[
                _state(12, "committed", reachable=BOTH),
                _state(12.5, "revealed", reachable=BOTH),
            ],
        ),
        s.entry(
            "no quorum of commits, no reveal",
            [executed(10), s.reveal(11, b, [a, b]), s.abstain(12, c)],
            sent=[sent_commit(10), sent_commit(120, 1)],
            attempts=[0, 120],
            states=[
                _state(119, "committed", reachable=BOTH),
                _state(120, "committed", 1, reachable=BOTH),
            ],
        ),
    ]


def _large_lists(s: Scene) -> list[Entry]:
    a, b, c, d, e = s.a, s.b, s.c, s.d, s.e
    four = s.commits([a, b, c, d])
    return [
        s.entry(
            "the own commit comes after a quorum of others",
            [s.commit(1, b), s.commit(2, c), s.commit(3, d), executed(30), s.commit(33, e)],
            sent=[sent_commit(30), sent_reveal(34, four)],
            states=[
                _state(29, "executing", reachable=ONE),
                _state(33.5, "committed", reachable=ONE),
                _state(34, "revealed", reachable=ONE),
            ],
        ),
        s.entry(
            "commits of suspects are counted once attempt_seconds are over",
            [s.commit(1, b), s.commit(2, c), executed(10), s.commit(20, d)],
            suspects=[b, c],
            sent=[sent_commit(10), sent_reveal(124, four)],
            states=[
                _state(123.5, "committed", reachable=ONE),
                _state(124, "revealed", reachable=ONE),
            ],
        ),
        s.entry(
            "a quorum without the suspects",
            [s.commit(1, b), executed(10), s.commit(20, c), s.commit(30, d)],
            suspects=[b],
            sent=[sent_commit(10), sent_reveal(34, four)],
            states=[
                _state(33, "committed", reachable=ONE),
                _state(34, "revealed", reachable=ONE),
            ],
        ),
        s.entry(
            "all commits, those of suspects among them",
            [s.commit(at, m) for at, m in enumerate([b, c, d, e], 1)] + [executed(10)],
            suspects=[b, c, d, e],
            sent=[sent_commit(10), sent_reveal(10, s.commits([a, b, c, d, e]))],
            states=[_state(10, "revealed", reachable=ONE)],
        ),
    ]


def _contradictions(s: Scene) -> list[Entry]:
    """Rule 6.4.2: the first vote stands, and a contradicting one is no commit and no reveal."""
    a, b, c = s.a, s.b, s.c
    first, second = s.commit(1, b), s.commit(2, b, LIE)
    swapped = [s.commit(1, b, LIE), s.commit(2, b)]
    own = s.commits([a])
    late = [
        s.reveal(1, b, [b]),
        s.commit(2, b, LIE),
        executed(3),
        s.commit(50, c),
    ]
    turned = [s.commit(1, b, LIE), s.reveal(2, b, [b]), executed(3), s.commit(50, c)]
    return [
        s.entry(
            "two commits of one member",
            [first, second, executed(3)],
            sent=[sent_commit(3), sent_reveal(7, own | s.commits([b])), sent_commit(120, 1)],
            attempts=[0, 120],
            states=[_state(6, "committed", reachable=BOTH), _state(7, "revealed", reachable=BOTH)],
        ),
        s.entry(
            "the same two commits in the other order",
            [*swapped, executed(3)],
            sent=[sent_commit(3), sent_reveal(7, own | s.commits([b], LIE)), sent_commit(120, 1)],
            attempts=[0, 120],
            states=[_state(6, "committed", reachable=BOTH), _state(7, "revealed", reachable=BOTH)],
        ),
        s.entry(
            "a reveal, then a commit that it does not open, which is no commit",
            late,
            sent=[sent_commit(3), sent_reveal(54, s.commits([a, c])), sent_commit(120, 1)],
            attempts=[0, 120],
            states=[
                _state(53, "committed", reachable=BOTH),
                _state(54, "revealed", reachable=BOTH),
            ],
        ),
        s.entry(
            "the commit first, then the reveal, which is no reveal",
            turned,
            sent=[sent_commit(3), sent_reveal(7, own | s.commits([b], LIE)), sent_commit(120, 1)],
            attempts=[0, 120],
            states=[_state(6, "committed", reachable=BOTH), _state(7, "revealed", reachable=BOTH)],
        ),
    ]


def _reachable(s: Scene) -> list[Entry]:
    """Rule 6.6.1: when no outcome can reach the quorum, as a node outside the roster sees it."""
    a, b, c = s.a, s.b, s.c
    end = [s.reveal(5, a, [a, b, c]), s.abstain(6, c)]
    lie, other = s.reveal(1, b, [b], LIE), s.reveal(2, b, [b], salt="00" * 32)
    mixed = s.commits([a, c]) | s.commits([b], LIE)

    def lost(name: str, events: list[Entry], at: float) -> Entry:
        return s.entry(
            name,
            events,
            attempts=[0, at],
            states=[
                _state(at - 0.5, "waiting", reachable=BOTH),
                _state(at, "waiting", 1, reachable=LOST),
            ],
            watching=True,
        )

    def open_(name: str, events: list[Entry]) -> Entry:
        return s.entry(
            name,
            events,
            attempts=[0, 120],
            states=[
                _state(119.5, "waiting", reachable=BOTH),
                _state(120, "waiting", 1, reachable=BOTH),
            ],
            watching=True,
        )

    return [
        lost("two of three abstain", [s.abstain(1, b), s.abstain(2, c)], 2),
        lost("a lie, and an abstention", [lie, *end], 6),
        open_("a member that revealed twice may reveal anything", [lie, other, *end]),
        open_(
            "the same two reveals in the other order",
            [{**other, "at": 1}, {**lie, "at": 2}, *end],
        ),
        lost("a reveal does not list who is left", [s.reveal(5, a, [a, c]), s.abstain(6, c)], 6),
        open_("a reveal lists who is left", [s.reveal(5, a, [a, b]), s.abstain(6, c)]),
        lost(
            "a reveal lists another commitment of who is left than its commit has",
            [s.commit(1, b), s.reveal(5, a, [], commits=mixed), s.abstain(6, c)],
            6,
        ),
        open_(
            "the same, but the member's commits contradict each other",
            [
                s.commit(1, b),
                s.commit(2, b, LIE),
                s.reveal(5, a, [], commits=mixed),
                s.abstain(6, c),
            ],
        ),
        open_(
            "the same, the commits in the other order",
            [
                s.commit(1, b, LIE),
                s.commit(2, b),
                s.reveal(5, a, [], commits=mixed),
                s.abstain(6, c),
            ],
        ),
        lost(
            "a reveal does not list itself",
            [s.reveal(5, a, [b, c]), s.abstain(6, c)],
            6,
        ),
        lost(
            "three outcomes",
            [s.reveal(n + 1, m, [a, b, c], fixtures.outcome(m)) for n, m in enumerate([a, b, c])],
            3,
        ),
    ]


def _attempts(s: Scene) -> list[Entry]:
    """Section 6.6."""
    a, b, c, d = s.a, s.b, s.c, s.d
    return [
        s.entry(
            "the next attempt starts by time, and the outcome comes in it",
            [s.commit(5, d, attempt=1), executed(130)],
            sent=[sent_commit(130, 1)],
            attempts=[0, 120],
            states=[
                _state(119.5, "executing", reachable=BOTH),
                _state(120, "executing", 1, reachable=BOTH),
                _state(130, "committed", 1, reachable=BOTH),
            ],
        ),
        s.entry(
            "a member that committed still reveals in the attempt before",
            [executed(10), s.commit(119, b)],
            sent=[sent_commit(10), sent_commit(120, 1), sent_reveal(123, s.commits([a, b]))],
            attempts=[0, 120],
            states=[
                _state(122, "committed", 1, reachable=BOTH),
                _state(123, "committed", 1, reachable=BOTH),
            ],
        ),
        s.entry(
            "a suspect's commit is counted when the attempt is over",
            [executed(10), s.commit(11, b)],
            suspects=[b],
            sent=[sent_commit(10), sent_commit(120, 1), sent_reveal(124, s.commits([a, b]))],
            attempts=[0, 120],
            states=[_state(125, "committed", 1, reachable=BOTH)],
        ),
        s.entry(
            "a member that abstained executes again",
            [failed(20, "timeout"), executed(130)],
            sent=[sent_abstention(20, "timeout"), sent_commit(130, 1)],
            attempts=[0, 120],
            executions=[0, 120],
            states=[
                _state(20, "abstained", reachable=BOTH),
                _state(120, "executing", 1, reachable=BOTH),
                _state(130, "committed", 1, reachable=BOTH),
            ],
        ),
        s.entry(
            "a withdrawn task is not executed again",
            [failed(20, "timeout"), s.withdraw(30)],
            sent=[sent_abstention(20, "timeout"), sent_abstention(120, "withdrawn", 1)],
            attempts=[0, 120],
            states=[
                _state(119, "abstained", reachable=BOTH),
                _state(120, "abstained", 1, reachable=BOTH),
            ],
        ),
        s.entry(
            "a member that executes goes on after a withdrawal",
            [s.withdraw(5), executed(10)],
            sent=[sent_commit(10), sent_commit(120, 1)],
            attempts=[0, 120],
            states=[_state(10, "committed", reachable=BOTH)],
        ),
        s.entry(
            "the attempt is lost while the member executes",
            [s.abstain(1, b), s.abstain(2, c), executed(10)],
            sent=[sent_commit(10, 1)],
            attempts=[0, 2],
            states=[
                _state(1, "executing", reachable=BOTH),
                _state(2, "executing", 1, reachable=LOST),
                _state(10, "committed", 1, reachable=LOST),
            ],
        ),
    ]


def _ends(s: Scene) -> list[Entry]:
    """Rule 6.6.2, with an earlier attempt, and 6.7."""
    a, b, c, d, e = s.a, s.b, s.c, s.d, s.e
    gone = [s.abstain(130, c, 1), s.abstain(131, d, 1), s.abstain(132, e, 1)]
    committed = [s.commit(1, a), s.commit(2, b)]
    none = (True, False)
    return [
        s.entry(
            "the last attempt is lost, and no attempt has commits of a quorum",
            gone,
            attempts=[0, 120],
            states=[
                _state(131, "waiting", 1, reachable=BOTH),
                _state(132, "inconclusive", 1, reachable=none),
            ],
            watching=True,
        ),
        s.entry(
            "the last attempt is lost, but an earlier one has commits of a quorum",
            [*committed, *gone],
            attempts=[0, 120],
            states=[
                _state(132, "waiting", 1, reachable=none),
                _state(599.5, "waiting", 1, reachable=none),
                _state(600, "expired", 1, reachable=none),
            ],
            watching=True,
        ),
        s.entry(
            "a certificate of an earlier attempt",
            [*committed, *gone, s.reveal(300, a, [a, b]), s.reveal(301, b, [a, b])],
            attempts=[0, 120],
            states=[
                _state(300, "waiting", 1, reachable=none),
                _state(301, "agreed", 1, reachable=none),
            ],
            watching=True,
        ),
        s.entry(
            "abstentions for the last attempt before it starts",
            [s.abstain(1 + n, m, 1) for n, m in enumerate([c, d, e])],
            attempts=[0, 120],
            states=[
                _state(4, "waiting", reachable=none),
                _state(119.5, "waiting", reachable=none),
                _state(120, "inconclusive", 1, reachable=none),
            ],
            watching=True,
        ),
        s.entry(
            "a certificate after the deadline",
            [s.reveal(700, a, [a, b]), s.reveal(701, b, [a, b])],
            attempts=[0, 120],
            states=[
                _state(700, "expired", 1, reachable=BOTH),
                _state(701, "agreed", 1, reachable=BOTH),
            ],
            watching=True,
        ),
        s.entry(
            "a certificate of a member's contradicting reveal",
            [
                s.reveal(1, b, [b], LIE),
                s.reveal(2, b, [a, b]),
                s.reveal(3, a, [a, b]),
            ],
            states=[
                _state(2, "waiting", reachable=BOTH),
                _state(3, "agreed", reachable=BOTH),
            ],
            watching=True,
        ),
    ]


def _whole_ends(s: Scene) -> list[Entry]:
    b, c, d = s.b, s.c, s.d
    error = {"error": "no-notes"}
    trio = [b, c, d]
    return [
        s.entry(
            "the last attempt has no end but the deadline",
            [],
            states=[
                _state(0, "waiting", reachable=ONE),
                _state(599.5, "waiting", reachable=ONE),
                _state(600, "expired", reachable=ONE),
            ],
            watching=True,
        ),
        s.entry(
            "three of five abstain",
            [s.abstain(n + 1, m) for n, m in enumerate(trio)],
            states=[
                _state(2, "waiting", reachable=ONE),
                _state(3, "inconclusive", reachable=(False,)),
            ],
            watching=True,
        ),
        s.entry(
            "a certificate of an error",
            [s.reveal(n + 1, m, trio, error) for n, m in enumerate(trio)],
            states=[_state(2, "waiting", reachable=ONE), _state(3, "agreed-error", reachable=ONE)],
            watching=True,
        ),
    ]


def _suspects(s: Scene) -> list[Entry]:
    """Section 6.8, within the task."""
    a, b, c, d = s.a, s.b, s.c, s.d
    four = s.commits([a, b, c, d], attempt=1)
    lied = [
        executed(10),
        s.commit(11, b, LIE),
        s.reveal(20, b, [b], LIE),
    ]
    commits = s.commits([a]) | s.commits([b], LIE)
    return [
        s.entry(
            "who revealed another outcome is a suspect in the next attempt",
            [
                *lied,
                s.commit(22, b, attempt=1),
                s.commit(23, c, attempt=1),
                s.commit(40, d, attempt=1),
            ],
            sent=[
                sent_commit(10),
                sent_reveal(15, commits),
                sent_commit(20, 1),
                sent_reveal(44, four, 1),
            ],
            attempts=[0, 20],
            states=[
                _state(19.5, "revealed", reachable=BOTH),
                _state(20, "committed", 1, reachable=LOST),
                _state(43.5, "committed", 1, reachable=LOST),
                _state(44, "revealed", 1, reachable=LOST),
            ],
        ),
        s.entry(
            "who committed and did not reveal is a suspect in the next attempt",
            [
                executed(10),
                s.commit(11, b),
                s.commit(121, b, attempt=1),
                s.commit(122, c, attempt=1),
                s.commit(140, d, attempt=1),
            ],
            sent=[
                sent_commit(10),
                sent_reveal(15, s.commits([a, b])),
                sent_commit(120, 1),
                sent_reveal(144, four, 1),
            ],
            attempts=[0, 120],
            states=[
                _state(143.5, "committed", 1, reachable=BOTH),
                _state(144, "revealed", 1, reachable=BOTH),
            ],
        ),
        s.entry(
            "who committed is no suspect before reveals are due",
            [
                s.commit(11, b),
                executed(119.5),
                s.commit(120.5, b, attempt=1),
                s.commit(121, c, attempt=1),
            ],
            sent=[
                sent_commit(119.5),
                sent_commit(120, 1),
                sent_reveal(123.5, s.commits([a, b])),
                sent_reveal(125, s.commits([a, b, c], attempt=1), 1),
            ],
            attempts=[0, 120],
            states=[
                _state(124.5, "committed", 1, reachable=BOTH),
                _state(125, "revealed", 1, reachable=BOTH),
            ],
        ),
        s.entry(
            "a reveal without its commit makes no reveals due",
            [
                s.commit(11, b),
                s.reveal(12, c, [c]),
                executed(119.5),
                s.commit(120.5, b, attempt=1),
                s.commit(121, d, attempt=1),
            ],
            sent=[
                sent_commit(119.5),
                sent_commit(120, 1),
                sent_reveal(123.5, s.commits([a, b])),
                sent_reveal(125, s.commits([a, b, d], attempt=1), 1),
            ],
            attempts=[0, 120],
            states=[
                _state(124.5, "committed", 1, reachable=BOTH),
                _state(125, "revealed", 1, reachable=BOTH),
            ],
        ),
        s.entry(
            "who equivocated is a suspect in the next attempt",
            [
                executed(10),
                s.commit(11, b),
                s.commit(12, b, LIE),
                s.commit(121, b, attempt=1),
                s.commit(122, c, attempt=1),
                s.commit(140, d, attempt=1),
            ],
            sent=[
                sent_commit(10),
                sent_reveal(15, s.commits([a, b])),
                sent_commit(120, 1),
                sent_reveal(144, four, 1),
            ],
            attempts=[0, 120],
            states=[
                _state(143.5, "committed", 1, reachable=BOTH),
                _state(144, "revealed", 1, reachable=BOTH),
            ],
        ),
    ]


# Own votes that the node had lost, and that it receives as those of others (section 6.12). Member
# `a` is the node.


def _own_commits(s: Scene) -> list[Entry]:
    a, b, c = s.a, s.b, s.c
    return [
        s.entry(
            "an own commit whose salt is lost: no other commit, and no reveal",
            [s.lost_commit(5), executed(10), s.commit(11, b), s.commit(12, c)],
            sent=[sent_commit(120, 1)],
            attempts=[0, 120],
            states=[
                _state(4.5, "executing", reachable=BOTH),
                _state(5, "committed", reachable=BOTH),
                _state(20, "committed", reachable=BOTH),
                _state(120, "committed", 1, reachable=BOTH),
            ],
        ),
        s.entry(
            "an own commit to another outcome, which nobody can see",
            [s.lost_commit(5, LIE), executed(10), s.commit(11, b), s.commit(12, c)],
            sent=[sent_commit(120, 1)],
            attempts=[0, 120],
            states=[_state(20, "committed", reachable=BOTH)],
        ),
        s.entry(
            "an own commit whose salt is lost: no abstention",
            [s.lost_commit(5), failed(20, "timeout"), executed(130)],
            sent=[sent_commit(130, 1)],
            attempts=[0, 120],
            executions=[0, 120],
            states=[
                _state(20, "committed", reachable=BOTH),
                _state(120, "executing", 1, reachable=BOTH),
                _state(130, "committed", 1, reachable=BOTH),
            ],
        ),
        s.entry(
            "another own commit than the one that was sent: no reveal, which would contradict it",
            [executed(10), s.lost_commit(11), s.commit(12, b), s.commit(13, c)],
            sent=[sent_commit(10), sent_commit(120, 1)],
            attempts=[0, 120],
            states=[_state(20, "committed", reachable=BOTH)],
        ),
        s.entry(
            "an own commit for the next attempt: no execution for it",
            [s.lost_commit(1, attempt=1), failed(20, "timeout")],
            sent=[sent_abstention(20, "timeout")],
            attempts=[0, 120],
            states=[
                _state(119.5, "abstained", reachable=BOTH),
                _state(120, "committed", 1, reachable=BOTH),
            ],
        ),
        s.entry(
            "an own commit for the next attempt: this attempt goes on",
            [s.lost_commit(1, attempt=1), executed(10), s.commit(11, b), s.commit(12, c)],
            sent=[sent_commit(10), sent_reveal(12, s.commits([a, b, c]))],
            attempts=[0, 120],
            states=[
                _state(12, "revealed", reachable=BOTH),
                _state(120, "committed", 1, reachable=BOTH),
            ],
        ),
    ]


def _own_reveals(s: Scene) -> list[Entry]:
    a, b, c = s.a, s.b, s.c
    others = [s.commit(11, b), s.commit(12, c)]
    return [
        s.entry(
            "an own reveal without its commit: no commit, and no other reveal",
            [s.lost_reveal(5, [b]), executed(10), *others],
            sent=[sent_commit(120, 1)],
            attempts=[0, 120],
            states=[
                _state(4.5, "executing", reachable=BOTH),
                _state(5, "revealed", reachable=BOTH),
                _state(20, "revealed", reachable=BOTH),
                _state(120, "committed", 1, reachable=BOTH),
            ],
        ),
        s.entry(
            "an own commit and an own reveal",
            [s.lost_commit(5), s.lost_reveal(6, [b]), executed(10), *others],
            sent=[sent_commit(120, 1)],
            attempts=[0, 120],
            states=[_state(20, "revealed", reachable=BOTH)],
        ),
        s.entry(
            "an own reveal of the commit that was sent: no other reveal",
            [executed(10), s.commit(12, b), s.reveal(13, a, [a, b])],
            sent=[sent_commit(10), sent_commit(120, 1)],
            attempts=[0, 120],
            states=[
                _state(12.5, "committed", reachable=BOTH),
                _state(13, "revealed", reachable=BOTH),
                _state(20, "revealed", reachable=BOTH),
            ],
        ),
        s.entry(
            "an own reveal of another commit than the one that was sent",
            [executed(10), s.commit(12, b), s.lost_reveal(13, [b])],
            sent=[sent_commit(10), sent_commit(120, 1)],
            attempts=[0, 120],
            states=[_state(20, "committed", reachable=BOTH)],
        ),
        s.entry(
            "own votes count for a certificate as those of others",
            [
                s.lost_commit(5),
                s.lost_reveal(6, [b]),
                s.reveal(7, b, [], commits=s.lost_commits() | s.commits([b])),
                executed(10),
            ],
            states=[
                _state(6.5, "revealed", reachable=BOTH),
                _state(7, "agreed", reachable=BOTH),
                _state(10, "agreed", reachable=BOTH),
            ],
        ),
    ]


def _own_outcomes(s: Scene) -> list[Entry]:
    """A member signs no outcome but the one of its own reveal, in any attempt."""
    a, b, c, d = s.a, s.b, s.c, s.d
    next_commits = [s.commit(121, b, attempt=1), s.commit(122, c, attempt=1)]
    return [
        s.entry(
            "an own reveal, and the same outcome in the next attempt",
            [s.lost_reveal(5, [b]), executed(10), *next_commits],
            sent=[sent_commit(120, 1), sent_reveal(126, s.commits([a, b, c], attempt=1), 1)],
            attempts=[0, 120],
            states=[
                _state(119.5, "revealed", reachable=BOTH),
                _state(125.5, "committed", 1, reachable=BOTH),
                _state(126, "revealed", 1, reachable=BOTH),
            ],
        ),
        s.entry(
            "an own reveal of another outcome: nothing in the next attempt",
            [s.lost_reveal(5, [b], LIE), executed(10), *next_commits],
            attempts=[0, 120],
            states=[
                _state(119.5, "revealed", reachable=BOTH),
                _state(120, "waiting", 1, reachable=BOTH),
                _state(200, "waiting", 1, reachable=BOTH),
            ],
        ),
        s.entry(
            "an own reveal of another outcome for the next attempt: nothing in this one",
            [s.lost_reveal(5, [b], LIE, 1), executed(10), s.commit(11, b), s.commit(12, c)],
            attempts=[0, 120],
            states=[
                _state(9.5, "executing", reachable=BOTH),
                _state(10, "waiting", reachable=BOTH),
                _state(20, "waiting", reachable=BOTH),
                _state(120, "revealed", 1, reachable=BOTH),
            ],
        ),
        s.entry(
            "an own reveal of another outcome before the next attempt's reveal is due",
            [
                executed(130),
                s.commit(131, c, attempt=1),
                s.commit(132, d, attempt=1),
                s.lost_reveal(135.5, [b], LIE),
            ],
            sent=[sent_commit(130, 1)],
            attempts=[0, 120],
            states=[
                _state(130, "committed", 1, reachable=BOTH),
                _state(140, "committed", 1, reachable=BOTH),
            ],
        ),
        s.entry(
            "an own reveal of another outcome that contradicts an own commit counts too",
            [s.lost_commit(4), s.lost_reveal(5, [b], LIE), executed(10), *next_commits],
            attempts=[0, 120],
            states=[
                _state(20, "committed", reachable=BOTH),
                _state(200, "waiting", 1, reachable=BOTH),
            ],
        ),
        s.entry(
            "own reveals of two outcomes: no outcome is left to sign",
            [
                s.lost_reveal(4, [b]),
                s.lost_reveal(5, [b], LIE),
                executed(10),
                *next_commits,
            ],
            attempts=[0, 120],
            states=[
                _state(20, "revealed", reachable=BOTH),
                _state(200, "waiting", 1, reachable=BOTH),
            ],
        ),
    ]


def _own_abstentions(s: Scene) -> list[Entry]:
    a = s.a
    return [
        s.entry(
            "an own abstention: no second one",
            [s.abstain(5, a), failed(20, "timeout"), executed(130)],
            sent=[sent_commit(130, 1)],
            attempts=[0, 120],
            executions=[0, 120],
            states=[
                _state(5, "abstained", reachable=BOTH),
                _state(119.5, "abstained", reachable=BOTH),
                _state(120, "executing", 1, reachable=BOTH),
            ],
        ),
        s.entry(
            "an own abstention contradicts no commit of an execution that runs",
            [s.abstain(5, a), executed(10)],
            sent=[sent_commit(10), sent_commit(120, 1)],
            attempts=[0, 120],
            states=[
                _state(5, "abstained", reachable=BOTH),
                _state(10, "committed", reachable=BOTH),
            ],
        ),
        s.entry(
            "an own abstention for the next attempt: no execution for it",
            [s.abstain(1, a, 1), failed(20, "timeout")],
            sent=[sent_abstention(20, "timeout")],
            attempts=[0, 120],
            states=[
                _state(119.5, "abstained", reachable=BOTH),
                _state(120, "abstained", 1, reachable=BOTH),
            ],
        ),
        s.entry(
            "an own abstention for the next attempt of a withdrawn task: no second one",
            [s.abstain(1, a, 1), failed(20, "timeout"), s.withdraw(30)],
            sent=[sent_abstention(20, "timeout")],
            attempts=[0, 120],
            states=[_state(120, "abstained", 1, reachable=BOTH)],
        ),
    ]
