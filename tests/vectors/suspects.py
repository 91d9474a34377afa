"""Vectors of the record across tasks: faults, agreements, and suspects (specification 6.8).

All that is expected here is written down from the text. `test_suspects` compares it with the
product.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from tests.vectors.entries import Entry, Vectors
from tests.vectors.rounds import DOCUMENTS, LIE, Scene, executed

# The member of the records has to agree in so many tasks.
TASKS = 20


def suspects() -> Vectors:
    """What members did in one task, and records over many."""
    growing, whole = Scene("growing"), Scene("whole")
    return {
        "description": "Section 6.8. `networks` are network documents by name. Each entry of"
        " `conduct` is one task at one node, as in rounds.json: at each of its times, whether the"
        " task has ended, the members at fault in it, and those that revealed the certified outcome"
        " in time, both sorted. Each entry of `records` is one member over several tasks. The"
        " README of this folder says how to play both.",
        "networks": DOCUMENTS,
        "conduct": [*_certified(growing), *_attempts(growing), *_uncertified(growing, whole)],
        "records": _records(),
    }


# One task


def _entry(
    s: Scene,
    name: str,
    events: Sequence[Entry],
    conduct: Sequence[Entry],
    *,
    watching: bool = False,
) -> Entry:
    entry = s.entry(name, events, states=conduct, watching=watching)
    members = ("name", "network", "task", "me", "salts", "suspects", "events", "times")
    return {**{member: entry[member] for member in members}, "conduct": entry["states"]}


def _at(
    at: float, faults: Iterable[str] = (), agreed: Iterable[str] = (), *, ended: bool = True
) -> Entry:
    return {"at": at, "ended": ended, "faults": sorted(faults), "agreed": sorted(agreed)}


def _open(at: float) -> Entry:
    return _at(at, ended=False)


def _certified(s: Scene) -> list[Entry]:
    """`a`, this node, and `c` agree. The grace is 2 s, an attempt lasts 120 s."""
    a, b, c = s.a, s.b, s.c
    pair, trio = [a, c], [a, b, c]
    # All three commit, so that this node reveals at 11.5, and `c` at 12, which ends the task.
    opening = [executed(10), s.commit(11, c)]

    def agreed(*commits: Entry) -> list[Entry]:
        return [*opening, *commits, s.reveal(12, c, trio)]

    return [
        _entry(
            s,
            "another outcome than the certified one",
            [*opening, s.commit(11.5, b, LIE), s.reveal(12, c, pair), s.reveal(13, b, [b], LIE)],
            [_open(11.5), _at(12, agreed=pair), _at(13, [b], pair)],
        ),
        _entry(
            s,
            "a reveal that does not come within attempt_seconds after reveals became due",
            [*opening, s.commit(11.5, b, LIE), s.reveal(12, c, pair)],
            [_at(131, agreed=pair), _at(131.5, [b], pair)],
        ),
        _entry(
            s,
            "a reveal of the certified outcome that comes after that",
            [*agreed(s.commit(11.5, b)), s.reveal(200, b, trio)],
            [_at(131, agreed=pair), _at(131.5, [b], pair), _at(200, agreed=trio)],
        ),
        _entry(
            s,
            "a commit after the others' lists were closed",
            [*opening, s.reveal(15.5, c, pair), s.commit(16, b), s.reveal(17, b, trio)],
            [_open(15), _at(15.5, agreed=pair), _at(17, agreed=pair), _at(500, agreed=pair)],
        ),
        _entry(
            s,
            "contradicting commits count once the task has ended",
            [*opening, s.commit(11.2, b), s.commit(11.3, b, LIE), s.reveal(12, c, trio)],
            [_open(11.5), _at(12, [b], pair)],
        ),
        _entry(
            s,
            "a contradicting commit after the task has ended",
            [*agreed(s.commit(11.5, b)), s.commit(50, b, LIE)],
            [_at(49, agreed=pair), _at(50, [b], pair)],
        ),
        _entry(
            s,
            "who abstains, or says nothing, is not at fault",
            [*opening, s.abstain(11.4, b), s.reveal(15.5, c, pair)],
            [_at(15.5, agreed=pair), _at(599, agreed=pair)],
        ),
    ]


def _attempts(s: Scene) -> list[Entry]:
    """Two attempts: `a`, `b` and `c`, then `d` and `e` too."""
    a, b, c, d, e = s.a, s.b, s.c, s.d, s.e
    pair = [a, c]
    # This node commits in both. In the last attempt it reveals at 125, and `c` certifies the first
    # one at 127.
    first_certified = [
        executed(10),
        s.commit(121, d, attempt=1),
        s.commit(121, e, attempt=1),
        s.commit(122, c),
        s.reveal(127, c, pair),
    ]
    # The last attempt is certified at 128 by this node, `c` and `d`; `b` had revealed in the first.
    last_certified = [
        s.commit(5, b),
        s.reveal(6, b, [b]),
        executed(121),
        s.commit(122, c, attempt=1),
        s.commit(122.5, d, attempt=1),
        s.reveal(127, c, [a, c, d], attempt=1),
        s.reveal(128, d, [a, c, d], attempt=1),
    ]
    return [
        _entry(
            s,
            "a reveal that does not come in an attempt after the certified one",
            first_certified,
            [_open(126.5), _at(127, agreed=pair), _at(400, agreed=pair)],
        ),
        _entry(
            s,
            "another outcome in an attempt after the certified one",
            [*first_certified[:1], *first_certified[2:], s.reveal(128, d, [d], LIE, 1)],
            [_at(127, agreed=pair), _at(128, [d], pair)],
        ),
        _entry(
            s,
            "the certified outcome, alone in an earlier attempt",
            last_certified,
            [_open(127.5), _at(128, agreed=[a, b, c, d])],
        ),
    ]


def _uncertified(growing: Scene, whole: Scene) -> list[Entry]:
    b, c, d, e = whole.b, whole.c, whole.d, whole.e
    lied = [
        whole.reveal(11, b, [b], LIE),
        *(whole.abstain(12 + n, m) for n, m in enumerate([c, d, e])),
    ]
    return [
        _entry(
            whole,
            "another outcome than this node's own, where none is certified",
            [executed(10), *lied],
            [_open(12), _at(13, [b]), _at(14, [b])],
        ),
        _entry(
            whole,
            "an outcome, where none is certified and this node has none",
            lied,
            [_open(12), _at(13), _at(14)],
            watching=True,
        ),
        _entry(
            growing,
            "commits of a quorum, and no reveal that would make others due",
            [growing.commit(11, growing.b), growing.commit(12, growing.c)],
            [_open(599.5), _at(600), _at(900)],
            watching=True,
        ),
        _entry(
            growing,
            "a reveal of the current attempt that does not come before the deadline",
            [
                *(growing.commit(590, m, attempt=1) for m in (growing.b, growing.c, growing.d)),
                growing.reveal(594, growing.b, [growing.b], attempt=1),
            ],
            [_open(599.5), _at(600), _at(713.5), _at(714, [growing.c, growing.d])],
            watching=True,
        ),
    ]


# Many tasks


class _Record:
    """The events of one entry: tasks are accepted and end, a second apart."""

    def __init__(self) -> None:
        self.events: list[Entry] = []
        self.times: list[float] = []
        self.suspects: list[bool] = []
        self.now = 0

    def accept(self, *tasks: str) -> None:
        for task in tasks:
            self._event(task, "accepted", True)

    def end(self, *tasks: str, agreed: bool = False, fault_from: float | None = None) -> None:
        """A task ends, or a vote that comes later changes what the member did in it."""
        for task in tasks:
            self._event(task, "conduct", {"agreed": agreed, "fault_from": fault_from})

    def fault(self, task: str) -> None:
        """The member is at fault from the end of the task on."""
        self.end(task, fault_from=self.now + 1)

    def agree(self, name: str, count: int) -> None:
        for number in range(count):
            self.accept(f"{name} {number}")
            self.end(f"{name} {number}", agreed=True)

    def expect(self, suspect: bool, at: float | None = None) -> None:
        self.times.append(self.now if at is None else at)
        self.suspects.append(suspect)

    def wait(self, until: int) -> None:
        self.now = until

    def entry(self, name: str) -> Entry:
        return {
            "name": name,
            "events": self.events,
            "times": self.times,
            "suspects": self.suspects,
        }

    def _event(self, task: str, member: str, value: Any) -> None:
        self.now += 1
        self.events.append({"at": self.now, "task": task, member: value})


def _records() -> list[Entry]:
    return [
        _cleared(),
        _no_fault(),
        _without_agreement(),
        _open_tasks(),
        _accepted_before(),
        _ended_before(),
        _second_fault(),
        _earlier_fault_known_later(),
        _withheld(),
    ]


def _faulty() -> _Record:
    record = _Record()
    record.accept("fault")
    record.expect(suspect=False)
    record.fault("fault")
    record.expect(suspect=True)
    return record


def _no_fault() -> Entry:
    record = _Record()
    record.agree("agreed", 1)
    record.accept("silent")
    record.end("silent")
    record.expect(suspect=False)
    return record.entry("a member that was never at fault")


def _cleared() -> Entry:
    record = _faulty()
    record.agree("agreed", TASKS - 1)
    record.expect(suspect=True)
    record.accept("the last")
    record.expect(suspect=True)
    record.end("the last", agreed=True)
    record.expect(suspect=False)
    return record.entry("20 tasks in which the member agreed")


def _without_agreement() -> Entry:
    record = _faulty()
    for number in range(TASKS + 1):
        record.accept(f"silent {number}")
        record.end(f"silent {number}")
    record.expect(suspect=True)
    return record.entry("tasks in which the member did not agree")


def _open_tasks() -> Entry:
    record = _faulty()
    record.accept(*(f"open {number}" for number in range(TASKS)))
    record.expect(suspect=True)
    return record.entry("tasks that have not ended")


def _accepted_before() -> Entry:
    """The order of acceptance counts: these end after the fault."""
    record = _Record()
    before = [f"before {number}" for number in range(TASKS)]
    record.accept(*before, "fault")
    record.fault("fault")
    record.end(*before, agreed=True)
    record.expect(suspect=True)
    record.agree("agreed", TASKS)
    record.expect(suspect=False)
    return record.entry("tasks that were accepted before the one with the fault")


def _ended_before() -> Entry:
    """The order of acceptance counts: these end before the fault."""
    record = _Record()
    record.accept("fault")
    record.agree("agreed", TASKS)
    record.fault("fault")
    record.expect(suspect=False)
    return record.entry("tasks that were accepted after the one with the fault, and ended before")


def _second_fault() -> Entry:
    record = _faulty()
    record.agree("agreed", TASKS // 2)
    record.accept("second fault")
    record.fault("second fault")
    record.agree("again", TASKS - 1)
    record.expect(suspect=True)
    record.agree("the last", 1)
    record.expect(suspect=False)
    return record.entry("a second fault starts the count again")


def _earlier_fault_known_later() -> Entry:
    """The latest fault is that of the task that was accepted last."""
    record = _Record()
    record.accept("first", "second")
    record.fault("second")
    record.agree("agreed", TASKS)
    record.expect(suspect=False)
    record.fault("first")
    record.expect(suspect=False)
    return record.entry("a fault in an earlier task that becomes known later")


def _withheld() -> Entry:
    record = _Record()
    record.accept("withheld")
    record.end("withheld", fault_from=120)
    record.expect(suspect=False, at=119.5)
    record.expect(suspect=True, at=120)
    record.wait(until=200)
    record.end("withheld", agreed=True)
    record.expect(suspect=False)
    return record.entry("a reveal that is missing from 120 s on, and comes at 201 s")
