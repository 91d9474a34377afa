"""The largest set of items that pairwise belong together."""

from collections.abc import Callable, Sequence
from typing import TypeVar

Item = TypeVar("Item")


def largest_clique(items: Sequence[Item], together: Callable[[Item, Item], bool]) -> list[Item]:
    """Return the largest subset in which every two are `together`, in the order of `items`.

    The first found of several. Exact branch and bound over bit masks; a committee has at most 31
    members, for which the worst graph takes about 3^(31/3) steps.
    """
    neighbours = [
        sum(1 << j for j, b in enumerate(items) if j != i and together(a, b))
        for i, a in enumerate(items)
    ]
    chosen = _grow(neighbours, (1 << len(items)) - 1, 0, 0)
    return [item for i, item in enumerate(items) if chosen >> i & 1]


def _grow(neighbours: Sequence[int], candidates: int, clique: int, best: int) -> int:
    if not candidates:
        return clique if clique.bit_count() > best.bit_count() else best
    while clique.bit_count() + candidates.bit_count() > best.bit_count():
        lowest = candidates & -candidates
        candidates ^= lowest
        near = neighbours[lowest.bit_length() - 1]
        best = _grow(neighbours, candidates & near, clique | lowest, best)
        if not candidates or not candidates & ~near:
            break  # whatever is left is a neighbour of `lowest`: no larger clique without it
    return best
