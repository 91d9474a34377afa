"""The rules of one node's part in every task: messages and time in, journalled effects out.

Synchronous; the database is its only IO. Two rules hold for every call:

1. Whatever this node signs is in the journal before the effect that publishes it is returned.
2. What the journal could not take is not kept in memory either: the task is rebuilt from the
   journal when it is needed next.

All calls come from the asyncio loop. The gossip validator reads the agreements on the transport's
thread: they are changed under `TaskTable.lock` only.
"""

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, TypeAlias

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from node.clock import Clock
from node.config.limits import Limits
from node.consensus.replay import is_due, replay, signed_messages
from node.consensus.task_table import TaskTable
from node.consensus.validator import GossipValidator
from node.errors import Busy
from node.log import get_logger
from node.storage.journal import Journal
from node.storage.ledger import Ledger
from protocol.consensus.agreement import Agreement
from protocol.consensus.certificate import Certificate
from protocol.consensus.committee import committees
from protocol.consensus.conduct import task_conduct
from protocol.consensus.effects import (
    Certified,
    Effect,
    MisconductProven,
    Publish,
    SignAndSend,
    State,
    StateChanged,
)
from protocol.consensus.vote_set import VoteStatus
from protocol.constants import SALT_BYTES, SIGNING_SECONDS
from protocol.errors import Rejected, Rejection
from protocol.network import Network
from protocol.wire import codec, messages
from protocol.wire.encoding import Document, canonical
from protocol.wire.messages import Abstention, Message, Task, Vote, Withdraw
from protocol.wire.signing import peer_of, sign

log = get_logger("coordinator")

# A call of the coordinator. The journal holds the effects that it returns.
Step: TypeAlias = Callable[[], Sequence[Effect]]

# Wait after a failed write before a task is rebuilt. Long enough for an operator to see a full
# disk in the log, short against the 2 s in which commits are collected.
RETRY_SECONDS = 1.0
# Random bytes in the new name of the feed of a journal that lost its end.
FEED_SUFFIX_BYTES = 8


class Voting(Enum):
    """Whether this node signs votes (specification 6.12); `node.sync.vote_recovery` decides."""

    ALLOWED = auto()
    HELD = auto()  # only on tasks that this process is the first to see
    STOPPED = auto()  # for good: this node's key signs elsewhere


@dataclass(frozen=True, slots=True)
class TaskView:
    """How a task stands at this node, as `/helium/2/task` answers it."""

    state: State
    attempt: int
    envelopes: list[str]
    certificates: list[Document]


