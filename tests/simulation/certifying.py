"""A roster member, or anybody, that shows certificates of its own making to whoever asks."""

from collections.abc import Iterator, Sequence

from node.sync.feed_sync import BATCH, Batch
from protocol.consensus.committee import committees, quorum
from protocol.wire import messages
from protocol.wire.encoding import Document
from protocol.wire.messages import Reveal, Vote
from protocol.wire.signing import sign
from tests.simulation.agents import Agent, Ground, Round
from tests.simulation.outsiders import FEED
from tests.support import fixtures

PUPPETS = range(1060, 1100)  # keys of its own making


class CertificateForger(Agent):
    """Makes certificates that each break one rule of specification 4 and keep the others.

    Some of the time it commits early, to what it will not open or to what is right; its feed is an
    honest one, so that whoever reads it comes to ask about tasks.
    """

    def __init__(self, ground: Ground, index: int) -> None:
        super().__init__(ground, index)
        self.reveals: dict[Round, dict[str, Reveal]] = {}
        self.heard: list[bytes] = []
        self.promised: dict[Round, str] = {}

    def on_vote(self, vote: Vote) -> None:
        if vote.signer not in self.ground.obedient:
            return
        self.heard.append(vote.envelope.encode())
        if isinstance(vote, Reveal):
            self.reveals.setdefault((vote.task, vote.attempt), {})[vote.signer] = vote

    def on_round(self, task: str, attempt: int) -> None:
        if self.votes_in(task, attempt):
            here = (task, attempt)
            label = self.promised[here] = self.dice.choice(("", "other", "honest"))
            if label:
                self.commit_to(here, self.outcome(task, label), self.salt(here))

    def page(self, feed: str, cursor: int) -> Batch:
        start = cursor if feed == FEED else 0
        some = tuple(self.heard[start : start + BATCH])
        return Batch(FEED, start + len(some), some)

    def shows(self, task: str) -> list[Document]:
        """All that it shows of a task, none of it valid."""
        rounds = [here for here in self.reveals if here[0] == task and task in self.tasks]
        return [self._certificate(here, votes) for here in rounds for votes in self._forged(here)]

    def _forged(self, here: Round) -> Iterator[Sequence[Document]]:
        attempts = committees(self.ground.network, self.tasks[here[0]])
        needed = quorum(len(attempts[here[1]]))
        heard = sorted(self.reveals[here].values(), key=lambda vote: vote.signer)
        honest = [vote.envelope.document() for vote in heard]
        listed = {**self.commits.get(here, {}), **{v.signer: v.commitment for v in heard}}
        if needed > 1:
            yield honest[: needed - 1]  # one signer short
            yield honest[:1] * needed  # the same signer again
            right, lists_itself = heard[0].outcome, self.promised.get(here) != "honest"
            own = self._votes(here, right, [self.index], listed, lists_itself=lists_itself)
            yield _sorted([*honest[: needed - 1], *own])  # a signer that nobody lists, or not it
            wrong = self._votes(here, self.outcome(here[0], "wrong"), [self.index], listed)
            yield _sorted([*honest[: needed - 1], *wrong])  # outcomes that differ
        above = [i for i in PUPPETS if fixtures.peer(i) > self.peer][: max(1, needed - 1)]
        gang = [self.index, *above]
        yield self._votes(here, self.outcome(here[0], "wrong"), gang, {})  # signers from anywhere
        for other, votes in self.reveals.items():
            if other != here:  # votes of another round
                yield _sorted([vote.envelope.document() for vote in votes.values()])

    def _votes(
        self,
        here: Round,
        outcome: Document,
        signers: Sequence[int],
        listed: dict[str, str],
        *,
        lists_itself: bool = True,
    ) -> list[Document]:
        """Reveals of one outcome that list what is `listed`, and each other."""
        digest, salt, net = messages.outcome_digest(outcome), self.salt(here), self.ground.network
        bound = {
            fixtures.peer(i): messages.commitment(*here, fixtures.peer(i), digest, salt)
            for i in signers
        }
        commits = {**listed, **bound} if lists_itself else listed
        body = messages.reveal_body(net.id, *here, outcome, salt, commits, {})
        return _sorted([sign(body, fixtures.key(i)).document() for i in signers])

    def _certificate(self, here: Round, votes: Sequence[Document]) -> Document:
        return {
            "type": "certificate",
            "version": 1,
            "network": self.ground.network.id,
            "task": self.tasks[here[0]].envelope.document(),
            "attempt": here[1],
            "votes": list(votes),
        }


def _sorted(votes: Sequence[Document]) -> list[Document]:
    return sorted(votes, key=lambda vote: str(vote["signer"]))
