"""One attempt at one task: the commit–reveal state machine (specification 6.2 to 6.4).

Rules:
1. A round asks for at most one commit and one reveal. A second one would be an equivocation.
2. The list of a reveal holds the commits received before the list closed, by the times passed in,
   however late `advance` is called. So a replay of the journal gives the same list.

Both waits last `grace` seconds. The second one defeats copying: when the first honest reveal is
published, the lists of all honest members are closed (specification 6.3).

    state       this node's own part
    WATCHING    it has not committed; it may be in no committee
    COMMITTED   it has committed; its own commit or a quorum of commits is not received yet
    CLOSING     a quorum of commits is held, its own included; the list closes at `wake_at`
    CLOSED      the list is fixed; the reveal is due at `wake_at`
    REVEALED    it has revealed

    event                  state -> next state       effect
    commit                 WATCHING -> COMMITTED     returns the body of the commit
    quorum of commits      COMMITTED -> CLOSING      wake at now + grace
    all commits            COMMITTED -> CLOSED       the list is all commits; wake now
                           CLOSING -> CLOSED         the list is all commits; wake now
    time reaches wake_at   CLOSING -> CLOSED         the list is the commits; wake at that + grace
                           CLOSED -> REVEALED        returns the body of the reveal

Commits of suspects do not count towards that quorum, until `attempt_seconds` into the attempt: such
a member failed before, and commits at once to anything (specification 6.8). All commits are listed.

Any other event in a state changes nothing, but `commit`, which raises ValueError. Votes of other
members are kept in every state.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from protocol.consensus.vote_set import VoteSet, VoteStatus
from protocol.wire import messages
from protocol.wire.encoding import Document
from protocol.wire.messages import Vote


class Phase(Enum):
    """The states of a round; the module's docstring explains them."""

    WATCHING = auto()
    COMMITTED = auto()
    CLOSING = auto()
    CLOSED = auto()
    REVEALED = auto()


class Event(Enum):
    """What changes the state of a round."""

    COMMIT = auto()
    QUORUM_OF_COMMITS = auto()
    ALL_COMMITS = auto()
    DUE = auto()


TRANSITIONS: Mapping[tuple[Event, Phase], Phase] = {
    (Event.COMMIT, Phase.WATCHING): Phase.COMMITTED,
    (Event.QUORUM_OF_COMMITS, Phase.COMMITTED): Phase.CLOSING,
    (Event.ALL_COMMITS, Phase.COMMITTED): Phase.CLOSED,
    (Event.ALL_COMMITS, Phase.CLOSING): Phase.CLOSED,
    (Event.DUE, Phase.CLOSING): Phase.CLOSED,
    (Event.DUE, Phase.CLOSED): Phase.REVEALED,
}


@dataclass(frozen=True, slots=True)
class Opening:
    """What this node will reveal: its outcome, the salt of its commitment, and the trace."""

    outcome: Document
    salt: str
    trace: Document


class Round:
    """The votes of one attempt, and this node's own part in it if it is a member.

    `grace` is the network's `commit_grace_seconds`. All times are Unix seconds.

    Attributes: `reveals_due_at` is when `votes.reveals_due` became true, None until then.
    `commitment` is that of this node's commit, "" before `commit`.
    """

    def __init__(
        self, network: str, task: str, attempt: int, committee: Sequence[str], grace: float
    ) -> None:
        self.reveals_due_at: float | None = None
        self.commitment = ""
        self.votes = VoteSet(committee)
        self.phase = Phase.WATCHING
        self._network, self._task, self._attempt = network, task, attempt
        self._grace = grace
        self._suspects: frozenset[str] = frozenset()  # their commits do not count for the quorum
        self._all_count_at = math.inf  # when they count too
        self._me = ""  # this node's peer id once it has committed
        self._opening: Opening | None = None
        self._list: Mapping[str, str] = {}  # the commits of the reveal, once the list is closed
        self._wake_at: float | None = None

    # Events

    def begin(self, all_count_at: float) -> None:
        """Begin the attempt: from `all_count_at` on, every member's commit counts."""
        self._all_count_at = all_count_at

    def commit(self, me: str, opening: Opening) -> Document:
        """Return the body of this node's commit. Raises ValueError if it has committed already."""
        if not self._move(Event.COMMIT):
            raise ValueError("a member commits once in an attempt")
        self._me, self._opening = me, opening
        digest = messages.outcome_digest(opening.outcome)
        self.commitment = messages.commitment(self._task, self._attempt, me, digest, opening.salt)
        return messages.commit_body(self._network, self._task, self._attempt, self.commitment)

    def receive(self, vote: Vote, status: VoteStatus, now: float) -> None:
        """Keep the vote of a committee member that came at `now`.

        `status` is what `votes.judge` returned for it, and no other vote came since.
        """
        self.votes.add(vote, status)
        if status is not VoteStatus.NEW:
            return
        if self.reveals_due_at is None and self.votes.reveals_due:
            self.reveals_due_at = now
        self._count_commits(now)

    def set_suspects(self, members: frozenset[str], now: float) -> None:
        """Count the commits of all but `members` for the quorum that starts the first wait.

        Theirs are listed all the same, and count too once `attempt_seconds` are over.
        """
        if now < self._all_count_at and members != self._suspects:
            self._suspects = members
            self._count_commits(now)

    def advance(self, now: float) -> Document | None:
        """Close the list, or return the body of this node's reveal, if that is due at `now`."""
        if self._suspects and now >= self._all_count_at:
            self._suspects = frozenset()
            self._count_commits(now)
            return None
        due = self._wake_at
        if due is None or now < due or not self._move(Event.DUE):
            return None
        if self.phase is Phase.CLOSED:
            self._close(self.votes.commits, reveal_at=due + self._grace)
            return None
        self._wake_at = None
        return self._reveal_body()

    def wake_at(self) -> float | None:
        """Return when `advance` has something to do next, in Unix seconds; None if never."""
        if self._suspects and self.phase is Phase.COMMITTED:
            return self._all_count_at
        return self._wake_at

    # Transitions

    def _move(self, event: Event) -> bool:
        """Enter the next state; return whether the event has one in the current state."""
        following = TRANSITIONS.get((event, self.phase))
        if following is None:
            return False
        self.phase = following
        return True

    def _count_commits(self, now: float) -> None:
        commits = self.votes.commits
        # The waits count from a quorum that includes this node's own commit (specification 6.3).
        if self._me not in commits:
            return
        counted = len(commits.keys() - self._suspects)
        if len(commits) == len(self.votes.committee) and self._move(Event.ALL_COMMITS):
            self._close(commits, reveal_at=now)
        elif counted >= self.votes.quorum and self._move(Event.QUORUM_OF_COMMITS):
            self._wake_at = now + self._grace

    def _close(self, commits: Mapping[str, str], reveal_at: float) -> None:
        self._list, self._wake_at = commits, reveal_at

    def _reveal_body(self) -> Document:
        opening = self._opening
        assert opening is not None  # noqa: S101  # `commit` comes before every other transition
        return messages.reveal_body(
            self._network,
            self._task,
            self._attempt,
            opening.outcome,
            opening.salt,
            self._list,
            opening.trace,
        )
