"""Adversaries in the roster. Each class breaks one rule.

Wrong, missing and late results need no class here: they are labels of `doubles.FakeExecutor`.
"""

from protocol.wire import messages
from protocol.wire.encoding import Document
from protocol.wire.messages import Commit, Reveal, Task, Vote
from tests.simulation.adversaries.adversary import Adversary, Environment, Round, opened


class Copycat(Adversary):
    """Executes nothing. Commits to and reveals the first outcome that an honest member reveals."""

    def __init__(self, environment: Environment, index: int) -> None:
        super().__init__(environment, index)
        self.copied: set[Round] = set()

    def on_vote(self, vote: Vote) -> None:
        here = (vote.task, vote.attempt)
        if vote.signer not in self.environment.honest_peers or here in self.copied:
            return
        if isinstance(vote, Reveal) and self.votes_in(*here):
            self.copied.add(here)
            self.commit_to(here, vote.outcome, self.salt(here))
            self.reveal(here, vote.outcome, self.salt(here))


class CommitmentThief(Adversary):
    """Sends another member's commitment as its own, and later that member's opening.

    It copies the first commitment of a round at once, so that all honest members list it.
    """

    def __init__(self, environment: Environment, index: int) -> None:
        super().__init__(environment, index)
        self.robbed: dict[Round, str] = {}

    def on_vote(self, vote: Vote) -> None:
        here = (vote.task, vote.attempt)
        if not self.votes_in(*here):
            return
        if isinstance(vote, Commit) and here not in self.robbed:
            self.robbed[here] = vote.signer
            self.send(messages.commit_body(self.environment.network.id, *here, vote.commitment))
        elif isinstance(vote, Reveal) and vote.signer == self.robbed.get(here):
            self.reveal(here, vote.outcome, opened(vote))


class CommitmentReplayer(Adversary):
    """Executes correctly once. Reuses that commitment and opening in all other rounds."""

    def __init__(self, environment: Environment, index: int) -> None:
        super().__init__(environment, index)
        self.first: Round | None = None

    def on_round(self, task: str, attempt: int) -> None:
        if not self.votes_in(task, attempt):
            return
        here = (task, attempt)
        first = self.first = self.first or here
        outcome, salt = self.outcome(first[0]), self.salt(first)
        bound = self.bound(first, outcome, salt)
        net = self.environment.network.id
        self.send(messages.commit_body(net, *here, bound))
        self.environment.call_later(
            self.rng.uniform(1.0, 8.0), self._open, here, outcome, salt, bound
        )

    def _open(self, here: Round, outcome: Document, salt: str, bound: str) -> None:
        if self.rng.random() < 0.3:
            return  # so that there is another attempt
        commits = {**self.commits.get(here, {}), self.peer: bound}
        net = self.environment.network.id
        self.send(messages.reveal_body(net, *here, outcome, salt, commits, {}))


class Equivocator(Adversary):
    """Commits to two outcomes and reveals both. One of them is the right one."""

    labels: tuple[str, ...] = ("honest", "wrong")

    def on_task(self, task: Task) -> None:
        if self.rng.random() < 0.5:  # early: before any member has executed
            self.rounds.add((task.id, 0))
            self.on_round(task.id, 0)

    def on_round(self, task: str, attempt: int) -> None:
        if not self.votes_in(task, attempt):
            return
        here = (task, attempt)
        for label, to in zip(self.labels, self.audiences(), strict=True):
            outcome, salt = self.outcome(task, label), self.salt(here, label)
            self.commit_to(here, outcome, salt, to)
            after = self.rng.uniform(0.5, 12.0)
            self.environment.call_later(after, self.reveal, here, outcome, salt, to)

    def audiences(self) -> tuple[list[str] | None, ...]:
        """Return the recipients of each outcome; None for all peers."""
        return (None, None)


