"""Vectors of a member that starts: when it holds its votes, and when it stops (specification 6.12).

All that is expected here is written down from the text. `test_starts` compares it with the product.
"""

from collections.abc import Sequence
from typing import Any

from tests.support import fixtures
from tests.vectors.entries import Entry, Vectors
from tests.vectors.rounds import (
    GROWING,
    LIE,
    Scene,
    executed,
    failed,
    sent_abstention,
    sent_commit,
    sent_reveal,
)

STRANGER = fixtures.peer(1000)
# Unix milliseconds, no whole second, so that the edges of `created` are not either.
START = 1_750_000_000_123
OLD = -100.0  # `created` of a task that an earlier process may have accepted, after the start
LAST_OLD, FIRST_NEW = 60.0, 60.001  # `clock_skew_seconds` is 60


def _document(operators: str, **parameters: Any) -> Entry:
    """A network; each letter is the operator of a member. The first member starts."""
    document = fixtures.network_document(len(operators), **parameters)
    for line, operator in zip(document["roster"], operators, strict=True):
        line["operator"] = operator
    return document


def _two_classes() -> Entry:
    document = _document("abc")
    document["classes"]["gpu"] = {"device": "cuda"}
    document["roster"][2]["classes"] = ["gpu"]
    return document


DOCUMENTS = {
    **{name: _document(name) for name in ("a", "aaa", "aab", "aacd", "aaabc", "ab", "abbbc")},
    **{name: _document(name) for name in ("abcd", "abcde")},
    "other parameters": _document("abcd", max_deadline_seconds=900, clock_skew_seconds=10),
    "two classes": _two_classes(),
    "growing": GROWING,
}


def starts() -> Vectors:
    """Members that start, with what they receive, and whether they vote."""
    return {
        "description": "Section 6.12. `networks` are network documents by name. Each entry of"
        " `starts` is the start of the first member of a roster. Each of `releases` is one task at"
        " a member that holds its votes until `released`. The README of this folder says how to"
        " play both.",
        "networks": DOCUMENTS,
        "starts": [
            *_majorities(),
            *_nobody_else(),
            *_times(),
            *_own_votes(),
            *_duplicates_at_start(),
            *_duplicates_later(),
        ],
        "releases": _releases(Scene("growing")),
    }


# What happens, and what is asked


def _feed(at: float, member: int) -> Entry:
    return {"at": at, "feed_end": fixtures.peer(member)}


def _feeds(*members: int) -> list[Entry]:
    """Feeds that end one second after the other."""
    return [_feed(at, member) for at, member in enumerate(members, 1)]


def _duplicates(at: float, *peers: str | int) -> Entry:
    said_by = [peer if isinstance(peer, str) else fixtures.peer(peer) for peer in peers]
    return {"at": at, "duplicates": said_by}


def _own_vote(at: float, created: float) -> Entry:
    return {"at": at, "own_vote": _milliseconds(created)}


def _milliseconds(after_start: float) -> int:
    return START + round(1000 * after_start)


def _held(at: float, created: float = OLD) -> Entry:
    return _asked(at, created, "held", signs=False)


def _held_but_new(at: float, created: float = FIRST_NEW) -> Entry:
    return _asked(at, created, "held", signs=True)


def _voting(at: float, created: float = OLD) -> Entry:
    return _asked(at, created, "voting", signs=True)


def _stopped(at: float, created: float = OLD) -> Entry:
    return _asked(at, created, "stopped", signs=False)


def _ended(at: float, created: float = OLD) -> Entry:
    return _asked(at, created, "ended", signs=False)


def _asked(at: float, created: float, state: str, *, signs: bool) -> Entry:
    return {"at": at, "created": _milliseconds(created), "state": state, "signs": signs}


def _entry(name: str, network: str, events: Sequence[Entry], rows: Sequence[Entry]) -> Entry:
    """The start of a member; `rows` hold what is asked, and the answers."""
    return {
        "name": name,
        "network": network,
        "me": fixtures.peer(0),
        "start": START,
        "events": list(events),
        "asked": [{member: row[member] for member in ("at", "created")} for row in rows],
        "states": [{member: row[member] for member in ("state", "signs")} for row in rows],
    }


# Rule 3


