"""What each member did with its votes, and how many penalty points that is worth.

A member's outcome in one attempt follows from the task's votes alone, so it can be derived again
at any time with the same result. It is this node's local view: a node that was cut off saw all
other members silent. It is no proof that others could check.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from protocol.consensus.agreement import Agreement
from protocol.consensus.certificate import lists
from protocol.consensus.vote_set import VoteSet
from protocol.wire.messages import Commit

# The penalties are in the points of `node.admission.peer_score`, which bans a peer at 20.

# One dissent may come from broken hardware. It lowers the ban threshold and never bans.
DISSENT_PENALTY = 1.0

# A quarter of the ban threshold: however often a peer dissents, dissent alone never bans it.
MAX_DISSENT_PENALTY = 5.0

# Proven by two signatures. One proof may come from a node restored from an old backup, so one alone
# does not reach the ban threshold; two do.
EQUIVOCATION_PENALTY = 10.0

# A suspect has to agree in this many tasks (specification 6.8). Tasks that merely end would not do:
# anybody could submit twenty of one second, and clear a liar with them.
SUSPECT_TASKS = 20


class VoteOutcome(StrEnum):
    """What a committee member did in one attempt at a task that has ended."""

    AGREED = "agreed"  # revealed the certified outcome
    DISSENTED = "dissented"  # revealed another outcome than the certified one
    UNSETTLED = "unsettled"  # revealed an outcome, and none was certified
    DIVERGED = "diverged"  # the same, and this node's own outcome is another one
    ABSTAINED = "abstained"
    LATE = "late"  # revealed the certified outcome, but committed after the lists were closed
    SILENT = "silent"  # none of these; a slow peer looks the same
    WITHHELD = "withheld"  # committed and did not reveal, though reveals were due
    EQUIVOCATED = "equivocated"  # sent conflicting votes, whatever else it did


# What a member's own votes show. A withheld reveal may still come.
_SIGNED_FAULTS = (VoteOutcome.EQUIVOCATED, VoteOutcome.DISSENTED, VoteOutcome.DIVERGED)


@dataclass(frozen=True, slots=True)
class Conduct:
    """What a member did in one attempt.

    `suspect_from` is the Unix time from which it makes the member a suspect in later tasks
    (specification 6.8); None if it does not.
    """

    attempt: int
    peer: str
    outcome: VoteOutcome
    suspect_from: float | None = None


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


def task_conduct(agreement: Agreement) -> list[Conduct]:
    """Return the conduct of each member in each attempt of a task that has ended.

    Of attempts after the certified one there are only faults that a member signed: members that
    knew the certificate did not vote there, and could not reveal without a quorum of commits.
    """
    if agreement.certificates:
        certificate = agreement.certificates[0]
        last, certified = certificate.attempt, certificate.votes[0].digest
    else:
        last, certified = agreement.attempt, None
    rows = [
        _conduct(agreement, attempt, peer, certified)
        for attempt, votes in enumerate(agreement.vote_sets)
        for peer in votes.committee
    ]
    conduct = [row for row in rows if row.attempt <= last or row.outcome in _SIGNED_FAULTS]
    for peer in agreement.inconstant:
        _count_as_dissent(conduct, peer)
    return conduct


def _conduct(agreement: Agreement, attempt: int, peer: str, certified: str | None) -> Conduct:
    votes = agreement.vote_sets[attempt]
    outcome = vote_outcome(votes, peer, certified, agreement.own_digest)
    if outcome in _SIGNED_FAULTS:
        return Conduct(attempt, peer, outcome, 0.0)
    if outcome is VoteOutcome.WITHHELD:
        return Conduct(attempt, peer, outcome, agreement.withheld_at(attempt))
    return Conduct(attempt, peer, outcome)


def _count_as_dissent(conduct: list[Conduct], peer: str) -> None:
    """Count an inconstancy as a dissent, unless the peer's reveals are one already.

    Memory that flips a bit can cause it, so it is no equivocation (specification 4.8).
    """
    indices = [index for index, row in enumerate(conduct) if row.peer == peer]
    outcomes = {conduct[index].outcome for index in indices}
    if indices and not outcomes & {VoteOutcome.DISSENTED, VoteOutcome.EQUIVOCATED}:
        last = indices[-1]
        conduct[last] = replace(conduct[last], outcome=VoteOutcome.DISSENTED)


def vote_outcome(
    votes: VoteSet, peer: str, certified: str | None, own: str | None = None
) -> VoteOutcome:
    """Return what a member did in one attempt.

    `certified` is the digest of the certified outcome, None if no outcome is certified; `own` is
    that of this node's own outcome, None if it has none.
    """
    reveal, abstain = votes.votes_of(peer)
    if votes.has_equivocated(peer):
        return VoteOutcome.EQUIVOCATED
    if reveal is None:
        return _without_reveal(votes, peer, abstain is not None)
    if certified is None:
        diverged = own is not None and reveal.digest != own
        return VoteOutcome.DIVERGED if diverged else VoteOutcome.UNSETTLED
    if reveal.digest != certified:
        return VoteOutcome.DISSENTED
    agreeing = [r for r in votes.reveals if r.digest == certified and r.signer != peer]
    in_time = not agreeing or any(lists(r, reveal) for r in agreeing)
    return VoteOutcome.AGREED if in_time else VoteOutcome.LATE


def _without_reveal(votes: VoteSet, peer: str, abstained: bool) -> VoteOutcome:
    if votes.has(peer, Commit) and votes.reveals_due:
        return VoteOutcome.WITHHELD
    return VoteOutcome.ABSTAINED if abstained else VoteOutcome.SILENT
