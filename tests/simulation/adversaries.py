"""Roster members that break a rule each.

Wrong results, silence and lateness need no code here: they are executors (see `executing`).
"""

from protocol.wire import messages
from protocol.wire.encoding import Document
from protocol.wire.messages import Commit, Reveal, Task, Vote
from tests.simulation.agents import Agent, Ground, Round, opened


class Copycat(Agent):
    """Executes nothing: commits to, and reveals, the first outcome that an honest member reveals.

    To repeat what others say, who may say anything at any time, is a guess, which nothing forbids.
    """

    def __init__(self, ground: Ground, index: int) -> None:
        super().__init__(ground, index)
        self.copied: set[Round] = set()

    def on_vote(self, vote: Vote) -> None:
        here = (vote.task, vote.attempt)
        if vote.signer not in self.ground.obedient or here in self.copied:
            return
        if isinstance(vote, Reveal) and self.votes_in(*here):
            self.copied.add(here)
            self.commit_to(here, vote.outcome, self.salt(here))
            self.reveal(here, vote.outcome, self.salt(here))


class CommitmentThief(Agent):
    """Sends another member's commitment as its own, and its opening when that is revealed.

    The first that it hears in a round: at once, so that all honest lists have it.
    """

    def __init__(self, ground: Ground, index: int) -> None:
        super().__init__(ground, index)
        self.robbed: dict[Round, str] = {}

    def on_vote(self, vote: Vote) -> None:
        here = (vote.task, vote.attempt)
        if not self.votes_in(*here):
            return
        if isinstance(vote, Commit) and here not in self.robbed:
            self.robbed[here] = vote.signer
            self.send(messages.commit_body(self.ground.network.id, *here, vote.commitment))
        elif isinstance(vote, Reveal) and vote.signer == self.robbed.get(here):
            self.reveal(here, vote.outcome, opened(vote))


class CommitmentReplayer(Agent):
    """Executes rightly once; in every other round it opens the commitment of that one again."""

    def __init__(self, ground: Ground, index: int) -> None:
        super().__init__(ground, index)
        self.first: Round | None = None

    def on_round(self, task: str, attempt: int) -> None:
        if not self.votes_in(task, attempt):
            return
        here = (task, attempt)
        first = self.first = self.first or here
        outcome, salt = self.outcome(first[0]), self.salt(first)
        bound = self.bound(first, outcome, salt)
        net = self.ground.network.id
        self.send(messages.commit_body(net, *here, bound))
        self.ground.later(self.dice.uniform(1.0, 8.0), self._open, here, outcome, salt, bound)

    def _open(self, here: Round, outcome: Document, salt: str, bound: str) -> None:
        if self.dice.random() < 0.3:
            return  # so that there is another attempt
        commits = {**self.commits.get(here, {}), self.peer: bound}
        net = self.ground.network.id
        self.send(messages.reveal_body(net, *here, outcome, salt, commits, {}))


class Equivocator(Agent):
    """Commits to two outcomes and reveals both: one is the honest one, to be believed by some."""

    labels: tuple[str, ...] = ("honest", "wrong")

    def on_task(self, task: Task) -> None:
        if self.dice.random() < 0.5:  # hasty: before anybody has executed
            self.rounds.add((task.id, 0))
            self.on_round(task.id, 0)

    def on_round(self, task: str, attempt: int) -> None:
        if not self.votes_in(task, attempt):
            return
        here = (task, attempt)
        for label, to in zip(self.labels, self.audiences(), strict=True):
            outcome, salt = self.outcome(task, label), self.salt(here, label)
            self.commit_to(here, outcome, salt, to)
            after = self.dice.uniform(0.5, 12.0)
            self.ground.later(after, self.reveal, here, outcome, salt, to)

    def audiences(self) -> tuple[list[str] | None, ...]:
        """To whom each of the two is told; None for all."""
        return (None, None)


