"""Vectors of clients: the signed messages that a client is shown, and what it believes (6.10).

All that is expected here is written down from the text. `test_clients` compares it with the
product.
"""

from collections.abc import Sequence

from protocol.consensus import certificate
from protocol.wire import codec
from protocol.wire.messages import Reveal
from tests.vectors.entries import Entry, Vectors
from tests.vectors.rounds import DOCUMENTS, LIE, Scene

# Seconds that the client waits for last votes, once the deadline of 600 s has come.
WAIT = 5


def clients() -> Vectors:
    """Tasks, each as one client sees it."""
    return {
        "description": "Section 6.10. `networks` are network documents by name. Each entry of"
        " `clients` is one task at one client; the README of this folder says how to play it.",
        "networks": DOCUMENTS,
        "clients": [*_certificates(Scene("growing")), *_ends(Scene("growing")), *_time()],
    }


def _entry(
    s: Scene, name: str, events: Sequence[Entry], states: Sequence[Entry], *, seen: float = 0
) -> Entry:
    return {
        "name": name,
        "network": s.name,
        "task": s.task.envelope.encode().decode(),
        "seen": seen,
        "wait": WAIT,
        "events": list(events),
        "times": [state["at"] for state in states],
        "states": list(states),
    }


def _state(at: float, state: str) -> Entry:
    return {"at": at, "state": state}


def _open(at: float) -> Entry:
    return _state(at, "open")


def _certificates(s: Scene) -> list[Entry]:
    a, b, c = s.a, s.b, s.c
    error = {"error": "no-notes"}
    agreed = [s.reveal(20, a, [a, b]), s.reveal(21, b, [a, b])]
    return [
        _entry(s, "votes that make a certificate", agreed, [_open(20.5), _state(21, "agreed")]),
        _entry(
            s,
            "a certificate that is shown",
            [_shown(s, 30, agreed)],
            [_open(29.5), _state(30, "agreed")],
        ),
        _entry(
            s,
            "a certificate of an error",
            [s.reveal(20, a, [a, c], error), s.reveal(21, c, [a, c], error)],
            [_open(20.5), _state(21, "agreed-error")],
        ),
        _entry(
            s,
            "a quorum that lists one of the two only",
            [s.reveal(20, a, [a]), s.reveal(21, b, [a, b])],
            [_open(21), _open(604.5), _state(605.5, "expired")],
        ),
        _entry(
            s,
            "a certificate while the client waits for last votes",
            [s.reveal(602, a, [a, b]), s.reveal(603, b, [a, b])],
            [_open(602.5), _state(603, "agreed")],
        ),
        _entry(
            s,
            "a certificate before the client has seen votes that leave no outcome",
            [*agreed, *(s.abstain(22, m, 1) for m in (c, s.d, s.e))],
            [_state(130, "agreed")],
        ),
    ]


def _shown(s: Scene, at: float, reveals: Sequence[Entry]) -> Entry:
    votes = []
    for event in reveals:
        vote = codec.decode(event["received"].encode(), s.net.id)
        assert isinstance(vote, Reveal)
        votes.append(vote)
    assembled = certificate.assemble(s.task, 0, votes, s.net)
    return {"at": at, "certificate": assembled.encode().decode()}


def _ends(s: Scene) -> list[Entry]:
    """Two attempts: committees of 3 and 5. Attempts last 120 s, the task 600 s."""
    a, b, c, d, e = s.a, s.b, s.c, s.d, s.e
    early = [s.abstain(1 + n, m, 1) for n, m in enumerate([c, d, e])]
    late = [s.abstain(130 + n, m, 1) for n, m in enumerate([c, d, e])]
    committed = [s.commit(10, a), s.commit(11, b)]
    return [
        _entry(
            s,
            "abstentions for the last attempt before it starts by time",
            early,
            [_open(4), _open(119.5), _state(120, "inconclusive")],
        ),
        _entry(
            s,
            "the last attempt starts by votes",
            [s.abstain(1, b), s.abstain(2, c), *(s.abstain(10, m, 1) for m in (c, d, e))],
            [_open(2), _open(9.5), _state(10, "inconclusive")],
        ),
        _entry(
            s,
            "the first attempt is lost, and the last one is not",
            [s.abstain(1, b), s.abstain(2, c), *(s.abstain(10, m, 1) for m in (c, d))],
            [_open(10), _open(604.5), _state(605.5, "expired")],
        ),
        _entry(
            s,
            "the last attempt is lost, and no attempt has commits of a quorum",
            [s.commit(10, a), *late],
            [_open(131), _state(132, "inconclusive")],
        ),
        _entry(
            s,
            "the last attempt is lost, but an earlier one has commits of a quorum until the"
            " deadline",
            [*committed, *late],
            [_open(132), _open(599.5), _open(604.5), _state(605.5, "inconclusive")],
        ),
        _entry(
            s,
            "the earlier attempt with commits of a quorum gives a certificate",
            [*committed, *late, s.reveal(300, a, [a, b]), s.reveal(301, b, [a, b])],
            [_open(300), _state(301, "agreed")],
        ),
        _entry(
            s,
            "the last attempt is lost by votes after the deadline",
            [s.abstain(602, m, 1) for m in (c, d, e)],
            [_open(602), _open(604.5), _state(605.5, "inconclusive")],
        ),
        _entry(
            s,
            "the first attempt is lost after the deadline, the last one is not",
            [s.abstain(602, m) for m in (b, c)],
            [_open(604.5), _state(605.5, "expired")],
        ),
        _entry(
            s,
            "members disagree in both attempts",
            [
                *(s.reveal(20, m, [m], o) for m, o in ((a, None), (b, LIE))),
                s.abstain(21, c),
                *(s.reveal(30, m, [m], attempt=1) for m in (a, c)),
                *(s.reveal(31, m, [m], LIE, 1) for m in (b, d)),
            ],
            [_open(30), _state(31, "inconclusive")],
        ),
    ]


def _time() -> list[Entry]:
    s = Scene("growing")
    gone = [s.abstain(1 + n, m, 1) for n, m in enumerate([s.c, s.d, s.e])]
    later = [{**event, "at": 300} for event in gone]
    whole = Scene("whole")
    return [
        _entry(s, "no vote", [], [_open(599.5), _open(604.5), _state(605.5, "expired")]),
        _entry(
            s,
            "a node's own words end nothing",
            [{"at": n, "said": state} for n, state in ((5, "inconclusive"), (6, "expired"))],
            [_open(7), _open(604.5), _state(605.5, "expired")],
        ),
        _entry(
            s,
            "a client whose clock is behind starts the first attempt when it sees the task",
            gone,
            [_open(109.5), _state(110, "inconclusive")],
            seen=-10,
        ),
        _entry(
            s,
            "a client that sees the task late starts the first attempt when it was created",
            later,
            [_state(300, "inconclusive")],
            seen=300,
        ),
        _entry(
            s,
            "a client that sees the task late, in the first attempt",
            [{**event, "at": 100} for event in gone],
            [_open(100), _open(119.5), _state(120, "inconclusive")],
            seen=100,
        ),
        _entry(
            whole,
            "one attempt, in which three of five abstain",
            [whole.abstain(1 + n, m) for n, m in enumerate([whole.b, whole.c, whole.d])],
            [_open(2), _state(3, "inconclusive")],
        ),
    ]
