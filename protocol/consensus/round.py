"""One attempt at one task: the commit–reveal machine (specification 6.2 to 6.4).

Two rules: it never asks to send a second commit or reveal, and what it has listed is what it had
received when the list closed, by the times given to it, whenever it is asked.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import TypeAlias, TypeVar

from protocol.consensus.certificate import compatible, lists
from protocol.consensus.committee import quorum
from protocol.consensus.evidence import contradict
from protocol.consensus.tally import largest_clique
from protocol.wire import messages
from protocol.wire.encoding import Document, canonical
from protocol.wire.messages import Abstain, Commit, Reveal, Vote

_Slot: TypeAlias = tuple[str, type[Vote]]
_Voter: TypeAlias = Reveal | str  # a reveal, or a member yet to reveal
_V = TypeVar("_V", Commit, Reveal)

CONTRADICTIONS = 3
"""Kept of a member: one, and two that complete certificates, which show a conflict already."""


class VoteStatus(Enum):
    """What a vote is to a round that has kept others before it."""

    NEW = auto()
    DUPLICATE = auto()  # the same body, or one conflicting vote more than is kept
    CONFLICTING = auto()  # contradicts the first vote; kept as evidence, not counted


@dataclass(frozen=True, slots=True)
class Opening:
    """What this node will reveal: its outcome, the salt of its commitment, and the trace."""

    outcome: Document
    salt: str
    trace: Document


class Round:
    """The votes of one attempt, and this node's own part in it if it is a member."""

    def __init__(
        self, network: str, task: str, attempt: int, committee: Sequence[str], grace: float
    ) -> None:
        self.committee = committee
        self.quorum = quorum(len(committee))
        self._network, self._task, self._attempt = network, task, attempt
        self._grace = grace  # seconds, `commit_grace_seconds`
        self._standing: dict[_Slot, Vote] = {}
        self._opposed: dict[_Slot, list[Vote]] = {}
        self._discounted: frozenset[str] = frozenset()
        self._me: str | None = None
        self._opening: Opening | None = None
        self._quorum_at: float | None = None
        self._closed: dict[str, str] | None = None
        self._reveal_at: float | None = None
        self._asked_to_reveal = False

    # What came in

    def judge(self, vote: Vote, *, keep_conflicting: bool = False) -> VoteStatus:
        """Return what `vote`, of a committee member, is to this round. Changes nothing.

        `keep_conflicting`: keep it even over the limit of conflicting votes, because the journal
        holds it or a certificate rests on it.
        """
        slot = (vote.signer, type(vote))
        kept = self._standing.get(slot)
        if kept is not None and canonical(kept.envelope.body) == canonical(vote.envelope.body):
            return VoteStatus.DUPLICATE
        if self.conflicting_vote(vote) is None:
            return VoteStatus.NEW
        others = self._opposed.get(slot, [])
        if any(canonical(o.envelope.body) == canonical(vote.envelope.body) for o in others):
            return VoteStatus.DUPLICATE
        if keep_conflicting or not others:
            return VoteStatus.CONFLICTING
        missing = len(others) < CONTRADICTIONS and self._completes(vote)
        return VoteStatus.CONFLICTING if missing else VoteStatus.DUPLICATE

    def _completes(self, vote: Vote) -> bool:
        """Whether a contradiction too many is the one that a certificate elsewhere rests on.

        Certificates do not know whose reveal came first where: without this, an equivocator could
        end a task for some nodes and not for others.
        """
        if not isinstance(vote, Reveal) or self._agreeing(self._kept_reveals, vote.digest):
            return False
        return bool(self._agreeing([*self._kept_reveals, vote], vote.digest))

    def conflicting_vote(self, vote: Vote) -> Vote | None:
        """Return the standing vote that `vote` contradicts, if any."""
        for kind in (type(vote), Commit, Reveal):
            kept = self._standing.get((vote.signer, kind))
            if kept is not None and contradict(kept, vote):
                return kept
        return None

    def receive(self, vote: Vote, status: VoteStatus, now: float) -> None:
        """Keep the vote of a committee member; it came at `now`, in seconds.

        `status` is what `judge` returned for the vote. No other vote came since.
        """
        if status is VoteStatus.NEW:
            self._standing[vote.signer, type(vote)] = vote
            self._note_commits(now)
        elif status is VoteStatus.CONFLICTING:
            self._opposed.setdefault((vote.signer, type(vote)), []).append(vote)

    def _note_commits(self, now: float) -> None:
        """Start the waits of specification 6.3, or end them when every commit is in."""
        commits = self.commits
        if self._closed is not None or self._me not in commits:
            return
        counted = len(commits.keys() - self._discounted)
        if self._quorum_at is None and counted >= self.quorum:
            self._quorum_at = now
        if len(commits) == len(self.committee):
            self._closed, self._reveal_at = commits, now

    def ignore_for_quorum(self, members: frozenset[str], now: float) -> None:
        """Let the commits of `members` no longer start the first wait (correction 6f)."""
        if members != self._discounted:
            self._discounted = members
            self._note_commits(now)

    # This node's part

    def commit(self, me: str, opening: Opening) -> Document:
        """Return the body of this node's commit. To be called once."""
        if self._opening is not None:
            raise ValueError("a member commits once in an attempt")
        self._me, self._opening = me, opening
        digest = messages.outcome_digest(opening.outcome)
        bound = messages.commitment(self._task, self._attempt, me, digest, opening.salt)
        return messages.commit_body(self._network, self._task, self._attempt, bound)

    def wake_at(self) -> float | None:
        """Return when `advance` has something to do next, in seconds; None if nothing."""
        if self._asked_to_reveal:
            return None
        if self._closed is not None:
            return self._reveal_at
        return None if self._quorum_at is None else self._quorum_at + self._grace

    def advance(self, now: float) -> Document | None:
        """Close the list, or return the body of this node's reveal, when it is time."""
        due = self.wake_at()
        if due is None or now < due:
            return None
        if self._closed is None:
            self._closed, self._reveal_at = self.commits, due + self._grace
            return None
        return self._reveal_body(self._closed)

    def _reveal_body(self, closed: Mapping[str, str]) -> Document:
        self._asked_to_reveal = True
        opening = self._opening
        assert opening is not None  # noqa: S101  # no list is closed before `commit`
        return messages.reveal_body(
            self._network,
            self._task,
            self._attempt,
            opening.outcome,
            opening.salt,
            closed,
            opening.trace,
        )

    # What follows from it

    @property
    def commits(self) -> dict[str, str]:
        """The standing commitments by peer."""
        return {v.signer: v.commitment for v in self._of(Commit)}

    @property
    def reveals(self) -> list[Reveal]:
        """The standing reveals."""
        return self._of(Reveal)

    def votes_of(self, peer: str) -> tuple[Reveal | None, Abstain | None]:
        """Return the standing reveal and abstention of a peer."""
        reveal, abstain = (self._standing.get((peer, kind)) for kind in (Reveal, Abstain))
        return (
            reveal if isinstance(reveal, Reveal) else None,
            abstain if isinstance(abstain, Abstain) else None,
        )

    def has_equivocated(self, peer: str) -> bool:
        """Whether a member contradicted itself."""
        return any(signer == peer for signer, _ in list(self._opposed))

    def has_failed(self, peer: str, digest: str) -> bool:
        """Whether a member contradicted itself, or revealed another outcome, or none among others.

        `digest` is the right outcome's.
        """
        if self.has_equivocated(peer):
            return True
        reveal = self._standing.get((peer, Reveal))
        if isinstance(reveal, Reveal):
            return reveal.digest != digest
        return self.has(peer, Commit) and bool(self.reveals)

    def has(self, peer: str, kind: type[Vote]) -> bool:
        """Whether a vote of this kind of the peer stands."""
        return (peer, kind) in self._standing

    def _of(self, kind: type[_V]) -> list[_V]:
        return [v for v in list(self._standing.values()) if isinstance(v, kind)]

    @property
    def _kept_reveals(self) -> list[Reveal]:
        opposed = (v for votes in list(self._opposed.values()) for v in votes)
        return [*self.reveals, *(v for v in opposed if isinstance(v, Reveal))]

    def agreeing_reveals(self, digest: str) -> list[Reveal]:
        """Return the largest set of reveals of one outcome that makes a certificate, or none.

        Reveals that contradict an earlier one count here: a certificate is valid or not whatever
        any node received first.
        """
        return self._agreeing(self._kept_reveals, digest)

    def _agreeing(self, reveals: Sequence[Reveal], digest: str) -> list[Reveal]:
        fit = sorted(
            (r for r in reveals if r.digest == digest and lists(r, r)), key=lambda r: r.signer
        )
        chosen = largest_clique(fit, compatible)
        return chosen if len(chosen) >= self.quorum else []

    def can_reach_quorum(self) -> bool:
        """Whether some outcome can still reach the quorum (specification 6.6).

        Members that have neither revealed nor abstained may still reveal anything; those that have
        revealed exclude whom they did not list.
        """
        reveals = [r for r in self.reveals if lists(r, r)]
        silent = [p for p in self.committee if not self.has(p, Reveal) and not self.has(p, Abstain)]
        if len(silent) >= self.quorum:
            return True
        commits = self.commits

        def together(a: _Voter, b: _Voter) -> bool:
            if isinstance(a, Reveal):
                return compatible(a, b) if isinstance(b, Reveal) else _awaits(a, b, commits)
            return _awaits(b, a, commits) if isinstance(b, Reveal) else True

        return any(
            len(largest_clique(_voters(silent, reveals, digest), together)) >= self.quorum
            for digest in {r.digest for r in reveals}
        )


def _voters(silent: Sequence[str], reveals: Sequence[Reveal], digest: str) -> list[_Voter]:
    return [*silent, *(r for r in reveals if r.digest == digest)]


def _awaits(reveal: Reveal, silent: str, commits: Mapping[str, str]) -> bool:
    """Whether a member yet to reveal may still open what `reveal` listed of it."""
    listed = reveal.commits.get(silent)
    return listed is not None and commits.get(silent, listed) == listed
