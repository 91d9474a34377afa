"""Client-side view of one task: polls all connected nodes and trusts only signatures.

The tracker feeds every vote that a node shows into an `Agreement` of its own, which derives the
result (specification 6.10). What a node states without a signature is shown, but it ends nothing.
Nor does a node that says nothing prolong anything.

    what the tracker has                                the task has ended as
    a valid certificate                                 agreed or agreed-error
    votes that leave no outcome possible in the last
      attempt, which has begun or never will            inconclusive
    neither, LATE_VOTE_SECONDS after the deadline       expired
"""

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from node.admission.lru_dict import LruDict
from node.admission.peer_score import PeerAction
from node.clock import Clock
from node.log import get_logger
from node.rpc.client import RequestRefused, open_request, read_status, send_request
from node.rpc.codec import ProtocolViolation, Status, read_document
from node.sync.first_answers import first_answers
from node.transport.interface import Transport
from protocol.consensus import certificate
from protocol.consensus.agreement import Agreement
from protocol.consensus.certificate import Certificate
from protocol.consensus.effects import Certified, State
from protocol.consensus.vote_set import VoteSet
from protocol.errors import Rejected, Rejection
from protocol.network import Network
from protocol.wire import codec
from protocol.wire.encoding import Json, canonical
from protocol.wire.messages import Abstain, Message, Reveal, Task, Withdraw
from schemas.errors import HeliumError

log = get_logger("task_tracker")

# Seconds before the next request to a node that does not know the task yet, or disconnected.
RETRY_SECONDS = 0.3
# The longest pause in seconds between requests to a node that is busy or has ended the task.
MAX_BACKOFF = 5.0
# A new task may still be on its way to nodes that answer "unknown-task" for this long.
UNKNOWN_TASK_SECONDS = 5.0
# A node that has not shown the task by then holds up nothing: it is slow, or does not know it.
SILENT_NODE_SECONDS = 15.0
# Invalid envelopes after which the rest of an answer is left: each costs a signature check.
MAX_INVALID = 8
# The last votes may arrive for this long after the deadline.
LATE_VOTE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """What one node reports of the task: its state, and the progress of its execution (0 to 1)."""

    peer: str
    state: State
    attempt: int
    progress: float


@dataclass(frozen=True, slots=True)
class VoteSummary:
    """The vote of one committee member in one attempt.

    Either `outcome` is the digest of an outcome, or `abstained` the reason of an abstention. If the
    outcome is an error, `error` is its code and `detail` the member's description.
    """

    peer: str
    attempt: int
    outcome: str | None
    abstained: str | None
    error: str | None = None
    detail: str | None = None


class NoAgreement(HeliumError):
    """The task ended without a certificate. `votes` are those that the nodes have shown."""

    def __init__(self, state: State, votes: tuple[VoteSummary, ...], reason: str = "") -> None:
        super().__init__(f"no agreement: {state}{': ' if reason else ''}{reason}")
        self.state, self.votes = state, votes


class UnknownTask(HeliumError):
    """No connected node has shown the task."""