def _majorities() -> list[Entry]:
    return [
        _entry(
            "two of three other operators",
            "abcd",
            [_feed(5, 1), _feed(9, 2)],
            [_held(0), _held(5), _held(8.999), _voting(9), _voting(9, FIRST_NEW), _voting(2000)],
        ),
        _entry(
            "two of four other operators are no majority, three are",
            "abcde",
            _feeds(1, 2, 3),
            [_held(0), _held(2.5), _voting(3)],
        ),
        _entry("the only other operator", "ab", _feeds(1), [_held(0.5), _voting(1)]),
        _entry(
            "several members of one operator count once",
            "abbbc",
            _feeds(1, 2, 3, 4),
            [_held(3.5), _voting(4)],
        ),
        _entry(
            "other members of its own operator do not count",
            "aaabc",
            _feeds(1, 2, 3, 4),
            [_held(2.5), _held(3.5), _voting(4)],
        ),
        _entry(
            "a peer outside the roster does not count",
            "abcd",
            [_feed(1, 1), {"at": 2, "feed_end": STRANGER}, _feed(3, 2)],
            [_held(2.5), _voting(3)],
        ),
        _entry("one member three times", "abcd", _feeds(1, 1, 1), [_held(3.5)]),
        _entry(
            "an operator of another class counts",
            "two classes",
            _feeds(1, 2),
            [_held(1.5), _voting(2)],
        ),
    ]


def _nobody_else() -> list[Entry]:
    return [
        _entry("the only member of the roster", "a", [], [_voting(0), _voting(0, LAST_OLD)]),
        _entry("nobody but its own operator", "aaa", [], [_voting(0), _voting(0, LAST_OLD)]),
    ]


def _times() -> list[Entry]:
    """Rule 1, and the time of rule 3."""
    return [
        _entry(
            "which tasks are later than the start",
            "abcd",
            [],
            [
                *(_held(10, created) for created in (OLD, 0, 0.001, 59.999, LAST_OLD)),
                _held_but_new(10),
                _held_but_new(100, 100),
            ],
        ),
        _entry(
            "which tasks are later than the start, by another clock_skew_seconds",
            "other parameters",
            [],
            [_held(1, 9.999), _held(1, 10), _held_but_new(1, 10.001)],
        ),
        _entry(
            "half of the other operators, until max_deadline_seconds have passed",
            "abcde",
            _feeds(1, 2),
            [
                _held(3599.999, LAST_OLD),
                _held_but_new(3599.999),
                _voting(3600, 0.001),
                _voting(3600, LAST_OLD),
                _voting(3600, FIRST_NEW),
            ],
        ),
        _entry(
            "nobody, until another max_deadline_seconds have passed",
            "other parameters",
            [],
            [_held(899.999, 0), _voting(900, 0.001)],
        ),
    ]


def _own_votes() -> list[Entry]:
    release = [_feed(30, 1), _feed(31, 2)]
    return [
        _entry(
            "an own vote on a task that is not later than the start",
            "abcd",
            [_own_vote(20, OLD), _own_vote(21, LAST_OLD), *release],
            [_held(20), _held(21), _held_but_new(21), _voting(31)],
        ),
        _entry(
            "an own vote on a later task",
            "abcd",
            [_own_vote(20, FIRST_NEW)],
            [_held(19.5), _stopped(20), _stopped(20, FIRST_NEW)],
        ),
        _entry(
            "a member that has stopped votes again after a restart only",
            "abcd",
            [_own_vote(20, FIRST_NEW), *release],
            [_stopped(31), _stopped(31, FIRST_NEW), _stopped(3600, 3000)],
        ),
        _entry(
            "an own vote on a task that is not later, from a peer that came late",
            "abcd",
            [*release, _own_vote(40, LAST_OLD)],
            [_voting(31), _voting(40), _voting(40, FIRST_NEW)],
        ),
        _entry(
            "an own vote on a later task, once it votes",
            "abcd",
            [*release, _own_vote(40, FIRST_NEW)],
            [_voting(39.5), _stopped(40), _stopped(40, FIRST_NEW)],
        ),
        _entry(
            "an own vote on a later task, where it holds nothing",
            "aaa",
            [_own_vote(10, LAST_OLD), _own_vote(20, FIRST_NEW)],
            [_voting(10), _stopped(20)],
        ),
    ]


# Peers that say `duplicate`


def _duplicates_at_start() -> list[Entry]:
    return [
        _entry(
            "one of several other operators says duplicate at the start",
            "abcd",
            [_duplicates(1, 1), _feed(2, 1), _feed(3, 2)],
            [_held(1), _held(2), _voting(3)],
        ),
        _entry(
            "two operators say duplicate at the start",
            "abcd",
            [_duplicates(1, 1), _duplicates(2, 1, 2)],
            [_held(1), _ended(2), _ended(2, FIRST_NEW)],
        ),
        _entry(
            "two operators say duplicate, after one feed",
            "abcd",
            [_feed(1, 3), _duplicates(2, 1, 2), _feed(3, 2)],
            [_held(1), _ended(2), _ended(3)],
        ),
        _entry(
            "members of one operator say duplicate",
            "abbbc",
            [_duplicates(1, 1, 2, 3)],
            [_held(1), _held_but_new(1)],
        ),
        _entry(
            "the only other operator says duplicate",
            "ab",
            [_duplicates(1, 1)],
            [_held(0.5), _ended(1)],
        ),
        _entry(
            "the only other operator says duplicate, and its own other member does not",
            "aab",
            [_duplicates(1, 2)],
            [_held(0.5), _ended(1)],
        ),
        _entry(
            "its own other member alone says duplicate",
            "aab",
            [_duplicates(1, 1)],
            [_held(1)],
        ),
        _entry(
            "its own operator is one of two that say duplicate",
            "aacd",
            [_duplicates(1, 1, 2)],
            [_held(0.5), _ended(1)],
        ),
        _entry(
            "a peer outside the roster says duplicate",
            "abcd",
            [_duplicates(1, 1, STRANGER)],
            [_held(1)],
        ),
    ]


