"""A task from acceptance to its terminal state, over all its attempts (specification 6.6, 6.7).

Sans-IO: it takes votes, outcomes and the time, and returns effects. Two rules: nothing happens but
in `_fire` (time), `receive` (votes), `executed` and `failed` (this node's own work); and the same
calls with the same times give the same effects, so that a journal can be replayed.
"""

from collections.abc import Callable

from protocol.consensus import certificate
from protocol.consensus.certificate import Certificate
from protocol.consensus.committee import committees
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
from protocol.consensus.evidence import Evidence
from protocol.consensus.round import Opening, Round, VoteStatus
from protocol.errors import Rejected, Rejection
from protocol.network import Network
from protocol.wire import messages
from protocol.wire.encoding import Document
from protocol.wire.messages import Abstain, Abstention, Commit, Reveal, Task, Vote

DrawSalt = Callable[[int], str]
"""Gives the salt (64 hex) of an attempt: fresh and secret first, from the journal afterwards."""


class Agreement:
    """How one task stands at one node; `me` may be in no committee. All times are Unix seconds."""

    def __init__(
        self, network: Network, task: Task, me: str, draw_salt: DrawSalt, now: float
    ) -> None:
        self.task = task
        self.rounds = tuple(
            Round(network.id, task.id, a, members, network.parameters.commit_grace_seconds)
            for a, members in enumerate(committees(network, task))
        )
        self.attempt = 0
        self.certificates: list[Certificate] = []  # two, if two outcomes are certified: a conflict
        self._network, self._me, self._draw_salt = network, me, draw_salt
        self._attempt_at, self._attempt_seconds = now, network.attempt_seconds(task)
        self._ended: State | None = None
        self._executing = False
        self._outcome: tuple[Document, Document] | None = None

    # What is known

    @property
    def state(self) -> State:
        """How the task stands here; before the end, what this node does in the current attempt."""
        if self._ended is not None:
            return self._ended
        current = self.rounds[self.attempt]
        for kind, state in _OWN_STATES:
            if current.has(self._me, kind):
                return state
        return State.EXECUTING if self._executing else State.WAITING

    @property
    def ends_at(self) -> float:
        """When this node gives up at the latest: the deadline or the end of the last attempt."""
        left = len(self.rounds) - self.attempt
        return min(self.task.expires_at, self._attempt_at + left * self._attempt_seconds)

    def wake_at(self) -> float | None:
        """Return when `advance` must be called next; None when time changes nothing any more."""
        due = [at for r in self.rounds if (at := r.wake_at()) is not None]
        if self._ended is None:
            due += [self.task.expires_at, self._attempt_at + self._attempt_seconds]
        return min(due, default=None)

    def judge(self, vote: Vote, *, keep_conflicting: bool = False) -> VoteStatus:
        """Return what a vote is to this task. Raises Rejected for one that no round can keep.

        `keep_conflicting` as for `Round.judge`.
        """
        if vote.attempt >= len(self.rounds):
            raise Rejected(
                Rejection.NO_SUCH_ATTEMPT,
                f"attempt: {vote.attempt}, this task has {len(self.rounds)}",
            )
        current = self.rounds[vote.attempt]
        if vote.signer not in current.committee:
            raise Rejected(
                Rejection.NOT_A_MEMBER, f"{vote.signer} is not in the committee of {vote.attempt}"
            )
        return current.judge(vote, keep_conflicting=keep_conflicting)

    # What happens

    def start(self, now: float) -> list[Effect]:
        """Begin attempt 0. To be called once, before anything else."""
        return [*self._begin(), StateChanged(self.task.id), *self.advance(now)]

    def advance(self, now: float) -> list[Effect]:
        """Let the time be `now`: everything due until then happens, in the order of its times."""
        effects: list[Effect] = []
        while (due := self.wake_at()) is not None and due <= now:
            effects += self._watched(self._fire, due)
        return effects

    def receive(self, vote: Vote, now: float, status: VoteStatus | None = None) -> list[Effect]:
        """Take a vote, this node's own included.

        `status` is what `judge` returned for the vote, if no other vote came since; without it the
        vote is judged here. Raises Rejected as `judge` does.
        """
        if status is None:
            status = self.judge(vote)
        # Time alone keeps no votes, so `status` still holds after `advance`.
        effects = [*self.advance(now), *self._watched(self._take, vote, now, status)]
        return [*effects, *self.advance(now)]

    def executed(self, outcome: Document, trace: Document, now: float) -> list[Effect]:
        """This node's execution ended with an outcome: it will commit to it in every attempt."""

        def known() -> list[Effect]:
            self._executing, self._outcome = False, (outcome, trace)
            return self._commit()

        return [*self.advance(now), *self._watched(known)]

    def failed(self, reason: Abstention, now: float) -> list[Effect]:
        """This node's execution ended without an outcome: it abstains from this attempt."""

        def given_up() -> list[Effect]:
            self._executing = False
            current = self.rounds[self.attempt]
            if self._ended is not None or current.has(self._me, Abstain):
                return []
            return [
                SignAndSend(
                    messages.abstain_body(self._network.id, self.task.id, self.attempt, reason)
                )
            ]

        return [*self.advance(now), *self._watched(given_up)]

    def resume(self, now: float) -> list[Effect]:
        """Begin anew what a restart cut short, after the journal was replayed into this machine."""
        effects: list[Effect] = [e for e in self.advance(now) if not isinstance(e, Execute)]
        self._executing = False
        current = self.rounds[self.attempt]
        waits = self._ended is None and self._me in current.committee and self._outcome is None
        if not waits or current.has(self._me, Abstain):
            return effects
        return effects + self._watched(self._begin)

    # How

    def _watched(self, change: Callable[..., list[Effect]], *args: object) -> list[Effect]:
        """Append a `StateChanged` if the change altered the state or the attempt."""
        before = (self.state, self.attempt)
        effects = change(*args)
        same = before == (self.state, self.attempt)
        return effects if same else [*effects, StateChanged(self.task.id)]

    def _fire(self, now: float) -> list[Effect]:
        bodies = [r.advance(now) for r in self.rounds]
        effects: list[Effect] = [SignAndSend(body) for body in bodies if body is not None]
        if self._ended is None and now >= self.task.expires_at:
            return effects + self._end(State.EXPIRED)
        if self._ended is None and now >= self._attempt_at + self._attempt_seconds:
            return effects + self._next_attempt(now) + self._give_up_attempts(now)
        return effects

    def _take(self, vote: Vote, now: float, status: VoteStatus) -> list[Effect]:
        current = self.rounds[vote.attempt]
        opponent = current.conflicting_vote(vote)
        if isinstance(vote, Abstain) and vote.signer == self._me:
            self._executing = False
        self._discount(now)
        if status is VoteStatus.DUPLICATE:
            return []
        current.receive(vote, status, now)
        self._discount(now)
        effects = self._certify(vote) if isinstance(vote, Reveal) else []
        if status is VoteStatus.CONFLICTING and opponent is not None:
            return [EquivocationProven(Evidence.from_votes(opponent, vote)), *effects]
        return effects + self._give_up_attempts(now)

    def _discount(self, now: float) -> None:
        """Keep whoever failed an earlier attempt from closing the lists of this one early.

        That is who contradicted itself, or revealed another outcome than this node's, or committed
        and did not reveal where others did (correction 6f): such a member commits at once, and
        would shut out the honest who execute.
        """
        if self._outcome is None or self.attempt == 0:
            return
        digest = messages.outcome_digest(self._outcome[0])
        earlier = self.rounds[: self.attempt]
        failed = {peer for r in earlier for peer in r.committee if r.has_failed(peer, digest)}
        self.rounds[self.attempt].ignore_for_quorum(frozenset(failed - {self._me}), now)

    def _certify(self, vote: Reveal) -> list[Effect]:
        attempt = vote.attempt
        agreeing = self.rounds[attempt].agreeing_reveals(vote.digest)
        if not agreeing or any(c.votes[0].digest == vote.digest for c in self.certificates):
            return []
        found = certificate.assemble(self.task, attempt, agreeing, self._network)
        self.certificates.append(found)
        effects: list[Effect] = [Certified(found)]
        if len(self.certificates) > 1:  # a conflict: shown, the first one stands
            return effects
        return effects + self._end(State.AGREED_ERROR if "error" in found.outcome else State.AGREED)

    def _give_up_attempts(self, now: float) -> list[Effect]:
        effects: list[Effect] = []
        while self._ended is None and not self.rounds[self.attempt].can_reach_quorum():
            effects += self._next_attempt(now)
        return effects

    def _next_attempt(self, now: float) -> list[Effect]:
        if self.attempt + 1 == len(self.rounds):
            return self._end(State.INCONCLUSIVE)
        self.attempt, self._attempt_at = self.attempt + 1, now
        return self._begin()

    def _begin(self) -> list[Effect]:
        if self._me not in self.rounds[self.attempt].committee:
            return []
        if self._outcome is not None:
            return self._commit()
        if self._executing:
            return []
        self._executing = True
        return [Execute(self.task, self.ends_at)]

    def _commit(self) -> list[Effect]:
        current = self.rounds[self.attempt]
        if self._ended is not None or self._outcome is None or self._me not in current.committee:
            return []
        if current.has(self._me, Commit):  # of an earlier life, whose journal was lost: no second
            return []
        opening = Opening(self._outcome[0], self._draw_salt(self.attempt), self._outcome[1])
        return [SignAndSend(current.commit(self._me, opening))]

    def _end(self, state: State) -> list[Effect]:
        self._ended = state
        if not self._executing:
            return []
        self._executing = False
        return [StopExecution(self.task.id)]


_OWN_STATES = ((Reveal, State.REVEALED), (Commit, State.COMMITTED), (Abstain, State.ABSTAINED))