class Coordinator:
    """All tasks of one node."""

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
        """`entropy(n)` returns n fresh secret bytes; `max_open` bounds the open tasks.

        `counts["tasks-refused"]` counts the tasks that were refused for that.
        """
        self.network, self.me = network, peer_of(key)
        self._key, self._journal, self._ledger = key, journal, ledger
        self.clock, self._entropy = clock, entropy
        self._counts: Counter[str] = Counter() if counts is None else counts
        self.voting = Voting.ALLOWED
        self._unsigned: dict[str, None] = {}  # tasks with a vote that is held, in their order
        self._is_restored = False  # whether the journal lacked votes of this node
        # No task that was created later was accepted by an earlier process (specification 4.2).
        self.new_from = clock.now() + network.parameters.clock_skew_seconds
        self._tasks = TaskTable(max_open, network.roster)
        self._batched: list[str] | None = None  # the tasks of the steps in the running batch
        self._retry_at = 0.0  # when to try a journal again that could not be written
        self.validator = GossipValidator(network, self._tasks, clock, self._counts)
        journal.on_accepted.append(self.validator.note_accepted)

    # Start

    def open(self) -> list[Effect]:
        """Rebuild the tasks that were open when the node stopped; publish again what it signed.

        Also those that ended before this node revealed: it still owes the reveal (6.3), and others
        would take it for withheld.
        """
        effects: list[Effect] = []
        since = self.clock.now() - self.network.parameters.max_deadline_seconds
        unrevealed = self._journal.unrevealed_tasks(self.me, since)
        for task in [*self._journal.open_tasks(), *unrevealed]:
            # The node may have stopped after it journalled a message and before it sent it.
            signed = signed_messages(self.network, self.me, self._journal, task)
            effects += [Publish(message) for message in signed]
            effects += self._rebuild(task)[1]
        return effects

    # Whether to vote

    def hold_votes(self) -> None:
        """Sign no vote on a task that an earlier process may have seen, until `allow_votes`.

        Executions go on.
        """
        self.voting = Voting.HELD

    def allow_votes(self) -> list[Effect]:
        """Sign the votes that were held, soon: their tasks are rebuilt from the journal."""
        if self.voting is Voting.HELD:
            self.voting = Voting.ALLOWED
            for task in self._unsigned:
                self._tasks.lose(task, self.clock.now())
            self._unsigned.clear()
        return []

    def stop_votes(self) -> None:
        """Sign no vote any more."""
        if self.voting is not Voting.STOPPED:
            self.voting = Voting.STOPPED
            log.critical(
                "another process signs with this node's key: this node stops voting. Stop the other"
                " one, then restart this node"
            )

    def _is_new(self, task: Task) -> bool:
        """Whether no earlier process of this node can have accepted a task."""
        return task.created / 1000 > self.new_from

    def _may_sign(self, task: Task) -> bool:
        # Peers may have dropped what this node signed, and its own records may be older.
        if self.clock.now() > task.expires_at + SIGNING_SECONDS:
            return False
        is_held = self.voting is Voting.HELD and not self._is_new(task)
        return self.voting is not Voting.STOPPED and not is_held

    def _note_own(self, agreement: Agreement, vote: Vote) -> None:
        """Take note of a vote with this node's key that came from a peer."""
        if self._is_new(agreement.task):
            self.stop_votes()
            return
        if not self._is_restored:
            self._is_restored = True
            self._journal.rename_feed(self._entropy(FEED_SUFFIX_BYTES).hex())
        log.warning(
            "own vote recovered from a peer: the journal had lost it",
            task=vote.task,
            type=vote.envelope.body["type"],
            attempt=vote.attempt,
        )

    # Tasks and votes

    def admit(self, task: Task, source: str = "") -> None:
        """Raise Rejected or Busy unless a task would be accepted now; a known one always is."""
        if self._journal.state(task.id) is None:
            self.network.admit(task)
            if self._journal.fault is not None:  # other nodes can execute it
                raise self._refused(self._journal.fault)
            self._check_capacity(task, source)

    def submit(self, task: Task, source: str = "") -> list[Effect]:
        """Accept a task from a requester, after `admit`; a known task changes nothing.

        `source` is charged for it (`node.transport.interface`), "" if nobody is. Raises Rejected
        or Busy for what may have changed since `admit`: the time, and the number of open tasks.
        """
        if self._journal.state(task.id) is not None:
            return []
        return [Publish(task), *self._accept(task, source)]

    def receive(self, message: Message, source: str = "") -> list[Effect]:
        """Take a message of a peer, by gossip or feed. Raises Rejected or Busy."""
        if isinstance(message, Withdraw):
            return self.withdraw(message)
        if not isinstance(message, Task):
            return self._receive_vote(message)
        if self._journal.state(message.id) is not None:
            return []
        self.network.admit(message)
        return self._accept(message, source)

    def withdraw(self, withdrawal: Withdraw) -> list[Effect]:
        """Take a withdrawal of an accepted task. Raises Rejected."""
        # As for votes: the old withdrawals of a feed must not rebuild tasks that ended long ago.
        if self._tasks.get(withdrawal.task) is None and self._journal.contains(withdrawal):
            return []
        agreement, effects = self._load(withdrawal.task)
        if not agreement.judge_withdrawal(withdrawal):
            return effects
        now = self.clock.now()
        with self._transaction(agreement):
            self._journal.append(withdrawal, now)
            with self._tasks.lock:
                withdrawn = agreement.withdraw(now)
            log.info("task withdrawn", task=withdrawal.task)
            return effects + self._record(agreement, withdrawn)

    def receive_certificate(self, certificate: Certificate) -> list[Effect]:
        """Take the votes of a certificate that a peer showed for an accepted task.

        Of a member that contradicts itself only some votes are kept, and a certificate may rest on
        another one (6.4). After two certified outcomes, a further one proves nothing new.
        """
        task = certificate.task.id
        outcomes = self._ledger.certified_outcomes(task)
        if len(outcomes) > 1 or certificate.votes[0].digest in outcomes:
            return []
        if self._was_dropped(task):  # a certificate needs no other votes
            with self._journal.transaction():
                self._ledger.put_certificate(certificate)
            log.warning("certificate of a dropped task", task=task, signers=certificate.signers)
            return []
        agreement, effects = self._load(task)
        now = self.clock.now()
        with self._transaction(agreement):
            effects += self._advance(agreement, now)
            for vote in certificate.votes:
                status = agreement.judge(vote, keep_conflicting=True)
                effects += self._keep(agreement, vote, status, now)
        return effects

    def _check_capacity(self, task: Task, source: str) -> None:
        self.network.check_timely(task, int(self.clock.now() * 1000))
        if self._tasks.is_full():
            raise self._refused(f"{self._tasks.max_open} tasks are open here")
        if self._tasks.has_full_share(source):
            raise self._refused(f"one source holds half of {self._tasks.max_open} open tasks")

    def _refused(self, why: str) -> Busy:
        self._counts["tasks-refused"] += 1
        return Busy(why)

    def _accept(self, task: Task, source: str) -> list[Effect]:
        self._check_capacity(task, source)
        now = self.clock.now()
        agreement = Agreement(self.network, task, self.me, self._salts(task.id), now)
        suspects = self._ledger.suspects(agreement.vote_sets[-1].committee, now)
        agreement.suspect(suspects)
        # If the write fails, `_transaction` takes it out of the table again.
        self._tasks.add(agreement, now, source)
        with self._transaction(agreement):
            self._journal.append(task, now)
            self._journal.put_suspects(task.id, suspects)
            with self._tasks.lock:
                started = agreement.start(now)
            effects = self._record(agreement, started)
        log.info("task accepted", task=task.id, model=task.model)
        return effects

    def _receive_vote(self, vote: Vote) -> list[Effect]:
        # A peer's feed starts with all old votes. They must not rebuild tasks that ended long ago.
        if self._tasks.get(vote.task) is None and self._journal.contains(vote):
            return []
        agreement, effects = self._load(vote.task)
        status = agreement.judge(vote)
        if status is VoteStatus.DUPLICATE:  # no transaction: a duplicate costs no write to disk
            return effects
        now = self.clock.now()
        with self._transaction(agreement):
            overdue = self._advance(agreement, now)
            if overdue:  # this node may just have signed the same vote, or a conflicting one
                status = agreement.judge(vote)
            return effects + overdue + self._keep(agreement, vote, status, now)

    def _keep(
        self, agreement: Agreement, vote: Vote, status: VoteStatus, now: float
    ) -> list[Effect]:
        if status is VoteStatus.DUPLICATE:
            return []
        if vote.signer == self.me:
            self._note_own(agreement, vote)
        self._journal.append(vote, now)
        with self._tasks.lock:
            effects = agreement.receive(vote, now, status)
        return self._record(agreement, effects)

    # This node's own executions

    def executed(self, task: str, outcome: Document, trace: Document) -> list[Effect]:
        """Take the outcome of this node's execution; abstain if no reveal can hold it."""
        agreement, effects = self._load(task)
        try:
            self._check_fits_reveal(agreement.task, outcome, trace)
        except Rejected as rejected:
            log.error("outcome does not fit a reveal", task=task, reason=str(rejected))
            return effects + self.failed(task, Abstention.WORKER_DIED)
        now = self.clock.now()
        with self._transaction(agreement):
            self._journal.put_outcome(task, outcome, trace, now)
            with self._tasks.lock:
                executed = agreement.executed(outcome, trace, now)
            return effects + self._record(agreement, executed)

    def failed(self, task: str, reason: Abstention) -> list[Effect]:
        """Take that this node's execution gave no outcome."""
        agreement, effects = self._load(task)
        with self._transaction(agreement):
            with self._tasks.lock:
                failed = agreement.failed(reason, self.clock.now())
            return effects + self._record(agreement, failed)

    def _check_fits_reveal(self, task: Task, outcome: Document, trace: Document) -> None:
        """Raise Rejected if no reveal of this node can hold an outcome and its trace.

        Checked before they are journalled: after a commit to such an outcome, neither this process
        nor the next could reveal it. All fields but the two have a fixed length or the greatest
        one that is possible.
        """
        # The schema of a worker's message bounds each field, not their sum: 16 outputs with 2,048
        # chunk hashes each are 2.2 MB, and an envelope has at most 64 KiB.
        attempts = committees(self.network, task)
        commits = dict.fromkeys(attempts[-1], "0" * 64)
        body = messages.reveal_body(
            self.network.id, task.id, len(attempts) - 1, outcome, "0" * 64, commits, trace
        )
        codec.check_body(body, self.me)
        self.network.check_outcome(task, outcome)

    # Time

    def tick(self) -> list[Effect]:
        """Do what is due."""
        effects: list[Effect] = []
        due = self._tasks.due(self.clock.now())
        if due and not self._journal.is_writable():  # rebuilding all of them would be in vain
            self._retry_at, due = self.clock.now() + RETRY_SECONDS, []
        for task in due:
            try:
                effects += self._tick_task(task)
            except sqlite3.Error as error:  # other tasks go on; this one is rebuilt soon
                self._tasks.lose(task, self.clock.now() + RETRY_SECONDS)
                self._journal.report(error, task=task)
        return effects

    def wake_at(self) -> float | None:
        """Return when `tick` must be called next, in Unix seconds."""
        at = self._tasks.wake_at()
        return at if at is None or self._journal.fault is None else max(at, self._retry_at)

    def _tick_task(self, task: str) -> list[Effect]:
        if self._tasks.is_lost(task):
            return self._recover(task)
        agreement = self._tasks.get(task)
        assert agreement is not None  # noqa: S101  # no step of one task evicts another
        with self._transaction(agreement):
            return self._advance(agreement, self.clock.now())

    def _advance(self, agreement: Agreement, now: float) -> list[Effect]:
        with self._tasks.lock:
            effects = agreement.advance(now)
        return self._record(agreement, effects)

    def _recover(self, task: str) -> list[Effect]:
        """Rebuild a lost task, unless the step that failed was its first one."""
        if self._journal.state(task) is None:
            self._tasks.forget(task)
            return []
        # A late vote may have rebuilt it already.
        effects = self._rebuild(task)[1] if self._tasks.get(task) is None else []
        self._tasks.set_rebuilt(task)
        return effects

    # Retention

    def drop_ended(self, before: float, limit: int) -> int:
        """Drop the envelopes of ended tasks, at most `limit`, that were accepted before a time.

        Certificates, evidence, records of peers and states of tasks are kept. Returns the number of
        tasks. No deadline may be later than `KEEPING_SECONDS` ago (specification 7.9).
        """
        tasks = self._journal.ended_tasks(before, limit)
        if tasks:
            with self._journal.transaction():
                self._journal.drop_envelopes(tasks)
            for task in tasks:
                self._tasks.drop(task)
                self._unsigned.pop(task, None)
        return len(tasks)

    def _was_dropped(self, task: str) -> bool:
        return self._journal.state(task) is not None and not self._journal.has_envelopes(task)

    # Queries

    def view(self, task: str) -> TaskView | None:
        """Return how a task stands here; None for one never accepted."""
        status = self._journal.state(task)
        if status is None:
            return None
        envelopes = [entry.envelope for entry in self._journal.entries(task)]
        certificates = self._ledger.certificates(task)
        if not envelopes:  # they were dropped: an answer shows a second certificate by its votes
            for other in certificates[1:2]:
                second: Any = other
                parts = (second["task"], *second["votes"])
                envelopes += [canonical(part).decode() for part in parts]
        return TaskView(*status, envelopes, certificates)

    def first_committee(self, task: Task) -> tuple[str, ...]:
        """Return the first attempt's committee."""
        return committees(self.network, task)[0]

    def voters(self) -> frozenset[str]:
        """Return the members of the committees of this node's open tasks."""
        return self._tasks.voters()

    def source(self, task: str) -> str:
        """Return who is charged for a task, "" if that is not known any more."""
        return self._tasks.source(task)

    # The journal

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Make the steps of the block durable together, when it ends.

        Until then none of their effects may be carried out. If it fails, none of them is made:
        their tasks are rebuilt from the journal later.
        """
        self._batched = []
        try:
            with self._journal.batch():
                yield
        except BaseException:
            for task in dict.fromkeys(self._batched):
                self._tasks.lose(task, self.clock.now() + RETRY_SECONDS)
            raise
        finally:
            self._batched = None

    @contextmanager
    def _transaction(self, agreement: Agreement) -> Iterator[None]:
        """Make one step durable. If it fails, the task is rebuilt from the journal later."""
        try:
            with self._journal.transaction():
                yield
                if agreement.state.terminal:
                    self._ledger.put_conduct(agreement.task.id, task_conduct(agreement))
            self._tasks.update(agreement)
            if self._batched is not None:
                self._batched.append(agreement.task.id)
        # The agreement has taken the step in memory, and has no way back.
        except BaseException:
            self._tasks.lose(agreement.task.id, self.clock.now() + RETRY_SECONDS)
            raise

    def _record(self, agreement: Agreement, effects: Sequence[Effect]) -> list[Effect]:
        """Write an agreement's effects inside the running transaction; return what is to be done.

        Each SignAndSend becomes a Publish, and what follows from this node's own vote.
        """
        recorded: list[Effect] = []
        for effect in effects:
            if isinstance(effect, SignAndSend) and not self._may_sign(agreement.task):
                if self.voting is Voting.HELD:
                    self._unsigned[agreement.task.id] = None
            elif isinstance(effect, SignAndSend):
                recorded += self._sign(agreement, effect.body)
            else:
                self._write(agreement, effect)
                recorded.append(effect)
        return recorded

    def _sign(self, agreement: Agreement, body: Document) -> list[Effect]:
        now = self.clock.now()
        vote = codec.build_message(sign(body, self._key))
        assert not isinstance(vote, Task | Withdraw)  # noqa: S101  # agreements sign only votes
        self._journal.append(vote, now)
        with self._tasks.lock:
            effects = agreement.receive(vote, now)
        return [Publish(vote), *self._record(agreement, effects)]

    def _write(self, agreement: Agreement, effect: Effect) -> None:
        task = agreement.task.id
        match effect:
            case StateChanged():
                state, attempt = agreement.state, agreement.attempt
                self._journal.put_state(task, state, attempt)
                log.info("task state changed", task=task, state=state, attempt=attempt)
            case Certified(certificate):
                self._ledger.put_certificate(certificate)
                if len(agreement.certificates) > 1:
                    log.warning("conflicting certificate", task=task, signers=certificate.signers)
                else:
                    log.info("certificate", task=task, signers=certificate.signers)
            case MisconductProven(evidence):
                self._ledger.put_evidence(evidence)
                log.warning(str(evidence.kind), task=task, peer=evidence.signer)

    def _load(self, task: str) -> tuple[Agreement, list[Effect]]:
        """Return a task's agreement, and the effects of rebuilding it if that was necessary."""
        agreement = self._tasks.get(task)
        if agreement is not None:
            return agreement, []
        if self._journal.state(task) is None:
            raise Rejected(Rejection.UNKNOWN_TASK, f"task: {task} is not known here")
        if self._was_dropped(task):
            raise Rejected(
                Rejection.EXPIRED, f"task: {task} ended long ago; its votes were dropped"
            )
        return self._rebuild(task)

    def _rebuild(self, task: str) -> tuple[Agreement, list[Effect]]:
        agreement, unsent = replay(self.network, self.me, self._journal, task, self._salts(task))
        with self._transaction(agreement):
            # Not in the table yet: no other thread sees it, and no lock is needed.
            resumed = agreement.resume(self.clock.now())
            # Attempts that passed since the journal's last entry asked for votes too. None is due.
            due = [
                effect
                for effect in (*unsent, *resumed)
                if not isinstance(effect, SignAndSend) or is_due(agreement, effect)
            ]
            effects = self._record(agreement, due)
        self._tasks.add(agreement, self.clock.now())
        return agreement, effects

    def _salts(self, task: str) -> Callable[[int], str]:
        """Return a function from an attempt to its salt: drawn and journalled once, then read."""

        def salt(attempt: int) -> str:
            kept = self._journal.salt(task, attempt)
            if kept is not None:
                return kept
            # Journalled before the commit is sent. With another salt the same outcome has another
            # commitment, and a node that signs two of them equivocates.
            fresh = self._entropy(SALT_BYTES).hex()
            self._journal.put_salt(task, attempt, fresh)
            return fresh

        return salt
