"""Members that break a rule each, with their own keys, over the same transport as the honest.

Wrong results, silence and lateness need no code here: they are executors that give another
waveform, never end, or end late (see `world`).
"""

import asyncio
from collections.abc import Callable
from typing import TypeAlias

from node.daemon import topics
from node.transport.base import Stream, Verdict
from node.transport.memory import MemoryTransport
from protocol import messages, wire
from protocol.canonical import Document
from protocol.committee import committees
from protocol.envelope import sign
from protocol.errors import Rejected
from protocol.messages import Commit, Reveal, Task, Vote
from tests import cast
from tests.simulation.world import World, manifest, waveform

Round: TypeAlias = tuple[str, int]


class Agent:
    """A member that speaks the gossip protocol and obeys nothing; subclasses say what it does."""

    def __init__(self, world: World, index: int) -> None:
        self.world, self.index, self.peer = world, index, cast.peer(index)
        self.transport = MemoryTransport(world.medium, self.peer)
        self.tasks: dict[str, Task] = {}
        self.commits: dict[Round, dict[str, str]] = {}
        self._topics = topics(world.network.id)
        self._sending: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        await self.transport.start(self, self._topics, ())
        for member in range(len(self.world.network.roster)):
            if member != self.index and self.world.medium.transport(cast.peer(member)):
                await self.transport.dial(self.world.address(member))

    async def crash(self) -> None:
        self.world.medium.crash(self.peer)

    # Listener

    def judge(self, topic: str, payload: bytes) -> Verdict:
        return Verdict.ACCEPT

    def gossiped(self, peer: str, topic: str, payload: bytes) -> None:
        try:
            message = wire.read(payload, self.world.network.id)
        except Rejected:
            return
        if isinstance(message, Task):
            self.tasks[message.id] = message
            self.on_task(message)
        elif message.task in self.tasks and self.in_committee(message):
            if isinstance(message, Commit):
                known = self.commits.setdefault((message.task, message.attempt), {})
                known.setdefault(message.signer, message.commitment)
            self.on_vote(message)

    async def serve(self, protocol: str, stream: Stream) -> None:
        await stream.reset()

    def connected(self, peer: str) -> None:
        return

    def disconnected(self, peer: str) -> None:
        return

    # What a subclass does

    def on_task(self, task: Task) -> None:
        return

    def on_vote(self, vote: Vote) -> None:
        return

    # Tools

    def in_committee(self, vote: Vote) -> bool:
        attempts = committees(self.world.network, self.tasks[vote.task])
        return vote.attempt < len(attempts) and self.peer in attempts[vote.attempt]

    def send(self, body: Document) -> None:
        topic = self._topics[0] if body["type"] == "task" else self._topics[1]
        payload = sign(body, cast.key(self.index)).encode()
        sending = asyncio.create_task(self.transport.publish(topic, payload))
        self._sending.add(sending)
        sending.add_done_callback(self._sending.discard)

    def commit_to(self, task: str, attempt: int, outcome: Document, salt: str) -> str:
        digest = messages.outcome_digest(outcome)
        bound = messages.commitment(task, attempt, self.peer, digest, salt)
        self.send(messages.commit_body(self.world.network.id, task, attempt, bound))
        return bound

    def reveal(
        self, task: str, attempt: int, outcome: Document, salt: str, commits: dict[str, str]
    ) -> None:
        net = self.world.network.id
        self.send(messages.reveal_body(net, task, attempt, outcome, salt, commits, {}))


class Copycat(Agent):
    """Executes nothing: commits to, and reveals, the first outcome that another reveals."""

    def __init__(self, world: World, index: int) -> None:
        super().__init__(world, index)
        self.copied: set[Round] = set()

    def on_vote(self, vote: Vote) -> None:
        here = (vote.task, vote.attempt)
        if not isinstance(vote, Reveal) or here in self.copied:
            return
        self.copied.add(here)
        salt = cast.salt(self.peer, vote.attempt)
        bound = self.commit_to(*here, vote.outcome, salt)
        self.reveal(*here, vote.outcome, salt, {**self.commits.get(here, {}), self.peer: bound})


class CommitmentThief(Agent):
    """Sends another member's commitment as its own, and its opening when that is revealed."""

    def on_vote(self, vote: Vote) -> None:
        net = self.world.network.id
        here = (vote.task, vote.attempt)
        if isinstance(vote, Commit):
            self.send(messages.commit_body(net, *here, vote.commitment))
        elif isinstance(vote, Reveal):
            opened = str(vote.envelope.body["salt"])
            self.reveal(*here, vote.outcome, opened, dict(self.commits.get(here, {})))


class Equivocator(Agent):
    """Commits to two outcomes and reveals both: one is the honest one, to be believed by some."""

    def __init__(self, world: World, index: int) -> None:
        super().__init__(world, index)
        self.rounds: set[Round] = set()

    def on_vote(self, vote: Vote) -> None:
        here = (vote.task, vote.attempt)
        if here in self.rounds:
            return
        self.rounds.add(here)
        for label in ("honest", "other"):
            outcome = self.outcome(self.tasks[vote.task], label)
            salt = cast.salt(self.peer + label, vote.attempt)
            bound = self.commit_to(*here, outcome, salt)
            commits = {**self.commits.get(here, {}), self.peer: bound}
            asyncio.get_running_loop().call_later(3.0, self.reveal, *here, outcome, salt, commits)

    def outcome(self, task: Task, label: str) -> Document:
        return {"result": manifest(waveform(task.args, label))}


AGENTS: dict[str, Callable[[World, int], Agent]] = {
    "copycat": Copycat,
    "commitment thief": CommitmentThief,
    "equivocator": Equivocator,
}
