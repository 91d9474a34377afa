"""An adversary that answers task requests with forged certificates."""

from collections.abc import Iterator, Sequence

from protocol.consensus.committee import committees, quorum
from protocol.wire import messages
from protocol.wire.encoding import Document
from protocol.wire.messages import Reveal, Vote
from protocol.wire.signing import sign
from tests.simulation.adversaries.adversary import Adversary, Environment, FeedPage, Round
from tests.simulation.adversaries.outsiders import FEED
from tests.support import fixtures

# Ids in a page of its feed.
PAGE_IDS = 256
# Indices of keys outside the roster that the forger signs with.
SYBILS = range(1060, 1100)


class CertificateForger(Adversary):
    """Forges certificates that each break one rule of specification 4.

    It may commit early, to the right outcome or to one that it never reveals. Its feed is honest,
    so that readers of the feed request certificates from it.
    """

    def __init__(self, environment: Environment, index: int) -> None:
        super().__init__(environment, index)
        self.reveals: dict[Round, dict[str, Reveal]] = {}
        self.payloads: list[bytes] = []
        self.promised: dict[Round, str] = {}

    def on_vote(self, vote: Vote) -> None:
        if vote.signer not in self.environment.honest_peers:
            return
        self.payloads.append(vote.envelope.encode())
        if isinstance(vote, Reveal):
            self.reveals.setdefault((vote.task, vote.attempt), {})[vote.signer] = vote

    def on_round(self, task: str, attempt: int) -> None:
        if self.votes_in(task, attempt):
            here = (task, attempt)
            label = self.promised[here] = self.rng.choice(("", "other", "honest"))
            if label:
                self.commit_to(here, self.outcome(task, label), self.salt(here))

    def page(self, feed: str, cursor: int) -> FeedPage:
        start = cursor if feed == FEED else 0
        page = tuple(self.payloads[start : start + PAGE_IDS])
        return FeedPage(FEED, start + len(page), page)

    def certificates_of(self, task: str) -> list[Document]:
        """Return forged certificates of a task, all of them invalid."""
        rounds = [here for here in self.reveals if here[0] == task and task in self.tasks]
        return [self._certificate(here, votes) for here in rounds for votes in self._forged(here)]

    def _forged(self, here: Round) -> Iterator[Sequence[Document]]:
        attempts = committees(self.environment.network, self.tasks[here[0]])
        needed = quorum(len(attempts[here[1]]))
        reveals = sorted(self.reveals[here].values(), key=lambda vote: vote.signer)
        honest = [vote.envelope.document() for vote in reveals]
        listed = {**self.commits.get(here, {}), **{v.signer: v.commitment for v in reveals}}
        if needed > 1:
            yield honest[: needed - 1]  # one signer too few
            yield honest[:1] * needed  # a duplicate signer
            right, lists_itself = reveals[0].outcome, self.promised.get(here) != "honest"
            own_votes = self._votes(here, right, [self.index], listed, lists_itself=lists_itself)
            yield _sorted([*honest[: needed - 1], *own_votes])  # an unlisted signer
            wrong = self._votes(here, self.outcome(here[0], "wrong"), [self.index], listed)
            yield _sorted([*honest[: needed - 1], *wrong])  # different outcomes
        above = [i for i in SYBILS if fixtures.peer(i) > self.peer][: max(1, needed - 1)]
        signers = [self.index, *above]
        yield self._votes(
            here, self.outcome(here[0], "wrong"), signers, {}
        )  # signers outside the committee
        for other_round, votes in self.reveals.items():
            if other_round != here:  # votes of another round
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
        """Return reveals of one outcome that list the commits in `listed`, and each other."""
        digest, salt, net = (
            messages.outcome_digest(outcome),
            self.salt(here),
            self.environment.network,
        )
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
            "version": 2,
            "network": self.environment.network.id,
            "task": self.tasks[here[0]].envelope.document(),
            "attempt": here[1],
            "votes": list(votes),
        }


def _sorted(votes: Sequence[Document]) -> list[Document]:
    return sorted(votes, key=lambda vote: str(vote["signer"]))