def _duplicates_later() -> list[Entry]:
    release = _feeds(1, 2)
    return [
        _entry(
            "one of several other operators says duplicate later",
            "abcd",
            [*release, _duplicates(5, 3)],
            [_voting(5)],
        ),
        _entry(
            "two operators say duplicate one after the other",
            "abcd",
            [*release, _duplicates(5, 3), _duplicates(6), _duplicates(7, 1)],
            [_voting(5), _voting(7)],
        ),
        _entry(
            "two operators say duplicate later",
            "abcd",
            [*release, _duplicates(5, 3), _duplicates(6, 1, 3), _duplicates(7)],
            [_voting(5), _stopped(6), _stopped(6, FIRST_NEW), _stopped(7), _stopped(900, 900)],
        ),
        _entry(
            "the only other operator says duplicate later",
            "ab",
            [*_feeds(1), _duplicates(5, 1)],
            [_voting(4.5), _stopped(5)],
        ),
        _entry(
            "two operators say duplicate after max_deadline_seconds",
            "other parameters",
            [_duplicates(901, 1, 2)],
            [_voting(900, 10), _stopped(901, 10)],
        ),
        _entry(
            "its own operator says duplicate, and there is no other",
            "aaa",
            [_duplicates(5, 2)],
            [_voting(4.5), _stopped(5)],
        ),
    ]


# Rule 4


def _release(
    s: Scene, name: str, released: float, events: Sequence[Entry], sent: Sequence[Entry] = ()
) -> Entry:
    entry = s.entry(name, events, states=[])
    members = ("name", "network", "task", "me", "salts", "events")
    return {**{m: entry[m] for m in members}, "released": released, "sent": list(sent)}


def _releases(s: Scene) -> list[Entry]:
    """Attempts of `a`, `b` and `c`, then of `d` and `e` too. The grace is 2 s."""
    a, b, c = s.a, s.b, s.c
    pair, trio = s.commits([a, b]), s.commits([a, b, c])
    next_commit = sent_commit(120, 1)
    return [
        _release(
            s,
            "a commit is signed when votes are released",
            50,
            [executed(10), s.commit(11, b)],
            [sent_commit(50), sent_reveal(54, pair), next_commit],
        ),
        _release(
            s,
            "all others have committed before the release",
            50,
            [executed(10), s.commit(11, b), s.commit(12, c)],
            [sent_commit(50), sent_reveal(50, trio), next_commit],
        ),
        _release(
            s,
            "the execution ends after the release",
            50,
            [executed(60)],
            [sent_commit(60), next_commit],
        ),
        _release(
            s,
            "no commit is signed in an attempt that is over",
            150,
            [executed(10), s.commit(11, b), s.commit(12, c)],
            [sent_commit(150, 1)],
        ),
        _release(
            s,
            "no commit is signed for a task that has ended",
            50,
            [executed(10), s.reveal(20, b, [b, c]), s.reveal(21, c, [b, c])],
        ),
        _release(s, "no commit is signed after the deadline", 700, [executed(10)]),
        _release(
            s,
            "an abstention is signed in the current attempt alone",
            150,
            [failed(20, "timeout"), s.withdraw(30)],
            [sent_abstention(150, "withdrawn", 1)],
        ),
        _release(
            s,
            "an own commit comes while votes are held",
            50,
            [executed(10), s.commit(11, b), s.lost_commit(20)],
            [next_commit],
        ),
        _release(
            s,
            "an own reveal without its commit comes while votes are held",
            50,
            [executed(10), s.commit(11, b), s.lost_reveal(20, [b])],
            [next_commit],
        ),
        _release(
            s,
            "an own reveal of another outcome comes while votes are held",
            50,
            [executed(10), s.commit(11, b), s.lost_reveal(20, [b], LIE)],
        ),
        _release(
            s,
            "an own reveal of another outcome comes after its attempt",
            150,
            [executed(10), s.lost_reveal(130, [b], LIE)],
        ),
        _release(
            s,
            "an own abstention for the next attempt comes while votes are held",
            150,
            [failed(20, "timeout"), s.withdraw(30), s.abstain(40, a, 1)],
        ),
    ]
