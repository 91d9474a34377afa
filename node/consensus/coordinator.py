"""Messages and ticks in, journal writes and actions out: one node's part in every task.

Synchronous and free of IO but for the store. Two rules: whatever this node signs stands in the
store before the action that sends it is returned; and whatever the store could not take, memory
does not keep either (the task is rebuilt from the journal when it is next needed).
"""

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from node.clock import Clock
from node.config.limits import Limits
from node.consensus.commands import Action, Notify, Publish, Run, Stop
from node.consensus.replay import replay, signed_messages
from node.errors import Busy
from node.storage.journal import Journal
from node.storage.ledger import Ledger
from node.transport.interface import ValidationResult
from protocol.consensus.agreement import Agreement
from protocol.consensus.certificate import Certificate
from protocol.consensus.committee import committees
from protocol.consensus.conduct import vote_outcomes
from protocol.consensus.effects import (
    Certified,
    Effect,
    EquivocationProven,
    Execute,
    SignAndSend,
    State,
    StateChanged,
    StopExecution,
)
from protocol.consensus.vote_set import VoteStatus
from protocol.constants import SALT_BYTES
from protocol.errors import Rejected, Rejection
from protocol.network import Network
from protocol.wire import codec, messages
from protocol.wire.encoding import Document
from protocol.wire.messages import Abstention, Task, Vote
from protocol.wire.signing import peer_of, sign

log = structlog.get_logger("coordinator")

RETRY_SECONDS = 1.0  # after a write that failed: long enough for a full disk to be noticed
_UNTIMELY = (Rejection.EXPIRED, Rejection.CREATED_AHEAD, Rejection.UNKNOWN_TASK)


@dataclass(frozen=True, slots=True)
class View:
    """How a task stands at this node, as `/helium/1/task` answers it."""

    state: State
    attempt: int
    envelopes: list[str]
    certificates: list[Document]