class SplitEquivocator(Equivocator):
    """Sends one outcome to half of its neighbours, and another to the other half."""

    def audiences(self) -> tuple[list[str] | None, ...]:
        peers = self.environment.neighbours(self.peer)
        self.rng.shuffle(peers)
        return peers[: len(peers) // 2], peers[len(peers) // 2 :]


class ManifoldEquivocator(Equivocator):
    """Commits to and reveals more outcomes than a node stores."""

    labels = ("wrong", "other", "third", "honest")

    def audiences(self) -> tuple[list[str] | None, ...]:
        peers = self.environment.neighbours(self.peer)
        return tuple(self.rng.sample(peers, (len(peers) + 1) // 2) for _ in self.labels)


class DoubleRevealer(Adversary):
    """Commits once and reveals twice: with another trace, or with another outcome."""

    def on_round(self, task: str, attempt: int) -> None:
        if not self.votes_in(task, attempt):
            return
        here, salt = (task, attempt), self.salt((task, attempt))
        self.commit_to(here, self.outcome(task), salt)
        first, second = self.rng.uniform(1.0, 8.0), self.rng.uniform(1.0, 8.0)
        self.environment.call_later(first, self.reveal, here, self.outcome(task), salt)
        if self.rng.random() < 0.5:
            wrong_outcome = self.outcome(task, "wrong")
            self.environment.call_later(second, self.reveal, here, wrong_outcome, salt)
        else:
            trace = {"again": True}
            self.environment.call_later(
                second, self.reveal, here, self.outcome(task), salt, None, trace
            )


class Misopener(Adversary):
    """Commits to one outcome and reveals another."""

    def on_round(self, task: str, attempt: int) -> None:
        if self.votes_in(task, attempt):
            here, salt = (task, attempt), self.salt((task, attempt))
            self.commit_to(here, self.outcome(task), salt)
            wrong_outcome = self.outcome(task, "wrong")
            self.environment.call_later(
                self.rng.uniform(1.0, 8.0), self.reveal, here, wrong_outcome, salt
            )


class Withholder(Adversary):
    """Commits at once. Never reveals, or reveals long after all other members."""

    def on_task(self, task: Task) -> None:
        self.rounds.add((task.id, 0))
        self.on_round(task.id, 0)

    def on_round(self, task: str, attempt: int) -> None:
        if not self.votes_in(task, attempt):
            return
        here = (task, attempt)
        self.commit_to(here, self.outcome(task), self.salt(here))
        if self.rng.random() < 0.4:
            after = self.rng.uniform(10.0, 90.0)
            self.environment.call_later(
                after, self.reveal, here, self.outcome(task), self.salt(here)
            )


class LateJoiner(Adversary):
    """Executes correctly, but commits after an honest reveal, when all honest lists are closed."""

    def __init__(self, environment: Environment, index: int) -> None:
        super().__init__(environment, index)
        self.joined: set[Round] = set()

    def on_vote(self, vote: Vote) -> None:
        here = (vote.task, vote.attempt)
        if vote.signer not in self.environment.honest_peers or here in self.joined:
            return
        if isinstance(vote, Reveal) and self.votes_in(*here):
            self.joined.add(here)
            self.environment.call_later(self.rng.uniform(0.0, 6.0), self._join, here)

    def _join(self, here: Round) -> None:
        outcome = self.outcome(here[0])
        self.commit_to(here, outcome, self.salt(here))
        self.reveal(here, outcome, self.salt(here))


class Intruder(Adversary):
    """Votes in rounds of other committees, and in rounds that do not exist.

    The role "wrong class" is a member of another compute class. The role "intruder" is one of
    several peers of one operator, of which a committee admits one.
    """

    def on_round(self, task: str, attempt: int) -> None:
        for number in (attempt, attempt + 7):
            here = (task, number)
            self.commit_to(here, self.outcome(task, "wrong"), self.salt(here))
            self.environment.call_later(
                3.0, self.reveal, here, self.outcome(task, "wrong"), self.salt(here)
            )


class Turncoat(Adversary):
    """Votes in every attempt, each time for another outcome: inconstancy."""

    def on_round(self, task: str, attempt: int) -> None:
        if not self.votes_in(task, attempt):
            return
        here, outcome = (task, attempt), self.outcome(task, f"of attempt {attempt}")
        self.commit_to(here, outcome, self.salt(here))
        self.environment.call_later(2.5, self.reveal, here, outcome, self.salt(here))
