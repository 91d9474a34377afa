"""The base class of all adversaries, and the network environment that they act in.

An adversary forwards all gossip, as an honest node does. Subclasses in `members` and `outsiders`
override the event methods to break one rule each.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from protocol.consensus.committee import committees
from protocol.errors import Rejected
from protocol.network import Network
from protocol.wire import codec, messages
from protocol.wire.encoding import Document
from protocol.wire.messages import Commit, Reveal, Task, Vote, Withdraw
from protocol.wire.signing import sign
from tests.simulation import doubles
from tests.support import fixtures
from tests.support.memory_transport.network import MemoryNetwork

Round: TypeAlias = tuple[str, int]


class Environment:
    """Connects adversaries to a `MemoryNetwork` on a virtual loop."""

    def __init__(
        self,
        network: Network,
        medium: MemoryNetwork,
        rng: random.Random,
        on_send: Callable[[str, bytes], None] | None = None,
        honest_peers: frozenset[str] = frozenset(),
    ) -> None:
        """`on_send` is called with each payload that an adversary sends."""
        self.honest_peers = honest_peers
        self.network, self.random, self._on_send = network, rng, on_send
        self.topics = (f"/helium/2/{network.id}/tasks", f"/helium/2/{network.id}/votes")
        self._medium = medium
        self._loop = asyncio.get_running_loop()

    def now(self) -> float:
        """Return the Unix time by a correct clock."""
        return fixtures.START + self._loop.time()

    def call_later(self, seconds: float, call: Callable[..., object], *args: Any) -> None:
        """Call something after `seconds`."""
        self._loop.call_later(seconds, call, *args)

    def neighbours(self, peer: str) -> list[str]:
        """Return the peers that a peer is connected to."""
        transport = self._medium.transport(peer)
        return [] if transport is None else sorted(transport.peers())

    def gossip(
        self, peer: str, topic: str, payload: bytes, to: Sequence[str] | None = None
    ) -> None:
        """Gossip to all neighbours of a peer, or only `to` some of them."""
        transport = self._medium.transport(peer)
        if transport is None:  # the simulation is over
            return
        if self._on_send is not None:
            self._on_send(peer, payload)
        if to is None:
            transport.gossip(topic, payload)
            return
        for target in to:
            if target in transport.peers():
                self._medium.send(peer, target, topic, payload)


@dataclass(frozen=True, slots=True)
class FeedPage:
    """An answer to a feed request; the envelopes need not be any."""

    feed: str
    cursor: int
    envelopes: tuple[bytes, ...]


class Adversary:
    """A peer that need not follow the protocol."""

    def __init__(self, environment: Environment, index: int) -> None:
        self.environment, self.index, self.peer = environment, index, fixtures.peer(index)
        self.rng = random.Random(environment.random.random())
        self.tasks: dict[str, Task] = {}
        self.commits: dict[Round, dict[str, str]] = {}
        self.rounds: set[Round] = set()

    def begin(self) -> None:
        """Called once, after the adversary joined the network."""

    # Transport listener

    def on_gossip(self, source: str, topic: str, payload: bytes) -> None:
        try:
            message = codec.decode(payload, self.environment.network.id)
        except Rejected:
            return
        self.on_payload(topic, payload)
        if isinstance(message, Task):
            self._add_task(message)
        elif isinstance(message, Withdraw):
            return
        elif message.task in self.tasks and message.signer != self.peer:
            here = (message.task, message.attempt)
            if isinstance(message, Commit):
                self.commits.setdefault(here, {}).setdefault(message.signer, message.commitment)
            self.on_vote(message)
            if here not in self.rounds:
                self.rounds.add(here)
                self.on_round(*here)

    def _add_task(self, task: Task) -> None:
        if task.id in self.tasks:
            return
        try:
            self.environment.network.admit(task)
        except Rejected:
            return
        self.tasks[task.id] = task
        self.on_task(task)

    def page(self, feed: str, cursor: int) -> FeedPage:
        """Answer a feed request. Raises ConnectionError where there is no answer."""
        raise ConnectionError(f"{self.peer} has no feed")

    def certificates_of(self, task: str) -> list[Document]:
        """Return the certificates to answer a task request with, valid or not."""
        return []

    # Events, for subclasses

    def on_payload(self, topic: str, payload: bytes) -> None:
        """A valid envelope arrived."""

    def on_task(self, task: Task) -> None:
        """A task arrived for the first time."""

    def on_vote(self, vote: Vote) -> None:
        """A vote of another peer arrived."""

    def on_round(self, task: str, attempt: int) -> None:
        """The first vote of a round arrived."""

    # Tools

    def votes_in(self, task: str, attempt: int) -> bool:
        """Return whether this peer is in the committee of a round."""
        attempts = committees(self.environment.network, self.tasks[task])
        return attempt < len(attempts) and self.peer in attempts[attempt]

    def outcome(self, task: str, label: str = "honest") -> Document:
        proves_work = self.environment.network.proves_work(self.tasks[task])
        return doubles.outcome(self.tasks[task].args, label, proves_work=proves_work)

    def send(self, body: Document, to: Sequence[str] | None = None) -> None:
        """Sign a body and gossip it."""
        topic = self.environment.topics[body["type"] != "task"]
        payload = sign(body, fixtures.key(self.index)).encode()
        self.environment.gossip(self.peer, topic, payload, to)

    def bound(self, here: Round, outcome: Document, salt: str) -> str:
        """Return this peer's commitment to an outcome."""
        digest = messages.outcome_digest(outcome)
        return messages.commitment(*here, self.peer, digest, salt)

    def commit_to(
        self, here: Round, outcome: Document, salt: str, to: Sequence[str] | None = None
    ) -> str:
        bound = self.bound(here, outcome, salt)
        self.send(messages.commit_body(self.environment.network.id, *here, bound), to)
        return bound

    def reveal(
        self,
        here: Round,
        outcome: Document,
        salt: str,
        to: Sequence[str] | None = None,
        trace: Document | None = None,
    ) -> None:
        """Reveal an outcome. List all commits received and the commit that the reveal opens."""
        commits = {**self.commits.get(here, {}), self.peer: self.bound(here, outcome, salt)}
        net = self.environment.network.id
        self.send(messages.reveal_body(net, *here, outcome, salt, commits, trace or {}), to)

    def salt(self, here: Round, label: str = "") -> str:
        return fixtures.salt(f"{self.peer}{label}{here[0]}", here[1])


def opened(vote: Reveal) -> str:
    """The salt of a reveal."""
    return str(vote.envelope.body["salt"])