class Coordinator:
    """All tasks of one node. Used from one thread, but for `validate`."""

    def __init__(
        self,
        network: Network,
        key: Ed25519PrivateKey,
        journal: Journal,
        ledger: Ledger,
        clock: Clock,
        entropy: Callable[[int], bytes],
        max_open: int = Limits.max_open_tasks,
        counts: Counter[str] | None = None,
    ) -> None:
        """`entropy(n)` gives n fresh secret bytes; `max_open` bounds the tasks not over yet.

        `counts` is told how many tasks were refused for that.
        """
        self.network, self.me = network, peer_of(key)
        self._key, self._journal, self._ledger = key, journal, ledger
        self.clock, self._entropy = clock, entropy
        self._max_open = max_open
        self._counts: Counter[str] = Counter() if counts is None else counts
        self._agreements: dict[str, Agreement] = {}
        self._sources: dict[str, str] = {}  # of tasks held in memory, where they are known
        self._expiries: dict[str, float] = {}  # of every accepted task, until it has passed
        self._lost: dict[str, float] = {}  # tasks to be rebuilt from the journal, and when

    # What the daemon calls

    def open(self) -> list[Action]:
        """Rebuild the tasks that had not ended when the node stopped; send again what it signed."""
        actions: list[Action] = []
        for task in self._journal.open_tasks():
            actions += [
                Publish(m) for m in signed_messages(self.network, self.me, self._journal, task)
            ]
            actions += self._reload(task)[1]
        return actions

    def examine(self, payload: bytes, source: str = "") -> Task:
        """Return the task that a requester wants to submit, if it would be taken.

        Before its inputs are. Raises Rejected or Busy.
        """
        message = codec.decode(payload, self.network.id)
        if not isinstance(message, Task):
            raise Rejected(Rejection.INVALID_FIELD, "task.body.type: is not a task")
        if self._journal.state(message.id) is None:
            self._admit(message, source)
        return message

    def submit(self, payload: bytes, source: str = "") -> tuple[Task, list[Action]]:
        """Take a task from a requester; a known one is answered alike. Raises Rejected or Busy.

        `source` is who is charged for it; half of the places for open tasks are one stranger's at
        most. "" is for what nobody is charged for.
        """
        message = self.examine(payload, source)
        taken = self._accept(message, source)
        return message, [Publish(message), *taken] if taken else []

    def receive(self, payload: bytes, source: str = "") -> list[Action]:
        """Take an envelope from a peer, by gossip or feed. Raises Rejected or Busy."""
        message = codec.decode(payload, self.network.id)
        if isinstance(message, Task):
            return self._accept(message, source)
        return self._take(message)

    def certified(self, found: Certificate) -> list[Action]:
        """Take the votes of a certificate of an accepted task that a peer showed.

        Of a member that contradicts itself, only some votes are kept; a certificate may rest on one
        that was not (correction 6h). Where two outcomes are certified already, more say nothing.
        """
        outcomes = self._ledger.certified_outcomes(found.task.id)
        if len(outcomes) > 1 or found.votes[0].digest in outcomes:
            return []
        agreement, actions = self._known(found.task.id)
        now = self._now()
        with self._changing(agreement):
            actions += self._apply(agreement, agreement.advance(now))
            for vote in found.votes:
                status = agreement.judge(vote, keep_conflicting=True)
                actions += self._keep(agreement, vote, status, now)
        return actions

    def executed(self, task: str, outcome: Document, trace: Document) -> list[Action]:
        """This node's execution of a task gave an outcome; one that no reveal can hold is none."""
        agreement, actions = self._known(task)
        if unfit := self._unfit(agreement.task, outcome, trace):
            log.error("outcome fits no reveal", task=task, reason=unfit)
            return actions + self.failed(task, Abstention.WORKER_DIED)
        with self._changing(agreement):
            self._journal.put_outcome(task, outcome, trace, self._now())
            effects = agreement.executed(outcome, trace, self._now())
            return actions + self._apply(agreement, effects)

    def _unfit(self, task: Task, outcome: Document, trace: Document) -> str:
        """Return why no reveal could hold an outcome, "" if one can.

        Asked before it is journalled: later, neither this node nor its next life could go on.
        """
        commits = dict.fromkeys(committees(self.network, task)[-1], "0" * 64)
        body = messages.reveal_body(self.network.id, task.id, 0, outcome, "0" * 64, commits, trace)
        try:
            codec.decode(sign(body, self._key).encode(), self.network.id)
        except Rejected as rejected:
            return str(rejected)
        return ""

    def failed(self, task: str, reason: Abstention) -> list[Action]:
        """This node's execution of a task gave no outcome."""
        agreement, actions = self._known(task)
        with self._changing(agreement):
            return actions + self._apply(agreement, agreement.failed(reason, self._now()))

    def tick(self) -> list[Action]:
        """Do what has become due."""
        actions: list[Action] = []
        for task in self._due(self._now()):
            try:
                actions += self._advance(task)
            except sqlite3.Error as error:  # the other tasks go on; this one is tried again soon
                self._lost[task] = self._now() + RETRY_SECONDS
                log.error("the store failed", task=task, error=str(error))
        return actions

    def wake_at(self) -> float | None:
        """Return when `tick` is to be called next, in Unix seconds."""
        due = (at for a in self._agreements.values() if (at := a.wake_at()) is not None)
        return min([*due, *self._lost.values()], default=None)

    def _due(self, now: float) -> list[str]:
        lost = [task for task, at in self._lost.items() if at <= now]
        times = [(task, a.wake_at()) for task, a in self._agreements.items()]
        return lost + [task for task, at in times if at is not None and at <= now]

    def _advance(self, task: str) -> list[Action]:
        if task in self._lost:
            return self._recover(task)
        agreement = self._agreements[task]
        with self._changing(agreement):
            return self._apply(agreement, agreement.advance(self._now()))

    def _recover(self, task: str) -> list[Action]:
        """Rebuild a task whose last step could not be written, unless the step was its first."""
        written = self._journal.state(task) is not None
        actions = self._reload(task)[1] if written and task not in self._agreements else []
        if not written:  # it may come again, and is to be judged as if it never had
            self._expiries.pop(task, None)
            self._sources.pop(task, None)
        del self._lost[task]
        return actions

    def view(self, task: str) -> View | None:
        """Return how a task stands here; None for one never accepted."""
        standing = self._journal.state(task)
        if standing is None:
            return None
        envelopes = [entry.envelope for entry in self._journal.entries(task)]
        return View(*standing, envelopes, self._ledger.certificates(task))

    def committee(self, task: Task) -> tuple[str, ...]:
        """Return the first attempt's committee."""
        return committees(self.network, task)[0]

    def validate(self, payload: bytes, *, tasks: bool) -> ValidationResult:
        """Say whether a gossip message is worth forwarding (specification 7).

        `tasks`: it came on the topic for tasks. Callable from any thread: reads, never writes.
        """
        try:
            message = codec.decode(payload, self.network.id)
            if isinstance(message, Task) is not tasks:
                return ValidationResult.REJECT
            return (
                self._validate_task(message)
                if isinstance(message, Task)
                else self._validate_vote(message)
            )
        except Rejected as rejected:
            return (
                ValidationResult.IGNORE if rejected.reason in _UNTIMELY else ValidationResult.REJECT
            )

    # Judging

    def _validate_task(self, task: Task) -> ValidationResult:
        if task.id in self._expiries:
            return ValidationResult.IGNORE
        self.network.admit(task)
        self.network.check_timely(task, self._now())
        if self._full():
            self._counts["tasks-refused"] += 1
            return ValidationResult.IGNORE
        return ValidationResult.ACCEPT

    def _validate_vote(self, vote: Vote) -> ValidationResult:
        agreement = self._agreements.get(vote.task)
        if agreement is None:  # early, or long past: the feed will bring it if it matters
            return ValidationResult.IGNORE
        known = agreement.judge(vote) is VoteStatus.DUPLICATE
        return ValidationResult.IGNORE if known else ValidationResult.ACCEPT

    def _full(self) -> bool:
        held = list(self._agreements.values())  # a copy: `validate` counts on another thread
        running = sum(not agreement.state.terminal for agreement in held)
        return running + len(self._lost) >= self._max_open  # what is lost comes back

    # Taking

    def _accept(self, task: Task, source: str) -> list[Action]:
        if self._journal.state(task.id) is not None:
            return []
        self._admit(task, source)
        now = self._now()
        agreement = Agreement(self.network, task, self.me, self._salts(task.id), now)
        self._remember(agreement)
        if source:
            self._sources[task.id] = source
        with self._changing(agreement):
            self._journal.append(task, now)
            actions = self._apply(agreement, agreement.start(now))
        log.info("task accepted", task=task.id, model=task.model)
        return actions

    def _admit(self, task: Task, source: str) -> None:
        self.network.admit(task)
        self.network.check_timely(task, self._now())
        if self._full():
            raise self._refused(f"{self._max_open} tasks are open here")
        if self._overdone(source):
            raise self._refused(f"half of {self._max_open} places for open tasks are taken by one")

    def _refused(self, why: str) -> Busy:
        self._counts["tasks-refused"] += 1
        return Busy(why)

    def _overdone(self, source: str) -> bool:
        """Return whether a stranger has its half of the places, so that one cannot take them all.

        Members pass on what many have asked for, and a network may have no other way to hear of it.
        """
        if not source or source in self.network.roster:
            return False
        brought = [task for task, who in self._sources.items() if who == source]
        return sum(self._open(task) for task in brought) >= max(1, self._max_open // 2)

    def _open(self, task: str) -> bool:
        agreement = self._agreements.get(task)
        return task in self._lost or (agreement is not None and not agreement.state.terminal)

    def _take(self, vote: Vote) -> list[Action]:
        if vote.task not in self._agreements and self._journal.contains(vote):
            return []  # nothing new, of a task that need not be rebuilt for it
        agreement, actions = self._known(vote.task)
        status = agreement.judge(vote)
        if status is VoteStatus.DUPLICATE:  # known before: no transaction, no write to disk
            return actions
        now = self._now()
        with self._changing(agreement):
            overdue = self._apply(agreement, agreement.advance(now))
            if overdue:  # this node may just have signed the same vote, or the opposite
                status = agreement.judge(vote)
            return actions + overdue + self._keep(agreement, vote, status, now)

    def _keep(  # inside the running transaction
        self, agreement: Agreement, vote: Vote, status: VoteStatus, now: float
    ) -> list[Action]:
        if status is VoteStatus.DUPLICATE:
            return []
        self._journal.append(vote, now)
        return self._apply(agreement, agreement.receive(vote, now, status))

    def _apply(self, agreement: Agreement, effects: Sequence[Effect]) -> list[Action]:
        """Write down what a machine asked for, inside the running transaction."""
        actions: list[Action] = []
        for effect in effects:
            match effect:
                case SignAndSend(body):
                    actions += self._sign(agreement, body)
                case Execute():
                    source = self._sources.get(agreement.task.id, "")
                    actions.append(Run(agreement.task, agreement.ends_at, source))
                case StopExecution():
                    actions.append(Stop(agreement.task.id))
                case _:
                    actions += self._record(agreement, effect)
        return actions

    def _record(self, agreement: Agreement, effect: Effect) -> list[Action]:
        task = agreement.task.id
        match effect:
            case StateChanged():
                self._journal.put_state(task, agreement.state, agreement.attempt)
                log.info("task", task=task, state=agreement.state, attempt=agreement.attempt)
            case Certified(found):
                self._ledger.put_certificate(found)
                conflict = len(agreement.certificates) > 1
                say = log.warning if conflict else log.info
                event = "conflict" if conflict else "certificate"
                say(event, task=task, signers=found.signers)
            case EquivocationProven(evidence):
                self._ledger.put_evidence(evidence)
                log.warning("equivocation", task=task, peer=evidence.signer)
        return [Notify(task)]

    def _sign(self, agreement: Agreement, body: Document) -> list[Action]:
        now = self._now()
        message = codec.decode(sign(body, self._key).encode(), self.network.id)
        assert not isinstance(message, Task)  # noqa: S101  # no machine sends tasks
        self._journal.append(message, now)
        return [Publish(message), *self._apply(agreement, agreement.receive(message, now))]

    # Remembering

    def _known(self, task: str) -> tuple[Agreement, list[Action]]:
        """Return a task's machine, and what was left to do if it had to be rebuilt for that."""
        found = self._agreements.get(task)
        if found is not None:
            return found, []
        if self._journal.state(task) is None:
            raise Rejected(Rejection.UNKNOWN_TASK, f"task: {task} is not known here")
        return self._reload(task)

    def _reload(self, task: str) -> tuple[Agreement, list[Action]]:
        agreement, unsent = replay(self.network, self.me, self._journal, task, self._salts(task))
        with self._changing(agreement):
            actions = self._apply(agreement, unsent)
            actions += self._apply(agreement, agreement.resume(self._now()))
        self._remember(agreement)
        return agreement, actions

    @contextmanager
    def _changing(self, agreement: Agreement) -> Iterator[None]:
        """One journal step. If it fails, memory forgets the task: the journal is the truth."""
        try:
            with self._journal.transaction():
                yield
                if agreement.state.terminal:
                    self._ledger.put_conduct(agreement.task.id, vote_outcomes(agreement))
        except BaseException:
            self._agreements.pop(agreement.task.id, None)
            self._lost[agreement.task.id] = self._now() + RETRY_SECONDS
            raise

    def _salts(self, task: str) -> Callable[[int], str]:
        """Give an attempt's salt: drawn and journalled at first, read from then on."""

        def salt(attempt: int) -> str:
            kept = self._journal.salt(task, attempt)
            if kept is not None:
                return kept
            fresh = self._entropy(SALT_BYTES).hex()
            self._journal.put_salt(task, attempt, fresh)
            return fresh

        return salt

    def _remember(self, agreement: Agreement) -> None:
        """Hold a task in memory, and drop the oldest that are over: the store still has them."""
        self._agreements[agreement.task.id] = agreement
        self._expiries[agreement.task.id] = agreement.task.expires_at
        now = self._now()
        for task, expiry in list(self._expiries.items()):
            if expiry < now and task not in self._agreements:
                del self._expiries[task]
        over = [a for a in self._agreements.values() if a.state.terminal and a.wake_at() is None]
        passed = [a for a in over if a.task.expires_at < now]
        for old in passed or over[: max(0, len(over) - self._max_open)]:
            if old is not agreement:
                del self._agreements[old.task.id]
                self._sources.pop(old.task.id, None)

    def _now(self) -> float:
        return self.clock.now()
