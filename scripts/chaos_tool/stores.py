"""What the nodes' databases hold, read without the nodes."""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

from node.storage.reader import DATABASE
from protocol.wire.encoding import Document
from protocol.wire.messages import outcome_digest
from scripts.chaos_tool.noted import Certified
from scripts.testnet_tool.nodes import Place


@dataclass(frozen=True, slots=True)
class Holdings:
    """All that one node kept."""

    whole: str  # what SQLite says of the file: "ok"
    states: Mapping[str, str]  # by task
    envelopes: Sequence[str]
    certificates: Sequence[Document]
    certified: Certified
    accused: Sequence[str]  # the signers of evidence
    outcomes: Mapping[str, str]  # its own outcomes' digests, by task

    @property
    def tasks(self) -> set[str]:
        """The tasks that it accepted."""
        return set(self.states)


def holdings(place: Place) -> Holdings:
    """Read all of a node's database."""
    with closing(_opened(place)) as db:
        [(whole,)] = db.execute("PRAGMA integrity_check(1)").fetchall()
        return Holdings(
            whole,
            dict(db.execute("SELECT id, state FROM tasks")),
            [text for (text,) in db.execute("SELECT envelope FROM envelopes ORDER BY seq")],
            [json.loads(text) for (text,) in db.execute("SELECT document FROM certificates")],
            frozenset(db.execute("SELECT task, outcome FROM certificates")),
            [signer for (signer,) in db.execute("SELECT signer FROM evidence")],
            {
                task: outcome_digest(json.loads(text))
                for task, text in db.execute("SELECT task, outcome FROM outcomes")
            },
        )


def certified(place: Place) -> Certified:
    """Return what a node holds certificates of; it may be running, or killed a moment ago."""
    with closing(_opened(place)) as db:
        return frozenset(db.execute("SELECT task, outcome FROM certificates"))


def states(place: Place) -> dict[str, str]:
    """Return how tasks stand at a node, which may be running."""
    with closing(_opened(place)) as db:
        return dict(db.execute("SELECT id, state FROM tasks"))


def own_votes(place: Place, task: str, attempt: int) -> set[str]:
    """Return the types of what a node has signed in one attempt at a task."""
    with closing(_opened(place)) as db:
        rows = db.execute(
            "SELECT type, envelope FROM envelopes WHERE task = ? AND signer = ?",
            (task, place.peer),
        )
        return {kind for kind, text in rows if json.loads(text)["body"].get("attempt") == attempt}


def _opened(place: Place) -> sqlite3.Connection:
    return sqlite3.connect(f"{(place.home / DATABASE).as_uri()}?mode=ro", uri=True, timeout=10.0)
