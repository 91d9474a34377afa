"""The product reads pages and answers as the vectors of feeds say."""

import json
from typing import Any

import pytest

import schemas
from node.sync.feeds.fetching import Page, match
from protocol.wire.encoding import document_hash
from tests.vectors import files

FEEDS = json.loads((files.FOLDER / "feeds.json").read_text(encoding="ascii"))


@pytest.mark.parametrize("entry", FEEDS["pages"], ids=lambda entry: entry["name"])
def test_pages_are_read_as_the_vectors_say(entry: Any) -> None:
    document = entry["page"]
    schemas.check("feed-answer", document)
    page = Page(document["feed"], document["cursor"], tuple(document["ids"]))
    try:
        verdict = "end" if page.is_end(entry["feed"], entry["cursor"]) else "more"
    except ValueError:
        verdict = "misbehaves"
    assert verdict == entry["verdict"]


@pytest.mark.parametrize("entry", FEEDS["envelopes"], ids=lambda entry: entry["name"])
def test_answers_are_read_as_the_vectors_say(entry: Any) -> None:
    schemas.check("envelopes-request", {"ids": entry["ids"]})
    schemas.check("envelopes-answer", entry["answer"])
    given = gone = left = None
    try:
        fetched = match(entry["ids"], entry["answer"])
    except ValueError:
        pass
    else:
        ids = [id_ for id_, _ in fetched.envelopes]
        if ids == [document_hash("envelope", envelope) for _, envelope in fetched.envelopes]:
            given, gone = ids, list(fetched.gone)
            left = [id_ for id_ in entry["ids"] if id_ not in (*given, *gone)]
    assert (given, gone, left) == (entry["given"], entry["gone"], entry["left"])
