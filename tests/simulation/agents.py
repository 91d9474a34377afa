"""What every adversary has: keys, ears and a voice, over whatever carries gossip.

An agent obeys nothing. It forwards what it hears, as an honest transport does, and its subclasses
in `adversaries` and `outsiders` say what else it does. They know no transport: a history on a
timeline and one of real daemons give them the same `Ground`.
"""

import random
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

from node.sync.feed_sync import Batch
from node.transport.interface import ValidationResult
from protocol.consensus.committee import committees
from protocol.errors import Rejected
from protocol.network import Network
from protocol.wire import codec, messages
from protocol.wire.encoding import Document
from protocol.wire.messages import Commit, Reveal, Task, Vote
from protocol.wire.signing import sign
from tests.simulation import executing
from tests.support import fixtures

Round: TypeAlias = tuple[str, int]


class Ground(Protocol):
    """What carries an agent."""

    network: Network
    topics: tuple[str, str]
    random: random.Random
    obedient: frozenset[str]  # the peers that keep all rules

    def now(self) -> float:
        """Unix seconds, by an honest clock."""

    def later(self, seconds: float, call: Callable[..., object], *args: Any) -> None:
        """Let something happen in a while."""

    def neighbours(self, peer: str) -> list[str]:
        """Whom a peer is connected with."""

    def say(self, peer: str, topic: str, payload: bytes, to: Sequence[str] | None = None) -> None:
        """Gossip to all neighbours, or to some."""


class Agent:
    """A peer that keeps no rule of the protocol."""

    up = True

    def __init__(self, ground: Ground, index: int) -> None:
        self.ground, self.index, self.peer = ground, index, fixtures.peer(index)
        self.dice = random.Random(ground.random.random())
        self.tasks: dict[str, Task] = {}
        self.commits: dict[Round, dict[str, str]] = {}
        self.rounds: set[Round] = set()

    def begin(self) -> None:
        """Be started; requesters begin here."""

    # Ears

    def validate(self, topic: str, payload: bytes) -> ValidationResult:
        return ValidationResult.ACCEPT

    def on_gossip(self, source: str, topic: str, payload: bytes) -> None:
        try:
            message = codec.decode(payload, self.ground.network.id)
        except Rejected:
            return
        self.on_payload(topic, payload)
        if isinstance(message, Task):
            self._learn(message)
        elif message.task in self.tasks and message.signer != self.peer:
            here = (message.task, message.attempt)
            if isinstance(message, Commit):
                known = self.commits.setdefault(here, {})
                known.setdefault(message.signer, message.commitment)
            self.on_vote(message)
            if here not in self.rounds:
                self.rounds.add(here)
                self.on_round(*here)

    def _learn(self, task: Task) -> None:
        if task.id in self.tasks:
            return
        try:
            self.ground.network.admit(task)
        except Rejected:
            return
        self.tasks[task.id] = task
        self.on_task(task)

    def page(self, feed: str, cursor: int) -> Batch:
        """Answer a feed request. Raises ConnectionError where there is no answer."""
        raise ConnectionError(f"{self.peer} has no feed")

    def shows(self, task: str) -> list[Document]:
        """Answer a request for a task: the certificates shown, valid or not."""
        return []

    # What a subclass does

    def on_payload(self, topic: str, payload: bytes) -> None:
        """Anything valid was heard."""

    def on_task(self, task: Task) -> None:
        """A task was heard first."""

    def on_vote(self, vote: Vote) -> None:
        """A vote of another was heard."""

    def on_round(self, task: str, attempt: int) -> None:
        """The first vote of a round was heard."""

    # Tools

    def votes_in(self, task: str, attempt: int) -> bool:
        """Whether this peer is in the committee of a round."""
        attempts = committees(self.ground.network, self.tasks[task])
        return attempt < len(attempts) and self.peer in attempts[attempt]

    def outcome(self, task: str, label: str = "honest") -> Document:
        return executing.outcome(self.tasks[task].args, label)

    def send(self, body: Document, to: Sequence[str] | None = None) -> None:
        """Sign a body and gossip it."""
        topic = self.ground.topics[body["type"] != "task"]
        payload = sign(body, fixtures.key(self.index)).encode()
        self.ground.say(self.peer, topic, payload, to)

    def bound(self, here: Round, outcome: Document, salt: str) -> str:
        """The commitment of this peer to an outcome."""
        digest = messages.outcome_digest(outcome)
        return messages.commitment(*here, self.peer, digest, salt)

    def commit_to(
        self, here: Round, outcome: Document, salt: str, to: Sequence[str] | None = None
    ) -> str:
        bound = self.bound(here, outcome, salt)
        self.send(messages.commit_body(self.ground.network.id, *here, bound), to)
        return bound

    def reveal(
        self,
        here: Round,
        outcome: Document,
        salt: str,
        to: Sequence[str] | None = None,
        trace: Document | None = None,
    ) -> None:
        """Reveal an outcome, listing every commit that was heard, and the one it opens."""
        commits = {**self.commits.get(here, {}), self.peer: self.bound(here, outcome, salt)}
        net = self.ground.network.id
        self.send(messages.reveal_body(net, *here, outcome, salt, commits, trace or {}), to)

    def salt(self, here: Round, label: str = "") -> str:
        return fixtures.salt(f"{self.peer}{label}{here[0]}", here[1])


def opened(vote: Reveal) -> str:
    """The salt of a reveal."""
    return str(vote.envelope.body["salt"])
