"""Following one task through many nodes' answers, believing only signatures.

An observer's `Agreement` takes every vote that any node passes on; when it certifies, the task has
ended, whatever the nodes say. That it ended without agreement is believed only if all connected
nodes say so, or the deadline has passed.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from node.clock import Clock
from node.rpc.client import RequestRefused, open_request, read_status, send_request
from node.rpc.codec import ProtocolViolation, Status, read_document
from node.transport.interface import Transport
from protocol.consensus import certificate
from protocol.consensus.agreement import Agreement
from protocol.consensus.certificate import Certificate
from protocol.consensus.effects import Certified, State
from protocol.consensus.vote_set import VoteSet
from protocol.errors import Rejected, Rejection
from protocol.network import Network
from protocol.wire import codec
from protocol.wire.encoding import Json
from protocol.wire.messages import Abstain, Reveal, Task
from schemas.errors import HeliumError

log = structlog.get_logger("task_tracker")

RETRY = 0.3  # seconds before a node that does not know the task yet, or went away, is asked again
LONGEST_PAUSE = 5.0  # seconds; for a node that has ended the task, or is busy, and is asked anyway
# A new task may still be on its way to nodes that answer "unknown-task" for this long.
UNKNOWN_TASK_SECONDS = 5.0
# The last votes may arrive for this long after the deadline.
LATE_VOTE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """What one node said of the task: its own state, and how far its own execution is (0 to 1)."""

    peer: str
    state: State
    attempt: int
    progress: float


@dataclass(frozen=True, slots=True)
class VoteSummary:
    """How one committee member voted in one attempt: an outcome digest, or why it abstained.

    Of an outcome that is an error, `error` is its code and `detail` what the member says of it.
    """

    peer: str
    attempt: int
    outcome: str | None
    abstained: str | None
    error: str | None = None
    detail: str | None = None


class NoAgreement(HeliumError):
    """The task ended without a certificate; `votes` has the votes that were seen."""

    def __init__(self, state: State, votes: tuple[VoteSummary, ...]) -> None:
        super().__init__(f"no agreement: {state}")
        self.state, self.votes = state, votes


class UnknownTask(HeliumError):
    """No connected node knows the task."""


class TaskTracker:
    """One task as seen through all connected nodes."""

    def __init__(
        self, network: Network, transport: Transport, clock: Clock, task: str, known: Task | None
    ) -> None:
        self._network, self._transport, self._clock = network, transport, clock
        self._id = task
        self._observer: Agreement | None = None
        self._said: dict[str, State] = {}
        self._unaware_peers: set[str] = set()  # who does not know the task
        self._since = clock.now()
        self._certificates: dict[str, Certificate] = {}  # by outcome digest
        if known is not None:
            self._observe(known)

    @property
    def task(self) -> Task | None:
        """The task itself, once any node has shown it."""
        return None if self._observer is None else self._observer.task

    @property
    def vote_sets(self) -> tuple[VoteSet, ...]:
        """The votes of each attempt, as far as any node has shown them."""
        return () if self._observer is None else self._observer.vote_sets

    @property
    def committee(self) -> tuple[str, ...]:
        """The largest committee that the task can get; empty while the task is not known."""
        return () if self._observer is None else tuple(self._observer.vote_sets[-1].committee)

    @property
    def votes(self) -> tuple[VoteSummary, ...]:
        """The votes seen so far, attempt by attempt, each attempt's in the committee's order."""
        return tuple(
            vote
            for attempt, votes in enumerate(self._observer.vote_sets if self._observer else ())
            for peer in votes.committee
            for vote in _vote_summaries(peer, attempt, votes.votes_of(peer))
        )

    async def certificate(self) -> Certificate:
        """Wait for the task's certificate.

        Raises NoAgreement when it ends without one, UnknownTask when nobody knows it.
        """
        async for _ in self.watch():
            pass
        if self.settled is None:
            raise NoAgreement(self._verdict() or State.EXPIRED, self.votes)
        return self.settled

    async def watch(self) -> AsyncIterator[NodeStatus]:
        """Give what the nodes report, as it changes, until the task has ended."""
        seen: asyncio.Queue[NodeStatus | None] = asyncio.Queue()
        followers: dict[str, asyncio.Task[None]] = {}
        try:
            while not self._ended():
                for peer in sorted(self._transport.peers() - followers.keys()):
                    followers[peer] = asyncio.create_task(self._follow(peer, seen))
                try:
                    async with asyncio.timeout(RETRY):  # 3.11's wait_for may swallow a Ctrl-C
                        status = await seen.get()
                except TimeoutError:
                    continue
                if status is not None:
                    yield status
        finally:
            for follower in followers.values():
                follower.cancel()
            await asyncio.gather(*followers.values(), return_exceptions=True)

    async def refresh(self) -> list[NodeStatus]:
        """Ask every connected node once how the task stands; learn the votes they hold."""
        peers = sorted(self._transport.peers())
        found = await asyncio.gather(*(self.poll(peer) for peer in peers))
        return [status for status in found if status is not None]

    async def poll(self, peer: str) -> NodeStatus | None:
        """Learn what a node holds of the task; return None if it does not say."""
        try:
            answer = await send_request(self._transport, peer, "task", {"task": self._id})
        except (RequestRefused, ProtocolViolation, ConnectionError) as error:
            log.debug("not asked", peer=peer, error=str(error))
            if isinstance(error, RequestRefused) and error.reason == Rejection.UNKNOWN_TASK:
                self._unaware_peers.add(peer)
            return None
        for envelope in answer["envelopes"]:
            self._learn(peer, envelope)
        if answer["certificate"] is not None:
            self._learn_certificate(peer, answer["certificate"])
        self._said[peer] = State(answer["state"])
        return NodeStatus(peer, State(answer["state"]), answer["attempt"], 0.0)

    def count_certified(self) -> None:
        """Count the votes of all certificates seen, which nodes may have shown only there."""
        for found in list(self._certificates.values()):
            for vote in found.votes:
                self._learn("", vote.envelope.document())

    @property
    def settled(self) -> Certificate | None:
        """The certificate that was seen first, if any was."""
        return next(iter(self._certificates.values()), None)

    @property
    def certificates(self) -> tuple[Certificate, ...]:
        """All valid certificates seen, with different outcomes: more than one is a conflict."""
        return tuple(self._certificates.values())

    def _ended(self) -> bool:
        return bool(self._certificates) or self._verdict() is not None

    def _verdict(self) -> State | None:
        """Return how the task ended without a certificate, or None if that is not certain."""
        task = self.task
        waited = self._clock.now() - self._since
        if (
            task is None
            and waited > UNKNOWN_TASK_SECONDS
            and self._transport.peers() <= self._unaware_peers
        ):
            raise UnknownTask(f"no connected node knows the task {self._id}")
        if task is not None and self._clock.now() > task.expires_at + LATE_VOTE_SECONDS:
            return State.EXPIRED
        said = {peer: self._said.get(peer) for peer in self._transport.peers()}
        if not said or not all(state is not None and state.terminal for state in said.values()):
            return None
        failed = [s for s in said.values() if s is not None and not s.certified]
        return failed[0] if len(failed) == len(said) else None

    async def _follow(self, peer: str, seen: "asyncio.Queue[NodeStatus | None]") -> None:
        """Pass on one node's frames, and fetch its votes whenever its state changes."""
        pause = RETRY
        while True:
            busy = False
            try:
                async with open_request(
                    self._transport, peer, "watch", {"task": self._id}
                ) as stream:
                    await read_status(stream)
                    while True:
                        frame = await read_document(stream, "watch-frame", 4096)
                        status = _node_status(peer, frame)
                        if self._said.get(peer) is not status.state:
                            await self.poll(peer)
                        seen.put_nowait(status)
                        if status.state.terminal:
                            busy = self._said.get(peer) is not status.state  # too busy to show it
                            break
            except (RequestRefused, ProtocolViolation, ConnectionError) as error:
                log.debug("not watched", peer=peer, error=str(error))
                busy = isinstance(error, RequestRefused) and error.status is Status.BUSY
            await asyncio.sleep(pause)
            said = self._said.get(peer)
            patient = busy or (said is not None and said.terminal)
            pause = min(2 * pause, LONGEST_PAUSE) if patient else RETRY
            await self.poll(peer)
            seen.put_nowait(None)

    def _learn(self, peer: str, document: Json) -> None:
        try:
            message = codec.decode_document(document, self._network.id)
            if isinstance(message, Task):
                if message.id == self._id:
                    self._observe(message)
            elif self._observer is not None and message.task == self._id:
                for effect in self._observer.receive(message, self._clock.now()):
                    if isinstance(effect, Certified):
                        self._keep(effect.certificate)
        except Rejected as rejected:
            log.warning("a node passed on what is not valid", peer=peer, reason=str(rejected))

    def _learn_certificate(self, peer: str, document: Json) -> None:
        try:
            found = certificate.verify(document, self._network)
            if found.task.id != self._id:
                raise Rejected(Rejection.WRONG_TASK, "the certificate is of another task")
            self._observe(found.task)
            self._keep(found)
        except Rejected as rejected:
            log.warning("a node showed no valid certificate", peer=peer, reason=str(rejected))

    def _keep(self, found: Certificate) -> None:
        new = self._certificates.setdefault(found.votes[0].digest, found) is found
        if new and len(self._certificates) > 1:
            log.warning("conflict: two valid certificates", task=self._id)

    def _observe(self, task: Task) -> None:
        if self._observer is None:
            self._network.admit(task)
            now = self._clock.now()
            self._observer = Agreement(self._network, task, "", _no_salt, now)


def _no_salt(attempt: int) -> str:
    raise AssertionError("an observer commits to nothing")


def _node_status(peer: str, frame: Mapping[str, Any]) -> NodeStatus:
    return NodeStatus(peer, State(frame["state"]), frame["attempt"], frame["progress"])


def _vote_summaries(
    peer: str, attempt: int, votes: tuple[Reveal | None, Abstain | None]
) -> list[VoteSummary]:
    reveal, abstain = votes
    if reveal is not None:
        return [VoteSummary(peer, attempt, reveal.digest, None, *reveal.failure)]
    if abstain is not None:
        return [VoteSummary(peer, attempt, None, str(abstain.reason))]
    return []