class SplitEquivocator(Equivocator):
    """Tells one half of its neighbours one outcome, and the other half another."""

    def audiences(self) -> tuple[list[str] | None, ...]:
        all_ = self.ground.neighbours(self.peer)
        self.dice.shuffle(all_)
        return all_[: len(all_) // 2], all_[len(all_) // 2 :]


class ManifoldEquivocator(Equivocator):
    """Commits to and reveals more outcomes than anybody keeps."""

    labels = ("wrong", "other", "third", "honest")

    def audiences(self) -> tuple[list[str] | None, ...]:
        all_ = self.ground.neighbours(self.peer)
        return tuple(self.dice.sample(all_, (len(all_) + 1) // 2) for _ in self.labels)


class DoubleRevealer(Agent):
    """Commits once and reveals twice: with another trace, or what its commit does not open."""

    def on_round(self, task: str, attempt: int) -> None:
        if not self.votes_in(task, attempt):
            return
        here, salt = (task, attempt), self.salt((task, attempt))
        self.commit_to(here, self.outcome(task), salt)
        first, second = self.dice.uniform(1.0, 8.0), self.dice.uniform(1.0, 8.0)
        self.ground.later(first, self.reveal, here, self.outcome(task), salt)
        if self.dice.random() < 0.5:
            other = self.outcome(task, "wrong")
            self.ground.later(second, self.reveal, here, other, salt)
        else:
            trace = {"again": True}
            self.ground.later(second, self.reveal, here, self.outcome(task), salt, None, trace)


class Misopener(Agent):
    """Commits to one outcome and reveals another."""

    def on_round(self, task: str, attempt: int) -> None:
        if self.votes_in(task, attempt):
            here, salt = (task, attempt), self.salt((task, attempt))
            self.commit_to(here, self.outcome(task), salt)
            other = self.outcome(task, "wrong")
            self.ground.later(self.dice.uniform(1.0, 8.0), self.reveal, here, other, salt)


class Withholder(Agent):
    """Commits at once and never reveals, or long after everybody else."""

    def on_task(self, task: Task) -> None:
        self.rounds.add((task.id, 0))
        self.on_round(task.id, 0)

    def on_round(self, task: str, attempt: int) -> None:
        if not self.votes_in(task, attempt):
            return
        here = (task, attempt)
        self.commit_to(here, self.outcome(task), self.salt(here))
        if self.dice.random() < 0.4:
            after = self.dice.uniform(10.0, 90.0)
            self.ground.later(after, self.reveal, here, self.outcome(task), self.salt(here))


class LateJoiner(Agent):
    """Executes rightly, and commits after an honest reveal, when all honest lists are closed."""

    def __init__(self, ground: Ground, index: int) -> None:
        super().__init__(ground, index)
        self.joined: set[Round] = set()

    def on_vote(self, vote: Vote) -> None:
        here = (vote.task, vote.attempt)
        if vote.signer not in self.ground.obedient or here in self.joined:
            return
        if isinstance(vote, Reveal) and self.votes_in(*here):
            self.joined.add(here)
            self.ground.later(self.dice.uniform(0.0, 6.0), self._join, here)

    def _join(self, here: Round) -> None:
        outcome = self.outcome(here[0])
        self.commit_to(here, outcome, self.salt(here))
        self.reveal(here, outcome, self.salt(here))


class Intruder(Agent):
    """Votes in rounds whose committee it is not in, and in rounds that do not exist.

    As a member of another class, it is "wrong class"; as one of many peers of one operator, it
    takes the place that the rule of one peer for each operator denies it.
    """

    def on_round(self, task: str, attempt: int) -> None:
        for number in (attempt, attempt + 7):
            here = (task, number)
            self.commit_to(here, self.outcome(task, "wrong"), self.salt(here))
            self.ground.later(3.0, self.reveal, here, self.outcome(task, "wrong"), self.salt(here))
