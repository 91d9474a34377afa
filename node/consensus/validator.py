"""Validation of gossip messages, on the transport's thread (specification 7.2)."""

from collections import Counter
from collections.abc import Sequence

from node.admission.lru_dict import LruDict
from node.clock import Clock
from node.consensus.task_table import TaskTable
from node.transport.interface import ValidationResult
from protocol.consensus.vote_set import VoteStatus
from protocol.errors import Rejected, Rejection
from protocol.network import Network
from protocol.wire import codec
from protocol.wire.messages import Message, Task, Withdraw
from protocol.wire.signing import envelope_id

# Ids of the envelopes that were accepted last; they take 5 MB. GossipSub itself drops a repetition
# within two minutes; this is for what came by a feed, from a client or long ago.
MAX_KNOWN = 16_384
# An honest peer may forward these: its clock differs, or it knows a task that we do not.
_UNTIMELY = (Rejection.EXPIRED, Rejection.CREATED_AHEAD, Rejection.UNKNOWN_TASK)


class GossipValidator:
    """Decides which gossip messages are delivered and forwarded. It changes no task.

    All else in this package runs on the asyncio loop. Parsing and signature checks, which cost
    most, touch nothing that the loop changes; agreements are read under the lock of the table.
    What is known is found by its id first: it costs a hash, and each peer may forward it.
    """

    def __init__(
        self, network: Network, tasks: TaskTable, clock: Clock, counts: Counter[str]
    ) -> None:
        self._network, self._tasks, self._clock, self._counts = network, tasks, clock, counts
        # Written by the loop alone; to look a key up is one step for other threads.
        self._known: LruDict[str, None] = LruDict(MAX_KNOWN)
        # Messages that were accepted, and that this node had already; since the start.
        self.new = self.repeated = 0

    def note_accepted(self, ids: Sequence[str]) -> None:
        """Remember the ids of envelopes that the journal holds now; called on the loop."""
        for id_ in ids:
            self._known[id_] = None

    def validate(self, payload: bytes, *, tasks: bool) -> tuple[ValidationResult, Message | None]:
        """Parse a message and validate it; return it if it is accepted.

        `tasks` says whether it came on the topic for tasks or on that for votes.
        """
        # Canonical bytes have the id of their envelope. Other bytes have an id that nobody has.
        if envelope_id(payload) in self._known:
            self.repeated += 1
            return ValidationResult.IGNORE, None
        try:
            message = codec.decode(payload, self._network.id)
            # One envelope has one message id. Another spelling could be forwarded without end.
            if payload != message.envelope.encode():
                return ValidationResult.REJECT, None
            if isinstance(message, Task) is not tasks:
                return ValidationResult.REJECT, None
            is_new = self._is_new(message)
        except Rejected as rejected:
            untimely = rejected.reason in _UNTIMELY
            return ValidationResult.IGNORE if untimely else ValidationResult.REJECT, None
        if not is_new:
            self.repeated += 1
            return ValidationResult.IGNORE, None
        self.new += 1
        return ValidationResult.ACCEPT, message

    def _is_new(self, message: Message) -> bool:
        if isinstance(message, Task):
            return self._is_new_task(message)
        with self._tasks.lock:
            agreement = self._tasks.get(message.task)
            # Without an agreement it is early or long past. A feed brings it if it matters.
            if agreement is None:
                return False
            if isinstance(message, Withdraw):
                return agreement.judge_withdrawal(message)
            return agreement.judge(message) is not VoteStatus.DUPLICATE

    def _is_new_task(self, task: Task) -> bool:
        if self._tasks.is_known(task.id):
            return False
        self._network.admit(task)
        self._network.check_timely(task, int(self._clock.now() * 1000))
        if self._tasks.is_full():  # forwarding it would fill other nodes too
            self._counts["tasks-refused"] += 1
            return False
        return True
