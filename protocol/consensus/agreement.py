"""A task from acceptance to its terminal state, over all its attempts (specification 6.6, 6.7).

Rules:
1. The machine changes only in `start`, `advance` (time), `receive` (votes), `executed`, `failed`
   (this node's own execution), `withdraw` and `resume`. Each returns the effects that the node
   carries out.
2. The same calls with the same times give the same effects, so that a journal can be replayed.
3. Only a certificate changes a terminal state, and the first certificate stands (6.7).

The states are those of `effects.State`. Before the end, the state is what this node does in the
current attempt; it follows from its own votes: REVEALED before COMMITTED before ABSTAINED, then
EXECUTING, then WAITING.

    event                           before the end                         in a terminal state
    an attempt begins, and
      this node is no member        WAITING                                (none begins)
      its outcome is not known      EXECUTING; Execute unless it runs
      its outcome is known          SignAndSend(commit)
    executed                        SignAndSend(commit) if a member        -
    failed                          SignAndSend(abstain), once an attempt  -
    withdrawn by the requester      Withdrawn if EXECUTING; from now on    -
                                    an attempt that would execute abstains
    own vote received               COMMITTED, REVEALED or ABSTAINED       -
    a round's reveal is due         SignAndSend(reveal)                    SignAndSend(reveal)
    contradicting vote received     MisconductProven                       MisconductProven
    votes make a certificate        AGREED or AGREED_ERROR; Certified,     the same if it is the
                                    StopExecution                          first; else Certified
    not the last attempt, and no
      outcome can reach the quorum,
      or attempt_seconds are over   the next attempt begins                -
    the last attempt, and no
      outcome can reach the quorum  INCONCLUSIVE; StopExecution            -
    deadline                        EXPIRED; StopExecution                 -

Every change of the state or the attempt also gives StateChanged. Rounds of earlier and later
attempts keep their votes, so that a late vote can still complete a certificate.
"""

from collections.abc import Callable

from protocol.consensus import certificate
from protocol.consensus.certificate import Certificate
from protocol.consensus.committee import committees
from protocol.consensus.effects import (
    Certified,
    Effect,
    Execute,
    MisconductProven,
    SignAndSend,
    State,
    StateChanged,
    StopExecution,
    Withdrawn,
)
from protocol.consensus.evidence import Evidence, is_inconstancy
from protocol.consensus.round import Opening, Round
from protocol.consensus.vote_set import VoteSet, VoteStatus
from protocol.errors import Rejected, Rejection
from protocol.network import Network
from protocol.wire import messages
from protocol.wire.encoding import Document
from protocol.wire.messages import Abstain, Abstention, Commit, Reveal, Task, Vote, Withdraw

DrawSalt = Callable[[int], str]
"""Gives the salt (64 hex) of an attempt: fresh and secret first, from the journal afterwards."""

# The state that a vote of this node stands for; the first that is received decides.
_STATE_BY_OWN_VOTE = (
    (Reveal, State.REVEALED),
    (Commit, State.COMMITTED),
    (Abstain, State.ABSTAINED),
)


