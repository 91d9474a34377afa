"""Vectors of answers at the limits of their schemas."""

from typing import Any

import schemas
from protocol.errors import Rejection
from tests.support import fixtures
from tests.vectors.entries import Entry, Vectors

NETWORK = "ab" * 32


def answers() -> Vectors:
    """Answers to hello, failures, and what readers of feeds send and get."""
    return {
        "description": "Section 7. Each `document` of `answers` is the JSON of an answer or of a"
        " request. It is rejected for `reason` by the schema `schema` (a file of the folder"
        " schemas, without its ending), or fits it if that is null.",
        "answers": [
            *(_answer(name, "hello-answer", _hello(**changes)) for name, changes in FITTING),
            *(_answer(n, "hello-answer", _hello(**c), fits=False) for n, c in BREAKING),
            *(_answer(n, "failure", _failure(d)) for n, d in DETAILS.items()),
            *(_answer(n, "failure", _failure(d), fits=False) for n, d in LONG_DETAILS.items()),
            *(_answer(n, schema, d) for n, schema, d in FITTING_FEEDS),
            *(_answer(n, schema, d, fits=False) for n, schema, d in BREAKING_FEEDS),
        ],
    }


def _classes(number: int) -> list[str]:
    return [f"c{n}" for n in range(number)]


def _warm(number: int) -> Entry:
    return {name: [fixtures.MODEL] for name in _classes(number)}


def _models(number: int) -> Entry:
    return {"cpu": [f"m{n}" for n in range(number)]}


FITTING: list[tuple[str, Entry]] = [
    ("a node outside the roster", {}),
    ("64 classes", {"classes": _classes(64)}),
    ("warm models in 64 classes", {"classes": _classes(64), "models": _warm(64)}),
    ("1,024 warm models", {"classes": ["cpu"], "models": _models(1024)}),
    ("64 reasons of 256 characters", {"ready": False, "reasons": ["\U0001f3b5" * 256] * 64}),
]
BREAKING: list[tuple[str, Entry]] = [
    ("65 classes", {"classes": _classes(65)}),
    ("warm models in 65 classes", {"classes": _classes(64), "models": _warm(65)}),
    ("1,025 warm models", {"classes": ["cpu"], "models": _models(1025)}),
    ("a class twice", {"classes": ["cpu", "cpu"]}),
    ("65 reasons", {"ready": False, "reasons": ["x"] * 65}),
    ("a reason of 257 characters", {"ready": False, "reasons": ["x" * 257]}),
]
DETAILS = {
    "no detail": "",
    "a detail of 256 characters": "x" * 256,
    "a detail of 256 characters, each of four bytes": "\U0001f3b5" * 256,
}
LONG_DETAILS = {
    "a detail of 257 characters of a failure": "x" * 257,
    "a control character in a detail of a failure": "a\u0007",
}


def _ids(number: int) -> list[str]:
    return [f"{n:064x}" for n in range(number)]


def _request(**changes: Any) -> Entry:
    return {"feed": "", "cursor": 0, "limit": 1024, "wait": 0} | changes


def _page(**changes: Any) -> Entry:
    return {"feed": "f", "cursor": 1024, "ids": []} | changes


def _envelopes(**changes: Any) -> Entry:
    return {"envelopes": [], "gone": []} | changes


FITTING_FEEDS: list[tuple[str, str, Entry]] = [
    ("a wait of 60 s", "feed-request", _request(wait=60)),
    ("a page of 1,024 ids", "feed-answer", _page(ids=_ids(1024))),
    ("a request for 128 envelopes", "envelopes-request", {"ids": _ids(128)}),
    ("128 envelopes that are gone", "envelopes-answer", _envelopes(gone=_ids(128))),
    ("an object that is no envelope", "envelopes-answer", _envelopes(envelopes=[{"a": 1}])),
]
BREAKING_FEEDS: list[tuple[str, str, Entry]] = [
    ("a wait of 61 s", "feed-request", _request(wait=61)),
    ("a wait of half a second", "feed-request", _request(wait=0.5)),
    ("a wait of -1 s", "feed-request", _request(wait=-1)),
    ("a limit of 0", "feed-request", _request(limit=0)),
    ("a page of 1,025 ids", "feed-answer", _page(ids=_ids(1025))),
    ("a page that lists an id twice", "feed-answer", _page(ids=_ids(1) * 2)),
    ("a page with an id in upper case", "feed-answer", _page(ids=["A" * 64])),
    ("a page with an id of 63 characters", "feed-answer", _page(ids=["a" * 63])),
    ("a page with a line feed after an id", "feed-answer", _page(ids=["a" * 64 + "\n"])),
    ("a request for 129 envelopes", "envelopes-request", {"ids": _ids(129)}),
    ("a request for no envelopes", "envelopes-request", {"ids": []}),
    ("a request for an envelope twice", "envelopes-request", {"ids": _ids(1) * 2}),
    ("129 envelopes that are gone", "envelopes-answer", _envelopes(gone=_ids(129))),
    ("an envelope that is gone twice", "envelopes-answer", _envelopes(gone=_ids(1) * 2)),
    ("129 envelopes", "envelopes-answer", _envelopes(envelopes=[{}] * 129)),
    ("an envelope that is no object", "envelopes-answer", _envelopes(envelopes=["a"])),
]


def _hello(**changes: Any) -> Entry:
    return fixtures.hello_answer(NETWORK, **changes)


def _failure(detail: str) -> Entry:
    return {"reason": "busy", "detail": detail}


def _answer(name: str, schema: str, document: Entry, *, fits: bool = True) -> Entry:
    fault = ""
    try:
        schemas.check(schema, document)
    except schemas.SchemaViolation as error:
        fault = str(error)
    assert fits is (fault == ""), f"{name}: {fault}"
    reason = None if fits else str(Rejection.INVALID_FIELD)
    return {"name": name, "schema": schema, "document": document, "reason": reason}
