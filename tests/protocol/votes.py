"""Votes of the fixtures' task, as the tests of one attempt use them."""

from typing import Any

from protocol.consensus.committee import committees
from protocol.wire.messages import Commit, Reveal, Vote
from tests.protocol.certificates import commitments
from tests.support import fixtures

NET = fixtures.network(5, committee_size=3, committee_max=5)
TASK = fixtures.task(NET)
TRIO = committees(NET, TASK)[0]


def commit(member: str, outcome: Any = None) -> Commit:
    return fixtures.commit(NET, TASK, member, outcome)


def reveal(member: str, seen: Any = TRIO, outcome: Any = None, **changes: Any) -> Reveal:
    commits = seen if isinstance(seen, dict) else commitments(TASK, seen)
    body = fixtures.reveal(NET, TASK, member, commits, outcome).envelope.body
    vote = fixtures.signed_by(NET, {**body, **changes}, member)
    assert isinstance(vote, Reveal)
    return vote


def abstain(member: str, reason: str = "busy") -> Vote:
    return fixtures.abstain(NET, TASK, member, reason)
