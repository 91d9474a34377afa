import hashlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.consensus.committee import committees, quorum, ranking
from protocol.network import Network
from protocol.wire.encoding import canonical
from protocol.wire.messages import Task
from tests.protocol.rejections import PROPERTY
from tests.support import fixtures


def crowd(operators: list[str], size: int = 3, most: int = 7) -> Network:
    """Return a network whose member `i` belongs to `operators[i]`."""
    document = fixtures.network_document(len(operators), committee_size=size, committee_max=most)
    for member, operator in zip(document["roster"], operators, strict=True):
        member["operator"] = operator
    return Network.parse(canonical(document))


def by_rank(task: Task, peers: list[str]) -> list[str]:
    """An independent implementation of the ranking of section 5."""

    def rank(peer: str) -> bytes:
        preimage = b"helium/2/committee\x00" + bytes.fromhex(task.id) + peer.encode()
        return hashlib.sha256(preimage).digest()

    return sorted(peers, key=rank)


def expected(task: Task, operators: dict[str, str], k: int) -> list[str]:
    """An independent implementation of the walk of section 5."""
    chosen: list[str] = []
    for peer in by_rank(task, list(operators)):
        taken = {operators[c] for c in chosen}
        if len(chosen) < k and (operators[peer] not in taken or len(set(operators.values())) == 1):
            chosen.append(peer)
    return chosen


def test_ranking_matches_section_5() -> None:
    net = fixtures.network(6)
    for nonce in range(5):
        task = fixtures.task(net, nonce=nonce)
        ranked = [m.peer for m in ranking(task.id, net.members(fixtures.CLASS))]
        assert ranked == by_rank(task, [fixtures.peer(i) for i in range(6)])


@given(
    st.lists(st.sampled_from("abcd"), min_size=1, max_size=8),
    st.integers(1, 7),
    st.integers(0, 5),
    st.integers(0, 999),
)
@PROPERTY
def test_committees_match_section_5(operators: list[str], size: int, more: int, nonce: int) -> None:
    net = crowd(operators, size, size + more)
    task = fixtures.task(net, nonce=nonce)
    attempts = committees(net, task)
    names = {fixtures.peer(i): operator for i, operator in enumerate(operators)}
    places = len(set(operators)) if len(set(operators)) > 1 else len(operators)
    for attempt, committee in enumerate(attempts):
        k = min(size + 2 * attempt, size + more, places)
        assert list(committee) == expected(task, names, k)
    sizes = [len(committee) for committee in attempts]
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == min(size + more, places)
    for smaller, larger in itertools.pairwise(attempts):
        assert larger[: len(smaller)] == smaller


@pytest.mark.parametrize(
    ("members", "size", "maximum", "sizes"),
    [
        (4, 3, 7, [3, 4]),
        (3, 3, 7, [3]),
        (2, 3, 7, [2]),
        (1, 3, 7, [1]),
        (10, 3, 7, [3, 5, 7]),
        (10, 3, 6, [3, 5, 6]),
        (6, 3, 7, [3, 5, 6]),
        (10, 7, 7, [7]),
        (10, 1, 7, [1, 3, 5, 7]),
        (10, 2, 7, [2, 4, 6, 7]),
        (10, 4, 31, [4, 6, 8, 10]),
    ],
)
def test_committees_grow_until_members_or_maximum_are_reached(
    members: int, size: int, maximum: int, sizes: list[int]
) -> None:
    net = fixtures.network(members, committee_size=size, committee_max=maximum)
    assert [len(c) for c in committees(net, fixtures.task(net))] == sizes


@pytest.mark.parametrize(
    ("size", "needed"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (6, 4), (7, 4), (31, 16)]
)
def test_quorum_is_a_majority(size: int, needed: int) -> None:
    assert quorum(size) == needed


@pytest.mark.parametrize("size", [2, 3, 5])
def test_operator_with_several_peers_never_gets_two_places(size: int) -> None:
    """Not even in the last attempt, where version 1 filled up with further peers."""
    net = crowd(["one"] * 5 + ["two", "two", "three"], size, most=7)
    owned = {m.peer: m.operator for m in net.roster.values()}
    for nonce in range(50):
        for committee in committees(net, fixtures.task(net, nonce=nonce)):
            operators = [owned[p] for p in committee]
            assert len(operators) == len(set(operators))


def test_fewer_operators_than_places_make_a_smaller_committee() -> None:
    net = crowd(["one"] * 4 + ["two"] * 4, size=3)
    (committee,) = committees(net, fixtures.task(net))
    assert len(committee) == 2
    assert quorum(len(committee)) == 2  # no operator alone


def test_operator_alone_in_a_class_has_a_place_for_each_peer() -> None:
    net = crowd(["one"] * 4, size=3)
    attempts = committees(net, fixtures.task(net))
    assert [len(committee) for committee in attempts] == [3, 4]
    assert set(attempts[-1]) == set(net.roster)


def test_operators_of_other_classes_count_for_nothing() -> None:
    """Two operators in the network, one in the class: its peers have all the places."""
    document = fixtures.network_document(5)
    document["classes"]["gpu"] = {"device": "cuda"}
    for index, member in enumerate(document["roster"]):
        member["operator"] = "one" if index < 3 else "two"
        member["classes"] = [fixtures.CLASS, "gpu"] if index < 3 else ["gpu"]
    net = Network.parse(canonical(document))
    assert [len(c) for c in committees(net, fixtures.task(net))] == [3]


def test_member_of_two_classes_is_in_the_committees_of_both() -> None:
    document = fixtures.network_document(3)
    document["classes"]["gpu"] = {"device": "cuda"}
    document["roster"][0]["classes"] = [fixtures.CLASS, "gpu"]
    net = Network.parse(canonical(document))
    body = {**fixtures.task(net).envelope.body, "class": "gpu"}
    task = fixtures.signed(net, body, 1000)
    assert isinstance(task, Task)
    assert committees(net, task) == ((fixtures.peer(0),),)
    assert fixtures.peer(0) in committees(net, fixtures.task(net))[0]


def test_members_of_other_classes_are_excluded() -> None:
    document = fixtures.network_document(6)
    document["classes"]["gpu"] = {"device": "cuda"}
    for member in document["roster"][:3]:
        member["classes"] = ["gpu"]
    net = Network.parse(canonical(document))
    for nonce in range(10):
        attempts = committees(net, fixtures.task(net, nonce=nonce))
        assert {p for c in attempts for p in c} == {fixtures.peer(i) for i in (3, 4, 5)}


def test_ranking_does_not_depend_on_roster_order() -> None:
    """The roster order changes the network id, so the ranking is called with one task id."""
    net = fixtures.network(6)
    members = net.members(fixtures.CLASS)
    task = fixtures.task(net)
    assert ranking(task.id, members) == ranking(task.id, members[::-1])


def test_different_tasks_get_different_committees() -> None:
    net = fixtures.network(6)
    assert len({committees(net, fixtures.task(net, nonce=n))[0] for n in range(30)}) > 10
