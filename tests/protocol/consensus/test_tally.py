from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from protocol.consensus.tally import largest_clique
from tests.protocol.rejections import PROPERTY


@st.composite
def graphs(draw: st.DrawFn) -> tuple[int, frozenset[tuple[int, int]]]:
    size = draw(st.integers(0, 9))
    pairs = list(combinations(range(size), 2))
    kept = draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    dense = draw(st.booleans())
    return size, frozenset(set(pairs) - set(kept) if dense else kept)


def brute(size: int, edges: frozenset[tuple[int, int]]) -> int:
    return max(
        n
        for n in range(size + 1)
        for chosen in combinations(range(size), n)
        if all(pair in edges for pair in combinations(chosen, 2))
    )


@given(graphs())
@PROPERTY
def test_largest_clique_matches_brute_force(
    graph: tuple[int, frozenset[tuple[int, int]]],
) -> None:
    size, edges = graph
    clique = largest_clique(range(size), lambda a, b: (min(a, b), max(a, b)) in edges)
    assert clique == sorted(set(clique))
    assert all(pair in edges for pair in combinations(clique, 2))
    assert len(clique) == brute(size, edges)


def test_empty_graph_has_empty_clique() -> None:
    assert largest_clique([], lambda a, b: True) == []


def test_clique_keeps_order_of_items() -> None:
    assert largest_clique("cab", lambda a, b: True) == ["c", "a", "b"]
    assert largest_clique("cab", lambda a, b: False) == ["c"]


def test_first_of_several_largest_cliques_is_chosen() -> None:
    """Items are distinguished by position, not by value."""
    assert largest_clique([1, 2, 3, 4], lambda a, b: (a + b) in (3, 7)) == [1, 2]


def test_worst_graph_of_31_members_is_fast() -> None:
    """The Moon–Moser graph of ten triples and one vertex has 3^10 largest cliques."""
    comparisons = 0

    def together(a: int, b: int) -> bool:
        nonlocal comparisons
        comparisons += 1
        return a // 3 != b // 3

    assert len(largest_clique(range(31), together)) == 11
    assert comparisons == 31 * 30