class TaskTracker:
    """Follows one task through all connected nodes. Each vote and certificate is verified once."""

    def __init__(
        self, network: Network, transport: Transport, clock: Clock, task_id: str, task: Task | None
    ) -> None:
        """`task` is given if the caller has it already."""
        self._network, self._transport, self._clock = network, transport, clock
        self._id = task_id
        self._observer: Agreement | None = None
        # The last state that each node has shown together with its votes.
        self._states: dict[str, State] = {}
        # Nodes that answered "unknown-task".
        self._unaware_peers: set[str] = set()
        # Nodes that say how the task ended and show nothing of it any more.
        self._dropping_peers: set[str] = set()
        # Nodes that have shown the requester's withdrawal.
        self._withdrawal_peers: set[str] = set()
        self._started = clock.now()
        # By outcome digest.
        self._certificates: dict[str, Certificate] = {}
        # Nodes show the same envelopes and certificates at each poll, and verifying signatures is
        # what a poll costs. Keys are hashes; an invalid envelope has no message.
        self._messages: LruDict[bytes, Message | None] = LruDict()
        self._seen_certificates: LruDict[bytes, None] = LruDict()
        if task is not None:
            self._observe(task)

    @property
    def task(self) -> Task | None:
        """The task, or None until a node has shown it."""
        return None if self._observer is None else self._observer.task

    @property
    def vote_sets(self) -> tuple[VoteSet, ...]:
        """The votes of each attempt that the nodes have shown."""
        return () if self._observer is None else self._observer.vote_sets

    @property
    def committee(self) -> tuple[str, ...]:
        """The committee of the last attempt, which is the largest; empty without the task."""
        return () if self._observer is None else tuple(self._observer.vote_sets[-1].committee)

    @property
    def votes(self) -> tuple[VoteSummary, ...]:
        """The votes shown so far, by attempt and in the order of the committee."""
        return tuple(
            vote
            for attempt, vote_set in enumerate(self.vote_sets)
            for peer in vote_set.committee
            for vote in _vote_summaries(peer, attempt, vote_set.votes_of(peer))
        )

    @property
    def withdrawal_peers(self) -> frozenset[str]:
        """The nodes that have shown the requester's withdrawal of the task."""
        return frozenset(self._withdrawal_peers)

    @property
    def answering_peers(self) -> frozenset[str]:
        """The nodes that have answered about the task."""
        return frozenset(self._states)

    @property
    def dropping_peers(self) -> frozenset[str]:
        """The nodes that have dropped the task's votes; they may show its certificate."""
        return frozenset(self._dropping_peers)

    @property
    def has_only_certified_votes(self) -> bool:
        """Whether all nodes that answered have dropped the votes."""
        return bool(self._states) and self._states.keys() <= self._dropping_peers

    async def certificate(self) -> Certificate:
        """Wait for the task's certificate.

        Raises NoAgreement if the task ends without one, UnknownTask if no node knows it.
        """
        async for _ in self.watch():
            pass
        if self.settled is None:
            state = self._failed_state() or State.EXPIRED
            raise NoAgreement(state, self.votes, self._failure_reason())
        return self.settled

    async def watch(self) -> AsyncIterator[NodeStatus]:
        """Yield the nodes' reports as they change, until the task has ended."""
        reports: asyncio.Queue[NodeStatus | None] = asyncio.Queue()
        followers: dict[str, asyncio.Task[None]] = {}
        try:
            while not self._ended():
                for peer in sorted(self._transport.peers() - followers.keys()):
                    followers[peer] = asyncio.create_task(self._follow(peer, reports))
                try:
                    # Not wait_for: in Python 3.11 it may swallow the cancellation of Ctrl-C.
                    async with asyncio.timeout(RETRY_SECONDS):
                        status = await reports.get()
                except TimeoutError:
                    continue
                if status is not None:
                    yield status
        finally:
            for follower in followers.values():
                follower.cancel()
            await asyncio.gather(*followers.values(), return_exceptions=True)

    async def refresh(self, timeout: float | None = None) -> list[NodeStatus]:
        """Poll every connected node once. Returns the statuses of those that answered in time.

        If none has answered after `timeout` seconds, none is waited for.
        """
        polls = (self.poll(peer) for peer in sorted(self._transport.peers()))
        return await first_answers(polls, timeout=timeout)

    async def find(self) -> Task:
        """Poll the nodes until one has shown the task. Raises UnknownTask as `watch` does."""
        while (task := self.task) is None:
            self._check_known()
            # A request to a silent node takes longer than the node may hold up.
            end = self._started + SILENT_NODE_SECONDS
            await self.refresh(max(0.0, end - self._clock.now()))
            if self.task is None:
                await asyncio.sleep(RETRY_SECONDS)
        return task

    async def poll(self, peer: str) -> NodeStatus | None:
        """Request a node's votes and certificate of the task. Returns None if it fails."""
        try:
            answer = await send_request(self._transport, peer, "task", {"task": self._id})
        except (RequestRefused, ProtocolViolation, ConnectionError) as error:
            log.debug("task request failed", peer=peer, error=str(error))
            if isinstance(error, RequestRefused) and error.reason == Rejection.UNKNOWN_TASK:
                self._unaware_peers.add(peer)
            return None
        await self._add_envelopes(peer, answer["envelopes"])
        if answer["certificate"] is not None:
            self._add_certificate(peer, answer["certificate"])
        self._states[peer] = State(answer["state"])
        if self._states[peer].terminal and not answer["envelopes"]:
            self._dropping_peers.add(peer)
        else:
            self._dropping_peers.discard(peer)
        return NodeStatus(peer, self._states[peer], answer["attempt"], 0.0)

    def count_certified(self) -> None:
        """Add the votes of all certificates, which the nodes may not have shown otherwise."""
        for certified in self.certificates:
            for vote in certified.votes:
                self._add_envelope("", vote.envelope.document())

    @property
    def settled(self) -> Certificate | None:
        """The first certificate that a node has shown or that the votes gave, if any."""
        return next(iter(self._certificates.values()), None)

    @property
    def certificates(self) -> tuple[Certificate, ...]:
        """All valid certificates with different outcomes. More than one is a conflict."""
        return tuple(self._certificates.values())

    def _ended(self) -> bool:
        return bool(self._certificates) or self._failed_state() is not None

    def _failed_state(self) -> State | None:
        """Return the state in which the task ended without a certificate, or None.

        Raises UnknownTask if no node has shown the task in time.
        """
        self._check_known()
        if self._observer is None:
            return None
        now = self._clock.now()
        self._observer.advance(now)
        is_late = now > self._observer.task.expires_at + LATE_VOTE_SECONDS
        # Before the deadline, an earlier attempt may still give a certificate: members of the last
        # one may have signed abstentions for it long before it begins. The observer knows that.
        if self._observer.state is State.INCONCLUSIVE:
            return State.INCONCLUSIVE
        if is_late and not self.vote_sets[-1].can_reach_quorum():
            return State.INCONCLUSIVE
        return State.EXPIRED if is_late else None

    def _failure_reason(self) -> str:
        """Return why there is no certificate: whether the time was over, and who voted how."""
        if self._observer is None:
            return ""
        attempts = {vote.attempt for vote in self.votes}
        last = max(attempts, default=0)
        votes = [vote for vote in self.votes if vote.attempt == last]
        size = len(tuple(self.vote_sets[last].committee))
        reason = f"in attempt {last}, {_describe_votes(votes, size)}"
        if self._clock.now() >= self._observer.task.expires_at:
            reason = f"the deadline passed; {reason}; ask for less, or give it a longer deadline"
        return reason

    def _check_known(self) -> None:
        """Raise UnknownTask if no node has shown the task in time."""
        waited = self._clock.now() - self._started
        denied = self._transport.peers() <= self._unaware_peers | self._dropping_peers
        if self.task is None and waited > (UNKNOWN_TASK_SECONDS if denied else SILENT_NODE_SECONDS):
            raise self.unknown()

    def unknown(self) -> UnknownTask:
        """Return the error for a task that no node has shown."""
        if not self._dropping_peers:
            return UnknownTask(f"no connected node knows the task {self._id}")
        states = sorted({str(self._states[peer]) for peer in self._dropping_peers})
        return UnknownTask(
            f"no connected node shows the task {self._id} any more: it ended long ago, without a"
            f" certificate, and {len(self._dropping_peers)} nodes that report {' or '.join(states)}"
            " have dropped its votes"
        )

    async def _follow(self, peer: str, reports: "asyncio.Queue[NodeStatus | None]") -> None:
        """Forward one node's reports, and poll it whenever its state changes. Never returns.

        None in the queue means that the node was polled, which may have ended the task.
        """
        pause = RETRY_SECONDS
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
                        if self._states.get(peer) is not status.state:
                            await self.poll(peer)
                        reports.put_nowait(status)
                        if status.state.terminal:
                            # It may be too busy to answer the poll.
                            busy = self._states.get(peer) is not status.state
                            break
            except (RequestRefused, ProtocolViolation, ConnectionError) as error:
                log.debug("watch request failed", peer=peer, error=str(error))
                busy = isinstance(error, RequestRefused) and error.status is Status.BUSY
            await asyncio.sleep(pause)
            state = self._states.get(peer)
            back_off = busy or (state is not None and state.terminal)
            pause = min(2 * pause, MAX_BACKOFF) if back_off else RETRY_SECONDS
            await self.poll(peer)
            reports.put_nowait(None)

    async def _add_envelopes(self, peer: str, documents: Sequence[Json]) -> None:
        invalid = 0
        for document in documents:
            # Each costs a signature check, and a node may show thousands.
            await asyncio.sleep(0)
            invalid += not self._add_envelope(peer, document)
            if invalid == MAX_INVALID:
                break
        if invalid:  # no honest node shows one
            self._transport.report(peer, PeerAction.PROTOCOL_VIOLATION)
            log.warning("invalid envelopes from node", peer=peer, task=self._id, count=invalid)

    def _add_envelope(self, peer: str, document: Json) -> bool:
        """Add a task or a vote that a node has shown; return whether an honest node may show it."""
        if not self._may_be_of_this_task(document):
            return False
        if self._observer is None and _type_of(document) != "task":
            return True  # to be verified when it is shown with its task
        message = self._decode(peer, document)
        if message is None:
            return False
        try:
            if isinstance(message, Task):
                if message.id != self._id:
                    return False
                self._observe(message)
            elif isinstance(message, Withdraw):
                self._add_withdrawal(peer, message)
            elif self._observer is not None:
                for effect in self._observer.receive(message, self._clock.now()):
                    if isinstance(effect, Certified):
                        self._keep(effect.certificate)
        except Rejected as rejected:
            log.debug("envelope rejected", peer=peer, reason=str(rejected))
            return False
        return True

    def _may_be_of_this_task(self, document: Json) -> bool:
        """Return False for what no node can have accepted, before its signature is checked.

        Anybody can sign any number of envelopes. Only those of the committee are votes of the task,
        and only its requester withdraws it.
        """
        kind = _type_of(document)
        if kind == "task" or not isinstance(document, dict):
            return True
        body = document.get("body")
        if not isinstance(body, dict) or body.get("task") != self._id:
            return False
        if self._observer is None:
            return True
        if kind == "withdraw":
            return document.get("signer") == self._observer.task.requester
        return document.get("signer") in self._observer.vote_sets[-1].committee

    def _add_withdrawal(self, peer: str, withdrawal: Withdraw) -> None:
        if withdrawal.task == self._id and self._observer is not None:
            self._observer.judge_withdrawal(withdrawal)
            self._withdrawal_peers.add(peer)

    def _decode(self, peer: str, document: Json) -> Message | None:
        """Return the message of an envelope, None if it is invalid. Verifies each envelope once."""
        digest = _digest(document)
        if digest not in self._messages:
            try:
                self._messages[digest] = codec.decode_document(document, self._network.id)
            except Rejected as rejected:
                log.debug("invalid envelope from node", peer=peer, reason=str(rejected))
                self._messages[digest] = None
        return self._messages[digest]

    def _add_certificate(self, peer: str, document: Json) -> None:
        """Add a certificate that a node has shown. Verifies each certificate once."""
        digest = _digest(document)
        if digest in self._seen_certificates:
            return
        self._seen_certificates[digest] = None
        try:
            verified = certificate.verify(document, self._network)
            if verified.task.id != self._id:
                raise Rejected(Rejection.WRONG_TASK, "the certificate is of another task")
            self._observe(verified.task)
            self._keep(verified)
        except Rejected as rejected:
            log.warning("invalid certificate from node", peer=peer, reason=str(rejected))

    def _keep(self, certified: Certificate) -> None:
        is_new = self._certificates.setdefault(certified.votes[0].digest, certified) is certified
        if is_new and len(self._certificates) > 1:
            log.warning("conflict: two valid certificates", task=self._id)

    def _observe(self, task: Task) -> None:
        if self._observer is None:
            self._network.admit(task)
            # Members accept a task when it is made, or soon after. One that is followed later has
            # been through its first attempts already.
            accepted = min(self._clock.now(), task.created / 1000)
            self._observer = Agreement(self._network, task, "", _no_salt, accepted)
            self._observer.start(accepted)


def _describe_votes(votes: Sequence[VoteSummary], size: int) -> str:
    """Return what the members of a committee of `size` did, in words."""
    outcomes = Counter(vote.outcome for vote in votes if vote.outcome is not None)
    abstentions = Counter(vote.abstained for vote in votes if vote.abstained is not None)
    reasons = ", ".join(f"{reason} {count}" for reason, count in abstentions.items())
    silent = size - len({vote.peer for vote in votes})
    kinds = "one outcome" if len(outcomes) == 1 else f"{len(outcomes)} different outcomes"
    parts = [
        *([f"{outcomes.total()} voted for {kinds}"] if outcomes else []),
        *([f"{abstentions.total()} abstained ({reasons})"] if abstentions else []),
        *([f"{silent} did not vote"] if silent else []),
    ]
    return f"of {size} members {', '.join(parts)}"


def _no_salt(attempt: int) -> str:
    raise AssertionError("an observer does not commit")


def _type_of(document: Json) -> Json:
    body = document.get("body") if isinstance(document, dict) else None
    return body.get("type") if isinstance(body, dict) else None


def _digest(document: Json) -> bytes:
    return hashlib.sha256(canonical(document)).digest()


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
