"""Vectors of feeds: what a reader makes of a page, and of an answer with envelopes (7.9)."""

from collections.abc import Sequence

from tests.support import fixtures
from tests.vectors.entries import Entry, Vectors

NET = fixtures.network()
TASKS = [fixtures.task(NET, nonce=nonce) for nonce in range(3)]
A, B, C = (task.envelope.id for task in TASKS)
DOCUMENTS = {task.envelope.id: task.envelope.document() for task in TASKS}
UNKNOWN = "0" * 64


def feeds() -> Vectors:
    """Pages and answers, and what they say; all that is expected was written down."""
    return {
        "description": "Section 7.9. `pages`: a reader that is at `cursor` of the feed `feed` gets"
        " the page `page`. `verdict` is `end` if that is the feed's end, `misbehaves` if no honest"
        " node gives it, else `more`; then it reads on from the page's feed and cursor, once its"
        " ids are read. `envelopes`: a reader has asked for `ids` and gets `answer`. `given` are"
        " the ids of the envelopes in it, `gone` those that the node does not have, `left` those"
        " to ask for again. All three are null if no honest node gives the answer. What is"
        " in the envelopes is judged later, and does not count here.",
        "pages": _pages(),
        "envelopes": _envelopes(),
    }


def _page(name: str, at: tuple[str, int], page: tuple[str, int], ids: int, verdict: str) -> Entry:
    document = {"feed": page[0], "cursor": page[1], "ids": [A, B, C][:ids]}
    return {"name": name, "feed": at[0], "cursor": at[1], "page": document, "verdict": verdict}


def _pages() -> list[Entry]:
    last = 2**53 - 1
    return [
        _page("the first page", ("", 0), ("f", 2), 2, "more"),
        _page("an empty feed", ("", 0), ("f", 0), 0, "end"),
        _page("the next page", ("f", 2), ("f", 3), 1, "more"),
        _page("a cursor that advances by more than the ids", ("f", 2), ("f", 90), 1, "more"),
        _page("a cursor that advances by less than the ids", ("f", 2), ("f", 3), 3, "more"),
        _page("the end", ("f", 3), ("f", 3), 0, "end"),
        _page("a page without ids that advances", ("f", 3), ("f", 4), 0, "more"),
        _page("the last cursor", ("f", 3), ("f", last), 1, "more"),
        _page("the end at the last cursor", ("f", last), ("f", last), 0, "end"),
        _page("another feed with a smaller cursor", ("f", 9), ("g", 2), 2, "more"),
        _page("another feed with the same cursor", ("f", 2), ("g", 2), 2, "more"),
        _page("another feed, which is empty", ("f", 9), ("g", 0), 0, "end"),
        _page("an empty page of another feed that advances", ("f", 9), ("g", 9), 0, "more"),
        _page("a cursor that goes backwards", ("f", 3), ("f", 2), 1, "misbehaves"),
        _page("an empty page that goes backwards", ("f", 3), ("f", 2), 0, "misbehaves"),
        _page("ids without a new cursor", ("f", 3), ("f", 3), 1, "misbehaves"),
        _page("ids at cursor 0 of a new feed", ("", 0), ("f", 0), 1, "misbehaves"),
        _page("ids at cursor 0 of another feed", ("f", 3), ("g", 0), 1, "misbehaves"),
    ]


def _answer(
    name: str,
    ids: Sequence[str],
    envelopes: Sequence[str],
    gone: Sequence[str] = (),
    *,
    misbehaves: bool = False,
) -> Entry:
    answered = {*envelopes, *gone}
    left = [id_ for id_ in ids if id_ not in answered]
    return {
        "name": name,
        "ids": list(ids),
        "answer": {"envelopes": [DOCUMENTS[i] for i in envelopes], "gone": list(gone)},
        "given": None if misbehaves else list(envelopes),
        "gone": None if misbehaves else list(gone),
        "left": None if misbehaves else left,
    }


def _envelopes() -> list[Entry]:
    return [
        _answer("all", [A, B, C], [A, B, C]),
        _answer("all, in the order that was asked for", [C, A, B], [C, A, B]),
        _answer("the first two fit", [A, B, C], [A, B]),
        _answer("the first one is gone", [UNKNOWN, B, C], [B, C], [UNKNOWN]),
        _answer("one between others is gone", [A, UNKNOWN, C], [A, C], [UNKNOWN]),
        _answer("the last one is gone", [A, B, UNKNOWN], [A, B], [UNKNOWN]),
        _answer("all are gone", [A, B, C], [], [A, B, C]),
        _answer("the first one is gone, and nothing is said of the others", [A, B], [], [A]),
        _answer("nothing is said", [A, B], [], misbehaves=True),
        _answer("nothing is said of the first one", [A, B, C], [], [B], misbehaves=True),
        _answer("another order", [A, B], [B, A], misbehaves=True),
        _answer("the first one is left out", [A, B, C], [B, C], misbehaves=True),
        _answer("one between others is left out", [A, B, C], [A, C], misbehaves=True),
        _answer("another envelope", [A, B], [A, C], misbehaves=True),
        _answer("one too many", [A, B], [A, B, C], misbehaves=True),
        _answer("one envelope twice", [A, B], [A, A], misbehaves=True),
        _answer("one that was not asked for is gone", [A], [A], [UNKNOWN], misbehaves=True),
        _answer("given and gone at once", [A], [A], [A], misbehaves=True),
    ]
