"""What this node saw every peer do with its votes, and what that is worth.

A peer's conduct in one attempt at one task follows from the task's machine alone, so it can be
derived again at any time: whoever writes it down twice writes the same. It is this node's own
view, of a network that it may have been cut off from; it is no verdict that others could check.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from protocol.consensus.agreement import Agreement
from protocol.consensus.certificate import lists
from protocol.consensus.round import Round

# Points of `node.admission.peer_score`, whose threshold for a ban is 20.
DISSENT_PENALTY = 1.0  # may be broken hardware: it makes a peer suspect, and never bans it
MAX_DISSENT_PENALTY = 5.0  # a quarter of the threshold, however often it dissents
EQUIVOCATION_PENALTY = (
    10.0  # proven by two signatures; one may be an old backup, after two nothing is forgiven
)


class VoteOutcome(StrEnum):
    """What a committee member did in one attempt at a task that has ended."""

    AGREED = "agreed"  # revealed the certified outcome
    DISSENTED = "dissented"  # revealed another one
    UNSETTLED = "unsettled"  # revealed an outcome, and none was certified
    ABSTAINED = "abstained"
    LATE = "late"  # revealed the certified outcome, but committed after the lists were closed
    SILENT = "silent"  # nothing was revealed; a peer that is slow looks the same
    EQUIVOCATED = "equivocated"  # contradicted itself, whatever else it did


@dataclass(frozen=True, slots=True)
class PeerRecord:
    """How often a peer did what; what it never did may be left out of `counts`."""

    counts: Mapping[VoteOutcome, int]

    def times(self, conduct: VoteOutcome) -> int:
        """Return how often it did that."""
        return self.counts.get(conduct, 0)

    def document(self) -> dict[str, int]:
        """Return every count by its name, zeros too."""
        return {str(conduct): self.times(conduct) for conduct in VoteOutcome}


def score_floor(standing: PeerRecord) -> float:
    """Return the points that a peer starts with, in the unit of `node.admission.peer_score`.

    Only what a peer signed counts. Silence, lateness and abstention cost nothing: a slow peer does
    no harm, and a node that was itself cut off saw everyone silent.
    """
    dissents = DISSENT_PENALTY * standing.times(VoteOutcome.DISSENTED)
    proofs = EQUIVOCATION_PENALTY * standing.times(VoteOutcome.EQUIVOCATED)
    return min(dissents, MAX_DISSENT_PENALTY) + proofs


def vote_outcomes(agreement: Agreement) -> Iterator[tuple[int, str, VoteOutcome]]:
    """Give (attempt, peer, conduct) for each member of each attempt of a task that has ended.

    Attempts after the certified one are left out: who knew the certificate had no part in them.
    """
    certified = agreement.certificates[0] if agreement.certificates else None
    last = agreement.attempt if certified is None else certified.attempt
    digest = None if certified is None else certified.votes[0].digest
    for attempt, votes in enumerate(agreement.rounds[: last + 1]):
        for peer in votes.committee:
            yield attempt, peer, vote_outcome(votes, peer, digest)


def vote_outcome(votes: Round, peer: str, digest: str | None) -> VoteOutcome:
    """Return what a member did in one attempt; `digest` is the certified outcome's, if any is."""
    reveal, abstain = votes.votes_of(peer)
    if votes.has_equivocated(peer):
        return VoteOutcome.EQUIVOCATED
    if reveal is None:
        return VoteOutcome.SILENT if abstain is None else VoteOutcome.ABSTAINED
    if digest is None:
        return VoteOutcome.UNSETTLED
    if reveal.digest != digest:
        return VoteOutcome.DISSENTED
    others = [r for r in votes.reveals if r.digest == digest and r.signer != peer]
    heard = not others or any(lists(other, reveal) for other in others)
    return VoteOutcome.AGREED if heard else VoteOutcome.LATE