class Agreement:
    """The state of one task at one node; `me` may be in no committee. All times are Unix seconds.

    Attributes: `attempt` is the current one, from 0; `certificates` has two members if two
    outcomes are certified, which is a conflict; `inconstant` are the members that revealed
    different outcomes in different attempts.
    """

    def __init__(
        self,
        network: Network,
        task: Task,
        me: str,
        draw_salt: DrawSalt,
        now: float,
        suspects: frozenset[str] = frozenset(),
    ) -> None:
        """`suspects` are the members that failed earlier tasks, by this node's own record.

        Their commits do not start the first wait of an attempt (specification 6.8).
        """
        self.task = task
        self.attempt = 0
        self.certificates: list[Certificate] = []
        self._network, self._me, self._draw_salt = network, me, draw_salt
        grace = network.parameters.commit_grace_seconds
        self._rounds = tuple(
            Round(network.id, task.id, attempt, committee, grace)
            for attempt, committee in enumerate(committees(network, task))
        )
        self._attempt_began, self._attempt_seconds = now, network.attempt_seconds(task)
        self.inconstant: set[str] = set()
        self._suspects = suspects - {me}
        self._withdrawn = False
        self._terminal: State | None = None
        self._executing = False
        self._execution: tuple[Document, Document] | None = None  # outcome and trace
        self._own_digest: str | None = None
        self._abstained: set[int] = set()  # attempts: a second reason would be an equivocation

    # Queries

    @property
    def state(self) -> State:
        """The terminal state, or what this node does in the current attempt."""
        if self._terminal is not None:
            return self._terminal
        for kind, state in _STATE_BY_OWN_VOTE:
            if self._current.has(self._me, kind):
                return state
        return State.EXECUTING if self._executing else State.WAITING

    @property
    def vote_sets(self) -> tuple[VoteSet, ...]:
        """The votes of each attempt, those to come included."""
        return tuple(round_.votes for round_ in self._rounds)

    @property
    def own_digest(self) -> str | None:
        """The digest of this node's own outcome; None if it has none."""
        return self._own_digest

    @property
    def withdrawn(self) -> bool:
        """Whether the requester withdrew the task."""
        return self._withdrawn

    def withheld_at(self, attempt: int) -> float | None:
        """Return from when a commit of `attempt` without a reveal is a fault; None if never.

        That is `attempt_seconds` after the attempt's reveals became due (specification 6.8).
        """
        due = self._rounds[attempt].reveals_due_at
        return None if due is None else due + self._attempt_seconds

    def _has_voted_in(self, attempt: int) -> bool:
        votes = self._rounds[attempt].votes
        return any(votes.has(self._me, kind) for kind, _ in _STATE_BY_OWN_VOTE)

    @property
    def _is_last_attempt(self) -> bool:
        return self.attempt + 1 == len(self._rounds)

    def wake_at(self) -> float | None:
        """Return when `advance` must be called next; None if time changes nothing any more."""
        due = [at for round_ in self._rounds if (at := round_.wake_at()) is not None]
        if self._terminal is None:
            due.append(self.task.expires_at)
            if not self._is_last_attempt:  # the last attempt has no end but the deadline
                due.append(self._attempt_began + self._attempt_seconds)
        return min(due, default=None)

    def judge(self, vote: Vote, *, keep_conflicting: bool = False) -> VoteStatus:
        """Return what a vote is to this task; `keep_conflicting` as for `VoteSet.judge`.

        Raises Rejected (NO_SUCH_ATTEMPT, NOT_A_MEMBER, INVALID_FIELD) for a vote that no attempt
        can keep.
        """
        if vote.attempt >= len(self._rounds):
            raise Rejected(
                Rejection.NO_SUCH_ATTEMPT,
                f"attempt: {vote.attempt}, this task has {len(self._rounds)}",
            )
        votes = self._rounds[vote.attempt].votes
        if vote.signer not in votes.committee:
            raise Rejected(
                Rejection.NOT_A_MEMBER, f"{vote.signer} is not in the committee of {vote.attempt}"
            )
        if isinstance(vote, Reveal):
            self._network.check_outcome(self.task, vote.outcome)
        return votes.judge(vote, keep_conflicting=keep_conflicting)

    def judge_withdrawal(self, withdrawal: Withdraw) -> bool:
        """Return whether a withdrawal is new. Raises Rejected(NOT_THE_REQUESTER)."""
        if withdrawal.signer != self.task.requester:
            raise Rejected(
                Rejection.NOT_THE_REQUESTER, f"{withdrawal.signer} did not ask for the task"
            )
        return not self._withdrawn

    @property
    def _current(self) -> VoteSet:
        return self._rounds[self.attempt].votes

    # Events

    def suspect(self, members: frozenset[str]) -> None:
        """Take `members` for suspects, before the start; the constructor says what they are."""
        self._suspects = members - {self._me}

    def start(self, now: float) -> list[Effect]:
        """Begin attempt 0. Called once, before anything else."""
        return [*self._begin_attempt(now), StateChanged(self.task.id), *self.advance(now)]

    def advance(self, now: float) -> list[Effect]:
        """Let the time be `now`: everything due until then happens, in the order of its times."""
        effects: list[Effect] = []
        while (due := self.wake_at()) is not None and due <= now:
            previous = self._position()
            effects += self._fire_timers(due)
            effects += self._changes_since(previous)
        return effects

    def receive(self, vote: Vote, now: float, status: VoteStatus | None = None) -> list[Effect]:
        """Add a vote, this node's own included.

        `status` is what `judge` returned for the vote, if no other vote came since; without it the
        vote is judged here. Raises Rejected as `judge` does.
        """
        if status is None:
            status = self.judge(vote)
        effects = self.advance(now)  # adds no votes, so that `status` still holds
        previous = self._position()
        effects += self._add(vote, status, now)
        effects += self._changes_since(previous)
        return effects + self.advance(now)

    def executed(self, outcome: Document, trace: Document, now: float) -> list[Effect]:
        """This node's execution gave an outcome: it commits to it in this and later attempts."""
        effects = self.advance(now)
        previous = self._position()
        self._executing = False
        if self._execution is None:  # it keeps to its first outcome, which the journal holds
            self._execution = (outcome, trace)
            self._own_digest = messages.outcome_digest(outcome)
        effects += self._commit()
        return effects + self._changes_since(previous)

    def failed(self, reason: Abstention, now: float) -> list[Effect]:
        """This node's execution gave no outcome: it abstains from this attempt."""
        effects = self.advance(now)
        previous = self._position()
        self._executing = False
        if self._terminal is None:
            effects += self._abstain(reason)
        return effects + self._changes_since(previous)

    def withdraw(self, now: float) -> list[Effect]:
        """The requester withdrew the task: begin no execution from now on (specification 6.9)."""
        effects = self.advance(now)
        self._withdrawn = True
        if self._executing:  # queued or running: only the node knows
            effects.append(Withdrawn(self.task.id))
        return effects

    def resume(self, now: float) -> list[Effect]:
        """Restart the execution that a crash cut short, after the journal was replayed."""
        effects: list[Effect] = [e for e in self.advance(now) if not isinstance(e, Execute)]
        self._executing = False
        previous = self._position()
        if (
            self._terminal is None
            and self._execution is None
            and self.attempt not in self._abstained
        ):
            effects += self._join_attempt()
            effects += self._changes_since(previous)
        return effects

    # Transitions

    def _position(self) -> tuple[State, int]:
        return self.state, self.attempt

    def _changes_since(self, previous: tuple[State, int]) -> list[Effect]:
        return [] if previous == self._position() else [StateChanged(self.task.id)]

    def _fire_timers(self, now: float) -> list[Effect]:
        # Rounds of earlier attempts too: a member that committed there still reveals (6.3).
        bodies = [(attempt, round_.advance(now)) for attempt, round_ in enumerate(self._rounds)]
        effects: list[Effect] = [
            SignAndSend(body)
            for attempt, body in bodies
            if body is not None and self._may_reveal(attempt)
        ]
        if self._terminal is None and now >= self.task.expires_at:
            return effects + self._end(State.EXPIRED)
        attempt_is_over = now >= self._attempt_began + self._attempt_seconds
        if self._terminal is None and attempt_is_over and not self._is_last_attempt:
            return effects + self._next_attempt(now) + self._skip_lost_attempts(now)
        return effects

    def _add(self, vote: Vote, status: VoteStatus, now: float) -> list[Effect]:
        if isinstance(vote, Abstain) and vote.signer == self._me:
            self._abstained.add(vote.attempt)
            if vote.attempt == self.attempt:
                self._executing = False  # in a replay, nobody calls `failed`
        self._update_suspects(now)
        if status is VoteStatus.DUPLICATE:
            return []
        first = self._rounds[vote.attempt].votes.conflicting_vote(vote)
        self._rounds[vote.attempt].receive(vote, status, now)
        self._update_suspects(now)
        effects: list[Effect] = []
        if isinstance(vote, Reveal):
            effects = [*self._prove_inconstancy(vote), *self._certify(vote)]
        if status is VoteStatus.CONFLICTING and first is not None:
            return [MisconductProven(Evidence.from_votes(first, vote)), *effects]
        return effects + self._skip_lost_attempts(now)

    def _prove_inconstancy(self, vote: Reveal) -> list[Effect]:
        """Return the evidence if the signer revealed another outcome in another attempt."""
        if vote.signer in self.inconstant:  # one proof is enough
            return []
        for votes in self.vote_sets:
            earlier, _ = votes.votes_of(vote.signer)
            if earlier is not None and is_inconstancy(earlier, vote):
                self.inconstant.add(vote.signer)
                return [MisconductProven(Evidence.from_votes(earlier, vote))]
        return []

    def _update_suspects(self, now: float) -> None:
        """Keep members that failed before from closing the list of this attempt early.

        Such a member commits at once. Its commit would start the wait, and the honest members that
        have to execute first would come too late (specification 6.8).
        """
        digest = self.own_digest
        if digest is None:  # no commit of its own, and thus no wait to start
            return
        failed = {
            peer
            for votes in self.vote_sets[: self.attempt]
            for peer in votes.committee
            if votes.has_failed(peer, digest)
        }
        suspects = self._suspects | (failed - {self._me})
        self._rounds[self.attempt].set_suspects(suspects, now)

    def _certify(self, vote: Reveal) -> list[Effect]:
        reveals = self._rounds[vote.attempt].votes.agreeing_reveals(vote.digest)
        if not reveals or any(c.votes[0].digest == vote.digest for c in self.certificates):
            return []
        assembled = certificate.assemble(self.task, vote.attempt, reveals, self._network)
        self.certificates.append(assembled)
        effects: list[Effect] = [Certified(assembled)]
        if len(self.certificates) > 1:  # a conflict: both are kept, the first one stands
            return effects
        is_error = "error" in assembled.outcome
        return effects + self._end(State.AGREED_ERROR if is_error else State.AGREED)

    def _skip_lost_attempts(self, now: float) -> list[Effect]:
        """Leave the current attempt, and those after it, while no outcome can reach the quorum."""
        effects: list[Effect] = []
        while self._terminal is None and not self._current.can_reach_quorum():
            if not self._is_last_attempt:
                effects += self._next_attempt(now)
            elif any(votes.reveals_may_come for votes in self.vote_sets):
                break
            else:
                effects += self._end(State.INCONCLUSIVE)
        return effects

    def _next_attempt(self, now: float) -> list[Effect]:
        self.attempt, self._attempt_began = self.attempt + 1, now
        return self._begin_attempt(now)

    def _begin_attempt(self, now: float) -> list[Effect]:
        self._rounds[self.attempt].begin(now + self._attempt_seconds)
        return self._join_attempt()

    def _join_attempt(self) -> list[Effect]:
        if self._me not in self._current.committee:
            return []
        if self._execution is not None:
            return self._commit()
        # It has voted here by votes that a lost journal held (specification 6.12).
        if self._executing or self._has_voted_in(self.attempt):
            return []
        if self._withdrawn:
            return self._abstain(Abstention.WITHDRAWN)
        self._executing = True
        return [Execute(self.task, self.task.expires_at)]

    def _abstain(self, reason: Abstention) -> list[Effect]:
        # After a lost commit that came back it is silent, whatever its own execution did (6.12).
        if self.attempt in self._abstained or self._has_voted_in(self.attempt):
            return []
        # From now on, not only once the vote is received: another event may come before it.
        self._abstained.add(self.attempt)
        body = messages.abstain_body(self._network.id, self.task.id, self.attempt, reason)
        return [SignAndSend(body)]

    def _commit(self) -> list[Effect]:
        if self._terminal is not None or self._execution is None:
            return []
        if self._me not in self._current.committee or not self._may_commit(self.attempt):
            return []
        outcome, trace = self._execution
        opening = Opening(outcome, self._draw_salt(self.attempt), trace)
        return [SignAndSend(self._rounds[self.attempt].commit(self._me, opening))]

    # Own votes of a lost journal. They come back from the feeds of others (specification 6.12), and
    # this node signs nothing that contradicts them.

    def may_sign(self, body: Document) -> bool:
        """Whether a vote that this node asked to sign is still right after its later own votes."""
        attempt = body["attempt"]
        assert isinstance(attempt, int)  # noqa: S101  # the body is one of this agreement's
        match body["type"]:
            case "commit":
                return self._may_commit(attempt)
            case "reveal":
                return self._may_reveal(attempt)
            case _:
                return not self._has_voted_in(attempt)

    def _may_commit(self, attempt: int) -> bool:
        """Whether a commit in `attempt` contradicts no own vote."""
        own = self._rounds[attempt].votes
        return not (own.has(self._me, Commit) or own.has(self._me, Reveal)) and self._is_constant()

    def _may_reveal(self, attempt: int) -> bool:
        """Whether the reveal of this node's outcome in `attempt` contradicts no own vote."""
        round_ = self._rounds[attempt]
        return (
            not round_.votes.has(self._me, Reveal)
            and not round_.votes.has_equivocated(self._me)
            # The salt of a commit that a lost journal made is lost too.
            and round_.votes.commits.get(self._me) == round_.commitment
            and self._is_constant()
        )

    def _is_constant(self) -> bool:
        """Whether this node has revealed no other outcome of the task.

        Conflicting reveals count too: with any of them, a reveal of another outcome proves
        inconstancy.
        """
        reveals = (reveal for votes in self.vote_sets for reveal in votes.reveals_of(self._me))
        return all(reveal.digest == self.own_digest for reveal in reveals)

    def _end(self, state: State) -> list[Effect]:
        self._terminal = state
        if not self._executing:
            return []
        self._executing = False
        return [StopExecution(self.task.id)]
