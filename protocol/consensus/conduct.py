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

# Points of `transport.penalty`, whose threshold for a ban is 20.
DISSENT = 1.0  # may be broken hardware: it makes a peer suspect, and never bans it
MOST_FOR_DISSENT = 5.0  # a quarter of the threshold, however often it dissents
EQUIVOCATION = (
    10.0  # proven by two signatures; one may be an old backup, after two nothing is forgiven
)


class Conduct(StrEnum):
    """What a committee member did in one attempt at a task that has ended."""

    AGREED = "agreed"  # revealed the certified outcome
    DISSENTED = "dissented"  # revealed another one
    UNSETTLED = "unsettled"  # revealed an outcome, and none was certified
    ABSTAINED = "abstained"
    LATE = "late"  # revealed the certified outcome, but committed after the lists were closed
    SILENT = "silent"  # nothing was revealed; a peer that is slow looks the same
    EQUIVOCATED = "equivocated"  # contradicted itself, whatever else it did


@dataclass(frozen=True, slots=True)
class Standing:
    """How often a peer did what; what it never did may be left out of `counts`."""

    counts: Mapping[Conduct, int]

    def times(self, conduct: Conduct) -> int:
        """Return how often it did that."""
        return self.counts.get(conduct, 0)

    def document(self) -> dict[str, int]:
        """Return every count by its name, zeros too."""
        return {str(conduct): self.times(conduct) for conduct in Conduct}


def burden(standing: Standing) -> float:
    """Return the points that a peer starts with, in the unit of `transport.penalty`.

    Only what a peer signed counts. Silence, lateness and abstention cost nothing: a slow peer does
    no harm, and a node that was itself cut off saw everyone silent.
    """
    dissents = DISSENT * standing.times(Conduct.DISSENTED)
    proofs = EQUIVOCATION * standing.times(Conduct.EQUIVOCATED)
    return min(dissents, MOST_FOR_DISSENT) + proofs


def conducts(agreement: Agreement) -> Iterator[tuple[int, str, Conduct]]:
    """Give (attempt, peer, conduct) for each member of each attempt of a task that has ended.

    Attempts after the certified one are left out: who knew the certificate had no part in them.
    """
    certified = agreement.certificates[0] if agreement.certificates else None
    last = agreement.attempt if certified is None else certified.attempt
    digest = None if certified is None else certified.votes[0].digest
    for attempt, votes in enumerate(agreement.rounds[: last + 1]):
        for peer in votes.committee:
            yield attempt, peer, conduct_of(votes, peer, digest)


def conduct_of(votes: Round, peer: str, digest: str | None) -> Conduct:
    """Return what a member did in one attempt; `digest` is the certified outcome's, if any is."""
    reveal, abstain = votes.votes_of(peer)
    if votes.opposed(peer):
        return Conduct.EQUIVOCATED
    if reveal is None:
        return Conduct.SILENT if abstain is None else Conduct.ABSTAINED
    if digest is None:
        return Conduct.UNSETTLED
    if reveal.digest != digest:
        return Conduct.DISSENTED
    others = [r for r in votes.reveals if r.digest == digest and r.signer != peer]
    heard = not others or any(lists(other, reveal) for other in others)
    return Conduct.AGREED if heard else Conduct.LATE
