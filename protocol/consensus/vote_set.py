"""The votes of one attempt: which are kept, which conflict, and what they add up to.

The first vote of a member and type counts. A later vote that contradicts it is a conflicting vote:
it is kept as evidence, but counts only for certificates, whose validity does not depend on the
order of arrival (specification 6.4).
"""

from collections.abc import Iterator, Sequence
from enum import Enum, auto
from typing import TypeAlias, TypeVar

from protocol.consensus import tally
from protocol.consensus.committee import quorum
from protocol.consensus.evidence import is_equivocation, same_body
from protocol.wire.messages import Abstain, Commit, Reveal, Vote

_Slot: TypeAlias = tuple[str, type[Vote]]  # signer and type of a vote
_V = TypeVar("_V", Commit, Reveal)

# Maximum number of conflicting votes stored per member and type, which bounds memory: one as
# evidence, plus two that each complete a certificate (two certificates already prove a conflict).
MAX_CONFLICTING_VOTES = 3


class VoteStatus(Enum):
    """What a vote is to the votes received before it."""

    NEW = auto()
    DUPLICATE = auto()  # the same body, or a conflicting vote over the limit: not kept
    CONFLICTING = auto()  # contradicts the first vote: kept as evidence


class VoteSet:
    """The votes of a committee in one attempt at one task."""

    def __init__(self, committee: Sequence[str]) -> None:
        self.committee = committee
        self.quorum = quorum(len(committee))
        self._first: dict[_Slot, Vote] = {}
        self._conflicting: dict[_Slot, list[Vote]] = {}

    # Receiving

    def judge(self, vote: Vote, *, keep_conflicting: bool = False) -> VoteStatus:
        """Return what `vote`, of a committee member, is to this set. Changes nothing.

        `keep_conflicting`: keep it even over the limit of conflicting votes, because the journal
        holds it or a certificate rests on it.
        """
        slot = (vote.signer, type(vote))
        first, conflicting = self._first.get(slot), self._conflicting.get(slot, [])
        if first is not None and same_body(first, vote):
            return VoteStatus.DUPLICATE
        if self.conflicting_vote(vote) is None:
            return VoteStatus.NEW
        if any(same_body(kept, vote) for kept in conflicting):
            return VoteStatus.DUPLICATE
        if keep_conflicting or not conflicting:
            return VoteStatus.CONFLICTING
        if len(conflicting) < MAX_CONFLICTING_VOTES and self._completes_certificate(vote):
            return VoteStatus.CONFLICTING
        return VoteStatus.DUPLICATE

    def _completes_certificate(self, vote: Vote) -> bool:
        """Whether a vote over the limit makes a certificate possible that was not before.

        Other nodes may have received it first and hold that certificate. If it were dropped here,
        an equivocator could end a task at some nodes and not at others (6.4).
        """
        if not isinstance(vote, Reveal) or self.agreeing_reveals(vote.digest):
            return False
        reveals = [*self._all_reveals(), vote]
        return bool(tally.agreeing_reveals(reveals, vote.digest, self.quorum))

    def conflicting_vote(self, vote: Vote) -> Vote | None:
        """Return the first vote of the signer that `vote` contradicts, if any."""
        for kind in (type(vote), Commit, Reveal):
            first = self._first.get((vote.signer, kind))
            if first is not None and is_equivocation(first, vote):
                return first
        return None

    def add(self, vote: Vote, status: VoteStatus) -> None:
        """Keep a vote. `status` is what `judge` returned for it; no other vote was added since."""
        slot = (vote.signer, type(vote))
        if status is VoteStatus.NEW:
            self._first[slot] = vote
        elif status is VoteStatus.CONFLICTING:
            self._conflicting.setdefault(slot, []).append(vote)

    # Looking up

    @property
    def commits(self) -> dict[str, str]:
        """The commitments of the members' first commits, by peer id."""
        return {vote.signer: vote.commitment for vote in self._first_votes(Commit)}

    @property
    def reveals(self) -> list[Reveal]:
        """The members' first reveals."""
        return self._first_votes(Reveal)

    @property
    def reveals_due(self) -> bool:
        """Whether a member that has committed, and is honest, reveals now or after the two waits.

        It may not reveal before it holds the commits of a quorum (specification 6.3). A reveal
        without them, or without its signer's commit, shows nothing about the others: a faulty
        member could make it as soon as an honest one has committed.
        """
        if len(self.commits) < self.quorum:
            return False
        # A first reveal and a first commit of one signer do not contradict: it opens the commit.
        return any(reveal.signer in self.commits for reveal in self.reveals)

    def has(self, peer: str, kind: type[Vote]) -> bool:
        """Return whether a vote of this type of the peer was received."""
        return (peer, kind) in self._first

    def votes_of(self, peer: str) -> tuple[Reveal | None, Abstain | None]:
        """Return the first reveal and the first abstention of a peer."""
        reveal, abstain = (self._first.get((peer, kind)) for kind in (Reveal, Abstain))
        return (
            reveal if isinstance(reveal, Reveal) else None,
            abstain if isinstance(abstain, Abstain) else None,
        )

    def reveals_of(self, peer: str) -> list[Reveal]:
        """Return every reveal of a peer that is kept, conflicting ones too."""
        return [reveal for reveal in self._all_reveals() if reveal.signer == peer]

    def has_equivocated(self, peer: str) -> bool:
        """Return whether a member sent conflicting votes."""
        return any(signer == peer for signer, _ in self._conflicting)

    def has_failed(self, peer: str, digest: str) -> bool:
        """Return whether a member is a suspect in later attempts (specification 6.8).

        It has equivocated, revealed an outcome other than `digest`, or committed and not revealed
        although reveals are due.
        """
        if self.has_equivocated(peer):
            return True
        reveal = self._first.get((peer, Reveal))
        if isinstance(reveal, Reveal):
            return reveal.digest != digest
        return self.has(peer, Commit) and self.reveals_due

    def _first_votes(self, kind: type[_V]) -> list[_V]:
        return [vote for vote in self._first.values() if isinstance(vote, kind)]

    def _all_reveals(self) -> Iterator[Reveal]:
        yield from self.reveals
        for votes in self._conflicting.values():
            yield from (vote for vote in votes if isinstance(vote, Reveal))

    # Counting

    def agreeing_reveals(self, digest: str) -> list[Reveal]:
        """Return the reveals of the largest certificate for an outcome; [] if there is none.

        Conflicting reveals count too (6.4).
        """
        return tally.agreeing_reveals([*self._all_reveals()], digest, self.quorum)

    def can_reach_quorum(self) -> bool:
        """Return whether some outcome can still reach the quorum (specification 6.6)."""
        # Which votes of an equivocator are its first ones depends on the order of arrival. It may
        # reveal anything, whatever it sent before, so that all nodes judge alike.
        silent = [p for p in self.committee if self.has_equivocated(p) or not self._has_ended(p)]
        reveals = [reveal for reveal in self.reveals if reveal.signer not in silent]
        commits = {p: c for p, c in self.commits.items() if not self.has_equivocated(p)}
        return tally.can_reach_quorum(reveals, silent, commits, self.quorum)

    @property
    def reveals_may_come(self) -> bool:
        """Whether members may complete a certificate here after the attempt is over.

        Members that committed in an attempt still reveal in it (specification 6.3). They do so only
        if they hold the commits of a quorum.
        """
        return len(self.commits) >= self.quorum and self.can_reach_quorum()

    def _has_ended(self, peer: str) -> bool:
        return self.has(peer, Reveal) or self.has(peer, Abstain)
