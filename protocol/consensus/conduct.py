"""What each member did with its votes, and how many penalty points that is worth.

A member's outcome in one attempt follows from the task's votes alone, so it can be derived again
at any time with the same result. It is this node's local view: a node that was cut off saw all
other members silent. It is no proof that others could check.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from protocol.consensus.agreement import Agreement
from protocol.consensus.certificate import lists
from protocol.consensus.vote_set import VoteSet

# The penalties are in the points of `node.admission.peer_score`, which bans a peer at 20.

# One dissent may come from broken hardware. It lowers the ban threshold and never bans.
DISSENT_PENALTY = 1.0

# A quarter of the ban threshold: however often a peer dissents, dissent alone never bans it.
MAX_DISSENT_PENALTY = 5.0

# Proven by two signatures. One proof may come from a node restored from an old backup, so one alone
# does not reach the ban threshold; two do.
EQUIVOCATION_PENALTY = 10.0


class VoteOutcome(StrEnum):
    """What a committee member did in one attempt at a task that has ended."""

    AGREED = "agreed"  # revealed the certified outcome
    DISSENTED = "dissented"  # revealed another outcome than the certified one
    UNSETTLED = "unsettled"  # revealed an outcome, and none was certified
    ABSTAINED = "abstained"
    LATE = "late"  # revealed the certified outcome, but committed after the lists were closed
    SILENT = "silent"  # revealed nothing; a slow peer looks the same
    EQUIVOCATED = "equivocated"  # sent conflicting votes, whatever else it did


@dataclass(frozen=True, slots=True)
class PeerRecord:
    """How often a peer had each outcome; `counts` may leave out zeros."""

    counts: Mapping[VoteOutcome, int]

    def times(self, outcome: VoteOutcome) -> int:
        """Return how often the peer had this outcome."""
        return self.counts.get(outcome, 0)

    def document(self) -> dict[str, int]:
        """Return every count by its name, zeros included."""
        return {str(outcome): self.times(outcome) for outcome in VoteOutcome}


def score_floor(record: PeerRecord) -> float:
    """Return the penalty points that a peer never loses, because of its votes.

    Only what a peer signed counts. Silence, lateness and abstention cost nothing: a slow peer does
    no harm, and to a node that was cut off everyone looks silent.
    """
    dissent = DISSENT_PENALTY * record.times(VoteOutcome.DISSENTED)
    equivocation = EQUIVOCATION_PENALTY * record.times(VoteOutcome.EQUIVOCATED)
    return min(dissent, MAX_DISSENT_PENALTY) + equivocation


def vote_outcomes(agreement: Agreement) -> Iterator[tuple[int, str, VoteOutcome]]:
    """Yield (attempt, peer, outcome) for each member of each attempt of a task that has ended.

    Attempts after the certified one are left out: members that knew the certificate did not vote.
    """
    if agreement.certificates:
        certificate = agreement.certificates[0]
        last, digest = certificate.attempt, certificate.votes[0].digest
    else:
        last, digest = agreement.attempt, None
    for attempt, votes in enumerate(agreement.vote_sets[: last + 1]):
        for peer in votes.committee:
            yield attempt, peer, vote_outcome(votes, peer, digest)


def vote_outcome(votes: VoteSet, peer: str, digest: str | None) -> VoteOutcome:
    """Return what a member did in one attempt.

    `digest` is that of the certified outcome; None if no outcome is certified.
    """
    reveal, abstain = votes.votes_of(peer)
    if votes.has_equivocated(peer):
        return VoteOutcome.EQUIVOCATED
    if reveal is None:
        return VoteOutcome.SILENT if abstain is None else VoteOutcome.ABSTAINED
    if digest is None:
        return VoteOutcome.UNSETTLED
    if reveal.digest != digest:
        return VoteOutcome.DISSENTED
    agreeing = [r for r in votes.reveals if r.digest == digest and r.signer != peer]
    in_time = not agreeing or any(lists(r, reveal) for r in agreeing)
    return VoteOutcome.AGREED if in_time else VoteOutcome.LATE
