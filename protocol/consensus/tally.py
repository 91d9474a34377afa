"""Vote counting: which reveals agree, and whether an outcome can still reach the quorum.

Both questions ask for the largest set in which every two items fit together: a clique of a graph
(specification 4.7 for certificates, 6.6 for the quorum).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias, TypeVar

from protocol.consensus.certificate import compatible, lists
from protocol.wire.messages import Reveal

Item = TypeVar("Item")
_Voter: TypeAlias = Reveal | str  # a reveal, or the peer id of a member that may still reveal


def agreeing_reveals(reveals: Sequence[Reveal], digest: str, quorum: int) -> list[Reveal]:
    """Return the largest set of reveals of one outcome that makes a certificate; [] if none does.

    The reveals are sorted by signer, as a certificate holds them. Of the same signer, at most one
    is in the set.
    """
    # A reveal must list its own commitment too (specification 4.7, 9).
    candidates = sorted(
        (r for r in reveals if r.digest == digest and lists(r, r)), key=lambda r: r.signer
    )
    clique = largest_clique(candidates, compatible)
    return clique if len(clique) >= quorum else []


def can_reach_quorum(
    reveals: Sequence[Reveal], silent: Sequence[str], commits: Mapping[str, str], quorum: int
) -> bool:
    """Return whether some outcome can still reach the quorum (specification 6.6).

    `silent` are the members that have neither revealed nor abstained: they may still reveal any
    outcome. `commits` are the known commitments by member. A reveal excludes the members that it
    does not list.
    """
    if len(silent) >= quorum:
        return True

    def fit_together(a: _Voter, b: _Voter) -> bool:
        match a, b:
            case Reveal(), Reveal():
                return compatible(a, b)
            case Reveal(), str():
                return _can_list(a, b, commits)
            case str(), Reveal():
                return _can_list(b, a, commits)
        return True

    candidates = [reveal for reveal in reveals if lists(reveal, reveal)]
    for digest in {reveal.digest for reveal in candidates}:
        voters: list[_Voter] = [*silent, *(r for r in candidates if r.digest == digest)]
        if len(largest_clique(voters, fit_together)) >= quorum:
            return True
    return False


def _can_list(reveal: Reveal, silent: str, commits: Mapping[str, str]) -> bool:
    """Whether a silent member may still open the commitment that `reveal` lists for it."""
    listed = reveal.commits.get(silent)
    return listed is not None and commits.get(silent, listed) == listed


def largest_clique(items: Sequence[Item], adjacent: Callable[[Item, Item], bool]) -> list[Item]:
    """Return the largest subset in which every two items are adjacent, in the order of `items`.

    Of several largest subsets, the first found. Exact branch and bound over bit masks: a committee
    has at most 31 members, for which the worst graph takes about 3^(31/3) steps.
    """
    neighbours = [
        sum(1 << j for j, b in enumerate(items) if j != i and adjacent(a, b))
        for i, a in enumerate(items)
    ]
    clique = _grow(neighbours, (1 << len(items)) - 1, 0, 0)
    return [item for i, item in enumerate(items) if clique >> i & 1]


def _grow(neighbours: Sequence[int], candidates: int, clique: int, best: int) -> int:
    """Return the largest of `best` and the extensions of `clique` by `candidates`, as bit masks."""
    if not candidates:
        return clique if clique.bit_count() > best.bit_count() else best
    while clique.bit_count() + candidates.bit_count() > best.bit_count():
        lowest = candidates & -candidates
        candidates ^= lowest
        adjacent = neighbours[lowest.bit_length() - 1]
        best = _grow(neighbours, candidates & adjacent, clique | lowest, best)
        # If all other candidates are adjacent to `lowest`, no larger clique leaves it out.
        if not candidates or not candidates & ~adjacent:
            break
    return best
